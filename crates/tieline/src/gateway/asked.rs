//! [`AskedNodes`]: the nodes as one of them tells, by `GET /api/v1/nodes`, asked again and again: for clusters whose registry is the
//! beats of the nodes themselves, which a gateway does not hear.
//!
//! The first one that answers is believed, and asked first the next time. While none does, what was told last stays. Tested with
//! real nodes in `tests/cluster/gateway.rs`, and here by what a node may tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use tieline_core::registry::words::Strange;
use tieline_core::registry::{
    self, Done, HOLD, Keeping, MAX_WEIGHT, Member, Registration, Registry, SharedView,
};
use tieline_proto::NodeId;
use tieline_proto::rest::{NodeItem, NodeState, NodesPage};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::{Api, ApiError};
use crate::upstream::ClientError;

/// How often a node is asked.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// Why nodes cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskedError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// None of those that were named answers.
    #[error("no node tells of the cluster: {0}")]
    Nobody(ApiError),
    /// What answered is no node.
    #[error("{0} does not tell of nodes")]
    Strange(String),
}

/// The nodes as one of them tells. It is asked for as long as this is kept.
pub(super) struct AskedNodes {
    view: watch::Receiver<SharedView>,
    task: JoinHandle<()>,
}

impl AskedNodes {
    /// Asks these servers, `http://HOST:PORT`, with this key.
    ///
    /// # Errors
    /// When none of them answers.
    pub(super) async fn open(servers: Vec<String>, key: Option<String>) -> Result<Self, AskedError> {
        let https = servers.iter().any(|server| server.starts_with("https:"));
        let api = Api::new(https, key, ANSWER)?;
        let mut asking = Asking { api, servers, keeping: Keeping::new(None, HOLD) };
        let list = asking.ask().await?;
        asking.keeping.listed(list, Instant::now());
        let (shown, view) = watch::channel(Arc::new(asking.keeping.view()));
        Ok(AskedNodes { view, task: tokio::spawn(asking.run(shown)) })
    }
}

impl Registry for AskedNodes {
    fn register(&self, _: Registration) {}

    fn deregister(&self) -> Done {
        Box::pin(std::future::ready(()))
    }

    fn view(&self) -> watch::Receiver<SharedView> {
        self.view.clone()
    }
}

impl Drop for AskedNodes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Asking {
    api: Api,
    /// The one that answered last is the first.
    servers: Vec<String>,
    keeping: Keeping,
}

/// What a node tells of each.
type List = Vec<Result<Member, Strange>>;

impl Asking {
    async fn run(mut self, shown: watch::Sender<SharedView>) {
        let mut due = interval(ASK_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_away = false;
        loop {
            due.tick().await;
            let now = Instant::now();
            match self.ask().await {
                Ok(list) => {
                    if std::mem::take(&mut is_away) {
                        tracing::info!("A node tells of the cluster again.");
                    }
                    self.keeping.listed(list, now);
                }
                Err(error) => {
                    self.keeping.away();
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(%error, "What nodes told last stays.");
                    }
                }
            }
            self.keeping.tick(now);
            let view = self.keeping.view();
            shown.send_if_modified(|before| {
                let is_news = **before != view;
                if is_news {
                    *before = Arc::new(view);
                }
                is_news
            });
        }
    }

    /// Asks one after the other.
    async fn ask(&mut self) -> Result<List, AskedError> {
        let mut failed = None;
        for at in 0..self.servers.len() {
            match self.ask_one(&self.servers[at]).await {
                Ok(list) => {
                    self.servers[..=at].rotate_right(1);
                    return Ok(list);
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("at least one server is named"))
    }

    async fn ask_one(&self, server: &str) -> Result<List, AskedError> {
        let answer = self.api.ask(server, Method::GET, "/api/v1/nodes").await.map_err(AskedError::Nobody)?;
        let page: Result<NodesPage, _> = serde_json::from_slice(&answer);
        let page = page.map_err(|_| AskedError::Strange(server.to_owned()))?;
        Ok(page.nodes.into_iter().filter_map(|item| member(item, server)).collect())
    }
}

/// A node that another one tells of, or of itself; none for one that it does not reach, which may be dead.
fn member(item: NodeItem, server: &str) -> Option<Result<Member, Strange>> {
    let state = match item.state {
        NodeState::Alive => registry::NodeState::Up,
        NodeState::Draining => registry::NodeState::Draining,
        NodeState::Unreachable => return None,
    };
    let own = item.is_self.then(|| server.replacen("http", "ws", 1));
    let Some(client_url) = item.client_url.or(own) else { return Some(Err(Strange::Malformed)) };
    let registration = Registration {
        client_url,
        connections: item.connections.unwrap_or_default(),
        weight: item.weight.unwrap_or(1).clamp(1, MAX_WEIGHT),
        capacity: item.capacity.unwrap_or_default(),
        version: item.version.unwrap_or_default(),
        state,
        ..Registration::default()
    };
    let id = NodeId { name: item.name, incarnation: item.incarnation };
    Some(Ok(Member { id, registration, is_enabled: item.enabled.unwrap_or(true) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_tells_makes_members() {
        let told = |more: &str| {
            let text = format!(
                r#"{{"name":"a","incarnation":"0000000000000001","state":"alive","self":false,"silentMs":0{more}}}"#
            );
            member(serde_json::from_str(&text).unwrap(), "https://a:1")
        };
        let url = |more: &str| told(more).unwrap().map(|member| member.registration.client_url);
        assert_eq!(url(r#","clientUrl":"ws://b:2""#), Ok("ws://b:2".to_owned()));
        assert_eq!(url(""), Err(Strange::Malformed));
        let member = told(r#","clientUrl":"ws://b:2","weight":1000,"enabled":false"#).unwrap().unwrap();
        assert_eq!((member.registration.weight, member.takes_clients()), (MAX_WEIGHT, false));
    }
}
