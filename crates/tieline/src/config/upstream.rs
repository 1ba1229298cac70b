//! `[[upstream]]`: the endpoints that are told of events and asked. What they mean is in `upstream.rs` of this crate. Tested by
//! `config/tests.rs`.

use std::time::Duration;

use tieline_proto::HubName;

use super::kind::{Kind, list, quote, text, write_list};
use super::layers::Written;
use super::tables::tables;
use crate::upstream::{SystemEvent, Template};

tables! {
    /// One HTTP endpoint of the application.
    pub Upstream "upstream"
    /// Hub whose events go there, or `*` for every hub. Of several endpoints that want an event, the first one gets it.
    hub: String = "*".to_owned(), "name", "the name of a hub, or \"*\"" |hub| hub == "*" || HubName::new(hub).is_ok();
    /// Address that events are posted to, `http://…` or `https://…`. `{hub}` and `{event}` in its path or query stand for the event's; `{event}` is `validate` when the endpoint is asked whether it wants events at all. It may hold a secret in its query, which is shown to nobody.
    url: Template, "address";
    /// Names of the events from clients that go there; `*` for all.
    user_events: Vec<String> = vec!["*".to_owned()], "names";
    /// What else goes there: `connect` asks before each connection is made, and none is made without an answer; `connected` and `disconnected` tell of connections, `queued` of messages that were stored for users who are offline, `presence` of users who come and go where `presence` is switched on.
    system_events: Vec<SystemEvent> = Vec::new(), "events";
    /// How long the endpoint may take to answer one request.
    timeout: Duration = Duration::from_secs(5), "duration", "a duration from \"100ms\" to \"1m\"" |time| (100..=60_000).contains(&time.as_millis());
    /// How long after it happened an event that nobody waits for (`connected`, `disconnected`, `queued`, `presence`) is sent again while the endpoint is away.
    retry: Duration = Duration::from_secs(24 * 3600), "duration", "a duration from \"1s\" to \"7d\"" |time| (1..=7 * 24 * 3600).contains(&time.as_secs());
    /// Such events that may wait in memory, of each hub; the oldest is dropped and counted.
    queue: usize = 10_000, "events", "a whole number from 1 to 1000000" |count| (1..=1_000_000).contains(count);
    /// Requests to the endpoint that may be under way at once; more wait, which counts as time that it takes.
    concurrency: usize = 256, "requests", "a whole number from 1 to 10000" |count| (1..=10_000).contains(count);
    /// Who the endpoint is told is asking, in `WebHook-Request-Origin`. Without one it is host and port of `client_url`, or of `listen`.
    origin: Option<String> = None, "host", "a host, with or without a port" |origin| origin.as_deref().is_none_or(crate::admission::is_authority);
}

impl Kind for Template {
    const TAKES: &'static str = "an address such as \"https://app.example.com/events/{event}\": http or https, no user or password, and nothing but {hub} and {event} in braces, behind the host";

    fn read(written: &Written) -> Option<Self> {
        Template::parse(text(written)?)
    }

    fn write(&self) -> String {
        quote(&self.masked())
    }

    /// Without what may be a secret.
    fn repeat(text: &str) -> String {
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let host = text.rsplit('@').next().unwrap_or_default();
        format!("{:?}", if host.len() < text.len() { format!("***@{host}") } else { text.to_owned() })
    }
}

impl Kind for Vec<SystemEvent> {
    const TAKES: &'static str =
        "a list of \"connect\", \"connected\", \"disconnected\", \"queued\" and \"presence\"";
    const IS_LIST: bool = true;

    fn read(written: &Written) -> Option<Self> {
        list(written, SystemEvent::from_name)
    }

    fn write(&self) -> String {
        write_list(self.iter().map(|event| quote(event.name())))
    }
}
