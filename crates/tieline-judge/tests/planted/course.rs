//! [`course`]: what a cluster that keeps its promises could have done, by a model of one log for each durable target and of live
//! groups that lose a message now and then and say so.

use std::collections::BTreeMap;

use tieline_judge::{
    Dice, Event, History, Kind, Message, Outcome, Position, Receiver, Send, Sender, Target, What,
};

/// The epoch of all logs at first; each loss of the store raises it.
const EPOCH: u64 = 233;
const SENDERS: u16 = 3;
const RECEIVERS: usize = 4;
const USERS: [&str; RECEIVERS] = ["u0", "u1", "u0", "u2"];

/// Targets 0 and 1 are durable groups, 2 and 3 live ones, 4 and 5 inboxes.
const LIVE: [u16; 2] = [2, 3];

/// Steps of the troubled part, and of the calm one behind it.
const STEPS: usize = 600;
const CALM_STEPS: usize = 60;

/// Milliseconds that a step takes.
const STEP: u32 = 20;

/// How long after a hole its notice may come.
const NOTICE_WITHIN: u32 = 1000;

/// A receiver's side of the model.
struct Listener {
    connection: u32,
    is_open: bool,
    /// By durable target: how many of the log's messages it has on this connection, and whether it was let in.
    logs: BTreeMap<u16, (usize, bool)>,
    /// The most that it ever had of each, and in which epoch.
    most: BTreeMap<u16, (u64, usize)>,
    /// The live groups it is in.
    groups: Vec<u16>,
    /// It has missed something and is to be told.
    owes_notice: bool,
}

struct Course {
    dice: Dice,
    history: History,
    now: u32,
    logs: BTreeMap<u16, Vec<Message>>,
    counters: BTreeMap<(u16, u16), u32>,
    connections: [u32; SENDERS as usize],
    listeners: Vec<Listener>,
    is_calm: bool,
    epoch: u64,
}

fn position(epoch: u64, offset: usize) -> Position {
    if offset == 0 { Position::START } else { Position { epoch, offset: offset as u64 } }
}

impl Course {
    /// The durable targets of a receiver: both groups, and its own inbox.
    fn durable(receiver: usize) -> Vec<u16> {
        let inbox = match USERS[receiver] {
            "u0" => Some(4),
            "u1" => Some(5),
            _ => None,
        };
        [0, 1].into_iter().chain(inbox).collect()
    }

    fn note(&mut self, receiver: usize, what: What) {
        let connection = self.listeners[receiver].connection;
        self.history.receivers[receiver].events.push(Event { at: self.now, connection, what });
    }

    fn send(&mut self) {
        let (sender, target) = (self.dice.below(SENDERS.into()) as u16, self.dice.below(6) as u16);
        let counter = self.counters.entry((sender, target)).or_default();
        let message = Message { sender, target, counter: *counter };
        *counter += 1;
        if self.dice.chance(4) && !self.is_calm {
            self.connections[usize::from(sender)] += 1;
        }
        let outcome = if self.is_calm {
            Outcome::Acked
        } else {
            self.dice.weighed(&[(80, Outcome::Acked), (10, Outcome::Refused), (10, Outcome::Unknown)])
        };
        let connection = self.connections[usize::from(sender)];
        let send = Send { target, counter: message.counter, at: self.now, connection, outcome };
        self.history.senders[usize::from(sender)].sends.push(send);
        let is_taken = outcome == Outcome::Acked || (outcome == Outcome::Unknown && self.dice.chance(50));
        if !is_taken {
            return;
        }
        if !LIVE.contains(&target) {
            return self.logs.entry(target).or_default().push(message);
        }
        for receiver in 0..RECEIVERS {
            if !self.listeners[receiver].groups.contains(&target) {
                continue;
            }
            if !self.is_calm && self.dice.chance(5) {
                self.listeners[receiver].owes_notice = true;
            } else {
                self.note(receiver, What::Heard { by: target, message, position: None });
            }
        }
    }

    /// Connects, asks for every log since the last place that it has, or an earlier one.
    fn open(&mut self, receiver: usize) {
        let listener = &mut self.listeners[receiver];
        listener.connection += 1;
        listener.is_open = true;
        self.note(receiver, What::Opened);
        for target in Course::durable(receiver) {
            let length = self.logs.get(&target).map_or(0, Vec::len);
            let has = self.listeners[receiver].most.get(&target).copied();
            if let Some((epoch, has)) = has.filter(|(epoch, has)| *epoch != self.epoch && *has > 0) {
                // What it has is of a log that is no more.
                self.note(receiver, What::Asked { target, since: Some(position(epoch, has)) });
                let (recovered, at) = (Some(Err("epoch".into())), Some(position(self.epoch, length)));
                self.note(receiver, What::Joined { target, recovered, position: at });
                self.listeners[receiver].logs.insert(target, (length, true));
                self.listeners[receiver].most.insert(target, (self.epoch, length));
                continue;
            }
            let most = has.map(|(_, has)| has);
            // The first time, it begins with the first message or with the next.
            let since = match most {
                Some(most) if self.dice.chance(70) => Some(most),
                Some(most) => Some(most.saturating_sub(self.dice.below(5))),
                None if self.dice.chance(50) => Some(0),
                None => None,
            };
            self.note(
                receiver,
                What::Asked { target, since: since.map(|since| position(self.epoch, since)) },
            );
            let is_in = since.is_none();
            self.listeners[receiver].logs.insert(target, (since.unwrap_or(length), is_in));
            if is_in {
                self.listeners[receiver].most.insert(target, (self.epoch, length));
                self.note(
                    receiver,
                    What::Joined { target, recovered: None, position: Some(position(self.epoch, length)) },
                );
            }
        }
    }

    fn close(&mut self, receiver: usize) {
        let listener = &mut self.listeners[receiver];
        listener.is_open = false;
        listener.owes_notice = false;
        listener.logs.clear();
        listener.groups.clear();
        self.note(receiver, What::Closed);
    }

    /// Hands a receiver the next of what it has coming.
    fn deliver(&mut self, receiver: usize) {
        if self.listeners[receiver].owes_notice && self.dice.chance(25) {
            self.listeners[receiver].owes_notice = false;
            self.note(receiver, What::Gap);
        }
        for target in Course::durable(receiver) {
            let Some((has, is_in)) = self.listeners[receiver].logs.get(&target).copied() else { continue };
            match self.logs.get(&target).and_then(|log| log.get(has)).copied() {
                Some(message) => {
                    self.listeners[receiver].logs.insert(target, (has + 1, is_in));
                    let most = self.listeners[receiver].most.entry(target).or_default();
                    *most = (*most).max((self.epoch, has + 1));
                    let position = Some(position(self.epoch, has + 1));
                    self.note(receiver, What::Heard { by: target, message, position });
                }
                None if !is_in => {
                    self.listeners[receiver].logs.insert(target, (has, true));
                    self.listeners[receiver].most.entry(target).or_insert((self.epoch, has));
                    let position = Some(position(self.epoch, has));
                    self.note(receiver, What::Joined { target, recovered: Some(Ok(())), position });
                }
                None => {}
            }
        }
    }

    fn lose_store(&mut self) {
        self.logs.clear();
        self.epoch += 1;
        for receiver in 0..RECEIVERS {
            if self.listeners[receiver].is_open {
                self.close(receiver);
            }
        }
    }

    /// Joins a live group, or leaves it.
    fn turn(&mut self, receiver: usize, target: u16) {
        let groups = &mut self.listeners[receiver].groups;
        match groups.iter().position(|group| *group == target) {
            Some(at) => {
                groups.remove(at);
                self.note(receiver, What::Leaving(target));
                self.note(receiver, What::Left(target));
            }
            None => {
                groups.push(target);
                self.note(receiver, What::Asked { target, since: None });
                self.note(receiver, What::Joined { target, recovered: None, position: None });
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        self.send();
        for receiver in 0..RECEIVERS {
            if !self.listeners[receiver].is_open {
                if self.dice.chance(20) || self.is_calm {
                    self.open(receiver);
                }
                continue;
            }
            match self.dice.below(100) {
                _ if self.is_calm => self.deliver(receiver),
                0..2 => self.close(receiver),
                2..6 => {
                    let target = self.dice.pick(&LIVE);
                    self.turn(receiver, target);
                }
                6..90 => self.deliver(receiver),
                _ => {}
            }
        }
    }
}

/// The course of one seed.
pub(crate) fn course(seed: u64) -> History {
    run(seed, 0)
}

/// The same, and the store loses everything now and then, which ends all connections.
pub(crate) fn with_losses(seed: u64) -> History {
    run(seed, 3)
}

fn run(seed: u64, losses: usize) -> History {
    let kinds = [
        Kind::Durable,
        Kind::Durable,
        Kind::Live,
        Kind::Live,
        Kind::Inbox("u0".into()),
        Kind::Inbox("u1".into()),
    ];
    let targets =
        kinds.into_iter().enumerate().map(|(number, kind)| Target { name: format!("t{number}"), kind });
    let named = |number: usize| Receiver {
        name: format!("r{number}"),
        user: USERS[number].into(),
        events: Vec::new(),
    };
    let listener = |_| Listener {
        connection: 0,
        is_open: false,
        logs: BTreeMap::new(),
        most: BTreeMap::new(),
        groups: Vec::new(),
        owes_notice: false,
    };
    let mut course = Course {
        dice: Dice::new(seed),
        history: History {
            targets: targets.collect(),
            senders: (0..SENDERS)
                .map(|number| Sender { name: format!("s{number}"), sends: Vec::new() })
                .collect(),
            receivers: (0..RECEIVERS).map(named).collect(),
            notice_within: NOTICE_WITHIN,
            ..History::default()
        },
        now: 0,
        logs: BTreeMap::new(),
        counters: BTreeMap::new(),
        connections: [1; SENDERS as usize],
        listeners: (0..RECEIVERS).map(listener).collect(),
        is_calm: false,
        epoch: EPOCH,
    };
    course.history.store_lost = losses > 0;
    for step in 1..=STEPS {
        course.step();
        if losses > 0 && step % (STEPS / (losses + 1)) == 0 {
            course.lose_store();
        }
    }
    course.is_calm = true;
    // Everybody is there, in every group, and has what was missed before the calm is counted.
    for receiver in 0..RECEIVERS {
        if !course.listeners[receiver].is_open {
            course.open(receiver);
        }
        for target in LIVE {
            if !course.listeners[receiver].groups.contains(&target) {
                course.turn(receiver, target);
            }
        }
    }
    let begun = course.now + 1;
    for _ in 0..CALM_STEPS {
        course.step();
    }
    for _ in 0..STEPS {
        course.now += STEP;
        (0..RECEIVERS).for_each(|receiver| course.deliver(receiver));
    }
    course.history.calm.push(begun..course.now);
    course.history.end = course.now;
    course.history
}
