//! What a mesh is told at its start: the settings, the secret, and the address list of a `mesh://` URL.
//! Not how they are spelled in a configuration file: that is the binary's.
//!
//! Tested here by tables of good and bad URLs.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::MeshError;

/// The most bytes of one envelope. A longer one is not taken, and a peer that sends one is cut off.
pub const MAX_ENVELOPE: usize = 16 << 20;

/// The most bytes of an address: a DNS name of 253, a colon and a port.
const MAX_ADDRESS: usize = 260;

/// What all nodes of a cluster know and nobody else does. It shows itself to nobody, and is never on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// A secret of these bytes. Whoever listens to a handshake can try guesses against it at leisure, so it should be
    /// long and random.
    ///
    /// # Errors
    /// When it is empty.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, MeshError> {
        if bytes.as_ref().is_empty() {
            Err(MeshError::EmptySecret)
        } else {
            Ok(Secret(bytes.as_ref().into()))
        }
    }

    /// The key of the proofs.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// How a node takes part in a mesh.
#[derive(Clone, Debug)]
pub struct MeshSettings {
    /// The cluster's name. Nodes of another name are refused.
    pub cluster: String,
    /// `host:port` of nodes that are dialled for ever, see [`parse_seeds`]. One that is oneself does no harm.
    pub seeds: Vec<String>,
    /// Where peers are accepted; port 0 for any.
    pub listen: SocketAddr,
    /// `host:port` under which the others reach this node. Without it the bound address, and if that is unspecified
    /// (`0.0.0.0`), its port at the address the others see this node under.
    pub advertise: Option<String>,
    /// Without one only loopback peers are accepted and dialled.
    pub secret: Option<Secret>,
    /// After so long without a byte from a peer it is pinged.
    pub ping: Duration,
    /// After so long without a byte from a peer its link is dead.
    pub silence: Duration,
    /// How long a handshake may take, connecting included.
    pub handshake: Duration,
    /// The most bytes queued towards one peer. Past it an envelope is refused for that peer alone.
    pub queue: usize,
    /// The bound of the first pause before dialling again; it doubles with each failure.
    pub redial_min: Duration,
    /// The bound that the pauses grow to.
    pub redial_max: Duration,
    /// For how long a member that others told of is dialled in vain.
    pub forget: Duration,
    /// How often peers are told of each other again, after the first time.
    pub share: Duration,
}

impl MeshSettings {
    /// The defaults, for a cluster and an address to listen on: no seed, no secret.
    pub fn new(cluster: &str, listen: SocketAddr) -> Self {
        MeshSettings {
            cluster: cluster.to_owned(),
            seeds: Vec::new(),
            listen,
            advertise: None,
            secret: None,
            ping: Duration::from_secs(3),
            silence: Duration::from_secs(15),
            handshake: Duration::from_secs(5),
            queue: 16 << 20,
            redial_min: Duration::from_millis(100),
            redial_max: Duration::from_secs(5),
            forget: Duration::from_secs(60),
            share: Duration::from_secs(30),
        }
    }
}

/// The seeds of `mesh://HOST:PORT,HOST:PORT`. None is fine: then the others dial this node.
///
/// # Errors
/// [`MeshError::Url`] for another scheme, [`MeshError::Address`] for a seed without host or port.
pub fn parse_seeds(url: &str) -> Result<Vec<String>, MeshError> {
    let list = url.strip_prefix("mesh:").ok_or(MeshError::Url)?;
    let list = list.strip_prefix("//").unwrap_or(list);
    let list = list.strip_suffix('/').unwrap_or(list);
    let seeds = list.split(',').map(str::trim).filter(|seed| !seed.is_empty());
    seeds.map(|seed| check_address(seed).map(|()| seed.to_owned())).collect()
}

/// Whether this is `host:port`, with an IPv6 address in brackets.
pub(super) fn check_address(address: &str) -> Result<(), MeshError> {
    let is_good = |(host, port): (&str, &str)| {
        let named = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        let bracketed = address.parse::<SocketAddr>().is_ok();
        !host.is_empty() && (named || bracketed) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if address.len() <= MAX_ADDRESS && address.rsplit_once(':').is_some_and(is_good) {
        Ok(())
    } else {
        Err(MeshError::Address(address.chars().take(MAX_ADDRESS).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeds_come_from_the_url() {
        let cases: [(&str, &[&str]); 7] = [
            ("mesh://a:1", &["a:1"]),
            ("mesh://a.b-c_d:1,127.0.0.1:65535/", &["a.b-c_d:1", "127.0.0.1:65535"]),
            ("mesh://[::1]:7801, b:2", &["[::1]:7801", "b:2"]),
            ("mesh://a:1,,b:2,", &["a:1", "b:2"]),
            ("mesh://", &[]),
            ("mesh:", &[]),
            ("mesh:a:1", &["a:1"]),
        ];
        for (url, seeds) in cases {
            assert_eq!(parse_seeds(url).unwrap(), seeds, "{url}");
        }
    }

    #[test]
    fn bad_urls_are_told() {
        assert!(matches!(parse_seeds("redis://a:1"), Err(MeshError::Url)));
        assert!(matches!(parse_seeds(""), Err(MeshError::Url)));
        for seed in
            ["a", ":1", "a:", "a:0", "a:65536", "a:-1", "a b:1", "a/b:1", "::1:80", "user@a:1", "a:1\r\n:2"]
        {
            let told = parse_seeds(&format!("mesh://x:1,{seed}"));
            assert!(matches!(told, Err(MeshError::Address(_))), "{seed:?} gave {told:?}");
        }
        assert!(check_address(&format!("{}:1", "a".repeat(MAX_ADDRESS))).is_err());
    }

    #[test]
    fn a_secret_is_not_empty_and_not_shown() {
        assert!(matches!(Secret::new(""), Err(MeshError::EmptySecret)));
        assert_eq!(format!("{:?}", Secret::new("hush").unwrap()), "Secret(***)");
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_was_written(url in "(mesh:/{0,2})?[a-z0-9.:,\\[\\] _/-]{0,60}") {
            if let Ok(seeds) = parse_seeds(&url) {
                let again = parse_seeds(&format!("mesh://{}", seeds.join(","))).unwrap();
                prop_assert_eq!(&again, &seeds);
                for seed in seeds {
                    let (host, port) = seed.rsplit_once(':').unwrap();
                    prop_assert!(url.contains(&seed) && !host.is_empty() && port.parse::<u16>().unwrap() > 0);
                }
            }
        }
    }
}
