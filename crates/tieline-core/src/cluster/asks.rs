//! Asks that other nodes have to answer, and answering theirs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tieline_proto::envelope::Rare;
use tieline_proto::{HubName, Incarnation};
use tokio::sync::mpsc;

use super::{Cluster, Nodes};
use crate::ask::{Answer, Ask};
use crate::broker::To;
use crate::node::Overloaded;

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

impl Cluster {
    /// Asks the other nodes about connections of a hub, and merges what they answer with `own`, this node's answer.
    ///
    /// # Errors
    /// [`Overloaded`] when one of them did not answer in time, or could not: what it holds is not known. Asking again
    /// is harmless.
    pub(crate) async fn ask(&self, hub: &HubName, ask: &Ask, own: Answer) -> Result<Answer, Overloaded> {
        let peers = self.peer_view();
        let nodes: Nodes = match ask.connection() {
            Some(id) => {
                let seat = self.seat_of(id);
                Nodes::from_iter(peers.is_reached(seat).then_some(seat))
            }
            None => {
                peers.all().iter().filter(|peer| peer.is_reached()).map(|peer| peer.id.incarnation).collect()
            }
        };
        if nodes.is_empty() {
            return Ok(own);
        }
        let text = serde_json::to_string(ask).map_err(|_| Overloaded)?;
        let mut open = self.asks.open(nodes.len());
        for node in &nodes {
            let envelope = Rare::Ask(open.number, hub.clone(), text.clone()).into();
            self.say(To::One(*node), &envelope).map_err(|_| Overloaded)?;
        }
        let gather = async {
            let mut answer = own;
            for _ in &nodes {
                let reply = open.replies.recv().await.flatten().ok_or(Overloaded)?;
                let theirs: Answer = serde_json::from_str(&reply).map_err(|_| Overloaded)?;
                answer = answer.merge(theirs);
            }
            Ok(answer)
        };
        tokio::time::timeout(self.times.ask, gather).await.map_err(|_| Overloaded)?
    }

    /// Answers another node's ask.
    pub(super) async fn answer_ask(&self, origin: Incarnation, number: u64, hub: HubName, ask: String) {
        let Some(node) = self.node.upgrade() else { return };
        let answer = match serde_json::from_str(&ask) {
            Ok(ask) => node.answer(&hub, ask).await.ok(),
            Err(_) => None,
        };
        let answer = answer.and_then(|answer| serde_json::to_string(&answer).ok());
        let _ = self.say(To::One(origin), &Rare::Answer(number, answer).into());
    }

    /// Waits until all has been taken in that the nodes which are reached had said to this one before they heard of the question that this
    /// asks them: their answers come behind it. Returns whether all answered in time.
    pub(crate) async fn hear_all(&self) -> bool {
        let peers = self.peer_view();
        let nodes: Nodes =
            peers.all().iter().filter(|peer| peer.is_reached()).map(|peer| peer.id.incarnation).collect();
        let mut open = self.asks.open(nodes.len());
        for node in &nodes {
            // One that cannot be asked has said nothing that is waited for.
            if self.say(To::One(*node), &Rare::Fence(open.number).into()).is_err() {
                return false;
            }
        }
        let gather = async {
            for _ in &nodes {
                open.replies.recv().await?;
            }
            Some(())
        };
        matches!(tokio::time::timeout(self.times.read, gather).await, Ok(Some(())))
    }

    /// Tells another node a wish about a connection and waits for what it makes of it; `None` when it could not, or does not
    /// answer within `patience`.
    pub(crate) async fn wish(&self, node: Incarnation, wish: String, patience: Duration) -> Option<String> {
        let mut open = self.asks.open(1);
        self.say(To::One(node), &Rare::Wish(open.number, wish).into()).ok()?;
        tokio::time::timeout(patience, open.replies.recv()).await.ok().flatten().flatten()
    }

    /// Answers another node's wish.
    pub(super) async fn answer_wish(&self, origin: Incarnation, number: u64, wish: String) {
        let Some(node) = self.node.upgrade() else { return };
        let answer = node.give(&wish).await;
        let _ = self.say(To::One(origin), &Rare::Answer(number, answer).into());
    }
}
