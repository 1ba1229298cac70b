//! `tieline drain`: tells a running node to empty itself, and watches it do so.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tieline_core::token::{Keys, TokenError};
use tieline_core::unix_ms;
use tokio::time::Instant;

use crate::cli::DrainArgs;
use crate::upstream::{ClientError, Http, HttpError};

/// How long the server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Time between two looks at the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Most bytes of an answer that are read: some hundred for each node.
const MAX_ANSWER: usize = 16 << 20;

/// Seconds that a token lives: it is for one request.
const LIFETIME: u64 = 60;

/// Why a node could not be emptied from here, or not be watched.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The key signs nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nothing can be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server was not reached.
    #[error("{0} does not answer: {1}")]
    Silent(String, String),
    /// It refused.
    #[error("{0} refused: {1} {2}")]
    Refused(String, StatusCode, String),
    /// The node still has connections.
    #[error("{0} is not empty after {1:?}")]
    Late(String, Duration),
}

/// Tells the node, and waits until it is gone; `say` is told how far it is.
///
/// # Errors
/// [`DrainError`]. The order stands all the same once it was accepted.
pub async fn order(args: &DrainArgs, mut say: impl FnMut(&str)) -> Result<(), DrainError> {
    let server = Server { http: Http::new(args.url.0.starts_with("https"), CONNECT)?, args };
    let name = utf8_percent_encode(args.node.as_str(), NON_ALPHANUMERIC);
    server.ask(Method::POST, &format!("/api/v1/nodes/{name}/drain")).await?;
    say(&format!("{} is being emptied.", args.node));
    if args.no_wait {
        return Ok(());
    }
    let (began, mut last) = (Instant::now(), None);
    while began.elapsed() < args.timeout {
        tokio::time::sleep(LOOK_EVERY).await;
        let nodes = match server.ask(Method::GET, "/api/v1/nodes").await {
            Ok(answer) => answer,
            // The node that is asked is perhaps the one that has ended.
            Err(DrainError::Silent(..)) => return gone(args, say),
            Err(error) => return Err(error),
        };
        let nodes: Value = serde_json::from_slice(&nodes).unwrap_or_default();
        let nodes = nodes["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let node = nodes.iter().find(|node| node["name"] == args.node.as_str());
        let Some(node) = node.filter(|node| node["state"] != "unreachable") else { return gone(args, say) };
        let left = node["connections"].as_u64();
        if left != last {
            last = left;
            say(&format!("{} connections are left.", left.unwrap_or_default()));
        }
    }
    Err(DrainError::Late(args.node.to_string(), args.timeout))
}

fn gone(args: &DrainArgs, mut say: impl FnMut(&str)) -> Result<(), DrainError> {
    say(&format!("{} is gone.", args.node));
    Ok(())
}

/// The node that is asked.
struct Server<'a> {
    http: Http,
    args: &'a DrainArgs,
}

impl Server<'_> {
    async fn ask(&self, method: Method, path: &str) -> Result<Bytes, DrainError> {
        let url = format!("{}{path}", self.args.url.0);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(key) = &self.args.access_key {
            let token = Keys::new([key]).sign_rest(&url, LIFETIME, unix_ms() / 1000)?;
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let server = || self.args.url.0.clone();
        let silent = |error: String| DrainError::Silent(server(), error);
        let request = request.body(Full::default()).map_err(|error| silent(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER, self.http.send(request, MAX_ANSWER)).await;
        let answer = answer.map_err(|_| silent("the time is over".to_owned()))?;
        let answer = answer.map_err(|error: HttpError| silent(error.to_string()))?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let said = String::from_utf8_lossy(answer.body()).escape_debug().take(500).collect();
        Err(DrainError::Refused(server(), answer.status(), said))
    }
}
