//! [`Sender`]: writes a hundred kept messages a second to groups and a hundred live ones to users, at an even pace, until it is told
//! to stop; and says kept ones again until they are stored.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::interval;

use super::crowd::{CLIENTS, Crowd};
use crate::link::{Link, Lost};

/// Time between two messages of a kind.
const PACE: Duration = Duration::from_millis(10);

/// What was sent.
#[derive(Default)]
pub(super) struct Sent {
    /// Kept messages that were stored: those of the numbers below.
    pub(super) kept: u64,
    /// Of each live message, by its number, to whom it went, and in which act.
    pub(super) live: Vec<(usize, usize)>,
}

/// The sender.
pub(super) struct Sender {
    /// Which act is being played.
    pub(super) act: Arc<AtomicUsize>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) sent: Sent,
    last_ack: u64,
    /// Kept messages without an answer, by ackId.
    waiting: HashMap<u64, u64>,
    /// Kept messages that were refused.
    again: VecDeque<u64>,
}

impl Sender {
    pub(super) fn new(act: Arc<AtomicUsize>, stop: watch::Receiver<bool>) -> Sender {
        Sender {
            act,
            stop,
            sent: Sent::default(),
            last_ack: 0,
            waiting: HashMap::new(),
            again: VecDeque::new(),
        }
    }

    /// Writes until it is to stop, and all that is kept is stored.
    ///
    /// # Errors
    /// When its own node, which nobody ends, cuts it off.
    pub(super) async fn run(mut self, node: SocketAddr, user: String) -> Result<Sent, Lost> {
        let mut link = Link::open(node, &user).await?;
        let mut pace = interval(PACE);
        loop {
            let is_over = *self.stop.borrow();
            if is_over && self.waiting.is_empty() && self.again.is_empty() {
                return Ok(self.sent);
            }
            tokio::select! {
                _ = pace.tick() => {
                    if let Some(number) = self.again.pop_front() {
                        self.keep(&mut link, number).await?;
                    }
                    if !is_over {
                        let number = self.sent.kept;
                        self.sent.kept += 1;
                        self.keep(&mut link, number).await?;
                        self.tell(&mut link).await?;
                    }
                }
                frame = link.next() => self.hear(&frame?),
            }
        }
    }

    async fn say(&mut self, link: &mut Link, mut frame: Value) -> Result<u64, Lost> {
        self.last_ack += 1;
        frame["ackId"] = self.last_ack.into();
        frame["dataType"] = "json".into();
        link.send(&frame).await?;
        Ok(self.last_ack)
    }

    async fn keep(&mut self, link: &mut Link, number: u64) -> Result<(), Lost> {
        let group = Crowd::group(number);
        let id = format!("kept-{number}");
        let frame = json!({"type": "sendToGroup", "group": group, "data": number, "messageId": id});
        let ack = self.say(link, frame).await?;
        self.waiting.insert(ack, number);
        Ok(())
    }

    async fn tell(&mut self, link: &mut Link) -> Result<(), Lost> {
        let number = self.sent.live.len();
        // Everybody in turn, and not in the order of their names.
        let who = number * 617 % CLIENTS;
        self.sent.live.push((who, self.act.load(Ordering::Relaxed)));
        let frame = json!({"type": "sendToUser", "user": Crowd::user(who), "data": number});
        self.say(link, frame).await?;
        Ok(())
    }

    fn hear(&mut self, frame: &Value) {
        let Some(number) = frame["ackId"].as_u64().and_then(|ack| self.waiting.remove(&ack)) else { return };
        if frame["success"] != true {
            self.again.push_back(number);
        }
    }
}
