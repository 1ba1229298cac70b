//! [`LogRules`]: for which targets messages are kept, and how a slow reader of a group is treated. Tested here.

use tieline_switchboard::WhenLagging;

use crate::store::Retention;

/// What holds for the groups of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRule {
    /// The names it is for; `*` stands for any text, the empty one too.
    pub pattern: String,
    /// How much is kept of the messages to such a group; nothing makes them live ones.
    pub history: Option<Retention>,
    /// Whether a member that lags too far behind misses messages, in place of being closed. Not where there is a history:
    /// who is closed there comes back and misses nothing.
    pub drops: bool,
    /// Whether users are members whether they are connected or not, and get on return what they missed. Only where there is a
    /// history.
    pub stores_members: bool,
}

/// Which targets have a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRules {
    /// The first one that matches a group's name counts.
    pub groups: Vec<GroupRule>,
    /// How much is kept of the messages to each user; nothing makes them live ones.
    pub inbox: Option<Retention>,
}

impl LogRules {
    /// Whether anything is kept at all.
    pub fn keep_anything(&self) -> bool {
        self.inbox.is_some() || self.groups.iter().any(|rule| rule.history.is_some())
    }

    /// How much is kept of the messages to a group.
    pub fn history(&self, group: &str) -> Option<Retention> {
        self.rule(group)?.history
    }

    /// Whether users are members of a group whether they are connected or not.
    pub fn stores_members(&self, group: &str) -> bool {
        self.rule(group).is_some_and(|rule| rule.stores_members && rule.history.is_some())
    }

    /// Whether there may be such groups at all.
    pub fn store_any_members(&self) -> bool {
        self.groups.iter().any(|rule| rule.stores_members && rule.history.is_some())
    }

    /// What becomes of a message for a member of this group that lags behind.
    pub(crate) fn when_lagging(&self, group: &str) -> WhenLagging {
        if self.rule(group).is_some_and(|rule| rule.drops) { WhenLagging::Drop } else { WhenLagging::End }
    }

    fn rule(&self, group: &str) -> Option<&GroupRule> {
        self.groups.iter().find(|rule| matches(&rule.pattern, group))
    }
}

/// Whether a text is what a pattern says. Takes time of at most the product of both lengths.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: one byte later.
    let mut retry: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, seen));
                at += 1;
            }
            Some(byte) if *byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match retry {
                Some((behind, from)) => {
                    at = behind;
                    seen = from + 1;
                    retry = Some((behind, seen));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, fits, does_not) in [
            ("room", &["room"][..], &["", "roo", "rooms", "a room"][..]),
            ("room:*", &["room:", "room:1", "room:*", "room:ü"], &["room", "a room:1"]),
            ("*", &["", "a", "a/b"], &[]),
            ("*-log", &["-log", "a-log", "-log-log"], &["log", "a-logs"]),
            ("a*b*c", &["abc", "a-b-c", "abbbc", "abcbc"], &["ab", "ac", "acb"]),
            ("", &[""], &["a"]),
        ] {
            fits.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            does_not.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
    }

    #[test]
    fn the_first_rule_counts() {
        let kept = Some(Retention::default());
        let rule = |pattern: &str, history, drops| GroupRule {
            pattern: pattern.into(),
            history,
            drops,
            stores_members: pattern != "a-kept",
        };
        let rules = LogRules {
            groups: vec![rule("a*", None, true), rule("a-kept", kept, false), rule("*", kept, false)],
            inbox: None,
        };
        assert_eq!((rules.history("a-kept"), rules.when_lagging("a-kept")), (None, WhenLagging::Drop));
        assert_eq!((rules.history("b"), rules.when_lagging("b")), (kept, WhenLagging::End));
        assert_eq!(["a-kept", "b"].map(|group| rules.stores_members(group)), [false, true]);
        assert!(rules.store_any_members() && !LogRules::default().store_any_members());
        assert!(rules.keep_anything() && !LogRules::default().keep_anything());
    }
}
