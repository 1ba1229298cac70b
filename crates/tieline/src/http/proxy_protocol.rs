//! The PROXY protocol, version 2: the header in which a balancer says for whom it connects, before the client's first byte.
//!
//! Bytes in, an address out; no I/O: [`parse`] looks at what has come so far, and `preface.rs` reads. Only the source address is
//! taken. The balancer's TLVs are skipped, and version 1, which is text, is refused. Tested by properties below, over sockets in
//! `tests/program/proxy_protocol.rs`, and with a balancer in front of a whole cluster in `tests/cluster`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What every header begins with: bytes that no request of HTTP begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the addresses: the signature, version and command, family and transport, and the length of what follows.
const FIXED: usize = 16;

/// The most bytes that may follow those, with all TLVs. The addresses take at most 216; a balancer that tells of a client's
/// certificate adds a few hundred. What is not complete is kept for each socket, so it is bounded.
pub(super) const MAX_REST: usize = 4096;

/// A header that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whom the balancer connects for. `None` where it connects for itself, as to see whether the node is well, or cannot say
    /// it as an IP address: then the socket's other end is all that is known.
    pub(super) source: Option<SocketAddr>,
    /// Bytes of the header; the client's follow.
    pub(super) length: usize,
}

/// Why a connection is closed at its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Anything else, version 1 among it.
    #[error("the connection does not begin with a header of the PROXY protocol, version 2")]
    Absent,
    /// The signature is there, and a later version.
    #[error("the header is of another version of the PROXY protocol")]
    Version,
    /// Neither LOCAL nor PROXY.
    #[error("the header has a command that the PROXY protocol does not know")]
    Command,
    /// A family of addresses or a transport beyond those of the protocol.
    #[error("the header has a family of addresses that the PROXY protocol does not know")]
    Family,
    /// Too short for the addresses of its family.
    #[error("the header is too short for its addresses")]
    Short,
    /// More than `MAX_REST`.
    #[error("the header is too long")]
    Long,
    /// The connection ended within it.
    #[error("the connection ended within the header")]
    Cut,
    /// It did not come in time.
    #[error("the header did not come in time")]
    Slow,
}

impl HeaderError {
    /// All of them, in the order of their numbers.
    pub const ALL: [HeaderError; 8] = [
        HeaderError::Absent,
        HeaderError::Version,
        HeaderError::Command,
        HeaderError::Family,
        HeaderError::Short,
        HeaderError::Long,
        HeaderError::Cut,
        HeaderError::Slow,
    ];

    /// One word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            HeaderError::Absent => "absent",
            HeaderError::Version => "version",
            HeaderError::Command => "command",
            HeaderError::Family => "family",
            HeaderError::Short => "short",
            HeaderError::Long => "long",
            HeaderError::Cut => "cut",
            HeaderError::Slow => "slow",
        }
    }
}

/// Reads a header from the first bytes of a connection; `None` while more of them are needed.
///
/// # Errors
/// As soon as the bytes cannot become a header any more.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] != SIGNATURE[..seen] {
        return Err(HeaderError::Absent);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Err(HeaderError::Version);
    }
    if length > MAX_REST {
        return Err(HeaderError::Long);
    }
    // The bytes of the addresses: both sources and destinations, and ports where there are any.
    let addresses = match (command & 0xf, family >> 4, family & 0xf) {
        // Of itself a balancer may say anything, and it is of no account.
        (0, ..) => 0,
        (1, 0..=3, 3..) | (1, 4.., _) => return Err(HeaderError::Family),
        (1, 1, _) => 12,
        (1, 2, _) => 36,
        (1, 3, _) => 216,
        (1, ..) => 0,
        _ => return Err(HeaderError::Command),
    };
    if length < addresses {
        return Err(HeaderError::Short);
    }
    let Some(rest) = rest.get(..length) else { return Ok(None) };
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let source = match addresses {
        12 => {
            let octets: [u8; 4] = std::array::from_fn(|at| rest[at]);
            Some(SocketAddr::from((Ipv4Addr::from(octets), port(8))))
        }
        36 => {
            let octets: [u8; 16] = std::array::from_fn(|at| rest[at]);
            Some(SocketAddr::from((Ipv6Addr::from(octets), port(32))))
        }
        _ => None,
    };
    Ok(Some(Header { source, length: FIXED + length }))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    /// The addresses of a header, written in another way than they are read.
    fn addresses(source: SocketAddr) -> (u8, Vec<u8>) {
        let port = source.port().to_be_bytes();
        match source.ip() {
            IpAddr::V4(ip) => (0x11, [&ip.octets()[..], &[9; 4], &port, &[0, 80]].concat()),
            IpAddr::V6(ip) => (0x21, [&ip.octets()[..], &[9; 16], &port, &[0, 80]].concat()),
        }
    }

    fn any_source() -> impl Strategy<Value = SocketAddr> {
        any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn a_source_is_read_once_the_header_is_whole_and_the_clients_bytes_are_left(
            source in any_source(),
            tlvs in vec(any::<u8>(), 0..300),
            client in vec(any::<u8>(), 0..50),
        ) {
            let (family, mut rest) = addresses(source);
            rest.extend(tlvs);
            let mut bytes = header(0x21, family, &rest);
            let length = bytes.len();
            bytes.extend(client);
            for cut in 0..length {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(None), "after {} bytes", cut);
            }
            prop_assert_eq!(parse(&bytes), Ok(Some(Header { source: Some(source), length })));
        }

        #[test]
        fn what_a_balancer_says_of_itself_is_skipped(family in any::<u8>(), rest in vec(any::<u8>(), 0..300)) {
            let bytes = header(0x20, family, &rest);
            prop_assert_eq!(parse(&bytes), Ok(Some(Header { source: None, length: bytes.len() })));
        }

        #[test]
        fn more_bytes_never_change_the_answer(bytes in near_headers()) {
            let whole = parse(&bytes);
            for cut in 0..bytes.len() {
                let part = parse(&bytes[..cut]);
                prop_assert!(part == Ok(None) || part == whole, "{:?} after {} bytes, {:?} at the end", part, cut, whole);
            }
            if let Ok(Some(header)) = whole {
                prop_assert!((FIXED..=FIXED + MAX_REST).contains(&header.length) && header.length <= bytes.len());
            }
            // Nothing is waited for for ever.
            prop_assert!(whole != Ok(None) || bytes.len() < FIXED + MAX_REST);
        }
    }

    /// Headers of which every field may be wrong.
    fn near_headers() -> impl Strategy<Value = Vec<u8>> {
        let fields = (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..260), any::<Option<u16>>());
        let likely =
            (0x1f_u8..=0x22, 0_u8..=0x33, vec(any::<u8>(), 0..260), proptest::option::of(0_u16..400));
        let fields = prop_oneof![fields, likely];
        (fields, any::<Option<(u8, u8)>>()).prop_map(|((command, family, rest, length), flaw)| {
            let mut bytes = header(command, family, &rest);
            if let Some(length) = length {
                bytes[14..16].copy_from_slice(&length.to_be_bytes());
            }
            if let Some((at, with)) = flaw.filter(|(at, _)| *at < 32) {
                let at = usize::from(at) % bytes.len();
                bytes[at] = with;
            }
            bytes
        })
    }

    #[test]
    fn known_families_without_an_ip_address_name_nobody() {
        // Unspecified, with or without a transport, and a socket of a path; TLVs may follow each.
        for (family, least) in [(0x00, 0), (0x01, 0), (0x31, 216), (0x32, 216)] {
            for more in [0, 7] {
                let bytes = header(0x21, family, &vec![0; least + more]);
                assert_eq!(
                    parse(&bytes),
                    Ok(Some(Header { source: None, length: bytes.len() })),
                    "{family:x}"
                );
            }
        }
        // A client whose datagrams the balancer made a stream of has an address like any other.
        let source = "192.0.2.1:5".parse().unwrap();
        let bytes = header(0x21, 0x12, &addresses(source).1);
        assert_eq!(parse(&bytes).unwrap().unwrap().source, Some(source));
    }

    #[test]
    fn every_flaw_has_its_name() {
        let good = addresses("192.0.2.1:5".parse().unwrap()).1;
        let mut long = header(0x21, 0x11, &good);
        long[14..16].copy_from_slice(&(MAX_REST as u16 + 1).to_be_bytes());
        for (bytes, expected) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), HeaderError::Absent),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), HeaderError::Absent),
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), HeaderError::Absent),
            (header(0x11, 0x11, &good), HeaderError::Version),
            (header(0x31, 0x11, &good), HeaderError::Version),
            (header(0x22, 0x11, &good), HeaderError::Command),
            (header(0x21, 0x41, &good), HeaderError::Family),
            (header(0x21, 0x13, &good), HeaderError::Family),
            (header(0x21, 0x11, &good[..11]), HeaderError::Short),
            (header(0x21, 0x21, &[0; 35]), HeaderError::Short),
            (header(0x21, 0x31, &[0; 215]), HeaderError::Short),
            (long, HeaderError::Long),
        ] {
            assert_eq!(parse(&bytes), Err(expected), "{bytes:x?}");
        }
        let numbers = HeaderError::ALL.map(|error| error as usize);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
