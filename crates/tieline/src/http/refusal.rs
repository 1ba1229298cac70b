//! [`Refusal`]: an HTTP answer that says no, in the one form that all of them have.

use std::borrow::Cow;

use axum::body::Body;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tieline_core::token::TokenError;
use tieline_proto::rest::{ErrorBody, InnerError};
use tieline_proto::{ErrorCode, Reconnect};
use tieline_websocket::HandshakeError;

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
    /// A word more exact than the code, for programs.
    pub reason: Option<&'static str>,
}

impl Refusal {
    /// The row with a sentence of its own.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code, status: code.http_status(), message: message.into(), header: None, reason: None }
    }

    /// With a word more exact than the code.
    pub fn because(self, reason: &'static str) -> Self {
        Refusal { reason: Some(reason), ..self }
    }

    /// The answer.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        for (name, value) in self.headers() {
            let value =
                HeaderValue::from_str(&value).expect("the values are words and numbers of this program");
            headers.insert(HeaderName::from_static(name), value);
        }
        response
    }

    /// The answer as it stands on the wire, for a socket that is closed behind it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let body = self.body();
        let mut head =
            format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n", self.status(), body.len());
        for (name, value) in self.headers() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST)
    }

    fn body(&self) -> Vec<u8> {
        let mut body = ErrorBody::new(self.code, &*self.message);
        body.inner = self.reason.map(|reason| InnerError { code: reason.to_owned(), inner: None });
        serde_json::to_vec(&body).expect("text is always JSON")
    }

    /// Names in lower case.
    fn headers(&self) -> impl Iterator<Item = (&'static str, Cow<'static, str>)> {
        let retry = match self.code.retry() {
            Reconnect::After(seconds) => Some(("retry-after", Cow::from(seconds.to_string()))),
            Reconnect::Yes | Reconnect::No => None,
        };
        let own = self.header.map(|(name, value)| (name, Cow::from(value)));
        let fixed = [("content-type", "application/json"), ("x-ms-error-code", self.code.name())];
        fixed.into_iter().map(|(name, value)| (name, Cow::from(value))).chain(retry).chain(own)
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
        let (status, header) = (error.status(), error.header());
        Refusal { status, header, ..Refusal::new(code, error.to_string()) }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Refusal::new(ErrorCode::Unauthorized, error.to_string())
    }
}
