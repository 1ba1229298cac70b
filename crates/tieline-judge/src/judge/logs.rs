//! [`Logs`]: which message stands at which place, by the word of all receivers; [`Held`]: what one of them has of each log.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Case, Place};
use crate::history::{Kind, Message, Outcome, Position, What};
use crate::verdict::Rule;

/// All logs, by target.
pub(super) struct Logs {
    logs: HashMap<u16, BTreeMap<Position, Message>>,
}

/// What one receiver has of a log.
#[derive(Default)]
struct Share {
    places: HashMap<Position, Message>,
    /// Where each message was met first.
    got: HashMap<Message, Position>,
    /// Behind which place, and from which time on, everything is owed. None before the first time that it was let in.
    owed: Option<(Position, u32)>,
    /// The last place on the present connection, or the one from which it goes on.
    cursor: Option<Position>,
    /// Whether it was let in on the present connection.
    is_in: bool,
    /// The first breach of the order in an inbox that it asked for and was not let into. When it is refused, this was no answer
    /// but what comes by itself.
    suspect: Option<(Rule, Place, Message, String)>,
}

/// What one receiver has of all logs.
#[derive(Default)]
pub(super) struct Held {
    shares: HashMap<u16, Share>,
}

impl Logs {
    /// Collects what all receivers say, and finds where they differ.
    pub(super) fn of(case: &mut Case<'_>) -> Logs {
        let mut logs: HashMap<u16, BTreeMap<Position, Message>> = HashMap::new();
        let history = case.history;
        for (receiver, listener) in history.receivers.iter().enumerate() {
            for (index, event) in listener.events.iter().enumerate() {
                let What::Heard { by, message, position: Some(position) } = event.what else { continue };
                let first = *logs.entry(by).or_default().entry(position).or_insert(message);
                if first != message {
                    let place = Place { receiver, event: Some(index), at: event.at };
                    let what = format!(
                        "got {} at {position}, where others, or itself before, got {}",
                        history.words(message),
                        history.words(first)
                    );
                    case.find(Rule::Disorder, place, Some(message), what);
                }
            }
        }
        case.verdict.counts.logs = logs.len() as u64;
        Logs { logs }
    }

    /// Finds what a receiver should have and has not: what was acknowledged, and what others got of the same log.
    pub(super) fn find_losses(&self, case: &mut Case<'_>, receiver: usize, held: &Held) {
        let lost = |case: &mut Case<'_>, message: Message, at: u32, why: &str| {
            let what = format!("never got {}, {why}", case.history.words(message));
            case.find(Rule::Lost, Place { receiver, event: None, at }, Some(message), what);
        };
        for (target, share) in &held.shares {
            let Some((from, since)) = share.owed else { continue };
            let log = self.logs.get(target);
            let is_owed = |position: Position| {
                position > from && (position.epoch == from.epoch || !case.history.store_lost)
            };
            for (position, message) in log.into_iter().flatten().filter(|(position, _)| is_owed(**position)) {
                if !share.places.contains_key(position) && !share.got.contains_key(message) {
                    let at = case.sends.get(message).map_or(0, |send| send.at);
                    lost(case, *message, at, &format!("which others got at {position}"));
                }
            }
            // What has a place behind that was looked for above.
            let known: HashSet<_> = log
                .into_iter()
                .flatten()
                .filter_map(|(position, message)| is_owed(*position).then_some(*message))
                .collect();
            for (sender, of) in case.history.senders.iter().enumerate() {
                let owed = |send: &&crate::history::Send| {
                    send.target == *target && send.outcome == Outcome::Acked && send.at > since
                };
                for send in of.sends.iter().filter(owed) {
                    let message = Message { sender: sender as u16, target: *target, counter: send.counter };
                    if !share.got.contains_key(&message) && !known.contains(&message) {
                        lost(case, message, send.at, "which was acknowledged");
                    }
                }
            }
        }
    }
}

/// Whether a place comes right after another in the same life of a log.
fn is_next(before: Position, next: Position) -> bool {
    (before == Position::START || before.epoch == next.epoch) && next.offset == before.offset + 1
}

/// Whether both are the same place; the start has no epoch.
fn is_same(one: Position, other: Position) -> bool {
    one == other || (one.offset == 0 && other.offset == 0 && one.epoch.min(other.epoch) == 0)
}

impl Held {
    /// A connection asks for a log, from a place that it names or that the server knows.
    pub(super) fn asked(&mut self, target: u16, since: Option<Position>) {
        let share = self.shares.entry(target).or_default();
        (share.cursor, share.is_in, share.suspect) = (since, false, None);
    }

    /// It is let in, and told whether it has got everything that it missed.
    pub(super) fn joined(
        &mut self,
        case: &mut Case<'_>,
        place: Place,
        target: u16,
        since: Option<Position>,
        recovered: Option<&Result<(), String>>,
        position: Option<Position>,
    ) {
        let name = case.history.target(target).to_owned();
        let share = self.shares.entry(target).or_default();
        let Some(position) = position else {
            return case.find(Rule::Unplaced, place, None, format!("joined {name} without a position"));
        };
        if let Some((rule, place, message, what)) = share.suspect.take() {
            case.find(rule, place, Some(message), what);
        }
        share.is_in = true;
        let reached = share.cursor.unwrap_or(position);
        match recovered {
            // What was lost is owed to nobody any more.
            Some(Err(reason)) if reason == "epoch" && case.history.store_lost => share.owed = None,
            Some(Err(reason)) => {
                let what = format!("what it missed of {name} was not recovered: {reason}");
                case.find(Rule::NotRecovered, place, None, what);
            }
            None if since.is_some() => {
                let what = format!("was not told whether what it missed of {name} was recovered");
                case.find(Rule::NotRecovered, place, None, what);
            }
            _ if is_same(reached, position) => {
                case.verdict.counts.recovered += u64::from(recovered.is_some());
            }
            _ => {
                let rule = if reached < position { Rule::Hole } else { Rule::Backwards };
                let what = format!("was let into {name} at {position}, and had come to {reached}");
                case.find(rule, place, None, what);
            }
        }
        share.cursor = Some(position);
        if share.owed.is_none() {
            let is_whole = since == Some(Position::START)
                && matches!(recovered, Some(Ok(())))
                && !case.history.store_lost;
            share.owed = Some(if is_whole { (Position::START, 0) } else { (position, place.at) });
        }
    }

    /// A message of a log.
    pub(super) fn heard(&mut self, case: &mut Case<'_>, place: Place, message: Message, position: Position) {
        let words = case.history.words(message);
        let share = self.shares.entry(message.target).or_default();
        if let Some(before) = share.cursor.replace(position)
            && !is_next(before, position)
        {
            let is_renewed = before != Position::START && before.epoch != position.epoch;
            let (rule, how) = match position <= before {
                _ if is_renewed => (Rule::Renewed, "another epoch than"),
                true => (Rule::Backwards, "which is not behind"),
                false => (Rule::Hole, "and not next to"),
            };
            // Where the store was lost, it is told of when the connection ends.
            if !is_renewed || !case.history.store_lost {
                let what = format!("got {words} at {position}, {how} {before}");
                let is_inbox =
                    matches!(case.history.targets[usize::from(message.target)].kind, Kind::Inbox(_));
                if share.is_in || !is_inbox {
                    case.find(rule, place, Some(message), what);
                } else if share.suspect.is_none() {
                    share.suspect = Some((rule, place, message, what));
                }
            }
        }
        // Two messages at one place are found where the logs are made.
        if share.places.insert(position, message).is_some() {
            case.verdict.counts.again += 1;
            return;
        }
        case.verdict.counts.durable_heard += 1;
        if let Some(first) = share.got.get(&message).copied() {
            // Said again after the store had lost it, it has a place in each life of the log.
            if first.epoch == position.epoch || !case.history.store_lost {
                case.find(
                    Rule::Duplicate,
                    place,
                    Some(message),
                    format!("got {words} at {first} and at {position}"),
                );
            }
            return;
        }
        share.got.insert(message, position);
    }

    /// It was not let in, or is out.
    pub(super) fn left(&mut self, target: u16) {
        if let Some(share) = self.shares.get_mut(&target) {
            (share.cursor, share.is_in, share.suspect) = (None, false, None);
        }
    }

    /// The connection is over.
    pub(super) fn cut(&mut self) {
        self.shares.keys().copied().collect::<Vec<_>>().into_iter().for_each(|target| self.left(target));
    }
}
