//! [`CloudEvent`]: an event as a request of HTTP, by the binary mode of CloudEvents with the attributes that Web PubSub adds.
//! Tested here, and by Microsoft's own handler in `tests/sdk-js`.

use axum::body::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tieline_core::events::{EventSource, Queued};
use tieline_core::token::Keys;
use tieline_proto::{HubName, UserId, civil};

/// What the value of an attribute may not have in a header (CloudEvents, HTTP protocol binding, 3.1.3.2). What is not ASCII is
/// encoded anyway.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The version of Web PubSub's events. Microsoft's handlers take nothing without it.
const VERSION: HeaderValue = HeaderValue::from_static("1.0");

/// Who sends.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("tieline/", env!("CARGO_PKG_VERSION")));

/// Name of the header that names the sender to the endpoint.
pub(super) const REQUEST_ORIGIN: &str = "webhook-request-origin";

/// Name of the header by which an endpoint says whose events it takes.
pub(super) const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";

/// Name of the header of what an application wants to be reminded of.
pub(super) const STATE: &str = "ce-connectionstate";

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// A connection.
    Connection(EventSource),
    /// A message that waits for a user.
    Message(Queued),
    /// A user, in a hub.
    User(HubName, UserId),
    /// A hub as a whole, or by `*` all hubs whose events go to the same endpoint.
    Hub(String),
}

impl About {
    /// The hub.
    pub(super) fn hub(&self) -> &str {
        match self {
            About::Connection(source) => &source.hub,
            About::Message(queued) => &queued.hub,
            About::User(hub, _) => hub,
            About::Hub(hub) => hub,
        }
    }
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct CloudEvent {
    /// What tells it from others of the same source. The same when it is sent again.
    pub(super) id: String,
    /// When it happened, in Unix milliseconds.
    pub(super) time_ms: u64,
    /// `sys` or `user`.
    pub(super) kind: &'static str,
    /// Its name within its kind.
    pub(super) name: String,
    /// What it is about.
    pub(super) about: About,
    /// The type of its body.
    pub(super) content_type: &'static str,
    /// What it carries.
    pub(super) body: Bytes,
}

impl CloudEvent {
    /// The request that carries it.
    pub(super) fn request(&self, uri: Uri, origin: &HeaderValue, keys: &Keys) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        let mut put = |name: &'static str, value: &str| {
            headers.insert(HeaderName::from_static(name), attribute(value));
        };
        let hub = self.about.hub();
        put("ce-specversion", "1.0");
        put("ce-type", &format!("azure.webpubsub.{}.{}", self.kind, self.name));
        put("ce-id", &self.id);
        let mut time = Vec::new();
        civil::push_rfc3339(&mut time, self.time_ms);
        put("ce-time", &String::from_utf8_lossy(&time));
        put("ce-hub", hub);
        put("ce-eventname", &self.name);
        let user = match &self.about {
            About::Connection(source) => {
                let id = source.connection.to_string();
                put("ce-source", &format!("/hubs/{hub}/client/{id}"));
                put("ce-connectionid", &id);
                if let Some(dialect) = source.subprotocol.dialect() {
                    put("ce-subprotocol", dialect.subprotocol());
                }
                if let Some(state) = &source.state {
                    put(STATE, state);
                }
                sign(&mut put, keys, &id);
                source.user.as_deref()
            }
            About::Message(Queued { user, .. }) | About::User(_, user) => {
                put("ce-source", &format!("/hubs/{hub}/users/{user}"));
                // There is no connection whose id could be signed.
                sign(&mut put, keys, &self.id);
                Some(&**user)
            }
            About::Hub(_) => {
                put("ce-source", &format!("/hubs/{hub}"));
                sign(&mut put, keys, &self.id);
                None
            }
        };
        if let Some(user) = user {
            put("ce-userid", user);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        stamp(&mut request, origin);
        request
    }
}

/// Signs what only holders of an access key could.
fn sign(put: &mut impl FnMut(&'static str, &str), keys: &Keys, text: &str) {
    let signatures: Vec<String> =
        keys.sign_text(text).iter().map(|signature| format!("sha256={signature}")).collect();
    if !signatures.is_empty() {
        put("ce-signature", &signatures.join(","));
    }
}

/// The headers that every request has, also the one that asks whether there may be others.
pub(super) fn stamp(request: &mut Request<Full<Bytes>>, origin: &HeaderValue) {
    let headers = request.headers_mut();
    headers.insert(HeaderName::from_static("ce-awpsversion"), VERSION);
    headers.insert(HeaderName::from_static(REQUEST_ORIGIN), origin.clone());
    headers.insert(USER_AGENT, AGENT);
}

/// A value as it may stand in a header.
fn attribute(value: &str) -> HeaderValue {
    let encoded = utf8_percent_encode(value, ENCODED).to_string();
    HeaderValue::from_str(&encoded).expect("everything but visible ASCII is encoded")
}

#[cfg(test)]
mod tests {
    use tieline_core::Subprotocol;
    use tieline_proto::ConnectionId;

    use super::*;

    #[test]
    fn a_request_has_all_attributes_and_names_stay_in_their_headers() {
        let connection = ConnectionId::from_bytes([7; ConnectionId::BYTES]);
        let event = CloudEvent {
            id: "1".to_owned(),
            time_ms: 0,
            kind: "user",
            name: "e\r\nx: y".to_owned(),
            about: About::Connection(EventSource {
                hub: HubName::new("h").unwrap(),
                connection,
                user: Some(UserId::new("a b%\"ü").unwrap()),
                subprotocol: Subprotocol::Azure,
                state: None,
            }),
            content_type: "text/plain",
            body: Bytes::from_static(b"x"),
        };
        let keys = Keys::new(["one", "two"]);
        let origin = HeaderValue::from_static("h:1");
        let request = event.request(Uri::from_static("http://a/b"), &origin, &keys);
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("ce-type"), Some("azure.webpubsub.user.e%0D%0Ax:%20y"));
        assert_eq!(header("ce-eventname"), Some("e%0D%0Ax:%20y"));
        assert_eq!(header("ce-userid"), Some("a%20b%25%22%C3%BC"));
        assert_eq!(header("ce-source"), Some(&*format!("/hubs/h/client/{connection}")));
        assert_eq!(header("ce-time"), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(header("ce-subprotocol"), Some("json.webpubsub.azure.v1"));
        assert_eq!((header("ce-awpsversion"), header("webhook-request-origin")), (Some("1.0"), Some("h:1")));
        assert_eq!(header("ce-connectionstate"), None);
        let signature = header("ce-signature").unwrap();
        assert!(signature.split(',').all(|one| one.len() == 7 + 64 && one.starts_with("sha256=")));
        assert_eq!(signature.split(',').count(), 2);
        let request = event.request(Uri::from_static("http://a/b"), &origin, &Keys::default());
        assert!(request.headers().get("ce-signature").is_none());
    }
}
