//! [`Handler`]: one endpoint, and a request to it, from the permission to the answer. Tested by `tests/program/upstream`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response};
use tieline_core::token::Keys;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::SystemEvent;
use super::cloud_event::{CloudEvent, STATE};
use super::http::Http;
use super::permission::Permissions;
use super::tally::{EventKind, UpstreamTally};
use crate::config::Upstream;

/// The longest state that an application may leave with a connection, in bytes.
const MAX_STATE: usize = 8 << 10;

/// The longest sentence of an application that a client is told, in characters.
const MAX_MESSAGE: usize = 1000;

/// An endpoint.
pub(super) struct Handler {
    settings: Upstream,
    /// Who it is told is asking.
    origin: HeaderValue,
    keys: Arc<Keys>,
    http: Arc<Http>,
    tally: Arc<UpstreamTally>,
    permissions: Permissions,
    /// One for each request that may be under way.
    slots: Semaphore,
    /// Whether the last request failed, so that an outage is told once.
    failing: AtomicBool,
}

/// What an endpoint answered in the affirmative.
#[derive(Debug)]
pub(super) struct Reply {
    /// The type of the body, in lower case and without its parameters.
    pub(super) media: Option<String>,
    /// What the application wants to be reminded of.
    pub(super) state: Option<Arc<String>>,
    /// What it says.
    pub(super) body: Bytes,
}

/// Why there is no such answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// The application refuses.
    Refused {
        /// The status it answered with, from 400 to 499.
        status: u16,
        /// Its sentence, if it has one.
        message: Option<String>,
    },
    /// Nothing is known of what the application wants.
    Failed(String),
}

impl Handler {
    pub(super) fn new(
        settings: Upstream,
        origin: HeaderValue,
        keys: Arc<Keys>,
        http: Arc<Http>,
        tally: Arc<UpstreamTally>,
    ) -> Self {
        let slots = Semaphore::new(settings.concurrency);
        Handler {
            settings,
            origin,
            keys,
            http,
            tally,
            permissions: Permissions::default(),
            slots,
            failing: AtomicBool::new(false),
        }
    }

    /// How it was set up.
    pub(super) fn settings(&self) -> &Upstream {
        &self.settings
    }

    /// Whether it wants the system events of this name.
    pub(super) fn hears_system(&self, hub: &str, event: SystemEvent) -> bool {
        self.hears(hub) && self.settings.system_events.contains(&event)
    }

    /// Whether it wants the user events of this name.
    pub(super) fn hears_user(&self, hub: &str, event: &str) -> bool {
        self.hears(hub) && self.settings.user_events.iter().any(|name| name == "*" || name == event)
    }

    fn hears(&self, hub: &str) -> bool {
        self.settings.hub == "*" || self.settings.hub == hub
    }

    /// Asks it now whether it takes events, where its address is known already: at the start, so that an operator learns of a
    /// mistake before a client does.
    pub(super) async fn greet(&self) {
        let hub = &self.settings.hub;
        if hub == "*" && self.settings.url.names_hub() {
            return;
        }
        let asked = timeout(self.settings.timeout, self.permit(hub)).await;
        match asked.unwrap_or_else(|_| Err("it did not answer in time".to_owned())) {
            Ok(()) => tracing::info!(url = self.settings.url.masked(), "The upstream endpoint takes events."),
            Err(reason) => self.tell_failing(&reason),
        }
    }

    /// Sends an event and waits for the answer, of which at most `max` bytes are taken.
    pub(super) async fn call(
        &self,
        event: &CloudEvent,
        kind: EventKind,
        max: usize,
    ) -> Result<Reply, CallError> {
        let started = Instant::now();
        let result = match timeout(self.settings.timeout, self.exchange(event, max)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Failed("it did not answer in time".to_owned())),
        };
        self.tally.record(kind, started.elapsed());
        match &result {
            Err(CallError::Failed(reason)) => self.tell_failing(reason),
            Ok(_) | Err(CallError::Refused { .. }) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(url = self.settings.url.masked(), "The upstream endpoint answers again.");
                }
            }
        }
        result
    }

    /// An outage is told once; what an endpoint says is told to nobody.
    fn tell_failing(&self, reason: &str) {
        let url = self.settings.url.masked();
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(url, reason, "The upstream endpoint fails.");
        } else {
            tracing::warn!(
                url,
                reason,
                "The upstream endpoint fails. Further failures are counted, and not logged."
            );
        }
    }

    async fn permit(&self, hub: &str) -> Result<(), String> {
        let key = if self.settings.url.names_hub() { hub } else { "" };
        self.permissions.ask(key, &self.http, self.settings.url.validation(hub), &self.origin).await
    }

    async fn exchange(&self, event: &CloudEvent, max: usize) -> Result<Reply, CallError> {
        let hub = event.about.hub();
        let Some(uri) = self.settings.url.fill(hub, &event.name) else {
            let message = Some("The event's name cannot stand in the handler's address.".to_owned());
            return Err(CallError::Refused { status: 400, message });
        };
        let _slot = self.slots.acquire().await.expect("nobody closes it");
        self.permit(hub).await.map_err(CallError::Failed)?;
        let request = event.request(uri, &self.origin, &self.keys);
        let response = self.http.send(request, max).await;
        read(response.map_err(|error| CallError::Failed(error.to_string()))?)
    }
}

/// What an answer means.
fn read(response: Response<Bytes>) -> Result<Reply, CallError> {
    let (parts, body) = response.into_parts();
    match parts.status.as_u16() {
        200..300 => Ok(Reply { media: media(&parts.headers), state: state(&parts.headers)?, body }),
        // These say that it is the moment, not the event.
        status @ (408 | 429 | ..400 | 500..) => Err(CallError::Failed(format!("it answered {status}"))),
        status => Err(CallError::Refused { status, message: sentence(&body) }),
    }
}

fn media(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn state(headers: &HeaderMap) -> Result<Option<Arc<String>>, CallError> {
    let mut values = headers.get_all(STATE).iter();
    let failed = |reason: &str| CallError::Failed(reason.to_owned());
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(failed("its answer has more than one ce-connectionState")),
        (Some(value), None) => match value.to_str() {
            Ok(state) if state.len() <= MAX_STATE => Ok(Some(Arc::new(state.to_owned()))),
            _ => Err(failed("the ce-connectionState of its answer is no text, or too long")),
        },
    }
}

/// What an application says to the client that it refuses: one line of text.
fn sentence(body: &Bytes) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(blank).collect();
    let text: String = text.trim().chars().take(MAX_MESSAGE).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static [u8]) -> Response<Bytes> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(Bytes::from_static(body)).unwrap()
    }

    #[test]
    fn a_status_says_whether_the_application_took_it_refused_it_or_does_not_know() {
        for status in [200, 201, 204] {
            assert!(read(answer(status, &[], b"")).is_ok(), "{status}");
        }
        for status in [400, 401, 403, 404, 422, 499] {
            assert!(
                matches!(read(answer(status, &[], b"")), Err(CallError::Refused { status: of, .. }) if of == status)
            );
        }
        for status in [301, 302, 307, 408, 429, 500, 503, 599] {
            assert!(matches!(read(answer(status, &[], b"")), Err(CallError::Failed(_))), "{status}");
        }
    }

    #[test]
    fn a_refusal_is_one_bounded_line() {
        let said = |body: &'static [u8]| match read(answer(400, &[], body)) {
            Err(CallError::Refused { message, .. }) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(said(b" no\r\nway\x07 ").as_deref(), Some("no  way"));
        assert_eq!((said(b" "), said(b"\xff")), (None, None));
        assert_eq!(said(&[b'x'; 5000]).unwrap().len(), MAX_MESSAGE);
    }

    #[test]
    fn a_state_stands_once_and_is_bounded() {
        let reply = read(answer(
            200,
            &[("ce-connectionState", "abc"), ("content-type", "Text/Plain; charset=x")],
            b"x",
        ));
        let reply = reply.unwrap();
        assert_eq!(reply.state.as_deref().map(String::as_str), Some("abc"));
        assert_eq!(reply.media.as_deref(), Some("text/plain"));
        assert!(read(answer(200, &[("ce-connectionState", "a"), ("ce-connectionstate", "b")], b"")).is_err());
        let mut long = answer(200, &[], b"");
        long.headers_mut().insert(STATE, HeaderValue::from_bytes(&vec![b'a'; MAX_STATE + 1]).unwrap());
        assert!(read(long).is_err());
    }
}
