//! What may go wrong in a cluster, each planted into one place of a valid history. False where the history has no such place.

use std::collections::{HashMap, HashSet};

use tieline_judge::{Dice, Event, History, Kind, Message, Outcome, Position, What, judge};

/// Something that was heard: the receiver, the place in its events, the message and its position.
type Heard = (usize, usize, Message, Option<Position>);

fn all_heard(history: &History) -> Vec<Heard> {
    let mut all = Vec::new();
    for (receiver, listener) in history.receivers.iter().enumerate() {
        for (index, event) in listener.events.iter().enumerate() {
            if let What::Heard { message, position, .. } = event.what {
                all.push((receiver, index, message, position));
            }
        }
    }
    all
}

fn is_live(history: &History, message: Message) -> bool {
    history.targets[usize::from(message.target)].kind == Kind::Live
}

fn outcome(history: &mut History, message: Message) -> &mut Outcome {
    let sends = &mut history.senders[usize::from(message.sender)].sends;
    let of = sends.iter_mut().find(|send| (send.target, send.counter) == (message.target, message.counter));
    &mut of.unwrap().outcome
}

/// One that was heard, of those that are fit.
fn pick(history: &History, dice: &mut Dice, is_fit: impl Fn(&Heard) -> bool) -> Option<Heard> {
    let fit: Vec<_> = all_heard(history).into_iter().filter(is_fit).collect();
    (!fit.is_empty()).then(|| dice.pick(&fit))
}

fn pick_durable(history: &History, dice: &mut Dice) -> Option<Heard> {
    pick(history, dice, |(_, _, message, _)| !is_live(history, *message))
}

fn pick_live(history: &History, dice: &mut Dice) -> Option<Heard> {
    pick(history, dice, |(_, _, message, _)| is_live(history, *message))
}

fn is_of(event: &Event, message: Message) -> bool {
    matches!(event.what, What::Heard { message: heard, .. } if heard == message)
}

fn heard_at(
    history: &mut History,
    receiver: usize,
    index: usize,
) -> (&mut u16, &mut Message, &mut Option<Position>) {
    match &mut history.receivers[receiver].events[index].what {
        What::Heard { by, message, position } => (by, message, position),
        other => panic!("{other:?}"),
    }
}

/// Moves what stands behind a place of a log by one.
fn renumber(history: &mut History, target: u16, behind: u64, by: i64) {
    let change = |position: &mut Position| {
        if position.offset > behind {
            position.offset = position.offset.strict_add_signed(by);
            if position.offset == 0 {
                *position = Position::START;
            }
        }
    };
    for event in history.receivers.iter_mut().flat_map(|receiver| &mut receiver.events) {
        match &mut event.what {
            What::Heard { by, position: Some(position), .. } if *by == target => change(position),
            What::Asked { target: of, since: Some(position) } if *of == target => change(position),
            What::Joined { target: of, position: Some(position), .. } if *of == target => change(position),
            _ => {}
        }
    }
}

pub(crate) fn lose_for_one(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, _, message, _)) = pick_durable(history, dice) else { return false };
    history.receivers[receiver].events.retain(|event| !is_of(event, message));
    *outcome(history, message) == Outcome::Acked
}

/// The message disappears from its log, as if it had never been stored; its sender was told otherwise.
pub(crate) fn acknowledge_falsely(history: &mut History, dice: &mut Dice) -> bool {
    let Some((_, _, message, position)) = pick_durable(history, dice) else { return false };
    if *outcome(history, message) != Outcome::Acked {
        return false;
    }
    for receiver in &mut history.receivers {
        receiver.events.retain(|event| !is_of(event, message));
    }
    // Who joined behind it is owed nothing of what is before.
    let sent = history.senders[usize::from(message.sender)].sends.iter();
    let at = sent
        .filter(|send| (send.target, send.counter) == (message.target, message.counter))
        .map(|send| send.at);
    let at = at.min().unwrap();
    renumber(history, message.target, position.unwrap().offset - 1, -1);
    history.receivers.iter().any(|receiver| {
        let mut joined = receiver.events.iter().filter_map(|event| match &event.what {
            What::Joined { target, recovered, .. } if *target == message.target => {
                Some((event.at, recovered))
            }
            _ => None,
        });
        joined.next().is_some_and(|(joined, recovered)| joined <= at || recovered.is_some())
    })
}

/// Nothing of a log comes to a receiver from some place on.
pub(crate) fn lose_the_end(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, _, message, position)) = pick_durable(history, dice) else { return false };
    history.receivers[receiver].events.retain(|event| match &event.what {
        What::Heard { by, position: at, .. } => *by != message.target || *at < position,
        _ => true,
    });
    true
}

/// A durable message of the calm part does not come to a receiver.
pub(crate) fn lose_in_the_end(history: &mut History, dice: &mut Dice) -> bool {
    let calm = history.calm[0].start;
    let is_late = |(_, _, message, position): &Heard| {
        let mut sends = history.senders[usize::from(message.sender)].sends.iter();
        position.is_some()
            && sends.any(|send| {
                (send.target, send.counter) == (message.target, message.counter) && send.at > calm
            })
    };
    let Some((receiver, _, message, _)) = pick(history, dice, is_late) else { return false };
    history.receivers[receiver].events.retain(|event| !is_of(event, message));
    true
}

pub(crate) fn lose_unacknowledged(history: &mut History, dice: &mut Dice) -> bool {
    let mut unknown = HashSet::new();
    for (sender, of) in history.senders.iter().enumerate() {
        for send in of.sends.iter().filter(|send| send.outcome == Outcome::Unknown) {
            unknown.insert(Message { sender: sender as u16, target: send.target, counter: send.counter });
        }
    }
    let mut heard_by: HashMap<Message, HashSet<usize>> = HashMap::new();
    for (receiver, _, message, _) in all_heard(history) {
        heard_by.entry(message).or_default().insert(receiver);
    }
    let by_several = |(_, _, message, position): &Heard| {
        position.is_some() && unknown.contains(message) && heard_by[message].len() > 1
    };
    let Some((receiver, _, message, _)) = pick(history, dice, by_several) else { return false };
    history.receivers[receiver].events.retain(|event| !is_of(event, message));
    true
}

/// The message before the last of a log stands behind it once more, for all.
pub(crate) fn store_twice(history: &mut History, dice: &mut Dice) -> bool {
    let target = dice.below(2) as u16;
    let of_log = all_heard(history).into_iter().filter(|(_, _, message, _)| message.target == target);
    let Some((_, _, _, Some(last))) = of_log.clone().max_by_key(|(.., position)| *position) else {
        return false;
    };
    let Some((_, _, message, _)) = of_log.clone().find(|(_, _, _, at)| at.unwrap().offset == last.offset - 1)
    else {
        return false;
    };
    let next = Position { offset: last.offset + 1, ..last };
    let is_everywhere =
        history.receivers.iter().all(|receiver| receiver.events.iter().any(|event| is_of(event, message)));
    for receiver in &mut history.receivers {
        let end = receiver.events.last().unwrap().clone();
        receiver
            .events
            .push(Event { what: What::Heard { by: target, message, position: Some(next) }, ..end });
    }
    is_everywhere
}

pub(crate) fn hear_twice(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, index, ..)) = pick_live(history, dice) else { return false };
    let events = &mut history.receivers[receiver].events;
    events.insert(index, events[index].clone());
    true
}

/// Two messages of a log next to each other, as one receiver heard them on one connection.
fn neighbours(history: &History, dice: &mut Dice) -> Option<(usize, usize, usize)> {
    let (receiver, index, message, position) = pick_durable(history, dice)?;
    let events = &history.receivers[receiver].events;
    let next = events[index + 1..].iter().position(|event| match &event.what {
        What::Heard { by, position: at, .. } => *by == message.target && *at > position,
        _ => false,
    })? + index
        + 1;
    let are_on_one = events[index].connection == events[next].connection;
    let twice = |index: usize| {
        let What::Heard { message, .. } = events[index].what else { return true };
        events.iter().filter(|event| is_of(event, message)).count() != 1
    };
    (are_on_one && !twice(index) && !twice(next)).then_some((receiver, index, next))
}

pub(crate) fn swap_places(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, one, other)) = neighbours(history, dice) else { return false };
    let (first, second) = (*heard_at(history, receiver, one).1, *heard_at(history, receiver, other).1);
    let others = |message| {
        let others = history.receivers.iter().enumerate().filter(|(number, _)| *number != receiver);
        others.flat_map(|(_, other)| &other.events).any(|event| is_of(event, message))
    };
    if !others(first) && !others(second) {
        return false;
    }
    *heard_at(history, receiver, one).1 = second;
    *heard_at(history, receiver, other).1 = first;
    true
}

pub(crate) fn swap_arrivals(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, one, other)) = neighbours(history, dice) else { return false };
    // What comes of an inbox before its ack is not an answer yet, and its connection may end before.
    if *heard_at(history, receiver, one).0 >= 4 {
        return false;
    }
    let events = &mut history.receivers[receiver].events;
    let moved = events[one].what.clone();
    events[one].what = std::mem::replace(&mut events[other].what, moved);
    true
}

/// The first message behind a place from which somebody recovered.
fn recovered(history: &History, dice: &mut Dice) -> Option<(usize, usize, usize)> {
    let mut found = Vec::new();
    for (receiver, listener) in history.receivers.iter().enumerate() {
        for (index, event) in listener.events.iter().enumerate() {
            let What::Asked { target, since: Some(_) } = event.what else { continue };
            let rest = &listener.events[index..];
            let joined = rest
                .iter()
                .position(|event| matches!(&event.what, What::Joined { target: of, .. } if *of == target));
            let heard =
                rest.iter().position(|event| matches!(event.what, What::Heard { by, .. } if by == target));
            if let (Some(joined), Some(heard)) = (joined, heard)
                && heard < joined
                && rest[joined].connection == event.connection
            {
                found.push((receiver, index, index + heard));
            }
        }
    }
    (!found.is_empty()).then(|| dice.pick(&found))
}

pub(crate) fn skip_at_recovery(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, _, first)) = recovered(history, dice) else { return false };
    history.receivers[receiver].events.remove(first);
    true
}

pub(crate) fn overlap_at_recovery(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, asked, first)) = recovered(history, dice) else { return false };
    let position = *heard_at(history, receiver, first).2;
    let What::Asked { since, .. } = &mut history.receivers[receiver].events[asked].what else { return false };
    *since = position;
    true
}

/// From a place on, a log has another epoch for everybody.
pub(crate) fn renew(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, index, _)) = neighbours(history, dice) else { return false };
    let What::Heard { by: target, position: Some(first), .. } =
        history.receivers[receiver].events[index].what
    else {
        return false;
    };
    for event in history.receivers.iter_mut().flat_map(|receiver| &mut receiver.events) {
        match &mut event.what {
            What::Heard { by: of, position: Some(position), .. }
            | What::Asked { target: of, since: Some(position) }
            | What::Joined { target: of, position: Some(position), .. }
                if *of == target && position.offset > first.offset =>
            {
                position.epoch += 1;
            }
            _ => {}
        }
    }
    true
}

/// Somebody is told that what it has missed is gone.
pub(crate) fn refuse_recovery(history: &mut History, dice: &mut Dice) -> bool {
    let events = history.receivers.iter_mut().flat_map(|receiver| &mut receiver.events);
    let mut answers: Vec<_> = events
        .filter_map(|event| match &mut event.what {
            What::Joined { recovered: Some(recovered), .. } => Some(recovered),
            _ => None,
        })
        .collect();
    // Not the first time: what was not recovered then is owed to nobody.
    let at = dice.below(answers.len() / 2) + answers.len() / 2;
    *answers[at] = Err("trimmed".into());
    true
}

pub(crate) fn make_up(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, index, ..)) = pick_live(history, dice) else { return false };
    let events = &mut history.receivers[receiver].events;
    let mut event = events[index].clone();
    if let What::Heard { message, .. } = &mut event.what {
        message.counter += 1_000_000;
    }
    events.insert(index, event);
    true
}

pub(crate) fn garble(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, index, ..)) = pick_live(history, dice) else { return false };
    let events = &mut history.receivers[receiver].events;
    let event = Event { what: What::Strange("a third of a message".into()), ..events[index].clone() };
    events.insert(index, event);
    true
}

pub(crate) fn refuse_falsely(history: &mut History, dice: &mut Dice) -> bool {
    let Some((_, _, message, _)) = pick(history, dice, |_| true) else { return false };
    *outcome(history, message) = Outcome::Refused;
    true
}

pub(crate) fn tell_another_user(history: &mut History, dice: &mut Dice) -> bool {
    let in_inbox = |(_, _, message, _): &Heard| message.target >= 4;
    let Some((from, index, message, _)) = pick(history, dice, in_inbox) else { return false };
    let what = history.receivers[from].events[index].what.clone();
    let Kind::Inbox(owner) = history.targets[usize::from(message.target)].kind.clone() else { return false };
    let other = history.receivers.iter_mut().find(|receiver| receiver.user != owner).unwrap();
    let end = other.events.last().unwrap().clone();
    other.events.push(Event { what, ..end });
    true
}

pub(crate) fn tell_a_stranger(history: &mut History, dice: &mut Dice) -> bool {
    let Some((_, _, message, _)) = pick_live(history, dice) else { return false };
    let receiver = &mut history.receivers[dice.below(4)];
    let end = receiver.events.last().unwrap().clone();
    let target = message.target;
    // Its message had come to this connection before, or to none of it, but not after it left.
    let is_new =
        !receiver.events.iter().any(|event| event.connection == end.connection && is_of(event, message));
    for what in
        [What::Leaving(target), What::Left(target), What::Heard { by: target, message, position: None }]
    {
        receiver.events.push(Event { what, ..end.clone() });
    }
    is_new
}

pub(crate) fn tell_before_the_ack(history: &mut History, dice: &mut Dice) -> bool {
    let receiver = dice.below(4);
    let events = &history.receivers[receiver].events;
    let joined = events.iter().enumerate().filter(
        |(_, event)| matches!(event.what, What::Joined { position: None, target, .. } if target == 2),
    );
    let joined: Vec<_> = joined.map(|(index, _)| index).collect();
    let first = events.iter().position(|event| matches!(event.what, What::Heard { by: 2, .. }));
    let (Some(first), false) = (first, joined.is_empty()) else { return false };
    let what = events[first].what.clone();
    let at = dice.pick(&joined);
    let event = Event { what, ..events[at].clone() };
    history.receivers[receiver].events.insert(at, event);
    true
}

pub(crate) fn cross(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, index, ..)) = pick_live(history, dice) else { return false };
    let by = heard_at(history, receiver, index).0;
    *by = if *by == 2 { 3 } else { 2 };
    true
}

pub(crate) fn take_position(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, index, ..)) = pick_durable(history, dice) else { return false };
    *heard_at(history, receiver, index).2 = None;
    true
}

pub(crate) fn give_position(history: &mut History, dice: &mut Dice) -> bool {
    // The last of the troubled part at most: a live message that is not counted is missed in calm.
    let calm = history.calm[0].start;
    let is_early = |(receiver, index, message, _): &Heard| {
        is_live(history, *message) && history.receivers[*receiver].events[*index].at < calm
    };
    let Some((receiver, index, message, _)) = pick(history, dice, is_early) else { return false };
    let events = &mut history.receivers[receiver].events;
    // Beside the true one, so that nothing else is missing.
    let position = Some(Position { epoch: 1, offset: 1 });
    let event =
        Event { what: What::Heard { by: message.target, message, position }, ..events[index].clone() };
    events.insert(index, event);
    true
}

pub(crate) fn swap_live(history: &mut History, dice: &mut Dice) -> bool {
    let Some((receiver, index, message, _)) = pick_live(history, dice) else { return false };
    let sent_on = |of: Message| {
        let mut sends = history.senders[usize::from(of.sender)].sends.iter();
        sends.find(|send| (send.target, send.counter) == (of.target, of.counter)).unwrap().connection
    };
    let events = &history.receivers[receiver].events;
    let here = events[index].connection;
    // Up to the next time that it joins the group.
    let span = events[index + 1..]
        .iter()
        .take_while(|event| event.connection == here && event.what != What::Left(message.target));
    let next = span.enumerate().find_map(|(offset, event)| match event.what {
        What::Heard { message: of, .. } => {
            let is_of_stream = (of.sender, of.target) == (message.sender, message.target);
            (is_of_stream && sent_on(of) == sent_on(message)).then_some(index + 1 + offset)
        }
        _ => None,
    });
    let Some(next) = next else { return false };
    let events = &mut history.receivers[receiver].events;
    let moved = events[index].what.clone();
    events[index].what = std::mem::replace(&mut events[next].what, moved);
    true
}

/// Loses a live message in the middle of the calm, where nobody is told of a gap.
pub(crate) fn lose_silently(history: &mut History, dice: &mut Dice) -> bool {
    let calm = history.calm[0].start;
    let in_calm: Vec<_> = all_heard(history)
        .into_iter()
        .filter(|(receiver, index, message, _)| {
            is_live(history, *message) && history.receivers[*receiver].events[*index].at >= calm
        })
        .collect();
    let between = |(receiver, index, message, _): &Heard| {
        let of_series = |other: &&Heard| {
            (other.0, other.2.sender, other.2.target) == (*receiver, message.sender, message.target)
        };
        let series = || in_calm.iter().filter(of_series);
        series().any(|other| other.1 < *index) && series().any(|other| other.1 > *index)
    };
    let Some((receiver, index, ..)) = pick(history, dice, |heard| in_calm.contains(heard) && between(heard))
    else {
        return false;
    };
    history.receivers[receiver].events.remove(index);
    true
}

/// Takes all notices away from where there are holes.
pub(crate) fn keep_silent(history: &mut History, _: &mut Dice) -> bool {
    for receiver in &mut history.receivers {
        receiver.events.retain(|event| event.what != What::Gap);
    }
    judge(history).counts.holes[0] > 0
}

pub(crate) fn lose_in_calm(history: &mut History, dice: &mut Dice) -> bool {
    let calm = history.calm[0].start;
    let in_calm = |(receiver, index, message, _): &Heard| {
        is_live(history, *message) && history.receivers[*receiver].events[*index].at >= calm
    };
    let Some((receiver, index, ..)) = pick(history, dice, in_calm) else { return false };
    history.receivers[receiver].events.remove(index);
    true
}
