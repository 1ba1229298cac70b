//! Who may connect: the rule for web pages of other sites, and the rule for clients without a token.
//!
//! Both are functions of facts about a request, and of nothing else; so tables test them, in `admission/tests.rs`. What a token
//! says is not decided here.
//!
//! The second rule keeps the door shut by default in the one case where it looks safe to leave it open: on one's own machine. A
//! proxy on this machine makes every caller look local, so a forwarding header shuts it, as does a `Host` that is no local
//! name (which is also what a page gets that makes its own name resolve to this machine).

mod access;
mod members;
mod openness;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Instant;

pub use access::Access;
pub use members::{MemberOrigins, is_client_url};
pub use openness::Openness;

/// Headers that a proxy leaves behind. One of them, or one that begins with a [prefix](FORWARDING_PREFIXES), means that the peer is not the client.
const FORWARDING_HEADERS: &[&str] = &[
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
];

/// Beginnings of such headers.
const FORWARDING_PREFIXES: &[&str] = &["x-forwarded", "x-original-", "x-envoy-"];

/// Where a request comes from, as its `Origin` says. Only browsers send one, and pages cannot change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No browser, or one that asks from nowhere else.
    Absent,
    /// A page of the host that is asked.
    Own,
    /// A page of a node of the cluster, this one by another name among them.
    Member,
    /// A page of a site that the configuration lists.
    Listed,
    /// Any other page.
    Foreign,
}

/// What the rule for clients without a token looks at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The configuration lets everybody in, in words.
    pub allow_anonymous: bool,
    /// There is an access key, so clients are expected to have tokens.
    pub has_keys: bool,
    /// The address the listener was bound to.
    pub listener: IpAddr,
    /// The other end of the socket, or whom a proxy there says that it connects for.
    pub peer: IpAddr,
    /// The `Host` header.
    pub host: &'a str,
    /// A proxy left its mark on the request, or stands in front of the listener.
    pub is_forwarded: bool,
    /// Where the request comes from.
    pub standing: Standing,
}

/// Whether a page may connect at all, with a token or without. The page of another node may on the machine of both; elsewhere
/// its origin has to be listed like any other.
pub fn admits_page(facts: &Facts<'_>) -> bool {
    match facts.standing {
        Standing::Absent | Standing::Own | Standing::Listed => true,
        Standing::Member => is_local(facts),
        Standing::Foreign => false,
    }
}

/// Whether a client without a token may connect.
pub fn admits_anonymous(facts: &Facts<'_>) -> bool {
    admits_page(facts) && (facts.allow_anonymous || (!facts.has_keys && is_local(facts)))
}

/// Whether a request was made on this machine, for this machine, by nothing but a program of its user or a page of a node of the
/// cluster.
pub fn is_local(facts: &Facts<'_>) -> bool {
    is_loopback(facts.listener)
        && is_loopback(facts.peer)
        && !facts.is_forwarded
        && is_local_name(facts.host)
        && matches!(facts.standing, Standing::Absent | Standing::Own | Standing::Member)
}

/// Judges an `Origin` header by the `Host` that was asked, the configuration's list and the cluster's members.
pub fn standing(origin: Option<&str>, host: &str, listed: &[String], members: &MemberOrigins) -> Standing {
    let Some(origin) = origin else { return Standing::Absent };
    if is_own(origin, host) {
        Standing::Own
    } else if listed.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin)) {
        Standing::Listed
    } else if members.contains(origin, Instant::now()) {
        Standing::Member
    } else {
        Standing::Foreign
    }
}

/// Whether a header is one that proxies add. `name` is in lower case.
fn is_forwarding_header(name: &str) -> bool {
    FORWARDING_HEADERS.contains(&name) || FORWARDING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a text is an origin as browsers write it: scheme and host, a port that is not the scheme's own, no path.
pub fn is_origin(text: &str) -> bool {
    split_origin(text).is_some_and(|(_, authority)| is_authority(authority))
}

/// Whether a text can stand in a `Host` header: a name or address, and perhaps a port.
pub fn is_authority(text: &str) -> bool {
    let (name, port) = split_port(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Scheme and authority.
fn split_origin(origin: &str) -> Option<(&str, &str)> {
    origin
        .split_once("://")
        .filter(|(scheme, _)| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
}

/// A host and what stands behind its last colon, the colons of an address in brackets left alone.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

/// Whether the page's host is the host that was asked. TLS may end before this server, so the scheme decides nothing but which port
/// is meant where none is named.
fn is_own(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = split_origin(origin) else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") { "443" } else { "80" };
    let (their_name, their_port) = split_port(authority);
    let (our_name, our_port) = split_port(host);
    !our_name.is_empty()
        && their_name.eq_ignore_ascii_case(our_name)
        && their_port.unwrap_or(default) == our_port.unwrap_or(default)
}

/// Whether a `Host` header names this machine in a way that no name server can claim: `localhost`, a name below it, or a
/// loopback address.
fn is_local_name(host: &str) -> bool {
    let (name, _) = split_port(host);
    if name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok_and(is_loopback)
}

/// Whether an address is this machine's own, an IPv4 address written as IPv6 too.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a proxy left its mark on a request with headers of these names.
pub fn is_forwarded<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| is_forwarding_header(&name.to_ascii_lowercase()))
}
