//! [`Store`]: what keeps the logs of durable messages, whatever becomes of the nodes that wrote them.
//!
//! A log is numbered without holes. A store never looks into a message, and knows nothing of who is connected: who
//! reads what, and what a client is told of it, is decided above. Small facts that are not logs are
//! [`Records`](crate::records::Records). The suite that every engine passes, `memory` first of all, is in the
//! crate of the engines.

use std::pin::Pin;
use std::sync::Arc;

use tieline_proto::{MessageId, Position};

mod append_key;
mod error;
mod id;
mod log_key;
mod memory;
mod retention;

pub use append_key::AppendKey;
pub use error::{Refusal, StoreError};
pub(crate) use id::random;
pub use id::{StoreId, fresh_epoch};
pub use log_key::LogKey;
pub use memory::MemoryStore;
pub use retention::Retention;

/// The largest body that is taken: what also fits into an envelope.
pub const MAX_BODY: usize = 16 << 20;

/// How long an append is remembered at least, so that the same one, said again, is not stored twice. Long enough for
/// a client that was cut off and connects to another node.
pub const DEDUP_WINDOW: std::time::Duration = std::time::Duration::from_secs(300);

/// What a store answers later. What was asked is on its way when the call returns, and goes on when the answer is
/// dropped.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// A message that is to be kept.
#[derive(Clone, Debug)]
pub struct Append {
    /// The log it becomes the last message of.
    pub log: LogKey,
    /// What the same append is known by when it is said again.
    pub key: AppendKey,
    /// The message's own id. Its time is what the message's age is counted from.
    pub id: MessageId,
    /// The message, at most [`MAX_BODY`] bytes. Nobody looks inside.
    pub body: Arc<[u8]>,
    /// What the log keeps from now on.
    pub retention: Retention,
}

/// Where an appended message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place. It is on disk, and whoever reads from now on finds it, unless it was trimmed meanwhile.
    pub position: Position,
    /// Whether the log had taken this append before: this is the place of then.
    pub is_duplicate: bool,
}

/// What a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The life of the log; drawn at random.
    pub epoch: u64,
    /// The oldest offset that is kept; `last + 1` when none is.
    pub first: u64,
    /// The offset of the newest message there ever was in this log; 0 before the first.
    pub last: u64,
}

/// A message that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its offset; the epoch is the page's.
    pub offset: u64,
    /// Its id.
    pub id: MessageId,
    /// What was appended.
    pub body: Arc<[u8]>,
}

/// How much one page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// Messages at most.
    pub count: usize,
    /// Bytes of bodies at most. One message is given even if it is larger, so that reading goes on.
    pub bytes: usize,
}

impl Default for PageLimit {
    /// 256 messages or 1 MiB.
    fn default() -> Self {
        PageLimit { count: 256, bytes: 1 << 20 }
    }
}

/// Why what follows a position cannot be given whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The log's epoch is another one: it was dropped, forgotten or renewed since, or there is no such log.
    Epoch,
    /// Messages after the position were trimmed.
    Trimmed,
    /// The position is behind the log's end: the log lost messages that it had acknowledged, and wants
    /// [`Store::renew`].
    Ahead,
}

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The log at the moment of reading; none when there is no such log.
    pub head: Option<Head>,
    /// Why there are no messages, when they cannot be given whole.
    pub gap: Option<Gap>,
    /// Messages in the order of their offsets, without a hole, from the one after the asked position on. The log has no
    /// more when the last one is the head's, or when there is none.
    pub messages: Vec<Stored>,
}

impl Head {
    /// Why what follows `after` cannot be given whole, and else the offset that reading begins at. This is the one rule
    /// for all engines.
    ///
    /// # Errors
    /// The [`Gap`].
    pub fn start(head: Option<Head>, after: Option<Position>) -> Result<u64, Gap> {
        match (head, after) {
            (None, None) => Ok(1),
            (Some(head), None) => Ok(head.first),
            (None, Some(_)) => Err(Gap::Epoch),
            (Some(head), Some(after)) if after.epoch != head.epoch => Err(Gap::Epoch),
            (Some(head), Some(after)) if after.offset > head.last => Err(Gap::Ahead),
            (Some(head), Some(after)) if after.offset + 1 < head.first => Err(Gap::Trimmed),
            (Some(_), Some(after)) => Ok(after.offset + 1),
        }
    }
}

/// What is cut off the old end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Everything up to this position, itself included. Nothing when the log has another epoch.
    Through(Position),
    /// The log itself. If it is appended to again it is a new one: new epoch, offsets from 1.
    Whole,
}

/// Keeps logs.
///
/// *Guarantee*: what was acknowledged is on disk (where the engine has one) and is found by every later read, until its
/// log's retention or a cut ends it. A message within retention is never trimmed; one past it is trimmed soon, never
/// at once for all: trimming holds no append up. *Ordering*: offsets begin at 1 and have no holes, also when several
/// processes append; appends to one log by one handle get their offsets in the order of the calls. A later message of a log is
/// never readable before an earlier one. *Cancellation*: dropping an [`Answer`] cancels nothing; what was asked happens or
/// does not, unseen. *Retries*: none within the store beyond waiting for its engine, which ends. Whoever got
/// [`StoreError::Refused`] may ask again, and nothing has happened; after [`StoreError::Unknown`] the same append
/// with the same key tells, within [`DEDUP_WINDOW`]. No call waits; where an engine has to, a bounded queue
/// stands before it and refuses when it is full.
///
/// *Epochs*: a log gets a random one when it is made. Whoever finds that a log lost acknowledged messages (its end is before
/// a position that was given, or another message is at that position) renews it, so that positions of before
/// are known to be worthless.
pub trait Store: Send + Sync + 'static {
    /// The store's random id, made with it: two nodes with the same id share their logs.
    fn id(&self) -> StoreId;

    /// Adds a message at the end of its log, and makes the log if there is none. Said again with the same key within
    /// [`DEDUP_WINDOW`], it adds nothing and gives the position of the first time.
    fn append(&self, append: Append) -> Answer<Appended>;

    /// What follows a position, or all that is kept from the oldest message on. Never waits for appends, and holds none up.
    fn read(&self, log: LogKey, after: Option<Position>, limit: PageLimit) -> Answer<Page>;

    /// The heads of many logs, in the order of the question; none where there is no such log.
    fn heads(&self, logs: Vec<LogKey>) -> Answer<Vec<Option<Head>>>;

    /// Cuts off what is not needed any more. It is gone for readers when this is answered; its room is freed bit by bit.
    /// Of a log that is not there nothing is cut.
    fn trim(&self, log: LogKey, cut: Cut) -> Answer<()>;

    /// Gives the log a new epoch if its epoch is still this one, and keeps its messages and offsets. The answer is the
    /// head afterwards, whoever renewed it; none when there is no such log.
    fn renew(&self, log: LogKey, epoch: u64) -> Answer<Option<Head>>;
}
