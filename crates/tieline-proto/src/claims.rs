//! [`ClientClaims`] and [`RestClaims`]: what a token says once its signature holds.
//!
//! The signature, and whether the times have passed, are checked elsewhere. What is read here is strict about
//! types and lenient about number: one string stands for a list of one. Claims that nobody asks for are
//! ignored.

mod audience;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

pub use audience::{audience_hub, audience_hub_behind, audience_path, decode_segment, same_path};

use crate::id::{NameError, UserId};

/// The claims of a client's token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ClientClaims {
    /// The user; absent for a connection without one.
    pub sub: Option<String>,
    /// The roles.
    #[serde(default, deserialize_with = "one_or_many")]
    pub role: Vec<String>,
    /// The groups to join on connecting, permission or not: the token's maker put them there.
    #[serde(default, rename = "webpubsub.group", deserialize_with = "one_or_many")]
    pub groups: Vec<String>,
    /// For which addresses the token was made.
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// When it ends, in Unix seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub exp: Option<i64>,
    /// When it was made, in Unix seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub iat: Option<i64>,
    /// When it begins, in Unix seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub nbf: Option<i64>,
    /// Which of the user's devices it is for: each keeps its own place in the inbox.
    pub device: Option<String>,
    /// What others see of the connection where presence is told: any JSON.
    pub presence: Option<serde_json::Value>,
}

impl ClientClaims {
    /// The user, checked.
    ///
    /// # Errors
    /// When `sub` is there and is no user id.
    pub fn user(&self) -> Result<Option<UserId>, NameError> {
        self.sub.as_deref().map(UserId::new).transpose()
    }
}

/// The claims of a token for the REST API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RestClaims {
    /// The URL of the request the token was made for, with its query.
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// When it ends, in Unix seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub exp: Option<i64>,
    /// When it was made, in Unix seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub iat: Option<i64>,
    /// When it begins, in Unix seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub nbf: Option<i64>,
}

/// Reads a string, an array of strings, or null.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or an array of strings")
        }

        fn visit_unit<E>(self) -> Result<Vec<String>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut found = Vec::new();
            while let Some(text) = seq.next_element()? {
                found.push(text);
            }
            Ok(found)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

/// Reads a time, which RFC 7519 lets have a fraction; the fraction is cut off. Null is absent.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    struct Seconds;

    impl Visitor<'_> for Seconds {
        type Value = Option<i64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("seconds since 1970")
        }

        fn visit_unit<E>(self) -> Result<Option<i64>, E> {
            Ok(None)
        }

        fn visit_i64<E>(self, number: i64) -> Result<Option<i64>, E> {
            Ok(Some(number))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<i64>, E> {
            i64::try_from(number).map(Some).map_err(|_| E::custom("a time beyond 2^63 seconds"))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Option<i64>, E> {
            // Past 2^53 a float no longer tells seconds apart.
            if number.abs() > 9_007_199_254_740_992.0 {
                return Err(E::custom("a time beyond 2^53 seconds"));
            }
            Ok(Some(number.floor() as i64))
        }
    }

    deserializer.deserialize_any(Seconds)
}
