//! Client tokens made offline from an access key, as the official SDKs make them: HS256 with the key's text as bytes.
//! Nothing here reads or checks tokens. Tested here by verifying one with the key and with another.

use crate::endpoint::Endpoint;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// How long a token lives. A run is shorter.
const LIFETIME_SECONDS: u64 = 3600;

/// What the token says.
#[derive(Serialize)]
struct Claims<'a> {
    /// The client URL as `http`, without query.
    aud: String,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    /// Every client role that the loads need.
    role: [&'static str; 3],
    /// Seconds since 1970 at which the token was made.
    iat: u64,
    /// Seconds since 1970 at which it ends.
    exp: u64,
}

/// A token for `user` at `endpoint`, signed with `key`.
pub(crate) fn client(
    endpoint: &Endpoint,
    user: Option<&str>,
    key: &str,
) -> Result<String, jsonwebtoken::errors::Error> {
    // A clock before 1970 makes tokens that every server refuses, with a message that says so.
    let iat = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claims = Claims {
        aud: format!("http://{}{}", endpoint.authority, endpoint.path),
        sub: user,
        role: ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup", "tieline.sendToUser"],
        iat,
        exp: iat + LIFETIME_SECONDS,
    };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    #[test]
    fn a_token_verifies_with_its_key_alone() {
        let endpoint = Endpoint::parse("ws://127.0.0.1:7800/client/hubs/bench?x=y").unwrap();
        let token = client(&endpoint, Some("u1"), "a key").unwrap();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["http://127.0.0.1:7800/client/hubs/bench"]);
        let key = |text: &str| DecodingKey::from_secret(text.as_bytes());
        let claims =
            jsonwebtoken::decode::<serde_json::Value>(&token, &key("a key"), &validation).unwrap().claims;
        assert_eq!(claims["sub"], "u1");
        assert!(jsonwebtoken::decode::<serde_json::Value>(&token, &key("another"), &validation).is_err());
    }
}
