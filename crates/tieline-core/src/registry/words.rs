//! A registration as text, the same in every registry with a server: what a node writes there, and what is read of others.
//!
//! One JSON object, at most [`MAX_WORDS`] bytes. `v` is its version: within one, later programs only add keys that earlier
//! ones pass over, and a later version is refused whole. Whoever may write to the server may write anything, so all of it is
//! checked before it is believed. Tested below: what is written reads back, and hostile text is refused.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tieline_proto::{Incarnation, NodeId, NodeName};

use super::{MAX_WEIGHT, Member, NodeState, Registration};

/// The most bytes of a registration.
pub const MAX_WORDS: usize = 2048;

/// The version that is written.
const VERSION: u32 = 1;

/// The most bytes of an address.
const MAX_URL: usize = 300;

/// The most bytes of a program's version.
const MAX_VERSION: usize = 64;

/// The most bytes of where connections belong, later programs' words among them.
const MAX_PLACEMENT: usize = 32;

/// Why an entry is no node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Strange {
    /// Longer than any node writes.
    #[error("it is longer than {MAX_WORDS} bytes")]
    TooLong,
    /// Written by something else.
    #[error("it is not what a node writes")]
    Malformed,
    /// Written by a later program.
    #[error("it has version {0}, and this program knows {VERSION}")]
    Version(u32),
    /// A node of another cluster.
    #[error("it is of another cluster")]
    Cluster,
    /// A value that no node has.
    #[error("its `{0}` is nothing that a node has")]
    Value(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Words<'a> {
    v: u32,
    #[serde(borrow)]
    cluster: Cow<'a, str>,
    name: NodeName,
    incarnation: Incarnation,
    #[serde(borrow, default)]
    client_url: Cow<'a, str>,
    #[serde(borrow, default)]
    peer_url: Cow<'a, str>,
    #[serde(default)]
    connections: u64,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    capacity: u64,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
    #[serde(borrow, default)]
    placement: Cow<'a, str>,
    #[serde(default)]
    draining: bool,
}

fn one() -> u32 {
    1
}

/// The version alone, which is looked at before anything else.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// What a node writes of itself.
pub fn write(cluster: &str, id: &NodeId, registration: &Registration) -> String {
    let words = Words {
        v: VERSION,
        cluster: cluster.into(),
        name: id.name.clone(),
        incarnation: id.incarnation,
        client_url: registration.client_url.as_str().into(),
        peer_url: registration.peer_url.as_str().into(),
        connections: registration.connections,
        weight: registration.weight,
        capacity: registration.capacity,
        version: registration.version.as_str().into(),
        placement: registration.placement.as_str().into(),
        draining: registration.state == NodeState::Draining,
    };
    serde_json::to_string(&words).expect("names and numbers are JSON")
}

/// Reads what a node of the cluster wrote. Whether operators have disabled it is not in there: it is taken as enabled.
///
/// # Errors
/// [`Strange`], when no node of this cluster writes that.
pub fn read(cluster: &str, bytes: &[u8]) -> Result<Member, Strange> {
    if bytes.len() > MAX_WORDS {
        return Err(Strange::TooLong);
    }
    let Versioned { v } = serde_json::from_slice(bytes).map_err(|_| Strange::Malformed)?;
    if v != VERSION {
        return Err(Strange::Version(v));
    }
    let words: Words<'_> = serde_json::from_slice(bytes).map_err(|_| Strange::Malformed)?;
    if words.cluster != cluster {
        return Err(Strange::Cluster);
    }
    let checks = [
        ("incarnation", words.incarnation.0 > 0),
        ("client_url", is_client_url(&words.client_url)),
        ("peer_url", is_peer_url(&words.peer_url)),
        ("weight", (1..=MAX_WEIGHT).contains(&words.weight)),
        ("version", words.version.len() <= MAX_VERSION && is_word(&words.version)),
        ("placement", words.placement.len() <= MAX_PLACEMENT && words.placement.split(':').all(is_word)),
    ];
    if let Some((key, _)) = checks.iter().find(|(_, is_fit)| !is_fit) {
        return Err(Strange::Value(key));
    }
    let registration = Registration {
        client_url: words.client_url.into_owned(),
        peer_url: words.peer_url.into_owned(),
        connections: words.connections,
        weight: words.weight,
        capacity: words.capacity,
        version: words.version.into_owned(),
        placement: words.placement.into_owned(),
        state: if words.draining { NodeState::Draining } else { NodeState::Up },
    };
    let id = NodeId { name: words.name, incarnation: words.incarnation };
    Ok(Member { id, registration, is_enabled: true })
}

/// Whether a text is nothing, or where clients reach a node.
pub(super) fn is_client_url(text: &str) -> bool {
    is_url(text, &["ws", "wss", "http", "https"])
}

/// Whether a text is nothing, or where other nodes reach a node.
pub(super) fn is_peer_url(text: &str) -> bool {
    is_url(text, &["mesh"])
}

/// Whether a text is nothing, or a scheme of these with a host, perhaps a port, and nothing behind.
fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return text.is_empty() };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    text.len() <= MAX_URL
        && schemes.contains(&scheme)
        && !authority.is_empty()
        && authority.bytes().all(is_allowed)
}

/// Whether a text may stand in a log line and on a page as it is.
fn is_word(text: &str) -> bool {
    text.bytes().all(is_plain)
}

/// Whether a byte may stand in a log line and on a page as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_+".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, incarnation: u64) -> NodeId {
        NodeId { name: NodeName::new(name).unwrap(), incarnation: Incarnation(incarnation) }
    }

    fn full() -> Registration {
        Registration {
            client_url: "wss://a.example.com:8443".into(),
            peer_url: "mesh://[::1]:7900".into(),
            connections: u64::MAX,
            weight: MAX_WEIGHT,
            capacity: 1_000_000,
            version: "0.1.0-rc.1+x".into(),
            placement: "ring:fnv".into(),
            state: NodeState::Draining,
        }
    }

    #[test]
    fn what_a_node_writes_is_read_by_its_cluster_alone() {
        for registration in [full(), Registration::default()] {
            let id = node("a:7800", u64::MAX);
            let text = write("c", &id, &registration);
            let member = Member { id, registration, is_enabled: true };
            assert_eq!(read("c", text.as_bytes()), Ok(member));
            assert_eq!(read("C", text.as_bytes()), Err(Strange::Cluster));
        }
    }

    #[test]
    fn the_longest_that_a_node_writes_is_not_too_long() {
        let url = |scheme: &str| format!("{scheme}://{}", "a".repeat(MAX_URL - scheme.len() - 3));
        let registration = Registration {
            client_url: url("wss"),
            peer_url: url("mesh"),
            version: "9".repeat(MAX_VERSION),
            placement: "r".repeat(MAX_PLACEMENT),
            ..full()
        };
        let cluster = "c".repeat(256);
        let text = write(&cluster, &node(&"n".repeat(128), u64::MAX), &registration);
        assert_eq!(read(&cluster, text.as_bytes()).map(|member| member.registration), Ok(registration));
    }

    #[test]
    fn what_an_earlier_or_a_later_program_writes_is_read_as_far_as_it_is_known() {
        let text = r#"{"v":1,"cluster":"c","name":"a","incarnation":"0000000000000007","later":[1]}"#;
        let member = read("c", text.as_bytes()).unwrap();
        assert_eq!(
            member,
            Member { id: node("a", 7), registration: Registration::default(), is_enabled: true }
        );
        assert_eq!(read("c", br#"{"v":2,"cluster":{}}"#), Err(Strange::Version(2)));
    }

    #[test]
    fn what_no_node_writes_is_refused() {
        let with = |key: &str, value: &str| {
            let text = write("c", &node("a", 7), &full());
            let mut words: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
            words.insert(key.to_owned(), serde_json::from_str(value).unwrap());
            read("c", serde_json::to_string(&words).unwrap().as_bytes())
        };
        for (key, value) in [
            ("client_url", r#""ws://a/path""#),
            ("client_url", r#""ws://""#),
            ("client_url", r#""javascript://a""#),
            ("client_url", r#""ws://a\nforged line""#),
            ("client_url", r#""ws://user@a""#),
            ("peer_url", r#""ws://a:1""#),
            ("weight", "0"),
            ("weight", "101"),
            ("version", r#""<b>""#),
            ("placement", r#""ring:<b>""#),
            ("placement", r#""a\nforged line""#),
            ("placement", r#""a placement of more than 32 bytes""#),
            ("incarnation", r#""0000000000000000""#),
        ] {
            assert_eq!(with(key, value), Err(Strange::Value(key)), "{value}");
        }
        for (key, value) in [
            ("name", r#""a b""#),
            ("incarnation", "7"),
            ("weight", "-1"),
            ("connections", "1e99"),
            ("draining", "1"),
        ] {
            assert_eq!(with(key, value), Err(Strange::Malformed), "{key} {value}");
        }
        for bytes in [&b""[..], b"[]", b"{}", b"null", b"\xff", b"{\"v\":1}"] {
            assert_eq!(read("c", bytes), Err(Strange::Malformed));
        }
        assert_eq!(read("c", &[b' '; MAX_WORDS + 1]), Err(Strange::TooLong));
    }

    proptest! {
        #[test]
        fn no_changed_byte_panics_or_makes_a_value_that_no_node_has(at in 0usize..400, byte in any::<u8>()) {
            let mut bytes = write("c", &node("a", 7), &full()).into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(member) = read("c", &bytes) {
                // What is believed can be told on.
                let again = write("c", &member.id, &member.registration);
                prop_assert_eq!(read("c", again.as_bytes()), Ok(member));
            }
        }
    }
}
