//! [`Talker`]: two clients that send numbers to each other and to a group as fast as they are acknowledged, while a test breaks
//! something.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::client::{Client, to_group, to_user};

/// Sends that wait for their ack at once.
const WINDOW: usize = 16;

/// Lets talkers stop when it is dropped, also by a test that fails: they would talk on for ever, and be waited for.
pub(crate) struct Silence<'a>(pub(crate) &'a AtomicBool);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client that sends numbers to another user and to a group, and remembers what it was told.
pub(crate) struct Talker {
    pub(crate) client: Client,
    /// The user that it sends to.
    to: &'static str,
    /// By number of message: how many connections it was handed to; `None` where nobody knows.
    pub(crate) told: Vec<Option<u64>>,
    /// Acks that are to come, with the number of their message.
    outstanding: Vec<(u64, usize)>,
    pub(crate) heard: Heard,
}

/// What a client got.
#[derive(Default)]
pub(crate) struct Heard {
    /// Numbers of messages by sender: those to itself, and those to the group.
    direct: Vec<(String, usize)>,
    grouped: Vec<(String, usize)>,
    /// All of them.
    seen: BTreeSet<(String, usize)>,
    /// Who has said that nothing more comes, to the group or to itself.
    pub(crate) ended: BTreeSet<(String, bool)>,
}

impl Heard {
    pub(crate) fn take(&mut self, message: &Value) {
        assert_eq!(message["type"], "message", "{message}");
        let from = message["fromUserId"].as_str().unwrap().to_owned();
        let is_grouped = message["group"] == "room";
        let series = if is_grouped { &mut self.grouped } else { &mut self.direct };
        match message["data"].as_u64() {
            Some(number) => {
                self.seen.insert((from.clone(), number as usize));
                series.push((from, number as usize));
            }
            None => assert!(self.ended.insert((from, is_grouped)), "{message} comes twice"),
        }
    }

    /// Whether it got the message of a number, whichever way.
    pub(crate) fn has(&self, from: &str, number: usize) -> bool {
        self.seen.contains(&(from.to_owned(), number))
    }

    /// Nothing came twice, nothing overtook what was sent before it to the same target.
    pub(crate) fn assert_order(&self) {
        for series in [&self.direct, &self.grouped] {
            for from in ["anna", "ben"] {
                let numbers: Vec<_> = series.iter().filter(|(by, _)| by == from).map(|(_, n)| *n).collect();
                assert!(numbers.is_sorted_by(|one, next| one < next), "from {from}: {numbers:?}");
            }
        }
    }
}

impl Talker {
    pub(crate) fn new(client: Client, to: &'static str) -> Talker {
        Talker { client, to, told: Vec::new(), outstanding: Vec::new(), heard: Heard::default() }
    }

    /// Even numbers go to the user, odd ones to the group.
    fn say(&mut self) {
        let number = self.told.len();
        let mut frame =
            if number.is_multiple_of(2) { to_user(self.to, number) } else { to_group("room", number) };
        if number % 2 == 1 {
            frame["noEcho"] = true.into();
        }
        let ack = self.client.send_acked(frame);
        self.outstanding.push((ack, number));
        self.told.push(None);
    }

    fn hear(&mut self) {
        let frame = self.client.next();
        if frame["type"] != "ack" {
            return self.heard.take(&frame);
        }
        let at = self.outstanding.iter().position(|(ack, _)| frame["ackId"] == *ack);
        let (_, number) = self.outstanding.remove(at.unwrap_or_else(|| panic!("{frame} comes twice")));
        assert_eq!(frame["success"], true, "{frame}");
        self.told[number] = frame["delivered"].as_u64();
        // Each of those that should get it is on a node of its own: who could not be given it is counted.
        let audience = if number.is_multiple_of(2) { 1 } else { 2 };
        if let Some(delivered) = self.told[number] {
            assert_eq!(frame["unreachable"], audience - delivered, "{frame}");
            assert_eq!(frame["unknown"], 0, "{frame}");
        }
    }

    /// Talks until it is told to stop, and counts what it said.
    pub(crate) fn talk(&mut self, said: &AtomicUsize, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            while self.outstanding.len() < WINDOW {
                self.say();
                said.fetch_add(1, Ordering::Relaxed);
            }
            self.hear();
        }
        while !self.outstanding.is_empty() {
            self.hear();
        }
    }

    /// Says to the others that nothing more comes, and listens until they have said so.
    pub(crate) fn end(&mut self) {
        for mut frame in [to_user(self.to, "end"), to_group("room", "end")] {
            frame["noEcho"] = true.into();
            let ack = self.client.send_acked(frame);
            loop {
                let frame = self.client.next();
                if frame["ackId"] == ack {
                    assert!(frame["delivered"].as_u64() > Some(0), "{frame}");
                    break;
                }
                self.heard.take(&frame);
            }
        }
        while self.heard.ended.len() < 2 {
            let frame = self.client.next();
            self.heard.take(&frame);
        }
    }
}
