//! Making client tokens: for `tieline token`, the REST call that generates one, and tests.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;
use tieline_proto::presence::Details;
use tieline_proto::{GroupName, HubName, UserId};

use super::{Keys, TokenError, USUAL_HEADERS, client_path};

/// What a token is to allow.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The server's address as clients know it, such as `http://127.0.0.1:7800`, without a slash at its end.
    pub endpoint: String,
    /// The hub that it opens.
    pub hub: HubName,
    /// The user it is for, if anybody.
    pub user: Option<UserId>,
    /// Roles as they are written, such as `webpubsub.sendToGroup.room`.
    pub roles: Vec<String>,
    /// Groups to be joined at once.
    pub groups: Vec<GroupName>,
    /// What others are to see of its holder where it is told who is present.
    pub presence: Option<Value>,
    /// How many seconds it lives.
    pub lifetime: u64,
}

/// The claims in the order and with the omissions of the official libraries.
#[derive(Serialize)]
struct Claims<'a> {
    aud: String,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a UserId>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    role: &'a [String],
    #[serde(rename = "webpubsub.group", skip_serializing_if = "<[GroupName]>::is_empty")]
    groups: &'a [GroupName],
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<&'a Value>,
}

impl Keys {
    /// What proves to whoever has an access key that a text comes from a holder of it: its HMAC-SHA256 by each key, in
    /// hexadecimal digits.
    pub fn sign_text(&self, text: &str) -> Vec<String> {
        let signed = |key| {
            let tag = hmac::sign(key, text.as_bytes());
            tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        self.0.load().iter().map(signed).collect()
    }

    /// Makes a client token with the first key. `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`TokenError::NoKey`] without a key, [`TokenError::PresenceTooLarge`] for a token that nobody would accept.
    pub fn sign_client(&self, grant: &Grant, now: u64) -> Result<String, TokenError> {
        let keys = self.0.load();
        let key = keys.first().ok_or(TokenError::NoKey)?;
        Details::new(None, grant.presence.as_ref()).map_err(|_| TokenError::PresenceTooLarge)?;
        let claims = Claims {
            aud: format!("{}{}", grant.endpoint, client_path(&grant.hub)),
            iat: now,
            exp: now.saturating_add(grant.lifetime),
            sub: grant.user.as_ref(),
            role: &grant.roles,
            groups: &grant.groups,
            presence: grant.presence.as_ref(),
        };
        Ok(signed(key, &claims))
    }

    /// Makes a token for a request of the REST API to this address, its query among it, with the first key. `now` and `lifetime` are in
    /// seconds.
    ///
    /// # Errors
    /// [`TokenError::NoKey`] without a key.
    pub fn sign_rest(&self, url: &str, lifetime: u64, now: u64) -> Result<String, TokenError> {
        let keys = self.0.load();
        let key = keys.first().ok_or(TokenError::NoKey)?;
        Ok(signed(key, &serde_json::json!({"aud": url, "iat": now, "exp": now.saturating_add(lifetime)})))
    }
}

fn signed(key: &hmac::Key, claims: &impl Serialize) -> String {
    let claims = serde_json::to_vec(claims).expect("text and numbers are always JSON");
    let mut token = format!("{}.{}", USUAL_HEADERS[0], URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(key, token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag, &mut token);
    token
}
