//! The signature of a request, by which a server with access control knows who asks: an HMAC-SHA1 under the secret key over the
//! values of all fields, in the order of the fields' names, and the body. The secret itself never travels.
//!
//! Nothing in it is new from one request to the next, so it protects from strangers, not from who listens; the server has
//! nothing better. Tested here by the vector of RocketMQ's own tests, and by the broker's tests against a real server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::settings::Login;

/// The fields of a request, in the order that they are signed in.
pub(super) type Fields<'a> = BTreeMap<&'static str, Cow<'a, str>>;

/// Signs requests.
pub(super) struct Signer {
    /// The access key, which is sent.
    key: String,
    secret: hmac::Key,
}

impl Signer {
    pub(super) fn new(login: &Login) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, login.secret.as_bytes());
        Signer { key: login.key.clone(), secret }
    }

    /// Adds who asks, and the proof of it.
    pub(super) fn sign<'a>(&'a self, fields: &mut Fields<'a>, body: &[u8]) {
        fields.insert("AccessKey", Cow::Borrowed(&self.key));
        let mut context = hmac::Context::with_key(&self.secret);
        for value in fields.values() {
            context.update(value.as_bytes());
        }
        context.update(body);
        fields.insert("Signature", STANDARD.encode(context.sign()).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_other_clients_send() {
        let signer = |key: &str| Signer::new(&Login { key: key.into(), secret: "12345678".into() });
        // "RocketMQ", in whatever fields and body it is.
        for (key, fields, body) in [
            ("RocketMQ", &[][..], ""),
            ("Rock", &[("topic", "et")], "MQ"),
            ("ck", &[("A", "Ro"), ("b", "M"), ("a", "et")], "Q"),
        ] {
            let signer = signer(key);
            let mut signed: Fields =
                fields.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
            signer.sign(&mut signed, body.as_bytes());
            assert_eq!(signed["Signature"], "IUc8rrO/0gDch8CjObLQsW2rsiA=", "{fields:?}");
            assert_eq!(signed["AccessKey"], key);
        }
    }
}
