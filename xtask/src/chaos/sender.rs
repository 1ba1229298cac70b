//! [`Speaker`]: a sender, which says numbers to targets, and says durable ones again until it knows what became of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tieline_judge::{Dice, Kind, Message, Outcome, Send, Sender};
use tokio::time::{Instant, sleep, sleep_until};

use super::stage::{Phase, Stage, Tally};
use crate::link::{Link, Lost};

/// Sends that may wait for their answer at once; beyond that nothing new is said.
const WINDOW: usize = 64;

/// Pause before a new attempt to connect, and before a send is said again that was not stored.
const PAUSE: Duration = Duration::from_millis(300);

/// Of a hundred durable sends that are refused for certain, so many are given up, so that it shows whether somebody gets them.
const GIVEN_UP: usize = 30;

/// Much later than any run's end.
const NEVER: Duration = Duration::from_secs(1 << 20);

/// What a message carries: who it is, and as many letters as its number says.
pub(super) fn payload(message: Message) -> Value {
    let Message { sender, target, counter } = message;
    json!({"s": sender, "t": target, "c": counter, "pad": "x".repeat(counter as usize * 7 % 150)})
}

/// The message of a payload, if it is one and whole.
pub(super) fn of_payload(data: &Value) -> Option<Message> {
    let number = |key: &str| data[key].as_u64();
    let message = Message {
        sender: number("s")?.try_into().ok()?,
        target: number("t")?.try_into().ok()?,
        counter: number("c")?.try_into().ok()?,
    };
    (payload(message) == *data).then_some(message)
}

/// A sender.
pub(super) struct Speaker {
    stage: Arc<Stage>,
    number: u16,
    dice: Dice,
    /// Time between two messages.
    pace: Duration,
    /// What it says, if not anything at random: each once.
    script: Option<VecDeque<u16>>,
    history: Sender,
    /// The number that comes next, by target.
    counters: Vec<u32>,
    connection: u32,
    last_ack: u64,
    /// Sends that were said on this connection and have no answer, by their ackId.
    waiting: HashMap<u64, usize>,
    /// Durable sends that are to be said again, and when.
    again: VecDeque<(Instant, usize)>,
    /// Those of which some attempt may have been stored.
    unsure: HashSet<usize>,
    /// Raised when everything that was said has its answer and nothing more will be said.
    pub(super) is_done: Arc<AtomicBool>,
}

impl Speaker {
    /// One that says something at this pace while the run is talking.
    pub(super) fn new(stage: &Arc<Stage>, number: u16, dice: Dice, pace: Duration) -> Speaker {
        Speaker {
            stage: Arc::clone(stage),
            number,
            dice,
            pace,
            script: None,
            history: Sender { name: format!("s{number}"), sends: Vec::new() },
            counters: vec![0; stage.targets.len()],
            connection: 0,
            last_ack: 0,
            waiting: HashMap::new(),
            again: VecDeque::new(),
            unsure: HashSet::new(),
            is_done: Arc::default(),
        }
    }

    /// One that says one message to each target, whatever the phase.
    pub(super) fn last_words(stage: &Arc<Stage>, number: u16, dice: Dice) -> Speaker {
        let script = (0..stage.targets.len() as u16).collect();
        Speaker { script: Some(script), ..Speaker::new(stage, number, dice, Duration::from_millis(10)) }
    }

    /// Speaks until the run is draining, and returns what was said.
    pub(super) async fn run(mut self) -> Sender {
        let mut phase = self.stage.phase.subscribe();
        let end = if self.script.is_some() { Phase::Over } else { Phase::Draining };
        loop {
            let over = phase.wait_for(|phase| *phase >= end);
            tokio::select! {
                _ = over => break,
                () = self.connect_and_speak() => {}
            }
            self.cut();
            if self.script.is_some() && self.has_said_all() {
                break;
            }
        }
        self.history
    }

    fn has_said_all(&self) -> bool {
        let says_more = match &self.script {
            Some(script) => !script.is_empty(),
            None => *self.stage.phase.borrow() < Phase::Settling,
        };
        !says_more && self.waiting.is_empty() && self.again.is_empty()
    }

    /// The connection is over: what has no answer may have arrived or not.
    fn cut(&mut self) {
        let now = Instant::now();
        let mut unanswered: Vec<_> = self.waiting.drain().map(|(_, send)| send).collect();
        unanswered.sort_unstable();
        for send in unanswered {
            if self.is_durable(send) {
                self.unsure.insert(send);
                self.again.push_back((now, send));
            }
        }
    }

    fn is_durable(&self, send: usize) -> bool {
        *self.stage.kind(self.history.sends[send].target) != Kind::Live
    }

    async fn connect_and_speak(&mut self) {
        let door = self.dice.pick(&self.stage.doors());
        self.connection += 1;
        match Link::open(door, &self.history.name).await {
            Ok(mut link) => {
                let _: Result<(), Lost> = self.speak(&mut link).await;
            }
            Err(Lost) => sleep(PAUSE).await,
        }
    }

    async fn speak(&mut self, link: &mut Link) -> Result<(), Lost> {
        let mut phase = self.stage.phase.subscribe();
        let mut next = Instant::now();
        loop {
            let is_silent = match &self.script {
                Some(script) => script.is_empty(),
                None => *phase.borrow_and_update() != Phase::Talking,
            };
            if self.has_said_all() && *self.stage.phase.borrow() >= Phase::Settling {
                self.is_done.store(true, Ordering::Relaxed);
                if self.script.is_some() {
                    return Ok(());
                }
            }
            let has_room = self.waiting.len() < WINDOW;
            let never = Instant::now() + NEVER;
            let says = if is_silent || !has_room { never } else { next };
            let repeats = self.again.front().filter(|_| has_room).map_or(never, |(at, _)| *at);
            tokio::select! {
                frame = link.next() => {
                    let frame = frame?;
                    self.heard(&frame);
                }
                () = sleep_until(says) => {
                    next = (next + self.pace).max(Instant::now());
                    let send = self.make();
                    self.say(link, send).await?;
                }
                () = sleep_until(repeats) => {
                    let (_, send) = self.again.pop_front().expect("the first one's time has come");
                    Tally::one(&self.stage.tally.repeated);
                    self.say(link, send).await?;
                }
                changed = phase.changed() => changed.map_err(|_| Lost)?,
            }
        }
    }

    /// Makes a message to a target.
    fn make(&mut self) -> usize {
        let target = match &mut self.script {
            Some(script) => script.pop_front().expect("a script that is over is silent"),
            None => {
                let live = self.stage.targets_of(|kind| *kind == Kind::Live);
                let durable = self.stage.targets_of(|kind| *kind == Kind::Durable);
                let inboxes = self.stage.targets_of(|kind| matches!(kind, Kind::Inbox(_)));
                let of = [(4, &live), (4, &durable), (2, &inboxes)];
                let of: Vec<_> = of.into_iter().filter(|(_, targets)| !targets.is_empty()).collect();
                let targets = self.dice.weighed(&of);
                self.dice.pick(targets)
            }
        };
        let counter = &mut self.counters[usize::from(target)];
        let (at, connection) = (self.stage.now(), self.connection);
        let send = Send { target, counter: *counter, at, connection, outcome: Outcome::Unknown };
        *counter += 1;
        self.history.sends.push(send);
        Tally::one(&self.stage.tally.sent);
        self.history.sends.len() - 1
    }

    async fn say(&mut self, link: &mut Link, send: usize) -> Result<(), Lost> {
        let Send { target, counter, .. } = self.history.sends[send];
        let message = Message { sender: self.number, target, counter };
        let name = &self.stage.targets[usize::from(target)].name;
        self.last_ack += 1;
        let mut frame = match self.stage.kind(target) {
            Kind::Inbox(user) => json!({"type": "sendToUser", "user": user}),
            Kind::Live | Kind::Durable => json!({"type": "sendToGroup", "group": name}),
        };
        frame["dataType"] = "json".into();
        frame["data"] = payload(message);
        frame["ackId"] = self.last_ack.into();
        if self.is_durable(send) {
            frame["messageId"] = format!("{}-{target}-{counter}", self.number).into();
        }
        self.waiting.insert(self.last_ack, send);
        link.send(&frame).await
    }

    fn heard(&mut self, frame: &Value) {
        let Some(send) = frame["ackId"].as_u64().and_then(|ack| self.waiting.remove(&ack)) else { return };
        if frame["success"] == true {
            self.history.sends[send].outcome = Outcome::Acked;
            Tally::one(&self.stage.tally.acked);
            return;
        }
        Tally::one(&self.stage.tally.refused);
        let is_unknown = frame["error"]["name"] == "StoreUnknown";
        if is_unknown {
            self.unsure.insert(send);
        }
        let is_scripted = self.script.is_some();
        let is_unsure = self.unsure.contains(&send);
        if self.is_durable(send) && (is_unsure || is_scripted || !self.dice.chance(GIVEN_UP)) {
            self.again.push_back((Instant::now() + PAUSE, send));
        } else if !is_unsure {
            self.history.sends[send].outcome = Outcome::Refused;
        }
    }
}
