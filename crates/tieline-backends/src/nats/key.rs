//! [`Key`]: a user's key of NATS, from the seed that is its secret: an Ed25519 pair which signs what the server made up. And the
//! files that seeds stand in. Tested here with keys and files that the tools of NATS have made, and against a real server.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::crc16::crc16;

/// First byte of a seed, in its upper five bits.
const SEED: u8 = 18 << 3;

/// First byte of a user's public key.
const USER: u8 = 20 << 3;

/// Letters of base 32.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What is wrong with a file. It repeats nothing of the file: there is a secret in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// There is nothing like a seed in it.
    #[error("there is no seed of a user in it, which begins with `SU`")]
    Seed,
    /// It has no token of a user.
    #[error("there is no token of a user (`BEGIN NATS USER JWT`) in it")]
    Token,
}

/// A user's key. It never shows its secret.
pub(super) struct Key(Ed25519KeyPair);

impl Key {
    /// Reads a seed.
    fn parse(text: &str) -> Option<Key> {
        let bytes = from_base32(text)?;
        // Two bytes that say of whom the key is, the seed, and a check.
        let (checked, check) = bytes.split_last_chunk()?;
        if checked.len() != 34 || crc16(checked) != u16::from_le_bytes(*check) {
            return None;
        }
        // The first five bits say that it is a seed, the next eight whose.
        let (kind, whose) = (checked[0] & 0xf8, (checked[0] & 0x07) << 5 | checked[1] >> 3);
        if kind != SEED || whose != USER {
            return None;
        }
        Ed25519KeyPair::from_seed_unchecked(&checked[2..]).ok().map(Key)
    }

    /// The key of a file that a seed stands in, alone or between lines that frame it.
    pub(super) fn in_file(text: &str) -> Result<Key, BadKey> {
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| line.starts_with("SU")).and_then(Key::parse).ok_or(BadKey::Seed)
    }

    /// The token and the key of a file of credentials.
    pub(super) fn in_credentials(text: &str) -> Result<(&str, Key), BadKey> {
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| line.starts_with("---") && line.contains("USER JWT")).ok_or(BadKey::Token)?;
        let token = lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with("---"));
        Ok((token.ok_or(BadKey::Token)?, Key::in_file(text)?))
    }

    /// Who it is, as the server's configuration names him.
    pub(super) fn public(&self) -> String {
        written(&[&[USER], self.0.public_key().as_ref()].concat())
    }

    /// The signature of what the server made up.
    pub(super) fn sign(&self, nonce: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0.sign(nonce.as_bytes()))
    }
}

/// A key as it is written, with its check.
pub(super) fn written(bytes: &[u8]) -> String {
    to_base32(&[bytes, &crc16(bytes).to_le_bytes()].concat())
}

/// Base 32 without padding; `None` for anything else.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() * 5 / 8), 0_u32, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter)?;
        (bits, count) = (bits << 5 | value as u32, count + 5);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // Of the last letter the bits that are left over are zero.
    (count < 5 && bits == 0).then_some(bytes)
}

fn to_base32(bytes: &[u8]) -> String {
    let (mut text, mut bits, mut count) = (String::with_capacity(bytes.len() * 8 / 5 + 1), 0_u32, 0);
    for byte in bytes {
        (bits, count) = (bits << 8 | u32::from(*byte), count + 8);
        while count >= 5 {
            count -= 5;
            text.push(char::from(ALPHABET[(bits >> count) as usize & 31]));
        }
    }
    if count > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - count)) as usize & 31]));
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use proptest::prelude::*;

    use super::*;

    /// From the documentation of NATS.
    pub(in super::super) const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    pub(in super::super) const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    #[test]
    fn a_seed_gives_the_key_that_servers_know() {
        let key = Key::in_file(&format!("\n {SEED}\r\n")).ok().unwrap();
        assert_eq!(key.public(), PUBLIC);
        let signature = BASE64_URL_SAFE_NO_PAD.decode(key.sign("nonce")).unwrap();
        let public = &from_base32(PUBLIC).unwrap()[1..33];
        UnparsedPublicKey::new(&ED25519, public).verify(b"nonce", &signature).unwrap();
    }

    #[test]
    fn only_seeds_of_users_are_taken() {
        let account = "SAANJIBNEKGCRUWJCPIWUXFBFJLR36FJTFKGBGKAT7AQXH2LVFNQWZJMQU";
        let changed = SEED.replace("SSL", "SSM");
        for text in [
            "",
            "SU",
            &SEED[1..],
            &SEED[..57],
            &format!("{SEED}A"),
            PUBLIC,
            account,
            &changed,
            &SEED.to_lowercase(),
        ] {
            assert_eq!(Key::in_file(text).err(), Some(BadKey::Seed), "{text}");
        }
    }

    #[test]
    fn credentials_have_a_token_and_a_seed() {
        let file = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.e30.sig\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        for file in [file.clone(), file.replace('\n', "\r\n"), file.replace("eyJ0", "\n  eyJ0")] {
            let (token, key) = Key::in_credentials(&file).ok().unwrap();
            assert_eq!((token, key.public().as_str()), ("eyJ0.e30.sig", PUBLIC));
        }
        let wrong = |file: &str| Key::in_credentials(file).err();
        assert_eq!(wrong(SEED), Some(BadKey::Token));
        assert_eq!(wrong(&file.replace("eyJ0.e30.sig\n", "")), Some(BadKey::Token));
        assert_eq!(wrong(&file.replace(SEED, "")), Some(BadKey::Seed));
    }

    proptest! {
        #[test]
        fn what_is_written_in_letters_is_read_again(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(from_base32(&to_base32(&bytes)), Some(bytes));
        }
    }
}
