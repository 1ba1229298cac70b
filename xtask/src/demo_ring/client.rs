//! A client of the demonstration: comes through the gateway, does what it is told, and comes back by itself when it is cut off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tieline_judge::Dice;
use tieline_proto::ConnectionId;
use tokio::time::sleep;

use super::crowd::Crowd;
use crate::link::{Link, Lost};

/// A client that was cut off waits for so long at most, by chance, so that not all come back at once.
const JITTER_MS: usize = 1000;

/// One client.
pub(super) struct Client {
    pub(super) crowd: Arc<Crowd>,
    pub(super) gateway: SocketAddr,
    pub(super) who: usize,
    pub(super) dice: Dice,
    /// The last place that it has of its group's log.
    pub(super) position: Option<(u64, u64)>,
}

/// A connection, and its id.
type Open = (Link, ConnectionId);

impl Client {
    /// Is connected until all is over.
    pub(super) async fn run(mut self) {
        let mut over = self.crowd.over.subscribe();
        let over = over.wait_for(|over| *over);
        tokio::select! {
            _ = over => {}
            () = self.live() => {}
        }
    }

    async fn live(&mut self) {
        loop {
            if let Ok(open) = self.connect(None).await {
                self.crowd.arrived(self.who, open.1.incarnation());
                let _: Result<(), Lost> = self.listen(open).await;
                self.crowd.cut(self.who);
            }
            self.pause(JITTER_MS).await;
        }
    }

    async fn pause(&mut self, most_ms: usize) {
        sleep(Duration::from_millis(self.dice.below(most_ms.max(1)) as u64)).await;
    }

    /// Connects, in place of another connection if there is one, and asks for what it has missed.
    async fn connect(&mut self, replaces: Option<ConnectionId>) -> Result<Open, Lost> {
        let replaces = replaces.map(|id| format!("&replaces={id}")).unwrap_or_default();
        let query = format!("user={}{replaces}", Crowd::user(self.who));
        let (mut link, connected) = Link::open_with(self.gateway, &query).await?;
        let id = connected["connectionId"].as_str().and_then(|id| id.parse().ok()).ok_or(Lost)?;
        let mut join = json!({"type": "joinGroup", "group": Crowd::group(self.who as u64), "ackId": 1});
        let (epoch, offset) = self.position.unwrap_or_default();
        join["since"] = json!({"epoch": epoch, "offset": offset});
        link.send(&join).await?;
        Ok((link, id))
    }

    async fn listen(&mut self, (mut link, mut id): Open) -> Result<(), Lost> {
        loop {
            let frame = link.next().await?;
            if self.hear(&frame)? {
                self.pause(frame["jitterMs"].as_u64().unwrap_or_default() as usize).await;
                let next = self.connect(Some(id)).await?;
                // It is closed behind everything that it had coming.
                while let Ok(frame) = link.next().await {
                    self.hear(&frame)?;
                }
                (link, id) = next;
                self.crowd.arrived(self.who, id.incarnation());
            }
        }
    }

    /// Takes a frame in. Says whether it tells the client to connect elsewhere.
    fn hear(&mut self, frame: &Value) -> Result<bool, Lost> {
        match (frame["type"].as_str(), frame["event"].as_str()) {
            (Some("message"), _) => {
                let number = frame["data"].as_u64().ok_or(Lost)?;
                let mut person = self.crowd.person(self.who);
                let Some(offset) = frame["position"]["offset"].as_u64() else {
                    person.live.insert(number);
                    return Ok(false);
                };
                person.kept.insert(number);
                let epoch = frame["position"]["epoch"].as_u64().unwrap_or_default();
                self.position = self.position.max(Some((epoch, offset)));
            }
            // Whoever is not let in comes again.
            (Some("ack"), _) if frame["success"] != true => return Err(Lost),
            (_, Some("reconnect")) => return Ok(true),
            _ => {}
        }
        Ok(false)
    }
}
