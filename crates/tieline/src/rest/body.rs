//! The body of a request: read whole, never more than is allowed, and not for ever.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use hyper::body::{Body as _, Bytes};
use hyper::header::EXPECT;
use tieline_proto::{DataType, ErrorCode};
use tokio::time::timeout;

use crate::http::{Found, Head, Refusal};

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is still read of a request that was refused: a socket that is closed with unread bytes is reset, and takes the answer
/// with it.
const DRAIN_BYTES: usize = 4 << 20;

/// How long that is done.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A body, and what its sender says that it is.
#[derive(Default)]
pub(super) struct Content {
    /// The type without its parameters, in lower case; none when the request names none.
    media: Option<String>,
    /// The bytes.
    pub(super) bytes: Vec<u8>,
}

impl Content {
    /// What a message's payload is, by the type of the body. A `charset` is accepted; text is UTF-8 whatever it says.
    pub(super) fn data_type(&self) -> Result<DataType, Refusal> {
        match self.media.as_deref() {
            Some("application/json") => Ok(DataType::Json),
            Some("text/plain") => Ok(DataType::Text),
            Some("application/octet-stream") => Ok(DataType::Binary),
            _ => Err(ErrorCode::UnsupportedMediaType.into()),
        }
    }

    /// Refuses a body that says it is something else than JSON.
    pub(super) fn expect_json(&self) -> Result<(), Refusal> {
        match self.media.as_deref() {
            None | Some("application/json") => Ok(()),
            Some(_) => {
                let message = "the Content-Type must be application/json";
                Err(Refusal::new(ErrorCode::UnsupportedMediaType, message))
            }
        }
    }
}

/// Reads the body of a call that needs one.
pub(super) async fn read(head: &Head<'_>, body: &mut Body, limit: usize) -> Result<Content, Refusal> {
    let is_chunked = head.header("transfer-encoding") != Found::Absent;
    if head.header("content-length") == Found::Absent && !is_chunked {
        return Err(ErrorCode::LengthRequired.into());
    }
    let media = match head.header("content-type") {
        Found::Absent => None,
        Found::Once(Some(value)) => {
            let media = value.split(';').next().unwrap_or(value);
            Some(media.trim().to_ascii_lowercase())
        }
        Found::Once(None) | Found::Repeated => return Err(ErrorCode::UnsupportedMediaType.into()),
    };
    let too_large = || {
        let message = format!("the body is larger than the {limit} bytes that one message may have");
        Refusal::new(ErrorCode::MessageTooLarge, message)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let gather = async {
        let mut bytes = Vec::new();
        while let Some(data) = next(body).await? {
            if bytes.len() + data.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    let bytes = timeout(PATIENCE, gather).await.map_err(|_| ErrorCode::RequestTimeout)??;
    Ok(Content { media, bytes })
}

/// Reads on for a while, so that the answer arrives. A client that asked before it sends needs none of that.
pub(super) async fn drain(request: &Request<()>, mut body: Body) {
    if request.headers().contains_key(EXPECT) {
        return;
    }
    let rest = async {
        let mut left = DRAIN_BYTES;
        while left > 0 {
            let Ok(Some(data)) = next(&mut body).await else { return };
            left = left.saturating_sub(data.len());
        }
    };
    let _ = timeout(DRAIN_TIME, rest).await;
}

/// The next bytes; none at the end. Trailers say nothing here.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) => {
                let message = "the body ended before its announced end";
                return Err(Refusal::new(ErrorCode::InvalidRequest, message));
            }
        }
    }
}
