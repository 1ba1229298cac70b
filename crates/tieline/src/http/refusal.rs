//! [`Refusal`]: an HTTP answer that says no, in the one form that all of them have.

use std::borrow::Cow;

use axum::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use tieline_core::token::TokenError;
use tieline_proto::rest::ErrorBody;
use tieline_proto::{ErrorCode, Reconnect};
use tieline_websocket::HandshakeError;

/// The header that carries an error's name beside the body.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// Why a request is refused: a row of the table of errors, with what is known more exactly.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The row.
    pub code: ErrorCode,
    /// The status, where HTTP has one more exact than the row's.
    pub status: u16,
    /// The sentence for the client.
    pub message: Cow<'static, str>,
    /// A header that the status demands.
    pub header: Option<(&'static str, &'static str)>,
}

impl Refusal {
    /// The row with a sentence of its own.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code, status: code.http_status(), message: message.into(), header: None }
    }

    /// The answer.
    pub fn response(&self) -> Response<Body> {
        let body = ErrorBody::new(self.code, &*self.message);
        let body = serde_json::to_vec(&body).expect("text is always JSON");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ERROR_CODE, HeaderValue::from_static(self.code.name()));
        if let Reconnect::After(seconds) = self.code.retry() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((name, value)) = self.header {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Refusal::new(code, code.text())
    }
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        let code = match error {
            HandshakeError::Method => ErrorCode::MethodNotAllowed,
            _ => ErrorCode::InvalidRequest,
        };
        Refusal { code, status: error.status(), message: error.to_string().into(), header: error.header() }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Refusal::new(ErrorCode::Unauthorized, error.to_string())
    }
}
