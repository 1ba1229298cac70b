//! Asks that other nodes have to answer, and answering theirs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

/// What one node answered; `None` where it could not.
type Reply = Option<String>;

#[derive(Default)]
struct Table {
    last: u64,
    waiting: HashMap<u64, mpsc::Sender<Reply>>,
}

/// The asks of this node that are not answered by all.
#[derive(Default)]
pub(crate) struct Asks(Mutex<Table>);

impl Asks {
    /// Opens an ask to so many nodes. Dropping the guard closes it; answers that come later are dropped.
    pub(crate) fn open(&self, nodes: usize) -> OpenAsk<'_> {
        let (sender, replies) = mpsc::channel(nodes.max(1));
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        table.waiting.insert(number, sender);
        OpenAsk { asks: self, number, replies }
    }

    /// A node has answered.
    pub(crate) fn answered(&self, number: u64, reply: Reply) {
        if let Some(waiting) = self.lock().waiting.get(&number) {
            // There is room for one answer of each node; one that answers twice is not heard twice.
            let _ = waiting.try_send(reply);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An ask that waits for answers.
pub(crate) struct OpenAsk<'a> {
    asks: &'a Asks,
    /// What the other nodes are to answer under.
    pub(crate) number: u64,
    /// The answers.
    pub(crate) replies: mpsc::Receiver<Reply>,
}

impl Drop for OpenAsk<'_> {
    fn drop(&mut self) {
        self.asks.lock().waiting.remove(&self.number);
    }
}
