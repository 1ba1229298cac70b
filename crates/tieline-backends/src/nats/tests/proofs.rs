//! All ways to say who this is: user and password, token, key, credentials of an account; and TLS where it does not fit.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::key::tests::{PUBLIC, SEED};
use super::super::key::written;
use super::*;

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("tieline-nats-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    /// Writes a file, and gives its path.
    fn file(&self, name: &str, text: &str) -> String {
        let file = self.0.join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn expect_refused(url: &str, words: &str) {
    match trouble(url).await {
        Trouble::Refused(text) if text.contains(words) => {}
        other => panic!("{url}: {other}"),
    }
}

#[tokio::test]
async fn users_tokens_and_keys_are_checked_at_once() {
    if !is_private("servers that ask who this is") {
        return;
    }
    let folder = Folder::new("keys");
    let users = configured(format!(
        "authorization {{ users: [
            {{ user: node, password: \"hush/1\", permissions: {{ publish: \"tieline.>\", subscribe: \"tieline.>\" }} }}
            {{ user: deaf, password: hush, permissions: {{ publish: \"tieline.>\", subscribe: \"none\" }} }}
            {{ user: mute, password: hush, permissions: {{ publish: \"none\", subscribe: \"tieline.>\" }} }}
            {{ nkey: {PUBLIC} }}
        ] }}\n"
    ));
    let server = users.url().strip_prefix("nats://").unwrap();
    let seed = folder.file("seed", SEED);
    for good in [format!("nats://node:hush%2F1@{server}"), format!("nats://{server}?nkey={seed}")] {
        start(&good).await.unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    expect_refused(&format!("nats://{server}"), "Authorization Violation").await;
    expect_refused(&format!("nats://node:hush@{server}"), "Authorization Violation").await;
    expect_refused(&format!("nats://deaf:hush@{server}"), "Permissions Violation for Subscription").await;
    expect_refused(&format!("nats://mute:hush@{server}"), "Permissions Violation for Publish").await;
    let nothing = folder.file("nothing", "hush");
    let broken = trouble(&format!("nats://{server}?nkey={nothing}")).await;
    assert!(matches!(broken, Trouble::Key { .. }) && broken.to_string().contains(&nothing), "{broken}");
    let absent = trouble(&format!("nats://{server}?nkey={nothing}.not")).await;
    assert!(matches!(absent, Trouble::File { .. }), "{absent}");

    let token = configured("authorization { token: \"hush!\" }\n");
    let server = token.url().strip_prefix("nats://").unwrap();
    start(&format!("nats://hush%21@{server}")).await.unwrap();
    expect_refused(&format!("nats://hush@{server}"), "Authorization Violation").await;
}

/// Somebody who signs tokens: an operator, an account, a user.
struct Signer {
    keys: Ed25519KeyPair,
    seed: [u8; 32],
    kind: u8,
}

impl Signer {
    const OPERATOR: u8 = 14 << 3;
    const ACCOUNT: u8 = 0;
    const USER: u8 = 20 << 3;

    fn new(kind: u8, number: u8) -> Signer {
        let seed = [number; 32];
        Signer { keys: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap(), seed, kind }
    }

    fn public(&self) -> String {
        written(&[&[self.kind], self.keys.public_key().as_ref()].concat())
    }

    fn seed(&self) -> String {
        written(&[&[18 << 3 | self.kind >> 5, self.kind << 3], &self.seed[..]].concat())
    }

    /// A token about somebody.
    fn token(&self, about: &Signer, name: &str, nats: Value) -> String {
        let encoded = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({
            "jti": name, "iat": 1, "iss": self.public(), "sub": about.public(), "name": name, "nats": nats,
        });
        let text = format!("{}.{}", encoded(json!({"typ": "JWT", "alg": "ed25519-nkey"})), encoded(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.keys.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

fn credentials(token: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[tokio::test]
async fn credentials_of_an_account_are_enough() {
    if !is_private("a server with accounts") {
        return;
    }
    let folder = Folder::new("credentials");
    let operator = Signer::new(Signer::OPERATOR, 1);
    let [account, other] = [2, 3].map(|number| Signer::new(Signer::ACCOUNT, number));
    let user = Signer::new(Signer::USER, 4);
    let all = json!({"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": true});
    let of_operator = operator.token(&operator, "operator", json!({"type": "operator", "version": 2}));
    let of_account = |account: &Signer| {
        operator.token(account, "account", json!({"type": "account", "version": 2, "limits": all}))
    };
    let engine = configured(format!(
        "operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\n",
        account.public(),
        of_account(&account)
    ));
    let server = engine.url().strip_prefix("nats://").unwrap();
    let of_user = |account: &Signer, payload: i32| {
        let nats = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": payload, "pub": {}, "sub": {}});
        credentials(&account.token(&user, "user", nats), &user.seed())
    };
    let good = folder.file("good.creds", &of_user(&account, -1));
    let settings = settings(&fresh_cluster(), &format!("nats://{server}?creds={good}"));
    let (a, _a) = start_with(settings.clone()).await.unwrap();
    let (_b, at_b) = start_with(settings).await.unwrap();
    a.send(To::All, &Arc::from(&b"within the account"[..])).unwrap();
    assert_eq!(at_b.until_envelopes(1).await, [b"within the account"]);

    let stranger = folder.file("other.creds", &of_user(&other, -1));
    expect_refused(&format!("nats://{server}?creds={stranger}"), "Authorization Violation").await;
    let thief = Signer::new(Signer::USER, 5);
    let (token, _) =
        of_user(&account, -1).split_once("------END").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let token = token.lines().nth(1).unwrap().to_owned();
    let stolen = folder.file("stolen.creds", &credentials(&token, &thief.seed()));
    expect_refused(&format!("nats://{server}?creds={stolen}"), "Authorization Violation").await;
}

#[tokio::test]
async fn certificates_that_nobody_trusts_are_refused() {
    if !is_private("a server with TLS") {
        return;
    }
    let folder = Folder::new("tls");
    let [key, cert] = ["key", "cert"].map(|name| folder.0.join(name).display().to_string());
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=tieline test", "-keyout", &key, "-out", &cert])
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let engine = configured(format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\" }}\n"));
    let server = engine.url().strip_prefix("nats://").unwrap();
    // A server that wants TLS gets it, whatever the URL begins with.
    for scheme in ["nats", "tls", "nats+tls"] {
        match trouble(&format!("{scheme}://u:hush@{server}")).await {
            Trouble::Tls(_) => {}
            other => panic!("{scheme}: {other}"),
        }
    }
    let plain = Engine::nats().start().unwrap();
    let server = plain.url().strip_prefix("nats://").unwrap();
    assert!(matches!(trouble(&format!("tls://u:hush@{server}")).await, Trouble::Plain));
}
