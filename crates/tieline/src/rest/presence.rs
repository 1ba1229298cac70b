//! Who is present, as back ends read it. Any node knows all of it by itself. Tested in `tests/program/rest/presence.rs`.

use axum::response::{IntoResponse, Response};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use percent_encoding::utf8_percent_encode;
use tieline_core::Node;
use tieline_core::presence::{MAX_PAGE, NotTold, PAGE};
use tieline_proto::{ErrorCode, GroupName, HubName, reply};

use super::carry::{IN_QUERY, endpoint};
use super::parameters::Parameters;
use crate::http::{Head, Refusal};

/// A page of who is in a group, or without one in the hub.
pub(super) fn page(
    node: &Node,
    head: &Head<'_>,
    hub: &HubName,
    group: Option<&GroupName>,
    parameters: &Parameters<'_>,
) -> Result<Response, Refusal> {
    parameters.only(&["after", "limit"])?;
    let after = parameters.one("after")?;
    let limit = parameters.number("limit", 0..=MAX_PAGE as u64)?.unwrap_or(PAGE as u64);
    let page = node.presence_page(hub, group, after.as_deref(), limit as usize)?;
    let next_link = page.next.as_ref().map(|next| {
        let after = utf8_percent_encode(next, IN_QUERY);
        format!("{}{}?after={after}&limit={limit}", endpoint(head), head.path())
    });
    let mut body = Vec::new();
    reply::presence_body(&mut body, &page, next_link.as_deref());
    Ok(([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response())
}

impl From<NotTold> for Refusal {
    fn from(error: NotTold) -> Self {
        Refusal::new(ErrorCode::NotFound, error.to_string())
    }
}
