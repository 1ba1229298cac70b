//! [`MemberOrigins`]: the pages that nodes of the cluster have served, known by the origin in their requests.
//!
//! A page that a node has served moves to another node when its own is gone, and is a page of another origin there. So the
//! addresses at which clients reach the members are remembered, and for an hour longer than the members are there: the page of
//! a dead node outlives it. What such an origin is allowed is decided in `admission.rs`. Tested here with made-up times, and with
//! real nodes in `tests/program/origins.rs`.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use super::{is_authority, split_port};

/// How long the origin of a node that is gone is kept.
const MEMORY: Duration = Duration::from_secs(60 * 60);

/// Most origins that are kept, as many as a mesh has members at the most. Past it nothing new is learned until an old one's time
/// is over.
const MOST: usize = 1024;

/// Longest address of a node that is taken, in bytes: the longest name there is, with scheme and port.
const LONGEST: usize = 300;

/// The origins of this node and of the others.
#[derive(Debug, Default)]
pub struct MemberOrigins {
    /// This node's own, which never changes; none where nobody knows how clients reach it.
    own: Option<String>,
    /// The others', each with when it was last seen to be a member's. Written once a second; read only for requests of pages that
    /// are not this node's own.
    others: RwLock<HashMap<String, Instant>>,
}

impl MemberOrigins {
    /// Knows this node alone, which clients reach at `client_url`.
    pub fn new(client_url: Option<&str>) -> Self {
        MemberOrigins { own: client_url.and_then(normal), others: RwLock::default() }
    }

    /// The members now, by the addresses at which clients reach them. What is no such address is passed over.
    pub fn note<'a>(&self, client_urls: impl Iterator<Item = &'a str>, now: Instant) {
        let seen: Vec<String> = client_urls.filter_map(normal).collect();
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        others.retain(|_, last| now.duration_since(*last) < MEMORY);
        for origin in seen {
            if others.len() < MOST || others.contains_key(&origin) {
                others.insert(origin, now);
            }
        }
    }

    /// Whether an `Origin` header is a member's, or was within the last hour.
    pub fn contains(&self, origin: &str, now: Instant) -> bool {
        let Some(origin) = normal(origin) else { return false };
        let is_recent = |last: &Instant| now.duration_since(*last) < MEMORY;
        self.own.as_ref() == Some(&origin) || self.others().get(&origin).is_some_and(is_recent)
    }

    fn others(&self) -> RwLockReadGuard<'_, HashMap<String, Instant>> {
        self.others.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a text is an address at which clients can reach a node: `ws`, `wss`, `http` or `https`, host and port, no path.
pub fn is_client_url(url: &str) -> bool {
    normal(url).is_some()
}

/// The one way to write an origin: scheme of HTTP, lower case, the port written out, and one name for this machine, because people
/// open `http://localhost:7800` where a node says `ws://127.0.0.1:7800`.
fn normal(url: &str) -> Option<String> {
    let (scheme, authority) = url.split_once("://").filter(|_| url.len() <= LONGEST)?;
    let (scheme, default) = match &*scheme.to_ascii_lowercase() {
        "ws" | "http" => ("http", "80"),
        "wss" | "https" => ("https", "443"),
        _ => return None,
    };
    if !is_authority(authority) {
        return None;
    }
    let (name, port) = split_port(authority);
    let name = match &*name.to_ascii_lowercase() {
        "127.0.0.1" | "[::1]" => "localhost".to_owned(),
        name => name.to_owned(),
    };
    Some(format!("{scheme}://{name}:{}", port.unwrap_or(default)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(own: Option<&str>, others: &[&str]) -> (MemberOrigins, Instant) {
        let now = Instant::now();
        let origins = MemberOrigins::new(own);
        origins.note(others.iter().copied(), now);
        (origins, now)
    }

    #[test]
    fn an_origin_is_a_members_when_scheme_host_and_port_are() {
        let (origins, now) = known(
            Some("ws://127.0.0.1:7800"),
            &["ws://127.0.0.1:7801", "wss://B.example.com", "http://c.example.com:80"],
        );
        for origin in [
            "http://127.0.0.1:7800",
            "http://localhost:7800",
            "http://[::1]:7800",
            "http://LOCALHOST:7801",
            "https://b.example.com",
            "https://b.example.com:443",
            "http://c.example.com",
        ] {
            assert!(origins.contains(origin, now), "{origin}");
        }
        for origin in [
            "http://localhost:7802",
            "http://localhost",
            "https://localhost:7801",
            "http://127.0.0.2:7801",
            "http://a.localhost:7801",
            "http://b.example.com",
            "https://b.example.com:80",
            "https://b.example.com.evil.com",
            "https://b.example.com@evil.com",
            "https://b.example.com/",
            "b.example.com",
            "null",
            "",
        ] {
            assert!(!origins.contains(origin, now), "{origin}");
        }
    }

    #[test]
    fn who_is_gone_is_remembered_for_an_hour_and_oneself_for_ever() {
        let (origins, start) = known(Some("ws://a:1"), &["ws://b:1", "ws://c:1"]);
        let later = start + MEMORY / 2;
        origins.note(["ws://c:1"].into_iter(), later);
        for (origin, at, expected) in [
            ("http://b:1", start + MEMORY - Duration::from_secs(1), true),
            ("http://b:1", start + MEMORY, false),
            ("http://c:1", start + MEMORY, true),
            ("http://c:1", later + MEMORY, false),
            ("http://a:1", later + 100 * MEMORY, true),
        ] {
            assert_eq!(origins.contains(origin, at), expected, "{origin}");
        }
        origins.note(std::iter::empty(), start + MEMORY);
        assert_eq!(origins.others().len(), 1, "what nobody may come from any more is forgotten");
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let urls: Vec<String> = (0..2 * MOST).map(|port| format!("ws://a:{port}")).collect();
        let (origins, start) = known(None, &[]);
        origins.note(urls.iter().map(String::as_str), start);
        assert_eq!(origins.others().len(), MOST);
        // Those that stay stay known, and room is made by time.
        let now = start + MEMORY / 2;
        origins.note(urls[..MOST].iter().map(String::as_str), now);
        assert!(origins.contains("http://a:0", start + MEMORY));
        let now = now + MEMORY;
        origins.note(urls[MOST..].iter().map(String::as_str), now);
        assert_eq!(origins.others().len(), MOST);
        assert!(origins.contains(&format!("http://a:{MOST}"), now) && !origins.contains("http://a:0", now));
    }

    #[test]
    fn what_is_no_address_of_a_node_is_passed_over() {
        let long = format!("ws://{}", "a".repeat(LONGEST));
        let bad =
            ["", "ws://", "ftp://a", "ws://a/b", "ws://a:99999", "ws://a b", "a:1", "file:///etc", &long];
        assert!(bad.iter().all(|url| !is_client_url(url)));
        let (origins, _) = known(Some("nonsense"), &bad);
        assert!(origins.own.is_none() && origins.others().is_empty());
    }
}
