//! [`Listener`]: a receiver, which joins groups and its inbox, is cut now and then, and comes back for what it missed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tieline_judge::{Dice, Event, Kind, Position, Receiver, What};
use tokio::time::{Instant, sleep, sleep_until};

use super::sender::of_payload;
use super::stage::{Phase, Stage, Tally};
use crate::link::{Link, Lost};

/// Pause before a new attempt to connect, and to join what could not be joined.
const PAUSE: Duration = Duration::from_millis(300);

/// Of a hundred connections, so many ask for more than they have missed, or, of an inbox, from where the server knows them to be.
const FORGETFUL: usize = 25;

/// How many places back such a connection asks.
const FORGOTTEN: u64 = 5;

/// For how many milliseconds a connection stays that is not restless.
const STAYS: u64 = 120_000;

/// Inbox messages between two reports of how far it has read.
const READ_EVERY: u64 = 20;

/// What runs and waiting for them need to know of a listener.
#[derive(Default)]
pub(super) struct Progress {
    /// It was let in everywhere once.
    pub(super) is_present: AtomicBool,
    /// How many of its durable targets have said their last words to it.
    pub(super) finished: AtomicUsize,
}

/// What it asked for and has no answer to.
#[derive(Clone, Copy)]
enum Asked {
    In(u16),
    Out(u16),
}

/// A receiver.
pub(super) struct Listener {
    stage: Arc<Stage>,
    dice: Dice,
    history: Receiver,
    /// The sender whose messages are the last.
    last_sender: u16,
    /// Its durable targets. They are never left.
    pub(super) durable: Vec<u16>,
    /// Whether it connects anew every few seconds, though nothing is broken.
    is_restless: bool,
    /// Whether it wants everything from each log's first message on.
    is_late: bool,
    connection: u32,
    last_ack: u64,
    asked: HashMap<u64, Asked>,
    /// Live groups, on this connection.
    live: BTreeSet<u16>,
    /// The last place it has of each log.
    has: BTreeMap<u16, Position>,
    /// The durable targets that have let it in on this connection.
    inside: BTreeSet<u16>,
    finished: BTreeSet<u16>,
    /// Inbox messages since it reported how far it has read.
    unread: u64,
    pub(super) progress: Arc<Progress>,
}

fn position(value: &Value) -> Option<Position> {
    Some(Position { epoch: value["epoch"].as_u64()?, offset: value["offset"].as_u64()? })
}

fn wire(position: Position) -> Value {
    json!({"epoch": position.epoch, "offset": position.offset})
}

impl Listener {
    /// A receiver of its own inbox and of some groups.
    pub(super) fn new(stage: &Arc<Stage>, number: usize, last_sender: u16, mut dice: Dice) -> Listener {
        let user = format!("u{}", number / 2);
        let groups = stage.targets_of(|kind| *kind == Kind::Durable);
        // The first is in all groups, so that each has somebody.
        let groups = groups.into_iter().filter(|_| number == 0 || dice.chance(70));
        let inbox = stage.targets_of(|kind| *kind == Kind::Inbox(user.clone()));
        let durable = groups.chain(inbox).collect();
        Listener {
            stage: Arc::clone(stage),
            history: Receiver { name: format!("r{number}"), user, events: Vec::new() },
            last_sender,
            durable,
            is_restless: number % 2 == 1,
            is_late: number % 3 == 2,
            connection: 0,
            last_ack: 0,
            asked: HashMap::new(),
            live: BTreeSet::new(),
            has: BTreeMap::new(),
            inside: BTreeSet::new(),
            finished: BTreeSet::new(),
            unread: 0,
            progress: Arc::default(),
            dice,
        }
    }

    /// Listens until the run is over, and returns what was heard.
    pub(super) async fn run(mut self) -> Receiver {
        let mut phase = self.stage.phase.subscribe();
        loop {
            let over = phase.wait_for(|phase| *phase >= Phase::Over);
            tokio::select! {
                _ = over => break,
                () = self.connect_and_listen() => {}
            }
            self.cut();
        }
        self.history
    }

    fn note(&mut self, what: What) {
        let (at, connection) = (self.stage.now(), self.connection);
        self.history.events.push(Event { at, connection, what });
    }

    fn cut(&mut self) {
        self.asked.clear();
        self.live.clear();
        self.inside.clear();
        self.note(What::Closed);
    }

    async fn connect_and_listen(&mut self) {
        let door = self.dice.pick(&self.stage.doors());
        self.connection += 1;
        match Link::open(door, &self.history.user).await {
            Ok(mut link) => {
                Tally::one(&self.stage.tally.opened);
                self.note(What::Opened);
                let _: Result<(), Lost> = self.listen(&mut link).await;
            }
            Err(Lost) => sleep(PAUSE).await,
        }
    }

    async fn listen(&mut self, link: &mut Link) -> Result<(), Lost> {
        for target in self.durable.clone() {
            self.ask_in(link, target).await?;
        }
        for target in self.stage.targets_of(|kind| *kind == Kind::Live) {
            if self.dice.chance(60) {
                self.ask_in(link, target).await?;
            }
        }
        let begun = Instant::now();
        // By itself it goes after a while, at rest too. One that stays has the time to be told of a gap.
        let stays = if self.is_restless { 2000 + self.dice.below(15_000) as u64 } else { STAYS };
        let goes = begun + Duration::from_millis(stays);
        let mut turns = begun + Duration::from_secs(1);
        loop {
            tokio::select! {
                frame = link.next() => {
                    let frame = frame?;
                    self.heard(link, &frame).await?;
                }
                () = sleep_until(turns) => {
                    turns = Instant::now() + Duration::from_millis(500 + self.dice.below(3000) as u64);
                    self.turn(link).await?;
                }
                () = sleep_until(goes) => return Ok(()),
            }
            let is_present = self.asked.is_empty() && self.inside.len() == self.durable.len();
            if is_present {
                self.progress.is_present.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Asks for what it is not in, and joins or leaves a live group.
    async fn turn(&mut self, link: &mut Link) -> Result<(), Lost> {
        if !self.asked.is_empty() {
            return Ok(());
        }
        for target in self.durable.clone() {
            if !self.inside.contains(&target) {
                self.ask_in(link, target).await?;
            }
        }
        let target = self.dice.pick(&self.stage.targets_of(|kind| *kind == Kind::Live));
        if !self.live.contains(&target) {
            return self.ask_in(link, target).await;
        }
        if self.dice.chance(30) {
            self.note(What::Leaving(target));
            let group = self.stage.targets[usize::from(target)].name.clone();
            return self.ask(link, Asked::Out(target), json!({"type": "leaveGroup", "group": group})).await;
        }
        Ok(())
    }

    async fn ask(&mut self, link: &mut Link, asked: Asked, mut frame: Value) -> Result<(), Lost> {
        self.last_ack += 1;
        frame["ackId"] = self.last_ack.into();
        self.asked.insert(self.last_ack, asked);
        link.send(&frame).await
    }

    async fn ask_in(&mut self, link: &mut Link, target: u16) -> Result<(), Lost> {
        let kind = self.stage.kind(target).clone();
        let is_forgetful = self.dice.chance(FORGETFUL);
        let since = match (&kind, self.has.get(&target).copied()) {
            (Kind::Live, _) => None,
            (Kind::Inbox(_), Some(_)) if is_forgetful => None,
            (_, Some(has)) if is_forgetful && has.offset > FORGOTTEN => {
                Some(Position { offset: has.offset - FORGOTTEN, ..has })
            }
            (_, Some(has)) => Some(has),
            (Kind::Inbox(_), None) => Some(Position::START),
            (Kind::Durable, None) => self.is_late.then_some(Position::START),
        };
        let mut frame = match kind {
            Kind::Inbox(_) => json!({"type": "hello", "device": self.history.name}),
            _ => json!({"type": "joinGroup", "group": self.stage.targets[usize::from(target)].name}),
        };
        if let Some(since) = since {
            let key = if frame["type"] == "hello" { "inbox" } else { "since" };
            frame[key] = wire(since);
        }
        self.note(What::Asked { target, since });
        self.ask(link, Asked::In(target), frame).await
    }

    async fn heard(&mut self, link: &mut Link, frame: &Value) -> Result<(), Lost> {
        match frame["type"].as_str() {
            Some("message") => self.heard_message(link, frame).await?,
            Some("ack") => self.heard_ack(frame)?,
            Some("system") if frame["event"] == "gap" => {
                Tally::one(&self.stage.tally.gaps);
                self.note(What::Gap);
            }
            _ => self.note(What::Strange(frame.to_string())),
        }
        Ok(())
    }

    async fn heard_message(&mut self, link: &mut Link, frame: &Value) -> Result<(), Lost> {
        Tally::one(&self.stage.tally.heard);
        let by = match (frame["group"].as_str(), frame["toUserId"].as_str()) {
            (Some(group), _) => self.stage.find(group, true),
            (None, Some(user)) => self.stage.find(user, false),
            (None, None) => None,
        };
        let (Some(by), Some(message)) = (by, of_payload(&frame["data"])) else {
            self.note(What::Strange(frame.to_string()));
            return Ok(());
        };
        if frame["fromUserId"] != format!("s{}", message.sender) {
            self.note(What::Strange(frame.to_string()));
        }
        let position = position(&frame["position"]);
        self.note(What::Heard { by, message, position });
        let Some(position) = position else { return Ok(()) };
        // Not past a hole: what came by itself, because the question for the inbox was late, is behind what it has missed.
        let has = self.has.entry(by).or_insert(Position::START);
        let is_next = *has == Position::START || has.epoch == position.epoch;
        if is_next && position.offset == has.offset + 1 {
            *has = position;
        }
        if message.sender == self.last_sender && self.durable.contains(&by) && self.finished.insert(by) {
            self.progress.finished.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(self.stage.kind(by), Kind::Inbox(_)) {
            self.unread += 1;
            if self.unread >= READ_EVERY {
                self.unread = 0;
                return link.send(&json!({"type": "inboxAck", "offset": position.offset})).await;
            }
        }
        Ok(())
    }

    fn heard_ack(&mut self, frame: &Value) -> Result<(), Lost> {
        let asked = frame["ackId"].as_u64().and_then(|ack| self.asked.remove(&ack));
        let is_done = frame["success"] == true;
        match asked {
            Some(Asked::In(target)) if is_done => {
                let position = position(&frame["position"]);
                let reason = || frame["reason"].as_str().unwrap_or("no reason is given").to_owned();
                let recovered =
                    frame["recovered"].as_bool().map(|whole| if whole { Ok(()) } else { Err(reason()) });
                if *self.stage.kind(target) == Kind::Live {
                    self.live.insert(target);
                } else {
                    self.inside.insert(target);
                    if let Some(position) = position {
                        self.has.insert(target, position);
                    }
                }
                self.note(What::Joined { target, recovered, position });
            }
            Some(Asked::In(target)) => {
                self.note(What::Left(target));
                // Asked too late, it is given nothing of its inbox that it has missed on this connection.
                if matches!(self.stage.kind(target), Kind::Inbox(_)) {
                    return Err(Lost);
                }
            }
            Some(Asked::Out(target)) if is_done => {
                self.live.remove(&target);
                self.note(What::Left(target));
            }
            // It stays a member: nobody promised it otherwise.
            Some(Asked::Out(_)) => {}
            None => self.note(What::Strange(frame.to_string())),
        }
        Ok(())
    }
}
