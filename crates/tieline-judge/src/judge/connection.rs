//! [`Walk`]: one receiver's events, one connection after the other.

use std::collections::HashMap;

use super::live::{Memberships, Streams};
use super::logs::Held;
use super::{Case, Place};
use crate::history::{Kind, Message, Outcome, Position, What};
use crate::verdict::Rule;

/// Where a connection stands with a target. Out, where there is nothing.
#[derive(Clone, Copy)]
enum Standing {
    /// It has asked, for what it missed too or not.
    Asked(Option<Position>),
    In,
}

/// What one receiver heard in all its connections.
#[derive(Default)]
pub(super) struct Walk {
    receiver: usize,
    /// By target, on the present connection.
    standing: HashMap<u16, Standing>,
    streams: Streams,
    /// Durable messages.
    pub(super) held: Held,
    /// When it was in live groups, and what it heard there.
    pub(super) memberships: Memberships,
}

impl Walk {
    /// Judges everything that is said of what came; what did not come is for others.
    pub(super) fn through(case: &mut Case<'_>, receiver: usize) -> Walk {
        let mut walk = Walk { receiver, ..Walk::default() };
        for (index, event) in case.history.receivers[receiver].events.iter().enumerate() {
            let place = Place { receiver, event: Some(index), at: event.at };
            walk.step(case, place, event.connection, &event.what);
        }
        walk.end(case, case.history.end);
        walk
    }

    fn step(&mut self, case: &mut Case<'_>, place: Place, connection: u32, what: &What) {
        match what {
            What::Opened => {
                self.end(case, place.at);
                case.verdict.counts.connections += 1;
            }
            What::Closed => self.end(case, place.at),
            What::Asked { target, since } => {
                self.standing.insert(*target, Standing::Asked(*since));
                self.held.asked(*target, *since);
                self.streams.forget(*target);
            }
            What::Joined { target, recovered, position } => {
                let asked = self.standing.insert(*target, Standing::In);
                if !case.is_durable(*target) {
                    self.memberships.begin(*target, place.at);
                    return;
                }
                let since = match asked {
                    Some(Standing::Asked(since)) => since,
                    _ => None,
                };
                self.held.joined(case, place, *target, since, recovered.as_ref(), *position);
            }
            What::Leaving(target) => self.memberships.end(*target, place.at),
            What::Left(target) => {
                self.standing.remove(target);
                self.held.left(*target);
                self.streams.forget(*target);
            }
            What::Gap => {
                case.verdict.counts.notices += 1;
                self.streams.notice(place);
            }
            What::Strange(text) => {
                case.find(Rule::Phantom, place, None, format!("got on connection {connection}: {text}"));
            }
            What::Heard { by, message, position } => self.heard(case, place, *by, *message, *position),
        }
    }

    fn heard(
        &mut self,
        case: &mut Case<'_>,
        place: Place,
        by: u16,
        message: Message,
        position: Option<Position>,
    ) {
        let words = case.history.words(message);
        let Some(send) = case.sends.get(&message).copied() else {
            return case.find(Rule::Phantom, place, Some(message), format!("got {words}, which nobody sent"));
        };
        if send.outcome == Outcome::Refused {
            let what = format!("got {words}, of which its sender was told that it was refused");
            case.find(Rule::Refused, place, Some(message), what);
        }
        self.check_audience(case, place, by, message);
        if case.is_durable(message.target) != position.is_some() {
            let has = if position.is_some() { "with" } else { "without" };
            return case.find(Rule::Unplaced, place, Some(message), format!("got {words} {has} a position"));
        }
        match position {
            Some(position) => self.held.heard(case, place, message, position),
            None => {
                case.verdict.counts.live_heard += 1;
                self.memberships.heard(message);
                self.streams.heard(case, place, message, send);
            }
        }
    }

    /// Nothing goes to somebody else, or by another way.
    fn check_audience(&self, case: &mut Case<'_>, place: Place, by: u16, message: Message) {
        let history = case.history;
        let words = history.words(message);
        let mut outsider = |what: String| case.find(Rule::Outsider, place, Some(message), what);
        if by != message.target {
            return outsider(format!("got {words} by another target"));
        }
        let user = &history.receivers[self.receiver].user;
        let is_in_turn = match &history.targets[usize::from(by)].kind {
            Kind::Inbox(owner) if owner != user => {
                return outsider(format!("got {words}, which is {owner}'s"));
            }
            // It comes by itself where nobody has asked for it in time.
            Kind::Inbox(_) => true,
            Kind::Durable => matches!(self.standing.get(&by), Some(Standing::In | Standing::Asked(Some(_)))),
            Kind::Live => matches!(self.standing.get(&by), Some(Standing::In)),
        };
        if !is_in_turn {
            outsider(format!("got {words} before it was let in, or after it had left"));
        }
    }

    /// The connection is over.
    fn end(&mut self, case: &mut Case<'_>, at: u32) {
        self.standing.clear();
        self.held.cut();
        self.memberships.end_all(at);
        let streams = std::mem::take(&mut self.streams);
        streams.find_untold(case, self.receiver, at);
    }
}
