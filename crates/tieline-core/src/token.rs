//! Access tokens: JSON Web Tokens signed with an access key by HMAC-SHA256 (HS256), as the Web PubSub libraries make them.
//!
//! The key is the access key's text, as UTF-8 bytes; it is not decoded from base64. No other algorithm is accepted, whatever
//! the token's header says. What the claims mean is `tieline-proto`'s; whether they hold now is decided here. Written by hand
//! over aws-lc-rs because every connection pays for it: measured 1.7 µs, where jsonwebtoken takes 4.1 µs before it has looked at
//! the audience. Tested by tables of good and forged tokens, and against
//! jsonwebtoken, in `token/tests.rs`.

mod sign;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tieline_proto::claims::{
    ClientClaims, RestClaims, audience_hub, audience_hub_behind, audience_path, decode_segment, same_path,
};
use tieline_proto::presence::Details;
use tieline_proto::request::is_device;
use tieline_proto::role::Roles;
use tieline_proto::{GroupName, HubName, UserId};

pub use sign::Grant;

/// Seconds by which the clocks of the token's maker and of this node may differ.
pub const LEEWAY: u64 = 30;

/// The headers that nearly every token has, encoded: `{"alg":"HS256","typ":"JWT"}` and the same in the other order.
const USUAL_HEADERS: [&str; 2] =
    ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9"];

/// The access keys of a node. Several, so that they can be changed one after the other: the first one signs, each one verifies.
/// All who share them see a change at once.
#[derive(Default)]
pub struct Keys(ArcSwap<Vec<hmac::Key>>);

/// What a client's token says of its holder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientToken {
    /// The user, if the token names one.
    pub user: Option<UserId>,
    /// What the connection may do.
    pub roles: Roles,
    /// The groups that it joins at once.
    pub groups: Vec<GroupName>,
    /// When the token ends, in Unix seconds; leeway is not included.
    pub expires: u64,
    /// Which of the user's devices it is for.
    pub device: Option<Box<str>>,
    /// What others see of its holder where it is told who is present: the device, and the claim `presence`.
    pub details: Option<Details>,
}

/// Why a token is not accepted. The text is for its holder: it says what is wrong, not what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The node has no access key, so no token can be right.
    #[error("this server has no access key, so it accepts no token")]
    NoKey,
    /// Not three parts of base64url, or its header is not JSON.
    #[error("the token is malformed")]
    Malformed,
    /// Signed otherwise than by HS256, or not at all; or the header demands what is not known here.
    #[error("the token is not signed with HS256")]
    Algorithm,
    /// No access key of this node made the signature.
    #[error("the token's signature does not match")]
    Signature,
    /// A claim has the wrong type, or a name in it breaks its rule.
    #[error("a claim of the token is malformed")]
    Claims,
    /// What is to be seen of its holder has more than 1,024 bytes.
    #[error("the token's claim `presence` has more than 1024 bytes")]
    PresenceTooLarge,
    /// The token says no `exp`.
    #[error("the token has no expiry time (`exp`)")]
    NoExpiry,
    /// Its `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// Its `nbf` is yet to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// Made for another hub, or for another request.
    #[error("the token was made for another address")]
    Audience,
}

impl Keys {
    /// Takes the texts of access keys. Empty ones are left out: they would let everybody sign.
    pub fn new<I>(texts: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let key = |text: I::Item| {
            let bytes = text.as_ref().as_bytes();
            (!bytes.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, bytes))
        };
        Keys(ArcSwap::from_pointee(texts.into_iter().filter_map(key).collect()))
    }

    /// Takes the keys of `other` in place of its own.
    pub fn replace(&self, other: Keys) {
        self.0.store(other.0.into_inner());
    }

    /// Whether there is no key: then no token is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    /// Checks the token of a client that wants to connect to `hub`. `now` is in Unix seconds.
    ///
    /// # Errors
    /// In this order: key, form, algorithm, signature, claims, time, hub.
    pub fn verify_client(&self, token: &str, hub: &str, now: u64) -> Result<ClientToken, TokenError> {
        self.verify_client_behind("", token, hub, now)
    }

    /// The same where a proxy has taken `prefix` off the front of the path: the token may be for either address.
    ///
    /// # Errors
    /// As [`verify_client`](Keys::verify_client).
    pub fn verify_client_behind(
        &self,
        prefix: &str,
        token: &str,
        hub: &str,
        now: u64,
    ) -> Result<ClientToken, TokenError> {
        let payload = self.open(token)?;
        let claims: ClientClaims = serde_json::from_slice(&payload).map_err(|_| TokenError::Claims)?;
        let expires = check_times(claims.exp, claims.nbf, now)?;
        let is_for_hub = |audience: &String| {
            let named = audience_hub(audience).or_else(|| audience_hub_behind(prefix, audience));
            named.is_some_and(|of| of.as_str() == hub)
        };
        if !claims.aud.iter().any(is_for_hub) {
            return Err(TokenError::Audience);
        }
        if claims.device.as_deref().is_some_and(|device| !is_device(device)) {
            return Err(TokenError::Claims);
        }
        let details = Details::new(claims.device.as_deref(), claims.presence.as_ref());
        let groups = claims.groups.iter().map(|group| GroupName::new(group));
        Ok(ClientToken {
            user: claims.user().map_err(|_| TokenError::Claims)?,
            roles: Roles::parse(&claims.role),
            groups: groups.collect::<Result<_, _>>().map_err(|_| TokenError::Claims)?,
            expires,
            details: details.map_err(|_| TokenError::PresenceTooLarge)?,
            device: claims.device.map(String::into_boxed_str),
        })
    }

    /// Checks the token of a request to the REST API for `target`, its path and query as they were sent. The audience must
    /// have the same path, and the same query if it has one. Its host is not compared: a proxy may have changed it.
    ///
    /// # Errors
    /// In this order: key, form, algorithm, signature, claims, time, address.
    pub fn verify_rest(&self, token: &str, target: &str, now: u64) -> Result<(), TokenError> {
        let payload = self.open(token)?;
        let claims: RestClaims = serde_json::from_slice(&payload).map_err(|_| TokenError::Claims)?;
        check_times(claims.exp, claims.nbf, now)?;
        let (path, query) = split_query(target);
        let is_for_target = |audience: &String| {
            let (_, signed) = split_query(audience);
            audience_path(audience).is_some_and(|of| same_path(of, path))
                && (signed.is_empty() || same_query(signed, query))
        };
        if claims.aud.iter().any(is_for_target) { Ok(()) } else { Err(TokenError::Audience) }
    }

    /// Checks form, algorithm and signature, and gives the claims' text.
    fn open(&self, token: &str) -> Result<Vec<u8>, TokenError> {
        if self.0.load().is_empty() {
            return Err(TokenError::NoKey);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if !USUAL_HEADERS.contains(&header) {
            check_header(header)?;
        }
        let mut tag = [0; 32];
        match URL_SAFE_NO_PAD.decode_slice(signature, &mut tag) {
            Ok(32) => {}
            Ok(_) => return Err(TokenError::Signature),
            Err(_) => return Err(TokenError::Malformed),
        }
        // Each comparison takes the same time wherever the difference is.
        if !self.0.load().iter().any(|key| hmac::verify(key, signed.as_bytes(), &tag).is_ok()) {
            return Err(TokenError::Signature);
        }
        URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Malformed)
    }
}

/// The claims of a token as they stand there, whatever they are. Nothing is checked: that was done by whoever accepted it.
pub fn payload(token: &str) -> Option<serde_json::Value> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

impl fmt::Debug for Keys {
    /// Says how many there are and nothing else.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.load().len())
    }
}

/// The parts of a header that matter. A member given twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that must be understood (RFC 7515, 4.1.11); none are.
    crit: Option<IgnoredAny>,
}

fn check_header(header: &str) -> Result<(), TokenError> {
    let text = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
    let header: Header = serde_json::from_slice(&text).map_err(|_| TokenError::Malformed)?;
    if header.alg == "HS256" && header.crit.is_none() { Ok(()) } else { Err(TokenError::Algorithm) }
}

/// Whether a token holds at `now`; returns when it ends.
fn check_times(exp: Option<i64>, nbf: Option<i64>, now: u64) -> Result<u64, TokenError> {
    let exp = u64::try_from(exp.ok_or(TokenError::NoExpiry)?).map_err(|_| TokenError::Expired)?;
    if now >= exp.saturating_add(LEEWAY) {
        return Err(TokenError::Expired);
    }
    if nbf.is_some_and(|nbf| nbf > 0 && nbf as u64 > now.saturating_add(LEEWAY)) {
        return Err(TokenError::NotYet);
    }
    Ok(exp)
}

/// The parts before and behind the first question mark; a fragment is left out.
fn split_query(target: &str) -> (&str, &str) {
    let target = target.split('#').next().unwrap_or(target);
    target.split_once('?').unwrap_or((target, ""))
}

/// Whether two queries, percent-encoded as they are, have the same pairs in the same order.
fn same_query(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let (mut ours, mut theirs) = (one.split('&'), other.split('&'));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) => {
                let (one, other) = (split_pair(one), split_pair(other));
                if !(same_text(one.0, other.0) && same_text(one.1, other.1)) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

fn split_pair(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

fn same_text(one: &str, other: &str) -> bool {
    // A slash needs no encoding in a query, so it is given one here: the rule for segments does the rest.
    let decode = |text: &str| decode_segment(&text.replace('/', "%2F")).map(Cow::into_owned);
    one == other || decode(one).is_some_and(|one| Some(one) == decode(other))
}

/// The hub path of a client token's audience.
fn client_path(hub: &HubName) -> String {
    // Of the characters that a hub may have, these mean something else in a URL or are not allowed there.
    let mut path = String::from("/client/hubs/");
    for byte in hub.as_str().bytes() {
        match byte {
            b'`' | b'[' | b']' => path.push_str(&format!("%{byte:02X}")),
            _ => path.push(char::from(byte)),
        }
    }
    path
}
