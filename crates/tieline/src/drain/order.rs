//! `tieline drain`: tells a running node to empty itself, and watches it do so.

use std::time::Duration;

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Api, ApiError};
use crate::cli::DrainArgs;
use crate::upstream::ClientError;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Time between two looks at the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a node could not be emptied from here, or not be watched.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Nothing can be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server was not reached, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The node still has connections.
    #[error("{0} is not empty after {1:?}")]
    Late(String, Duration),
}

/// Tells the node, and waits until it is gone; `say` is told how far it is.
///
/// # Errors
/// [`DrainError`]. The order stands all the same once it was accepted.
pub async fn order(args: &DrainArgs, mut say: impl FnMut(&str)) -> Result<(), DrainError> {
    let server = &args.url.0;
    let api = Api::new(server.starts_with("https"), args.access_key.clone(), ANSWER)?;
    let name = utf8_percent_encode(args.node.as_str(), NON_ALPHANUMERIC);
    api.ask(server, Method::POST, &format!("/api/v1/nodes/{name}/drain")).await?;
    say(&format!("{} is being emptied.", args.node));
    if args.no_wait {
        return Ok(());
    }
    let (began, mut last) = (Instant::now(), None);
    while began.elapsed() < args.timeout {
        tokio::time::sleep(LOOK_EVERY).await;
        let nodes = match api.ask(server, Method::GET, "/api/v1/nodes").await {
            Ok(answer) => answer,
            // The node that is asked is perhaps the one that has ended.
            Err(ApiError::Silent(..)) => return gone(args, say),
            Err(error) => return Err(error.into()),
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
