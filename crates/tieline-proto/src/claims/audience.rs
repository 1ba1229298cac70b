//! The audience of a token: the path of a URL, read without being fooled.
//!
//! The host is left out of account, as a proxy in front may have another; the path must be the one that was
//! asked for, segment by segment after percent-decoding, so that `/users/a%2Fb` is never `/users/a/b`.

use std::borrow::Cow;

use crate::id::HubName;

/// The path of an absolute URL of http, https, ws or wss, without query and fragment; none for anything else.
/// A URL that ends with its host has the path `/`.
#[must_use]
pub fn audience_path(audience: &str) -> Option<&str> {
    let (scheme, rest) = audience.split_once("://")?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    // A backslash or a blank is read as different things by different programs.
    let odd = |c: char| c.is_ascii_control() || c == '\\' || c == ' ';
    (!host.is_empty() && !rest.contains(odd)).then_some(path)
}

/// The hub of a client token's audience, `http(s)://HOST/client/hubs/HUB`; none when it is anything else.
#[must_use]
pub fn audience_hub(audience: &str) -> Option<HubName> {
    audience_hub_behind("", audience)
}

/// The same where a proxy takes `prefix` off the front of the path.
#[must_use]
pub fn audience_hub_behind(prefix: &str, audience: &str) -> Option<HubName> {
    let hub = audience_path(audience)?.strip_prefix(prefix)?.strip_prefix("/client/hubs/")?;
    HubName::new(&decode_segment(hub)?).ok()
}

/// Whether two paths, percent-encoded as they are, have the same segments.
#[must_use]
pub fn same_path(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let mut segments = (one.split('/'), other.split('/'));
    loop {
        match (segments.0.next(), segments.1.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) => match (decode_segment(one), decode_segment(other)) {
                (Some(one), Some(other)) if one == other => {}
                _ => return false,
            },
            _ => return false,
        }
    }
}

/// Undoes the percent-encoding of one path segment; none when it is malformed, not UTF-8, or still holds a
/// slash. A plus sign is a plus sign.
#[must_use]
pub fn decode_segment(segment: &str) -> Option<Cow<'_, str>> {
    if segment.contains('/') {
        return None;
    }
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
