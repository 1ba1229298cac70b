//! The old node's side of a move: what other nodes wish is carried out on the connection's shard.

use tieline_proto::{ConnectionId, HubName};
use tieline_switchboard::Shard;

use super::words::{Given, Wish};
use crate::node::{Node, Overloaded};
use crate::operator::Operator;

impl Node {
    /// Carries out another node's wish about a connection of this one. `None` when that cannot be done now.
    pub(crate) async fn give(&self, wish: &str) -> Option<String> {
        let given = match serde_json::from_str(wish).ok()? {
            Wish::Begin { hub, id, token } => self.give_head(hub, id, &token).await.ok()?,
            Wish::More { id, taking, from } => self
                .on_shard(id, move |operator, shard| operator.give_page(shard, id, taking, from))
                .await
                .ok()?,
            Wish::End { id, taking, from } => {
                // What other nodes sent before they knew of the move is in the connection's frames before it goes.
                if let Some(cluster) = self.cluster() {
                    cluster.hear_all().await;
                }
                let let_go = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
                    operator.let_go(shard, id, taking, from)
                };
                self.on_shard(id, let_go).await.ok()?
            }
        };
        serde_json::to_string(&given.unwrap_or(Given::Nothing)).ok()
    }

    async fn give_head(
        &self,
        hub: HubName,
        id: ConnectionId,
        token: &str,
    ) -> Result<Option<Given>, Overloaded> {
        if !self.reconnection().verify(id, token) {
            return Ok(None);
        }
        // Where its logs are must be known before, and be heard by the shard behind all that came of them.
        let kept = self.on_shard(id, move |operator, shard| operator.logs_of(shard, id)).await?;
        let ends = match self.logs() {
            Some(logs) => logs.ends(kept.unwrap_or_default()).await,
            None => Vec::new(),
        };
        let taking = self.stamp().1.0 as u64 >> 1 | 1;
        let head = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
            operator.give_head(shard, id, &hub, taking, &ends)
        };
        self.on_shard(id, head).await
    }

    /// Asks the shard of a connection; `None` when this node has none for it, or the shard has no answer.
    async fn on_shard<T: Send + 'static>(
        &self,
        id: ConnectionId,
        run: impl FnOnce(&mut Operator, &mut Shard<Operator>) -> Option<T> + Send + 'static,
    ) -> Result<Option<T>, Overloaded> {
        // The new node says that it holds the connection before this one has let go.
        match self.settlers().find(id).or_else(|| self.first_address(id)) {
            Some(address) => self.ask(address.shard, run).await,
            None => Ok(None),
        }
    }
}
