//! [`Verdict`]: what was counted, and of each rule that was broken how often and where first.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::history::{History, Message};
use crate::words::{event_in_words, send_in_words};

/// Sends of the same series that are shown before and after the one in question.
const SENDS_AROUND: usize = 3;

/// Events of the receiver that are shown before and after.
const EVENTS_AROUND: usize = 6;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A message to a durable target that was acknowledged, or has a place in the log, and somebody of its audience never got it.
    Lost,
    /// One message at two places of a log, or a live one twice on one connection.
    Duplicate,
    /// One place of a log, and two messages.
    Disorder,
    /// On one connection, a place of a log that is not behind the one before.
    Backwards,
    /// On one connection, a place of a log that was passed over.
    Hole,
    /// On one connection, a log that goes on in another epoch, though the store has lost nothing.
    Renewed,
    /// A receiver was told that what it has missed is gone.
    NotRecovered,
    /// A message that nobody sent.
    Phantom,
    /// A message whose sender was told that nobody would get it.
    Refused,
    /// A message for those who had not joined, or for another user, or by another target than its own.
    Outsider,
    /// A durable message without its place in the log, or a live one with one.
    Unplaced,
    /// A live message behind a later one of the same sender's connection to the same target.
    Reordered,
    /// Live messages that are missing between two others, and the receiver was not told of a gap.
    Untold,
    /// A live message that a member did not get although nothing was broken.
    MissedInCalm,
}

impl Rule {
    /// All of them, in the order in which they are told.
    pub const ALL: [Rule; 14] = [
        Rule::Lost,
        Rule::Duplicate,
        Rule::Disorder,
        Rule::Backwards,
        Rule::Hole,
        Rule::Renewed,
        Rule::NotRecovered,
        Rule::Phantom,
        Rule::Refused,
        Rule::Outsider,
        Rule::Unplaced,
        Rule::Reordered,
        Rule::Untold,
        Rule::MissedInCalm,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rule::Lost => "acknowledged and not received",
            Rule::Duplicate => "received twice",
            Rule::Disorder => "two messages at one place",
            Rule::Backwards => "places that go back",
            Rule::Hole => "places passed over",
            Rule::Renewed => "logs that begin anew",
            Rule::NotRecovered => "not recovered",
            Rule::Phantom => "never sent",
            Rule::Refused => "refused and received",
            Rule::Outsider => "received by others",
            Rule::Unplaced => "with a wrong position",
            Rule::Reordered => "live, out of order",
            Rule::Untold => "live, missing without a notice",
            Rule::MissedInCalm => "live, missing in calm",
        })
    }
}

/// One breach of a rule.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was broken.
    pub rule: Rule,
    /// Whose promise it was: a place in [`History::receivers`].
    pub receiver: usize,
    /// The message that it is about, if it is one that can be named.
    pub message: Option<Message>,
    /// Where it was seen: a place in the receiver's events. None for what never came.
    pub event: Option<usize>,
    /// When, in milliseconds of the run.
    pub at: u32,
    /// The sentence that says it.
    pub what: String,
}

/// Breaches of one rule.
#[derive(Clone, Debug)]
pub struct Broken {
    /// How many there are.
    pub count: u64,
    /// The earliest, which those after it may have followed from.
    pub first: Finding,
}

/// How large a history was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages to durable targets by what came of them: acknowledged, refused, unknown.
    pub durable: [u64; 3],
    /// The same for live ones.
    pub live: [u64; 3],
    /// Durable messages that were heard, each once for each receiver.
    pub durable_heard: u64,
    /// Those that came again to somebody who had them, at the same place.
    pub again: u64,
    /// Live messages that were heard.
    pub live_heard: u64,
    /// Connections of receivers.
    pub connections: u64,
    /// Joins that asked for what was missed and got it.
    pub recovered: u64,
    /// Notices of a gap.
    pub notices: u64,
    /// Holes between live messages: all, and those whose connection ended before a notice was due.
    pub holes: [u64; 2],
    /// Logs of which somebody heard something.
    pub logs: u64,
}

/// What the judge says.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// How large the history was.
    pub counts: Counts,
    /// The rules that were broken; none is what is wanted.
    pub broken: BTreeMap<Rule, Broken>,
}

impl Verdict {
    /// Adds a breach.
    pub(crate) fn find(&mut self, finding: Finding) {
        match self.broken.get_mut(&finding.rule) {
            Some(broken) => {
                broken.count += 1;
                if finding.at < broken.first.at {
                    broken.first = finding;
                }
            }
            None => {
                self.broken.insert(finding.rule, Broken { count: 1, first: finding });
            }
        }
    }

    /// Whether everything promised was kept.
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }

    /// The sizes of the history and of each set, and of each broken rule the first breach with what stands around it in the
    /// histories of sender and receiver.
    pub fn report(&self, history: &History) -> String {
        let mut text = format!("{}\n", self.counts);
        for rule in Rule::ALL {
            let count = self.broken.get(&rule).map_or(0, |broken| broken.count);
            let _ = writeln!(text, "{rule:>34}: {count}");
        }
        for broken in self.broken.values() {
            let _ = write!(text, "\n{}", context(&broken.first, history));
        }
        text
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = |[acked, refused, unknown]: [u64; 3]| {
            format!(
                "{} sent ({acked} acknowledged, {refused} refused, {unknown} unknown)",
                acked + refused + unknown
            )
        };
        writeln!(
            f,
            "durable: {}, {} heard and {} again, in {} logs",
            sent(self.durable),
            self.durable_heard,
            self.again,
            self.logs
        )?;
        let [holes, excused] = self.holes;
        writeln!(
            f,
            "live: {}, {} heard, {holes} holes, {excused} of them at the end of a connection",
            sent(self.live),
            self.live_heard
        )?;
        write!(
            f,
            "receivers: {} connections, {} recoveries, {} notices of a gap",
            self.connections, self.recovered, self.notices
        )
    }
}

/// A breach, and the lines around it in both histories.
fn context(finding: &Finding, history: &History) -> String {
    let receiver = &history.receivers[finding.receiver];
    let mut text = format!("{}: {}: {}\n", finding.rule, receiver.name, finding.what);
    let sender = finding
        .message
        .and_then(|message| Some((message, history.senders.get(usize::from(message.sender))?)));
    if let Some((message, sender)) = sender {
        let _ = writeln!(text, "  {} to {}:", sender.name, history.target(message.target));
        let series: Vec<_> = sender.sends.iter().filter(|send| send.target == message.target).collect();
        let at = series.iter().position(|send| send.counter == message.counter).unwrap_or(series.len());
        for (index, send) in around(&series, at, SENDS_AROUND) {
            let mark = if index == at { '>' } else { ' ' };
            let _ = writeln!(text, "  {mark} {}", send_in_words(send, history));
        }
    }
    let events = &receiver.events;
    let at = finding.event.unwrap_or_else(|| events.partition_point(|event| event.at < finding.at));
    let _ = writeln!(text, "  {} (user {}):", receiver.name, receiver.user);
    for (index, event) in around(events, at, EVENTS_AROUND) {
        let mark = if Some(index) == finding.event { '>' } else { ' ' };
        let _ = writeln!(text, "  {mark} {}", event_in_words(event, history));
    }
    text
}

fn around<T>(all: &[T], at: usize, many: usize) -> impl Iterator<Item = (usize, &T)> {
    let from = at.saturating_sub(many).min(all.len());
    let to = (at + many + 1).min(all.len());
    all[from..to].iter().enumerate().map(move |(index, one)| (from + index, one))
}
