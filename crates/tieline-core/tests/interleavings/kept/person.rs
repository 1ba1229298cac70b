//! A person: sends durable messages until they are acknowledged, and listens to both groups and the own inbox, each from
//! where the last connection left it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tieline_judge::{Event, Message, Outcome, Position, Receiver, Send, Sender, What};
use tieline_switchboard::Slot;
use tieline_websocket::{Opcode, encode_masked};

use super::GROUPS;

/// Writes a client's frame.
pub(super) fn write(out: &mut Vec<u8>, frame: &str) {
    encode_masked(out, Opcode::Text, frame.as_bytes(), [9, 8, 7, 6]);
}

/// What a frame is waited for.
#[derive(Clone, Copy, Debug)]
enum Owed {
    /// To be let into a target.
    Entry(usize),
    /// The ack of a message.
    Ack(usize),
}

#[derive(Debug)]
struct Said {
    send: Send,
    /// Whether it is on its way on this connection.
    is_asked: bool,
}

/// One person.
#[derive(Debug)]
pub(super) struct Person {
    number: usize,
    pub(super) user: String,
    persons: usize,
    /// Where its connection is.
    pub(super) at: Option<(usize, Slot)>,
    pub(super) is_greeted: bool,
    connection: u32,
    next_ack: u64,
    owed: BTreeMap<u64, Owed>,
    said: Vec<Said>,
    /// Of each target, where it is, once it has been let in.
    seen: Vec<Option<Position>>,
    /// Of each target, whether it is in on this connection.
    is_in: Vec<bool>,
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    event: Option<String>,
    ack_id: Option<u64>,
    success: Option<bool>,
    recovered: Option<bool>,
    reason: Option<String>,
    position: Option<At>,
    group: Option<String>,
    data: Option<Value>,
}

#[derive(Clone, Copy, Deserialize)]
struct At {
    epoch: u64,
    offset: u64,
}

impl From<At> for Position {
    fn from(At { epoch, offset }: At) -> Self {
        Position { epoch, offset }
    }
}

impl Person {
    pub(super) fn new(number: usize, persons: usize) -> Self {
        let targets = GROUPS.len() + persons;
        Person {
            number,
            user: format!("person-{number}"),
            persons,
            at: None,
            is_greeted: false,
            connection: 0,
            next_ack: 1,
            owed: BTreeMap::new(),
            said: Vec::new(),
            seen: vec![None; targets],
            is_in: vec![false; targets],
            events: Vec::new(),
        }
    }

    /// The targets that it listens to.
    fn wanted(&self) -> [usize; 3] {
        [0, 1, GROUPS.len() + self.number]
    }

    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether all that it said is acknowledged, and it is in wherever it wants to be.
    pub(super) fn is_content(&self) -> bool {
        let is_acked = |said: &Said| said.send.outcome == Outcome::Acked;
        self.said.iter().all(is_acked) && self.wanted().iter().all(|target| self.is_in[*target])
    }

    fn happened(&mut self, at: u32, what: What) {
        self.events.push(Event { at, connection: self.connection, what });
    }

    pub(super) fn connected(&mut self, now: u32, at: (usize, Slot)) {
        self.at = Some(at);
        self.connection += 1;
        self.happened(now, What::Opened);
    }

    pub(super) fn lost(&mut self, now: u32) {
        self.at = None;
        self.is_greeted = false;
        self.owed.clear();
        self.is_in.fill(false);
        self.said.iter_mut().for_each(|said| said.is_asked = false);
        self.happened(now, What::Closed);
    }

    fn owe(&mut self, owed: Owed) -> u64 {
        self.next_ack += 1;
        self.owed.insert(self.next_ack, owed);
        self.next_ack
    }

    /// The frame by which it asks for a target.
    fn enter(&mut self, now: u32, target: usize) -> String {
        let ack_id = self.owe(Owed::Entry(target));
        let since = self.seen[target];
        self.happened(now, What::Asked { target: target as u16, since });
        let mut frame = match GROUPS.get(target) {
            Some(group) => json!({"type": "joinGroup", "group": group, "ackId": ack_id}),
            None => json!({"type": "hello", "ackId": ack_id}),
        };
        if let Some(Position { epoch, offset }) = since {
            let name = if target < GROUPS.len() { "since" } else { "inbox" };
            frame[name] = json!({"epoch": epoch, "offset": offset});
        }
        frame.to_string()
    }

    /// The frame of a new message.
    pub(super) fn say(&mut self, now: u32, target: usize) -> Vec<String> {
        let counter = self.said.iter().filter(|said| usize::from(said.send.target) == target).count() as u32;
        let send = Send {
            target: target as u16,
            counter,
            at: now,
            connection: self.connection,
            outcome: Outcome::Unknown,
        };
        self.said.push(Said { send, is_asked: true });
        vec![self.frame(self.said.len() - 1)]
    }

    /// The frames of what is not acknowledged and not on its way, and of where it was not let in.
    pub(super) fn say_again(&mut self) -> Vec<String> {
        let is_waiting = |said: &Said| !said.is_asked && said.send.outcome != Outcome::Acked;
        let waiting: Vec<usize> =
            (0..self.said.len()).filter(|index| is_waiting(&self.said[*index])).collect();
        let mut frames = Vec::new();
        for index in waiting {
            self.said[index].is_asked = true;
            frames.push(self.frame(index));
        }
        let now = self.events.last().map_or(0, |event| event.at);
        for target in self.wanted() {
            let is_asked = self.owed.values().any(|owed| matches!(owed, Owed::Entry(of) if *of == target));
            if !self.is_in[target] && !is_asked {
                frames.push(self.enter(now, target));
            }
        }
        frames
    }

    fn frame(&mut self, index: usize) -> String {
        let ack_id = self.owe(Owed::Ack(index));
        let Send { target, counter, .. } = self.said[index].send;
        let data = json!({"sender": self.number, "target": target, "counter": counter});
        let id = format!("{target}-{counter}");
        match GROUPS.get(usize::from(target)) {
            Some(group) => {
                json!({"type": "sendToGroup", "group": group, "messageId": id, "ackId": ack_id, "data": data})
            }
            None => {
                let user = format!("person-{}", usize::from(target) - GROUPS.len());
                json!({"type": "sendToUser", "user": user, "messageId": id, "ackId": ack_id, "data": data})
            }
        }
        .to_string()
    }

    /// It hears a frame, and answers with others.
    pub(super) fn hear(&mut self, now: u32, text: &str) -> Vec<String> {
        let frame: Frame = serde_json::from_str(text).expect("the server sends JSON");
        match (frame.kind.as_str(), frame.event.as_deref()) {
            ("system", Some("connected")) => {
                self.is_greeted = true;
                return self.wanted().map(|target| self.enter(now, target)).into();
            }
            ("system", Some("gap")) => self.happened(now, What::Gap),
            ("message", _) => self.hear_message(now, &frame, text),
            ("ack", _) => self.hear_ack(now, &frame),
            _ => self.happened(now, What::Strange(text.to_owned())),
        }
        Vec::new()
    }

    fn hear_message(&mut self, now: u32, frame: &Frame, text: &str) {
        let group = frame.group.as_deref().and_then(|group| GROUPS.iter().position(|name| *name == group));
        let by = group.unwrap_or(GROUPS.len() + self.number);
        let number = |name: &str| frame.data.as_ref().and_then(|data| data[name].as_u64());
        let Some(((sender, target), counter)) = number("sender").zip(number("target")).zip(number("counter"))
        else {
            return self.happened(now, What::Strange(text.to_owned()));
        };
        let message = Message { sender: sender as u16, target: target as u16, counter: counter as u32 };
        let position = frame.position.map(Position::from);
        if position.is_some() {
            self.seen[by] = position;
        }
        self.happened(now, What::Heard { by: by as u16, message, position });
    }

    fn hear_ack(&mut self, now: u32, frame: &Frame) {
        let Some(owed) = frame.ack_id.and_then(|ack_id| self.owed.remove(&ack_id)) else {
            return self
                .happened(now, What::Strange(format!("an ack that nobody waits for: {:?}", frame.ack_id)));
        };
        let success = frame.success == Some(true);
        match owed {
            Owed::Ack(index) => {
                let said = &mut self.said[index];
                said.is_asked = false;
                if success {
                    said.send.outcome = Outcome::Acked;
                }
            }
            Owed::Entry(target) if success => {
                let recovered = frame
                    .recovered
                    .map(|whole| if whole { Ok(()) } else { Err(frame.reason.clone().unwrap_or_default()) });
                let position = frame.position.map(Position::from);
                self.seen[target] = position;
                self.is_in[target] = true;
                self.happened(now, What::Joined { target: target as u16, recovered, position });
            }
            Owed::Entry(target) => self.happened(now, What::Leaving(target as u16)),
        }
    }

    /// What it says before the judge.
    pub(super) fn testify(&mut self, now: u32) -> (Sender, Receiver) {
        assert!(self.persons > 0);
        if self.at.is_some() {
            self.happened(now, What::Closed);
        }
        let sends = self.said.iter().map(|said| said.send).collect();
        let events = std::mem::take(&mut self.events);
        (
            Sender { name: self.user.clone(), sends },
            Receiver { name: self.user.clone(), user: self.user.clone(), events },
        )
    }
}
