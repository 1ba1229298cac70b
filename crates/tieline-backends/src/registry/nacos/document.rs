//! [`NacosDocument`]: a text that a Nacos server keeps, such as a configuration, asked for by HTTP.
//!
//! Not by the library: one request and its answer is all that is needed, which cannot hang, and asks for no port beside the one
//! of the address. Tested by a table of URLs and of answers, and by the program against a real server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::address::Parts;
use super::http::{self, Answer};
use super::login::Credentials;

/// How long all that is done for one text may take: a login, and a question to each server.
const WITHIN: Duration = Duration::from_secs(4);

/// What the server says of a text that it does not have.
const NO_SUCH_TEXT: i64 = 20004;

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The URL is none of a text. It is not repeated, because there may be a password in it.
    #[error(
        "the address of a document is `nacos://[USER:PASSWORD@]HOST[:PORT],…[/NAMESPACE]?[group=GROUP&]dataId=NAME`: {0}"
    )]
    Url(&'static str),
    /// No server answered in time.
    #[error("{address}: no server answers")]
    Away {
        /// Without the password.
        address: String,
    },
    /// It knows other users, or another password.
    #[error("{address}: the server does not know this user and password")]
    Password {
        /// Without the password.
        address: String,
    },
    /// It wants to know who asks, or does not let this user read.
    #[error("{address}: the server wants a user and a password, or does not let this user read")]
    Forbidden {
        /// Without the password.
        address: String,
    },
    /// There is none.
    #[error("{address}: there is no such document")]
    Missing {
        /// Without the password.
        address: String,
    },
    /// What answered is no Nacos server that is known.
    #[error("{address}: the server's answer ({code}) cannot be understood")]
    Garbled {
        /// Without the password.
        address: String,
        /// That of HTTP.
        code: u16,
    },
}

impl DocumentError {
    /// Whether the server was out of reach, and may come back.
    pub fn is_away(&self) -> bool {
        matches!(self, DocumentError::Away { .. })
    }
}

/// Where a text is, and as whom it is asked for. It never shows its password.
#[derive(Clone)]
pub struct NacosDocument {
    servers: Vec<String>,
    credentials: Option<Arc<Credentials>>,
    namespace: String,
    group: String,
    data_id: String,
}

/// What version 3 of the server answers.
#[derive(Deserialize)]
struct Envelope {
    code: i64,
    /// With the text as `content`, where there is one.
    #[serde(default)]
    data: Value,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Text(String),
    Forbidden,
    Missing,
    /// There is no such path.
    Unknown,
    Garbled(u16),
}

impl NacosDocument {
    /// Reads `nacos://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/NAMESPACE]?[group=GROUP&]dataId=NAME`.
    ///
    /// # Errors
    /// [`DocumentError::Url`], which repeats nothing of what was written.
    pub fn parse(url: &str) -> Result<Self, DocumentError> {
        let Parts { servers, login, namespace, group, name } =
            Parts::parse(url, "dataId", DocumentError::Url)?;
        let data_id = name.ok_or(DocumentError::Url("it names the document by `dataId=NAME`"))?;
        Ok(NacosDocument { servers, credentials: login.map(Credentials::new), namespace, group, data_id })
    }

    /// Asks for the text, of one server after the other.
    ///
    /// # Errors
    /// When no server has it, at the latest after 4 s.
    pub async fn fetch(&self) -> Result<String, DocumentError> {
        let address = self.to_string();
        match timeout(WITHIN, self.ask_all()).await {
            Ok(Some(Outcome::Text(text))) => Ok(text),
            Ok(Some(Outcome::Forbidden)) if self.is_refused() => Err(DocumentError::Password { address }),
            Ok(Some(Outcome::Forbidden)) => Err(DocumentError::Forbidden { address }),
            Ok(Some(Outcome::Missing)) => Err(DocumentError::Missing { address }),
            Ok(Some(Outcome::Unknown)) => Err(DocumentError::Garbled { address, code: 404 }),
            Ok(Some(Outcome::Garbled(code))) => Err(DocumentError::Garbled { address, code }),
            Ok(None) | Err(_) => Err(DocumentError::Away { address }),
        }
    }

    fn is_refused(&self) -> bool {
        self.credentials.as_ref().is_some_and(|credentials| credentials.is_refused())
    }

    /// The first answer that is worth something, or else the last one.
    async fn ask_all(&self) -> Option<Outcome> {
        let mut last = None;
        for server in &self.servers {
            if let Some(credentials) = self.credentials.as_ref().filter(|credentials| credentials.is_due()) {
                credentials.renew(std::slice::from_ref(server)).await;
            }
            let outcome = match (self.ask(server).await, &self.credentials) {
                (Some(Outcome::Forbidden), Some(credentials)) => {
                    // A server that was started anew may have forgotten what it gave.
                    credentials.renew(std::slice::from_ref(server)).await;
                    self.ask(server).await
                }
                (outcome, _) => outcome,
            };
            last = outcome.or(last);
            if matches!(last, Some(Outcome::Text(_) | Outcome::Forbidden | Outcome::Missing)) {
                break;
            }
        }
        last
    }

    /// One server's answer, in the words of this major version, or else of those before.
    async fn ask(&self, server: &str) -> Option<Outcome> {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let (group, data_id) = (encode(&self.group), encode(&self.data_id));
        let namespace = encode(&self.namespace);
        let token = self.credentials.as_ref().and_then(|credentials| credentials.token());
        let path =
            format!("/nacos/v3/client/cs/config?namespaceId={namespace}&groupName={group}&dataId={data_id}");
        let outcome = Outcome::of(&http::get(server, &path, token.as_deref()).await.ok()?);
        if outcome != Outcome::Unknown {
            return Some(outcome);
        }
        // There the namespace for everybody has no name.
        let namespace = if self.namespace == "public" { String::new() } else { namespace.to_string() };
        let path = format!("/nacos/v1/cs/configs?tenant={namespace}&group={group}&dataId={data_id}");
        Some(Outcome::of_before(&http::get(server, &path, token.as_deref()).await.ok()?))
    }
}

impl Outcome {
    /// What version 3 says.
    fn of(answer: &Answer) -> Self {
        if let Ok(Envelope { code, data }) = serde_json::from_slice(&answer.body) {
            match (code, data["content"].as_str()) {
                (0, Some(content)) => return Outcome::Text(content.to_owned()),
                (NO_SUCH_TEXT, _) | (0, None) => return Outcome::Missing,
                _ => {}
            }
        }
        match answer.code {
            401 | 403 => Outcome::Forbidden,
            404 | 405 | 410 | 501 => Outcome::Unknown,
            code => Outcome::Garbled(code),
        }
    }

    /// What versions 1 and 2 say: the text, and nothing around it.
    fn of_before(answer: &Answer) -> Self {
        match answer.code {
            200 => String::from_utf8(answer.body.clone()).map_or(Outcome::Garbled(200), Outcome::Text),
            401 | 403 => Outcome::Forbidden,
            404 => Outcome::Missing,
            code => Outcome::Garbled(code),
        }
    }
}

impl PartialEq for NacosDocument {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for NacosDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NacosDocument { namespace, group, data_id, .. } = self;
        let login = if self.credentials.is_some() { "***@" } else { "" };
        let servers = self.servers.join(",");
        write!(f, "nacos://{login}{servers}/{namespace}?group={group}&dataId={data_id}")
    }
}

impl fmt::Debug for NacosDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_named_by_its_url_which_never_shows_a_password() {
        let document = NacosDocument::parse("nacos://u:hush@a,b:1/n?group=g&dataId=node.toml").unwrap();
        assert_eq!(document.to_string(), "nacos://***@a:8848,b:1/n?group=g&dataId=node.toml");
        let document = NacosDocument::parse("nacos://a?dataId=x").unwrap();
        assert_eq!(document.to_string(), "nacos://a:8848/public?group=DEFAULT_GROUP&dataId=x");
        for url in [
            "nacos://u:hush@a",
            "nacos://u:hush@a?group=g",
            "nacos://u:hush@a?dataId=",
            "nacos://u:hush@a?dataId=a/b",
            "nacos://u:hush@a?dataId=x&service=y",
            "nacos://hush@a?dataId=x",
            "nacos://u:hu#sh@a?dataId=x",
        ] {
            let error = NacosDocument::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let answer = |code, body: &str| Answer { code, body: body.as_bytes().to_vec() };
        let text = |text: &str| Outcome::Text(text.to_owned());
        for (code, body, expected) in [
            (
                200,
                r#"{"code":0,"message":"success","data":{"content":"a = 1\n","md5":"x"}}"#,
                text("a = 1\n"),
            ),
            (200, r#"{"code":0,"message":"success","data":null}"#, Outcome::Missing),
            (404, r#"{"code":20004,"message":"resource not found","data":"no"}"#, Outcome::Missing),
            (404, "<html>", Outcome::Unknown),
            (403, r#"{"code":403,"message":"access denied"}"#, Outcome::Forbidden),
            (200, "<html>", Outcome::Garbled(200)),
            (500, "", Outcome::Garbled(500)),
        ] {
            assert_eq!(Outcome::of(&answer(code, body)), expected, "{code} {body}");
        }
        for (code, body, expected) in [
            (200, "a = 1", text("a = 1")),
            (404, "config data not exist", Outcome::Missing),
            (403, "", Outcome::Forbidden),
            (500, "", Outcome::Garbled(500)),
        ] {
            assert_eq!(Outcome::of_before(&answer(code, body)), expected, "{code} {body}");
        }
    }
}
