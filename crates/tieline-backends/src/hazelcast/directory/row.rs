//! [`Row`]: who holds a user and who remembers where it is, as one entry of the map says, and what a request makes of it. Without I/O.
//! Tested here.
//!
//! ```text
//! user/HUB/USER                  NODE.NUMBER=CLAIM NODE.NUMBER=CLAIM~ NODE.NUMBER~ …     `~`: it remembers the user
//! ```

use tieline_core::directory::asked::{Answer, Request};
use tieline_proto::{HubName, Incarnation, UserId};

use super::roll::{Standing, Stay, View};

/// What is behind the name of a node that remembers the user.
const REMEMBERS: char = '~';

/// The key of a user. No name of a hub has such a character.
pub(super) fn key((hub, user): (&HubName, &UserId)) -> String {
    format!("user/{hub}/{user}")
}

/// What a stay is to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    stay: Stay,
    /// The number of its claim; 0 where it has none.
    claim: u64,
    remembers: bool,
}

impl Token {
    fn read(word: &str) -> Option<Token> {
        let (word, remembers) = word.strip_suffix(REMEMBERS).map_or((word, false), |word| (word, true));
        let (stay, claim) = match word.split_once('=') {
            Some((stay, claim)) => (stay, claim.parse().ok()?),
            None => (word, 0),
        };
        Some(Token { stay: stay.parse().ok()?, claim, remembers })
    }

    fn write(&self, out: &mut String) {
        use std::fmt::Write;
        let blank = if out.is_empty() { "" } else { " " };
        let claim = if self.claim > 0 { format!("={}", self.claim) } else { String::new() };
        let remembers = if self.remembers { "~" } else { "" };
        write!(out, "{blank}{}{claim}{remembers}", self.stay).expect("a text takes all");
    }
}

/// A user's entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row(Vec<Token>);

impl Row {
    /// Reads one. What is none, or in part, counts as not being there.
    pub(super) fn read(text: Option<&str>) -> Row {
        Row(text.unwrap_or_default().split(' ').filter_map(Token::read).collect())
    }

    /// As it is written; nothing where nobody holds the user and nobody remembers it.
    pub(super) fn text(&self) -> Option<String> {
        let mut text = String::new();
        let is_worth_it = |token: &&Token| token.claim > 0 || token.remembers;
        self.0.iter().filter(is_worth_it).for_each(|token| token.write(&mut text));
        (!text.is_empty()).then_some(text)
    }

    /// What others are to this user. What stands there of who is gone, or of earlier stays of this node, is taken out.
    pub(super) fn weed(&mut self, me: Stay, view: &View) {
        self.0.retain(|token| match token.stay {
            stay if stay.node == me.node => stay == me,
            stay => view.standing(stay) != Standing::Gone,
        });
    }

    /// Does what this node asks, and answers it. Nobody is listed where the view is not fresh.
    pub(super) fn serve(&mut self, request: &Request, me: Stay, view: &View, is_fresh: bool) -> Answer {
        let at = self.0.iter().position(|token| token.stay == me).unwrap_or_else(|| {
            self.0.push(Token { stay: me, claim: 0, remembers: false });
            self.0.len() - 1
        });
        let others = self.0.iter().filter(|token| token.stay.node != me.node);
        let mut answer = Answer::default();
        match request {
            Request::Claim { number, is_exact, .. } => {
                let newest = others.map(|token| (token.claim, token.stay.node)).max();
                let own = self.0[at].claim;
                answer.number = match newest {
                    None | Some((0, _)) => *number,
                    _ if *is_exact => *number,
                    // Who is the newest already needs no higher number.
                    Some(newest) if (own, me.node) > newest => own.max(*number),
                    Some((claim, _)) => (claim + 1).max(*number),
                };
                self.0[at].claim = answer.number;
            }
            Request::Release { .. } => self.0[at].claim = 0,
            Request::Look { .. } => self.0[at].remembers = true,
            Request::Forget { .. } => {
                self.0[at].remembers = false;
                return answer;
            }
        }
        let is_look = matches!(request, Request::Look { .. });
        answer.nodes = self.others(me, view, is_fresh, is_look);
        answer
    }

    /// The other nodes of which it is known what they are to the user: the claim of each, or whether it remembers.
    fn others(&self, me: Stay, view: &View, is_fresh: bool, is_look: bool) -> Vec<(Incarnation, u64)> {
        let mut nodes: Vec<(Incarnation, u64)> = Vec::new();
        let of = |token: &Token| if is_look { token.claim } else { u64::from(token.remembers) };
        // What a node says that has come since is true, but what it does not say is nothing.
        let newer = self.0.iter().filter(|token| view.standing(token.stay) == Standing::New);
        let newer: Vec<&Token> = newer.filter(|token| token.stay.node != me.node).collect();
        nodes.extend(newer.iter().filter(|token| of(token) > 0).map(|token| (token.stay.node, of(token))));
        if is_fresh {
            for stay in view.listed().filter(|stay| newer.iter().all(|token| token.stay.node != stay.node)) {
                let token = self.0.iter().find(|token| token.stay == stay);
                nodes.push((stay.node, token.map_or(0, of)));
            }
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::super::roll::Roll;
    use super::*;

    fn stay(node: u64, number: u64) -> Stay {
        Stay { node: Incarnation(node), number }
    }

    /// As node 1 sees it: 2 and 3 are listed, the lease of 4 has ended, 5 is entering.
    fn view() -> View {
        let text = "9 1.1 2.2 3.3 4.4 5.5?";
        View::new(stay(1, 1), Roll::read(Some(text)), |stay| stay.node.0 != 4, Instant::now())
    }

    fn names() -> (HubName, UserId) {
        (HubName::new("hub").unwrap(), UserId::new("a/b c").unwrap())
    }

    fn request(what: &str, number: u64) -> Request {
        let (hub, user) = names();
        match what {
            "claim" => Request::Claim { hub, user, number, is_exact: false },
            "keep" => Request::Claim { hub, user, number, is_exact: true },
            "release" => Request::Release { hub, user },
            "look" => Request::Look { hub, user },
            _ => Request::Forget { hub, user },
        }
    }

    fn served(row: &str, what: &str, number: u64) -> (Option<String>, u64, Vec<(u64, u64)>) {
        let mut row = Row::read(Some(row));
        row.weed(stay(1, 1), &view());
        let answer = row.serve(&request(what, number), stay(1, 1), &view(), true);
        let mut nodes: Vec<(u64, u64)> = answer.nodes.iter().map(|(node, what)| (node.0, *what)).collect();
        nodes.sort_unstable();
        (row.text(), answer.number, nodes)
    }

    fn text(row: &str) -> Option<String> {
        Row::read(Some(row)).text()
    }

    #[test]
    fn requests_change_what_is_this_nodes_own() {
        let (hub, user) = names();
        assert_eq!(key((&hub, &user)), "user/hub/a/b c");
        assert_eq!(served("", "claim", 1), (text("1.1=1"), 1, vec![(2, 0), (3, 0)]));
        assert_eq!(served("2.2=7 3.3~", "claim", 1), (text("2.2=7 3.3~ 1.1=8"), 8, vec![(2, 0), (3, 1)]));
        assert_eq!(served("2.2=7 1.1=7", "claim", 3), (text("2.2=7 1.1=8"), 8, vec![(2, 0), (3, 0)]));
        assert_eq!(served("2.2=7 1.1=9", "claim", 3), (text("2.2=7 1.1=9"), 9, vec![(2, 0), (3, 0)]));
        assert_eq!(served("2.2=7", "keep", 3), (text("2.2=7 1.1=3"), 3, vec![(2, 0), (3, 0)]));
        assert_eq!(served("2.2~ 1.1=9~", "release", 0), (text("2.2~ 1.1~"), 0, vec![(2, 1), (3, 0)]));
        assert_eq!(served("1.1=9", "release", 0).0, None);
        assert_eq!(served("2.2=7", "look", 0), (text("2.2=7 1.1~"), 0, vec![(2, 7), (3, 0)]));
        assert_eq!(served("1.1~", "forget", 0), (None, 0, vec![]));
    }

    #[test]
    fn who_is_gone_does_not_count_and_who_has_come_since_does_as_far_as_it_says() {
        // An earlier stay of this node, and one that was struck off the roll, are taken out.
        assert_eq!(served("1.0=5~ 6.6=9~", "look", 0), (text("1.1~"), 0, vec![(2, 0), (3, 0)]));
        // Whose lease has ended is no longer listed, but may remember until all know.
        assert_eq!(served("4.4=5~", "look", 0), (text("4.4=5~ 1.1~"), 0, vec![(2, 0), (3, 0)]));
        assert_eq!(served("5.5=5 7.9=6~", "look", 0).2, [(2, 0), (3, 0), (5, 5), (7, 6)]);
        assert_eq!(served("5.5~ 7.9=6", "claim", 1).2, [(2, 0), (3, 0), (5, 1)]);
        // It has come anew, and nothing says that it does not hold the user.
        assert_eq!(served("2.9~", "look", 0).2, [(3, 0)]);
        let mut row = Row::read(Some("2.2=7"));
        assert!(row.serve(&request("look", 0), stay(1, 1), &view(), false).nodes.is_empty());
    }

    proptest! {
        /// Whatever stands there is read without harm; what is written is read as it was.
        #[test]
        fn rows_are_read_as_they_were_written(garbage in "[ 0-9a-f.=~]{0,40}|\\PC{0,40}") {
            let row = Row::read(Some(&garbage));
            let text = row.text();
            prop_assert_eq!(Row::read(text.as_deref()).text(), text);
        }
    }
}
