//! What is asked of a store that has threads of its own: requests that wait in a [`Queue`], and the answers they owe. Not
//! what a thread does with them: that is the engine's. Tested by the conformance suites of the engines.

use std::sync::Arc;

use tieline_core::records::{Change, MAX_VALUE, Outcome, Record, RecordKey};
use tieline_core::store::{
    Answer, Append, Appended, Cut, Head, LogKey, Page, PageLimit, Refusal, StoreError,
};
use tieline_proto::Position;
use tokio::sync::oneshot;

use crate::backlog::{Bounds, answered, at_once};

mod queue;
mod threaded;

pub(crate) use queue::{Queue, Taken};
pub(crate) use threaded::{ThreadedStore, Threads};

/// What may wait for a writer. Past it requests are refused: whoever asks knows best whether to wait.
const WRITES: Bounds = Bounds { count: 65_536, bytes: 64 << 20 };

/// What may wait for the readers. Past it requests are refused.
const READS: Bounds = Bounds { count: 4096, bytes: 16 << 20 };

/// What one transaction may hold, so that its commit does not take long.
pub(crate) const BATCH: Bounds = Bounds { count: 2048, bytes: 8 << 20 };

/// The answer to a request to a writer: kept until the commit.
pub(crate) struct Reply<T> {
    sender: oneshot::Sender<Result<T, StoreError>>,
    /// What the transaction made of it.
    pub(crate) outcome: Option<T>,
}

impl<T> Reply<T> {
    fn new() -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (sender, receiver) = oneshot::channel();
        (Reply { sender, outcome: None }, receiver)
    }

    /// Tells how it ended. Nobody may be there to hear it.
    fn give(self, result: Result<(), StoreError>) {
        let gone = || StoreError::Unknown("a request was not looked at".to_owned());
        let _ = self.sender.send(result.and_then(|()| self.outcome.ok_or_else(gone)));
    }
}

/// A request to a writer.
pub(crate) enum Write {
    Append(Append, Reply<Appended>),
    Trim(LogKey, Cut, Reply<()>),
    Renew(LogKey, u64, Reply<Option<Head>>),
    Change(Change, Reply<Outcome>),
}

impl Write {
    /// Bytes that it takes while it waits.
    pub(crate) fn size(&self) -> usize {
        let carried = match self {
            Write::Append(append, _) => append.body.len(),
            Write::Change(change, _) => change.to.as_ref().map_or(0, |value| value.bytes.len()),
            Write::Trim(..) | Write::Renew(..) => 0,
        };
        carried + size_of::<Write>()
    }

    /// Answers it with what the transaction made of it, if that was well.
    pub(crate) fn give(self, result: Result<(), StoreError>) {
        match self {
            Write::Append(_, reply) => reply.give(result),
            Write::Trim(.., reply) => reply.give(result),
            Write::Renew(.., reply) => reply.give(result),
            Write::Change(_, reply) => reply.give(result),
        }
    }
}

pub(crate) type Sender<T> = oneshot::Sender<Result<T, StoreError>>;

/// A request to a reader.
pub(crate) enum Read {
    Page(LogKey, Option<Position>, PageLimit, Sender<Page>),
    Heads(Vec<LogKey>, Sender<Vec<Option<Head>>>),
    Get(RecordKey, Sender<Option<Record>>),
    List { prefix: String, after: Option<RecordKey>, count: usize, sender: Sender<Vec<(RecordKey, Record)>> },
}

impl Read {
    /// Bytes that it takes while it waits.
    fn size(&self) -> usize {
        let many = if let Read::Heads(logs, _) = self { logs.len() } else { 0 };
        size_of::<Read>() + many * size_of::<LogKey>()
    }

    /// Answers that it cannot be answered.
    pub(crate) fn refuse(self, refusal: Refusal) {
        match self {
            Read::Page(.., sender) => drop(sender.send(Err(refusal.into()))),
            Read::Heads(_, sender) => drop(sender.send(Err(refusal.into()))),
            Read::Get(_, sender) => drop(sender.send(Err(refusal.into()))),
            Read::List { sender, .. } => drop(sender.send(Err(refusal.into()))),
        }
    }
}

/// Where requests are handed in: one queue for the writer, and one for the readers.
pub struct Desk {
    pub(crate) writes: Arc<Queue<Write>>,
    pub(crate) reads: Arc<Queue<Read>>,
    /// The largest body that the engine takes.
    largest: usize,
}

impl Desk {
    pub(crate) fn new(largest: usize) -> Self {
        Desk { writes: Arc::new(Queue::new(WRITES)), reads: Arc::new(Queue::new(READS)), largest }
    }

    /// Takes smaller bodies alone from now on.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn set_largest(&mut self, largest: usize) {
        self.largest = largest;
    }

    pub(crate) fn append(&self, append: Append) -> Answer<Appended> {
        if append.body.len() > self.largest {
            return at_once(Err(Refusal::TooLarge.into()));
        }
        self.write(|reply| Write::Append(append, reply))
    }

    pub(crate) fn change(&self, change: Change) -> Answer<Outcome> {
        if change.to.as_ref().is_some_and(|value| value.bytes.len() > MAX_VALUE) {
            return at_once(Err(Refusal::TooLarge.into()));
        }
        self.write(|reply| Write::Change(change, reply))
    }

    pub(crate) fn write<T: Send + 'static>(&self, write: impl FnOnce(Reply<T>) -> Write) -> Answer<T> {
        let (reply, answer) = Reply::new();
        let write = write(reply);
        let size = write.size();
        answered(self.writes.push(write, size), answer)
    }

    pub(crate) fn read<T: Send + 'static>(&self, read: impl FnOnce(Sender<T>) -> Read) -> Answer<T> {
        let (sender, answer) = oneshot::channel();
        let read = read(sender);
        let size = read.size();
        answered(self.reads.push(read, size), answer)
    }
}
