//! [`Notice`]: an event that nobody waits for, as it is kept until an endpoint has taken it; and [`Delivery`], which sends
//! notices until it has. Tested by `tests/program/upstream`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tieline_backends::pause;
use tieline_core::events::{Appearance, EventSource, Queued};
use tieline_core::{Subprotocol, unix_ms};
use tieline_proto::civil;
use tieline_proto::reply;
use tieline_proto::{Dialect, GroupName, HubName, MessageId, Position, UserId};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::SystemEvent;
use super::cloud_event::{About, CloudEvent};
use super::handler::{CallError, Handler};
use super::tally::{Outcome, UpstreamTally};

/// The most that is read of an endpoint's answer, in bytes. It says nothing that is used.
const MAX_ANSWER: usize = 64 << 10;

/// Bounds of the pause before an event is sent again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The name of the event that what was told of presence holds no more. It goes to whoever hears of presence.
const RESET: &str = "presence.reset";

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    /// What tells it from others of its source.
    id: String,
    /// When it happened, in Unix milliseconds.
    time_ms: u64,
    event: SystemEvent,
    hub: String,
    /// The connection that it is about, but for a message that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subprotocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// The message that waits, and who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<(String, Option<String>)>,
    /// The group that it was sent to, where it does not wait in the user's inbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Its place in the inbox, or in the group's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    /// What became of the user's presence, as it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    presence: Option<String>,
    /// Where presence begins anew: what was told before, in Unix milliseconds, holds no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    /// Why the connection ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Notice {
    /// Of a connection.
    pub(super) fn connection(
        id: MessageId,
        event: SystemEvent,
        source: &EventSource,
        reason: Option<&str>,
    ) -> Self {
        Notice {
            id: id.to_string(),
            time_ms: id.unix_ms(),
            event,
            hub: source.hub.to_string(),
            connection: Some(source.connection.to_string()),
            user: source.user.as_ref().map(ToString::to_string),
            subprotocol: source.subprotocol.dialect().map(|dialect| dialect.subprotocol().to_owned()),
            state: source.state.as_deref().cloned(),
            message: None,
            group: None,
            position: None,
            presence: None,
            since: None,
            reason: reason.map(str::to_owned),
        }
    }

    /// Of a message that waits for its user.
    pub(super) fn queued(id: MessageId, queued: &Queued) -> Self {
        Notice {
            id: id.to_string(),
            time_ms: id.unix_ms(),
            event: SystemEvent::Queued,
            hub: queued.hub.to_string(),
            connection: None,
            user: Some(queued.user.to_string()),
            subprotocol: None,
            state: None,
            message: Some((queued.message.to_string(), queued.from.as_ref().map(ToString::to_string))),
            group: queued.group.as_ref().map(ToString::to_string),
            position: Some(queued.position),
            presence: None,
            since: None,
            reason: None,
        }
    }

    /// Of a user that has come or gone.
    pub(super) fn presence(appearance: &Appearance) -> Self {
        let mut body = Vec::new();
        reply::presence_event(&mut body, &appearance.event, appearance.group.as_deref());
        Notice {
            id: appearance.id().to_string(),
            time_ms: unix_ms(),
            event: SystemEvent::Presence,
            hub: appearance.hub.to_string(),
            connection: None,
            user: Some(appearance.event.user.to_string()),
            subprotocol: None,
            state: None,
            group: None,
            message: None,
            position: None,
            presence: Some(String::from_utf8(body).expect("JSON is text")),
            since: None,
            reason: None,
        }
    }

    /// Of a cluster that begins anew at `since`, for a hub, or by `*` for an endpoint of all hubs.
    pub(super) fn reset(id: MessageId, hub: &str, since: u64) -> Self {
        Notice {
            id: id.to_string(),
            time_ms: id.unix_ms(),
            event: SystemEvent::Presence,
            hub: hub.to_owned(),
            connection: None,
            user: None,
            subprotocol: None,
            state: None,
            message: None,
            group: None,
            position: None,
            presence: None,
            since: Some(since),
            reason: None,
        }
    }

    /// What it is.
    pub(super) fn event(&self) -> SystemEvent {
        self.event
    }

    /// The id, by which a store knows it too.
    pub(super) fn id(&self) -> Option<MessageId> {
        self.id.parse().ok()
    }

    /// Whose events keep their order.
    fn subject(&self) -> Option<&String> {
        self.connection.as_ref().or(self.user.as_ref())
    }

    /// As it is sent. None for one that was kept by another version and is not understood.
    fn to_event(&self) -> Option<CloudEvent> {
        let (name, about, body) = match self.since {
            Some(since) => (RESET, About::Hub(self.hub.clone()), reset_body(since)),
            None => {
                let (about, body) = self.content()?;
                (self.event.name(), about, body)
            }
        };
        Some(CloudEvent {
            id: self.id.clone(),
            time_ms: self.time_ms,
            kind: "sys",
            name: name.to_owned(),
            about,
            content_type: "application/json; charset=utf-8",
            body: Bytes::from(body),
        })
    }

    /// What it is about, and its body.
    fn content(&self) -> Option<(About, String)> {
        let hub = HubName::new(&self.hub).ok()?;
        let user = self.user.as_deref().map(UserId::new).transpose().ok()?;
        Some(match (&self.message, &self.presence) {
            (None, Some(body)) => (About::User(hub, user?), body.clone()),
            (Some((message, from)), _) => {
                let position = self.position?;
                let mut body = json!({"messageId": message, "fromUserId": from, "position": position});
                if let Some(group) = &self.group {
                    body["group"] = json!(group);
                }
                let group = self.group.as_deref().map(GroupName::new).transpose().ok()?;
                let from = from.as_deref().map(UserId::new).transpose().ok()?;
                let message = message.parse().ok()?;
                (
                    About::Message(Queued { hub, user: user?, group, message, position, from }),
                    body.to_string(),
                )
            }
            (None, None) => {
                let dialect = self.subprotocol.as_deref().map(Dialect::from_subprotocol);
                let source = EventSource {
                    hub,
                    connection: self.connection.as_deref()?.parse().ok()?,
                    user,
                    subprotocol: dialect.flatten().map_or(Subprotocol::Plain, Subprotocol::from),
                    state: self.state.clone().map(Arc::new),
                };
                let body = self.reason.as_ref().map_or_else(|| json!({}), |reason| json!({"reason": reason}));
                (About::Connection(source), body.to_string())
            }
        })
    }
}

/// What an endpoint is told by that hears of presence.
fn reset_body(since: u64) -> String {
    let mut time = Vec::new();
    civil::push_rfc3339(&mut time, since);
    json!({"event": "reset", "since": String::from_utf8_lossy(&time)}).to_string()
}

/// Sends notices.
pub(super) struct Delivery {
    pub(super) handlers: Vec<Arc<Handler>>,
    pub(super) tally: Arc<UpstreamTally>,
}

impl Delivery {
    /// Sends all of them, each until an endpoint has taken or refused it or it is too old: those of one connection one after
    /// the other, others at once.
    pub(super) async fn deliver(self: &Arc<Self>, notices: Vec<Notice>) {
        let mut rows: Vec<Vec<Notice>> = Vec::new();
        for notice in notices {
            match rows.iter_mut().find(|row| row[0].subject() == notice.subject()) {
                Some(row) => row.push(notice),
                None => rows.push(vec![notice]),
            }
        }
        let mut sending = JoinSet::new();
        for row in rows {
            let delivery = Arc::clone(self);
            sending.spawn(async move {
                for notice in row {
                    delivery.send(&notice).await;
                }
            });
        }
        sending.join_all().await;
    }

    async fn send(&self, notice: &Notice) {
        let hears = |handler: &&Arc<Handler>| handler.hears_system(&notice.hub, notice.event);
        // Nobody wants it any more when the configuration has changed since.
        let Some(handler) = self.handlers.iter().find(hears) else { return };
        let Some(event) = notice.to_event() else {
            tracing::warn!("An event that was kept cannot be read, and is left out.");
            return self.tally.count(notice.event.kind(), Outcome::Failed);
        };
        let kind = notice.event.kind();
        let last = notice.time_ms.saturating_add(handler.settings().retry.as_millis() as u64);
        let mut failures = 0;
        loop {
            let outcome = match handler.call(&event, kind, MAX_ANSWER).await {
                Ok(_) => Outcome::Answered,
                Err(CallError::Refused { status, .. }) => {
                    tracing::debug!(
                        status,
                        event = notice.event.name(),
                        "The upstream endpoint refuses an event."
                    );
                    Outcome::Refused
                }
                Err(CallError::Failed(_)) if unix_ms() >= last => Outcome::Failed,
                Err(CallError::Failed(_)) => {
                    self.tally.count(kind, Outcome::Retried);
                    sleep(pause(PAUSE.0, PAUSE.1, failures)).await;
                    failures += 1;
                    continue;
                }
            };
            return self.tally.count(kind, outcome);
        }
    }
}
