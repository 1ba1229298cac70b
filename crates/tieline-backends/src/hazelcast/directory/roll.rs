//! [`Roll`]: which nodes have put their users into the map, and [`View`]: what this node has last seen of it. Without I/O. Tested here.
//!
//! ```text
//! nodes                          NEXT NODE.NUMBER NODE.NUMBER? …     `?`: it has not put all its users there yet
//! node/NODE.NUMBER               a node's lease: it ends when the node has not renewed it
//! ```
//!
//! A node that has to put its users there anew comes with a new number, and what it left under an earlier one counts no longer. So
//! an entry that was written late, or brought back, misleads nobody. Numbers go up, also beyond a roll that is gone: they are at least the
//! milliseconds of the clock, and entering takes longer than one.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tieline_proto::Incarnation;
use tokio::time::Instant;

/// The key of the roll.
pub(super) const ROLL: &str = "nodes";

/// What is behind the name of a node that has not put all its users there.
const ENTERING: char = '?';

/// A node from when it enters until its lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Stay {
    pub(super) node: Incarnation,
    pub(super) number: u64,
}

impl Stay {
    /// The key of its lease.
    pub(super) fn lease(&self) -> String {
        format!("node/{self}")
    }
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.node.0, self.number)
    }
}

impl FromStr for Stay {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (node, number) = text.split_once('.').ok_or(())?;
        let node = u64::from_str_radix(node, 16).map_err(drop)?;
        Ok(Stay { node: Incarnation(node), number: number.parse().map_err(drop)? })
    }
}

/// Those that have entered, and whether each has put all its users there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roll {
    /// The least number that nobody had yet.
    next: u64,
    stays: Vec<(Stay, bool)>,
}

impl Roll {
    /// Reads one. What is none, or in part, counts as not being there.
    pub(super) fn read(text: Option<&str>) -> Roll {
        let mut words = text.unwrap_or_default().split(' ');
        let next = words.next().and_then(|next| next.parse().ok()).unwrap_or(0);
        let stay = |word: &str| match word.strip_suffix(ENTERING) {
            Some(entering) => Some((entering.parse().ok()?, false)),
            None => Some((word.parse().ok()?, true)),
        };
        Roll { next, stays: words.filter_map(stay).collect() }
    }

    /// As it is written; nothing where nobody is on it.
    pub(super) fn text(&self) -> Option<String> {
        let words = self.stays.iter().map(|(stay, is_ready)| match is_ready {
            true => format!(" {stay}"),
            false => format!(" {stay}{ENTERING}"),
        });
        (!self.stays.is_empty()).then(|| std::iter::once(self.next.to_string()).chain(words).collect())
    }

    /// A node enters, at so many milliseconds by the clock.
    pub(super) fn enter(&mut self, node: Incarnation, now: u64, above: u64) -> Stay {
        let stay = Stay { node, number: self.next.max(now).max(above + 1) };
        self.next = stay.number + 1;
        self.stays.push((stay, false));
        stay
    }

    /// All its users are there. Returns whether it is on the roll.
    pub(super) fn ready(&mut self, stay: Stay) -> bool {
        let place = self.stays.iter_mut().find(|(other, _)| *other == stay);
        place.map(|(_, is_ready)| *is_ready = true).is_some()
    }

    /// These are gone.
    pub(super) fn strike(&mut self, gone: &[Stay]) {
        self.stays.retain(|(stay, _)| !gone.contains(stay));
    }

    /// All who are on it.
    pub(super) fn stays(&self) -> impl Iterator<Item = Stay> {
        self.stays.iter().map(|(stay, _)| *stay)
    }

    /// Whether nobody but this one is on it.
    pub(super) fn is_only(&self, stay: Stay) -> bool {
        self.stays().all(|other| other == stay)
    }

    /// The regular expression for the entries of users that nobody holds or remembers but these and stays that are gone. Who enters after
    /// the roll was read has a number that is not below the next one, so its entries are not among them.
    pub(super) fn entries_without(&self, gone: &[Stay]) -> String {
        let kept = self.stays().filter(|stay| !gone.contains(stay));
        let kept: Vec<String> =
            kept.map(|stay| format!("(?!{}[=~])", stay.to_string().replace('.', "\\."))).collect();
        let token = format!("{}[0-9a-f]{{16}}\\.{}[=~][^ ]*", kept.concat(), below(self.next));
        format!("{token}(?: {token})*")
    }

    /// Whether it is on the roll, and all its users are there; `None` where it is not on it.
    fn is_ready(&self, stay: Stay) -> Option<bool> {
        self.stays.iter().find(|(other, _)| *other == stay).map(|(_, is_ready)| *is_ready)
    }
}

/// What a stay is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// All its users are in the map, and its lease has not ended.
    Listed,
    /// It has come since this node looked, or is about to.
    New,
    /// Its lease has ended; somebody may not know yet.
    Over,
    /// Everybody knows that it is gone.
    Gone,
}

/// What a node has last seen of the roll and the leases.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    roll: Roll,
    /// The newest stay of each other node whose users are all there, and whose lease has not ended.
    listed: HashMap<Incarnation, Stay>,
    /// When looking began; never, at first.
    seen: Option<Instant>,
}

impl View {
    /// What `me` has seen, given who has a lease.
    pub(super) fn new(me: Stay, roll: Roll, has_lease: impl Fn(Stay) -> bool, seen: Instant) -> View {
        let mut listed: HashMap<Incarnation, Stay> = HashMap::new();
        for (stay, _) in roll.stays.iter().filter(|(stay, is_ready)| *is_ready && has_lease(*stay)) {
            if stay.node != me.node {
                let newest = listed.entry(stay.node).or_insert(*stay);
                *newest = (*stay).max(*newest);
            }
        }
        View { roll, listed, seen: Some(seen) }
    }

    /// Whether all users of this stay are known to be there.
    pub(super) fn has(&self, stay: Stay) -> bool {
        self.roll.is_ready(stay) == Some(true)
    }

    /// Whether it was seen no longer ago than this.
    pub(super) fn is_fresh(&self, within: Duration) -> bool {
        self.seen.is_some_and(|seen| seen.elapsed() <= within)
    }

    /// Whether another node is listed.
    pub(super) fn lists(&self, node: Incarnation) -> bool {
        self.listed.contains_key(&node)
    }

    /// The roll as it was seen.
    pub(super) fn roll(&self) -> &Roll {
        &self.roll
    }

    /// Every other node that is listed.
    pub(super) fn listed(&self) -> impl Iterator<Item = Stay> {
        self.listed.values().copied()
    }

    /// What a stay of another node is.
    pub(super) fn standing(&self, stay: Stay) -> Standing {
        match self.roll.is_ready(stay) {
            Some(true) if self.listed.get(&stay.node) == Some(&stay) => Standing::Listed,
            Some(true) => Standing::Over,
            Some(false) => Standing::New,
            None if stay.number >= self.roll.next => Standing::New,
            None => Standing::Gone,
        }
    }
}

/// The regular expression for the decimal numbers below this one, as they are written.
fn below(number: u64) -> String {
    let text = number.to_string();
    let mut ways: Vec<String> = Vec::new();
    if text.len() > 1 {
        ways.push(format!("[0-9]{{1,{}}}", text.len() - 1));
    }
    // As long, alike up to some digit, and there smaller.
    for (at, digit) in text.bytes().enumerate().filter(|(_, digit)| *digit > b'0') {
        let (alike, left) = (&text[..at], text.len() - at - 1);
        ways.push(format!("{alike}[0-{}][0-9]{{{left}}}", char::from(digit - 1)));
    }
    format!("(?:{})", ways.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stay(node: u64, number: u64) -> Stay {
        Stay { node: Incarnation(node), number }
    }

    #[test]
    fn who_enters_has_a_number_that_nobody_had() {
        let mut roll = Roll::read(None);
        assert_eq!(
            (roll.enter(Incarnation(1), 50, 0), roll.enter(Incarnation(2), 50, 0)),
            (stay(1, 50), stay(2, 51))
        );
        assert!(roll.ready(stay(1, 50)) && !roll.ready(stay(1, 51)));
        let text = roll.text().unwrap();
        assert_eq!(text, "52 0000000000000001.50 0000000000000002.51?");
        let mut roll = Roll::read(Some(&text));
        roll.strike(&[stay(2, 51)]);
        // The clock may go back, and the roll be lost.
        assert_eq!(roll.enter(Incarnation(3), 7, 0), stay(3, 52));
        assert_eq!(Roll::read(None).enter(Incarnation(3), 7, 52), stay(3, 53));
        roll.strike(&[stay(1, 50), stay(3, 52)]);
        assert_eq!(roll.text(), None);
    }

    #[test]
    fn what_is_no_roll_is_no_harm() {
        for text in ["", "x", "7", "7 ", "7 zz.1 1.x 1", "-1 ?", " 1.2"] {
            let roll = Roll::read(Some(text));
            assert!(roll.stays().count() <= 1, "{text}");
        }
        assert_eq!(Roll::read(Some("9 zz 00a.3? ..")).stays().collect::<Vec<_>>(), [stay(10, 3)]);
    }

    #[test]
    fn a_view_tells_who_counts() {
        let mut roll = Roll { next: 9, stays: Vec::new() };
        for (who, is_ready) in [
            (stay(1, 1), true),
            (stay(2, 2), true),
            (stay(2, 5), true),
            (stay(3, 3), true),
            (stay(4, 4), false),
        ] {
            roll.stays.push((who, is_ready));
        }
        let view = View::new(stay(1, 1), roll, |stay| stay.node.0 != 3, Instant::now());
        let mut listed: Vec<Stay> = view.listed().collect();
        listed.sort_unstable();
        assert_eq!(listed, [stay(2, 5)]);
        for (who, standing) in [
            (stay(2, 5), Standing::Listed),
            (stay(2, 2), Standing::Over),
            (stay(3, 3), Standing::Over),
            (stay(4, 4), Standing::New),
            (stay(5, 9), Standing::New),
            (stay(5, 8), Standing::Gone),
        ] {
            assert_eq!(view.standing(who), standing, "{who}");
        }
        assert!(view.has(stay(1, 1)) && view.is_fresh(Duration::from_secs(60)));
        assert!(!View::default().is_fresh(Duration::from_secs(60)));
    }
}
