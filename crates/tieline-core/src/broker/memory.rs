//! The broker within one process: nodes that are started side by side, as tests do. Delivery is a call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tieline_proto::Incarnation;

use super::{Broker, Inbound, NotTaken, To};

type Nodes = HashMap<Incarnation, Arc<dyn Inbound>>;

/// Joins the nodes of one process.
#[derive(Clone, Default)]
pub struct MemoryExchange(Arc<Mutex<Nodes>>);

impl MemoryExchange {
    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a node: it and all others hear that they reach each other.
    pub fn join(&self, node: Incarnation, inbound: Arc<dyn Inbound>) -> MemoryBroker {
        let others: Vec<_> = {
            let mut nodes = self.lock();
            let others = nodes.iter().map(|(id, other)| (*id, Arc::clone(other))).collect();
            nodes.insert(node, Arc::clone(&inbound));
            others
        };
        for (id, other) in others {
            other.reachable(node);
            inbound.reachable(id);
        }
        MemoryBroker { exchange: self.clone(), node }
    }

    /// Cuts a node off: the others hear that it is gone, and it that they are.
    pub fn cut(&self, node: Incarnation) {
        let (gone, others): (_, Vec<_>) = {
            let mut nodes = self.lock();
            (nodes.remove(&node), nodes.iter().map(|(id, other)| (*id, Arc::clone(other))).collect())
        };
        for (id, other) in others {
            other.unreachable(node);
            if let Some(gone) = &gone {
                gone.unreachable(id);
            }
        }
    }
}

/// One node's end of a [`MemoryExchange`].
pub struct MemoryBroker {
    exchange: MemoryExchange,
    node: Incarnation,
}

impl Broker for MemoryBroker {
    fn send(&self, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        let receivers: Vec<_> = {
            let nodes = self.exchange.lock();
            if !nodes.contains_key(&self.node) {
                return Err(NotTaken::Unreachable);
            }
            let wanted = |id: &Incarnation| *id != self.node && (to == To::All || to == To::One(*id));
            nodes.iter().filter(|(id, _)| wanted(id)).map(|(_, node)| Arc::clone(node)).collect()
        };
        if receivers.is_empty() && to != To::All {
            return Err(NotTaken::Unreachable);
        }
        receivers.iter().for_each(|receiver| receiver.envelope(envelope));
        Ok(())
    }

    fn close(&self) {
        self.exchange.cut(self.node);
    }
}
