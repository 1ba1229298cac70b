//! [`Checkpoints`]: the records of this node's connections in the store, as its shards and those who bring connections see them, and the
//! secret that all nodes of a store share.
//!
//! Whatever is asked of it goes to one task (`recovery/writer.rs`). Tested in `tests/sessions/resuming.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tieline_proto::ConnectionId;
use tieline_switchboard::Address;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::life;
use super::counters::CheckpointCounters;
use crate::node::Node;
use crate::operator::Wanted;
use crate::reconnection::SECRET;
use crate::records::{Change, Expect, Outcome, RecordKey, Records, Value};
use crate::store::{Refusal, StoreError};

/// How long an answer of the store is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Requests of shards that the task has not come to. When it is full a record is not removed: it lapses by itself, and a connection
/// whose node lives is nobody else's; and who waits for a record to be gone is refused.
const REQUESTS: usize = 65_536;

/// Where the secret of reconnection tokens is kept.
const SECRET_KEY: &str = "secret/reconnection";

/// Who waits for a record to be as it should.
pub(super) enum Waiter {
    /// A connection that does something when its record is gone.
    Change(Address, Wanted),
    /// Whoever brings a connection here, until its record says so. Told whether the connection is this node's.
    Claim(oneshot::Sender<bool>),
}

/// What a shard asks for.
pub(super) enum Request {
    /// The record is to be gone.
    Remove { id: ConnectionId, address: Address, generation: u32, then: Option<Waiter> },
    /// The record is to say now that the connection is here.
    Claim(ConnectionId, Address, Waiter),
    /// The record is another node's.
    Forget(ConnectionId),
}

/// The records of a node, as its shards see them.
pub(crate) struct Checkpoints {
    records: Arc<dyn Records>,
    requests: mpsc::Sender<Request>,
    counters: CheckpointCounters,
    life: Duration,
    /// Connections of this node that may have a record.
    followed: AtomicUsize,
}

impl Checkpoints {
    /// Those of a node whose cut clients have so long to come back; and where the task hears what is asked of them.
    pub(super) fn new(records: Arc<dyn Records>, window: Duration) -> (Arc<Self>, mpsc::Receiver<Request>) {
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (counters, life) = (CheckpointCounters::default(), life(window));
        (Arc::new(Checkpoints { records, requests, counters, life, followed: AtomicUsize::new(0) }), asked)
    }

    /// What keeps them.
    pub(super) fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// One connection more may have a record.
    pub(crate) fn begin(&self) {
        self.followed.fetch_add(1, Ordering::Relaxed);
    }

    /// One of them has ended.
    pub(crate) fn end(&self) {
        self.followed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether any may.
    pub(super) fn is_needed(&self) -> bool {
        self.followed.load(Ordering::Relaxed) > 0
    }

    /// What was counted.
    pub(crate) fn counters(&self) -> &CheckpointCounters {
        &self.counters
    }

    /// A record as it is given to the store.
    pub(super) fn value(&self, bytes: Vec<u8>) -> Value {
        Value { bytes: bytes.into(), lives: Some(self.life) }
    }

    /// The record of a connection is not true any more: it is removed.
    pub(crate) fn remove(&self, id: ConnectionId, address: Address, generation: u32) {
        // Without room it lapses by itself.
        let _ = self.requests.try_send(Request::Remove { id, address, generation, then: None });
    }

    /// The same for a connection that goes on to do something when it is gone.
    ///
    /// # Errors
    /// Gives back what it is about to do when the task has too much to do.
    pub(crate) fn remove_first(
        &self,
        id: ConnectionId,
        address: Address,
        generation: u32,
        wanted: Wanted,
    ) -> Result<(), Wanted> {
        let Ok(room) = self.requests.try_reserve() else { return Err(wanted) };
        let then = Some(Waiter::Change(address, wanted));
        room.send(Request::Remove { id, address, generation, then });
        Ok(())
    }

    /// The connection has gone to another node, and its record with it.
    pub(crate) fn forget(&self, id: ConnectionId) {
        // One that is not forgotten is found to be another node's when it is written.
        let _ = self.requests.try_send(Request::Forget(id));
    }

    /// Has the record say that a connection is here now. Returns false where it says that another node has it; true, too, when
    /// the store does not answer.
    pub(super) async fn claim(&self, id: ConnectionId, address: Address) -> bool {
        let (done, claimed) = oneshot::channel();
        if self.requests.try_send(Request::Claim(id, address, Waiter::Claim(done))).is_err() {
            return true;
        }
        match tokio::time::timeout(PATIENCE, claimed).await {
            Ok(Ok(is_ours)) => is_ours,
            Ok(Err(_)) | Err(_) => true,
        }
    }
}

impl Node {
    /// Makes reconnection tokens by the secret of the store, if there is one that tells it within two seconds: then other nodes
    /// can check them when this one is dead. To be called before clients come. A store that does not tell it is asked again later.
    pub async fn share_secret(&self) {
        let Some(checkpoints) = self.checkpoints() else { return };
        if self.reconnection().is_shared() {
            return;
        }
        match tokio::time::timeout(PATIENCE, secret(checkpoints.records().as_ref())).await {
            Ok(Ok(secret)) => self.reconnection().share(&secret),
            Ok(Err(error)) => {
                tracing::warn!(%error, "The store does not tell the secret of reconnection tokens; other nodes cannot check those of this one yet.");
            }
            Err(_) => {
                tracing::warn!(
                    "The store does not answer; other nodes cannot check the reconnection tokens of this one yet."
                );
            }
        }
    }
}

/// The secret of a store: drawn by whoever comes first.
async fn secret(records: &dyn Records) -> Result<[u8; SECRET], StoreError> {
    let key = RecordKey::new(SECRET_KEY).expect("it is a key");
    let mut fresh = [0; SECRET];
    getrandom::fill(&mut fresh).map_err(|error| Refusal::Failed(error.to_string()))?;
    let to = Some(Value { bytes: Arc::from(fresh), lives: None });
    match records.compare_and_set(Change { key, expect: Expect::Nothing, to }).await? {
        Outcome::Done(_) => Ok(fresh),
        Outcome::Differs(found) => {
            let found = found.and_then(|found| <[u8; SECRET]>::try_from(&*found.value).ok());
            Ok(found.ok_or_else(|| Refusal::Damaged(format!("`{SECRET_KEY}` is no secret")))?)
        }
    }
}
