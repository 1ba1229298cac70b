//! [`Credentials`]: logging in at a Nacos server, which the library asks for as a plug-in. Its own puts the password into addresses and,
//! when something fails, into the log.
//!
//! Tested with the registry, and here by answers that a server might give.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nacos_sdk::api::plugin::{AuthContext, AuthPlugin, LoginIdentityContext, RequestResource};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::address::Login;
use super::http::{self, Answer};

/// Where users log in: of this major version, and of the one before.
const PATHS: [&str; 2] = ["/nacos/v3/auth/user/login", "/nacos/v1/auth/login"];

/// A token is renewed when this part of its time is over.
const RENEW: u32 = 10;

/// A user, the password, and the token that they gave.
pub(super) struct Credentials {
    login: Login,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<String>,
    /// When there is to be another one.
    renew: Option<Instant>,
    /// Whether a server knew user and password, as of the last answer.
    is_refused: bool,
}

/// What a server says of a login.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Token(String, Duration),
    /// It does not know user and password.
    Refused,
    /// There is no such path.
    Unknown,
    /// Nothing that can be understood.
    Garbled,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(rename = "accessToken")]
    token: String,
    /// In seconds.
    #[serde(rename = "tokenTtl")]
    lasts: u64,
}

impl Credentials {
    pub(super) fn new(login: Login) -> Arc<Self> {
        Arc::new(Credentials { login, state: Mutex::default() })
    }

    /// Whether the last server that answered did not know user and password.
    pub(super) fn is_refused(&self) -> bool {
        self.state().is_refused
    }

    /// What the last login gave, if it gave anything.
    pub(super) fn token(&self) -> Option<String> {
        self.state().token.clone()
    }

    /// Whether it is time for another token, or there is none.
    pub(super) fn is_due(&self) -> bool {
        self.state().renew.is_none_or(|renew| Instant::now() >= renew)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets another token, from the first server that gives one.
    pub(super) async fn renew(&self, servers: &[String]) {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let form = format!("username={}&password={}", encode(&self.login.user), encode(&self.login.password));
        for server in servers {
            for path in PATHS {
                let outcome = match http::post(server, path, &form).await {
                    Ok(answer) => Outcome::of(&answer),
                    Err(error) => {
                        tracing::debug!(server, %error, "Cannot log in.");
                        break;
                    }
                };
                let mut state = self.state();
                match outcome {
                    Outcome::Token(token, lasts) => {
                        let renew = Instant::now() + lasts / RENEW;
                        *state = State { token: Some(token), renew: Some(renew), is_refused: false };
                        return;
                    }
                    Outcome::Refused => state.is_refused = true,
                    Outcome::Unknown => continue,
                    Outcome::Garbled => tracing::warn!(server, "What answers a login is no Nacos server."),
                }
                break;
            }
        }
    }
}

impl Outcome {
    fn of(answer: &Answer) -> Self {
        match answer.code {
            200 => match serde_json::from_slice(&answer.body) {
                Ok(Granted { token, lasts }) => Outcome::Token(token, Duration::from_secs(lasts)),
                Err(_) => Outcome::Garbled,
            },
            404 | 405 | 410 | 501 => Outcome::Unknown,
            // Version 3 says 500 where there is no such user, or the password is another.
            401 | 403 | 500 => Outcome::Refused,
            _ => Outcome::Garbled,
        }
    }
}

impl AuthPlugin for Credentials {
    fn login<'a, 'b>(
        &'a self,
        servers: Arc<Vec<String>>,
        _context: Arc<AuthContext>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            // The library asks every half a minute.
            if self.is_due() {
                self.renew(&servers).await;
            }
        })
    }

    fn get_login_identity(&self, _resource: RequestResource) -> LoginIdentityContext {
        let context = LoginIdentityContext::default();
        match self.token() {
            Some(token) => context.add_context("accessToken", token),
            None => context,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let granted = r#"{"accessToken":"t.o.k","tokenTtl":18000,"globalAdmin":true,"username":"nacos"}"#;
        for (code, body, expected) in [
            (200, granted, Outcome::Token("t.o.k".to_owned(), Duration::from_secs(18_000))),
            (200, "<html>", Outcome::Garbled),
            (403, "unknown user", Outcome::Refused),
            (500, "", Outcome::Refused),
            (404, "", Outcome::Unknown),
            (302, "", Outcome::Garbled),
        ] {
            let answer = Answer { code, body: body.as_bytes().to_vec() };
            assert_eq!(Outcome::of(&answer), expected, "{code} {body}");
        }
    }
}
