//! The judge: holds a [`History`] of what was sent and what was heard against what is promised, and says what was broken.
//!
//! It does no I/O, knows no wire and depends on nothing, so that whoever runs a cluster, with real processes or under a seeded
//! scheduler, can bring a history and get the same [`Verdict`]. What it must find is planted in `tests/planted`.

mod dice;
mod history;
mod judge;
mod verdict;
mod words;

pub use dice::Dice;
pub use history::{Event, History, Kind, Message, Outcome, Position, Receiver, Send, Sender, Target, What};
pub use judge::judge;
pub use verdict::{Broken, Counts, Finding, Rule, Verdict};
