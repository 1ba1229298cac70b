//! [`Api`]: calls of a node's own API by other commands of this program. Tested with those.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use tieline_core::token::{Keys, TokenError};
use tieline_core::unix_ms;
use tokio::time::timeout;

use crate::upstream::{ClientError, Http, HttpError};

/// How long the server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Most bytes of an answer that are read: some hundred for each node.
const MAX_ANSWER: usize = 16 << 20;

/// Seconds that a token lives: it is for one request.
const LIFETIME: u64 = 60;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The key signs nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The server was not reached.
    #[error("{0} does not answer: {1}")]
    Silent(String, String),
    /// It refused.
    #[error("{0} refused: {1} {2}")]
    Refused(String, StatusCode, String),
}

/// Who calls.
pub(crate) struct Api {
    http: Http,
    /// Signs the calls; a server of this machine without a key wants none.
    key: Option<String>,
    /// How long an answer may take.
    limit: Duration,
}

impl Api {
    /// Calls with this key, each within this time; `https` where any server is called so.
    ///
    /// # Errors
    /// When nothing can be verified that TLS wants to be.
    pub(crate) fn new(https: bool, key: Option<String>, limit: Duration) -> Result<Self, ClientError> {
        Ok(Api { http: Http::new(https, CONNECT)?, key, limit })
    }

    /// One call to a server, `http://HOST:PORT`, and what it answers.
    pub(crate) async fn ask(&self, server: &str, method: Method, path: &str) -> Result<Bytes, ApiError> {
        let url = format!("{server}{path}");
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(key) = &self.key {
            let token = Keys::new([key]).sign_rest(&url, LIFETIME, unix_ms() / 1000)?;
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let silent = |error: String| ApiError::Silent(server.to_owned(), error);
        let request = request.body(Full::default()).map_err(|error| silent(error.to_string()))?;
        let answer = timeout(self.limit, self.http.send(request, MAX_ANSWER)).await;
        let answer = answer.map_err(|_| silent("the time is over".to_owned()))?;
        let answer = answer.map_err(|error: HttpError| silent(error.to_string()))?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let said = String::from_utf8_lossy(answer.body()).escape_debug().take(500).collect();
        Err(ApiError::Refused(server.to_owned(), answer.status(), said))
    }
}
