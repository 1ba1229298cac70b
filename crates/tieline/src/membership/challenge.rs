//! Asking whoever is registered under this node's name whether it lives. Its entry alone says little: it may have died a moment
//! ago, and its lease runs on. Tested by processes in `tests/cluster/names.rs`.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde::Deserialize;
use tieline_core::registry::Member;
use tokio::time::timeout;

use super::NameLost;
use crate::upstream::Http;

/// How long the holder of a name may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 16 * 1024;

/// What `/healthz` says of who answers.
#[derive(Deserialize)]
struct Health {
    node: String,
}

/// Asks the holder of this node's name at the address that it registered.
///
/// # Errors
/// [`NameLost::InUse`], when it answers as the one that is registered. Anything else is no answer: its name is free.
pub(super) async fn challenge(holder: Member) -> Result<(), NameLost> {
    let answer = timeout(PATIENCE, who_answers(&holder.registration.client_url)).await.ok().flatten();
    if answer.as_deref() == Some(holder.id.to_string().as_str()) {
        return Err(NameLost::InUse { name: holder.id.name, url: holder.registration.client_url });
    }
    tracing::warn!(
        holder = %holder.id,
        url = holder.registration.client_url,
        "A node is registered under this one's name and does not answer; this node takes its place."
    );
    Ok(())
}

/// The node that answers at an address.
async fn who_answers(client_url: &str) -> Option<String> {
    let (scheme, authority) = client_url.split_once("://")?;
    let is_secure = matches!(scheme, "wss" | "https");
    let scheme = if is_secure { "https" } else { "http" };
    let client = Http::new(is_secure, PATIENCE).ok()?;
    let request =
        Request::get(format!("{scheme}://{authority}/healthz")).body(Full::<Bytes>::default()).ok()?;
    let answer = client.send(request, MAX_ANSWER).await.ok()?;
    let health: Health = serde_json::from_slice(answer.body()).ok()?;
    Some(health.node)
}
