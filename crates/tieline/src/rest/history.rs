//! What is kept, as back ends read and remove it. Tested in `tests/program/rest/histories.rs`.

use axum::response::Response;
use hyper::StatusCode;
use tieline_core::Node;
use tieline_core::delivery::Target;
use tieline_core::logs::{History, HistoryError};
use tieline_core::store::{Cut, Gap, PageLimit};
use tieline_proto::rest::{HistoryItem, HistoryPage};
use tieline_proto::{ErrorCode, HubName};

use super::carry::endpoint;
use super::parameters::Parameters;
use super::{empty, json};
use crate::http::{Head, Refusal};

/// Messages of a page, when nothing else is asked for.
const PAGE: u64 = 100;

/// The most that may be asked for.
const LARGEST_PAGE: u64 = 1000;

/// Bytes of a page's messages, as they are stored. One message is given even if it is larger.
const PAGE_BYTES: usize = 1 << 20;

/// A page of a log.
pub(super) async fn page(
    node: &Node,
    head: &Head<'_>,
    hub: &HubName,
    target: &Target,
    parameters: &Parameters<'_>,
) -> Result<Response, Refusal> {
    parameters.only(&["after", "limit"])?;
    let after = parameters.position("after")?;
    let count = parameters.number("limit", 1..=LARGEST_PAGE)?.unwrap_or(PAGE);
    let logs = node.logs().ok_or(HistoryError::NotKept)?;
    let limit = PageLimit { count: count as usize, bytes: PAGE_BYTES };
    let History { head: log, messages, next } = logs.history(hub, target, after, limit).await?;
    let items = messages.iter().filter_map(|message| {
        let (from, data) = (message.from_user.as_deref(), message.payload.as_data());
        Some(HistoryItem::new(message.id, message.time_ms, from, message.position?, data))
    });
    let next_link = next.map(|next| {
        let (epoch, offset) = (next.epoch, next.offset);
        format!("{}{}?after={epoch}:{offset}&limit={count}", endpoint(head), head.path())
    });
    Ok(json(&HistoryPage {
        epoch: log.map_or(0, |log| log.epoch),
        first: log.map_or(1, |log| log.first),
        last: log.map_or(0, |log| log.last),
        messages: items.collect(),
        next_link,
    }))
}

/// Removes a log, or what it has up to a place.
pub(super) async fn forget(
    node: &Node,
    hub: &HubName,
    target: &Target,
    parameters: &Parameters<'_>,
) -> Result<Response, Refusal> {
    parameters.only(&["through"])?;
    let cut = parameters.position("through")?.map_or(Cut::Whole, Cut::Through);
    let logs = node.logs().ok_or(HistoryError::NotKept)?;
    logs.cut(hub, target, cut).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

impl From<HistoryError> for Refusal {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::NotKept => {
                let message =
                    "messages to this target are not kept: it has no history, or users have no inbox";
                Refusal::new(ErrorCode::NotFound, message)
            }
            HistoryError::Gone(gap) => {
                let gone = Refusal::from(ErrorCode::HistoryGone);
                match gap {
                    Gap::Trimmed => gone.because("trimmed"),
                    Gap::Epoch | Gap::Ahead => gone.because("epoch"),
                }
            }
            HistoryError::Keep(error) => error.into(),
        }
    }
}
