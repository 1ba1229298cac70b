//! A Redis master with sentinels: they are asked at each attempt where it is, so a node follows every fail-over. All else is as with one
//! server: one connection, which publishes and is subscribed.
//!
//! A master that was replaced while it could not be reached cuts its clients off when it becomes a replica: the sentinels see to
//! that. A server that has not become one yet, or is one already, is no master by its own word, and is not used.
//!
//! Tested by the conformance suite, with a master that is killed and one that stands still.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tieline_core::broker::Inbound;
use tieline_proto::NodeId;
use tokio::time::timeout;

use super::channels::{Channels, Kind as ChannelKind};
use super::connection::Dialler;
use super::link::Link;
use super::resp::Answer;
use super::several::{Kind, RedisSeveralAddress};
use super::{RedisError, RedisSettings, Trouble, check_cluster};
use crate::hosts::Host;
use crate::medium::stream::{self, Signs, Stream};
use crate::medium::{Engine, Medium, Pace, Queue};

/// The engine of `redis+sentinel://`.
pub struct Sentinels {
    pace: Pace,
    channels: Arc<Channels>,
    address: RedisSeveralAddress,
    /// What they call the master.
    master: String,
    /// For the master, wherever it is.
    dialler: Dialler,
    /// For the sentinels.
    asker: Dialler,
}

/// A node's way to the other nodes through a Redis master that sentinels watch. It stops when it is dropped.
pub type RedisSentinelBroker = Medium<Sentinels>;

impl Medium<Sentinels> {
    /// Asks the sentinels, connects to the master and subscribes. `inbound` hears of envelopes from now on, from a task of the runtime this is
    /// called in.
    ///
    /// # Errors
    /// When the settings are wrong, no sentinel knows the master, or the master is not there or refuses this node, at the latest
    /// after [`Pace::connect`].
    pub async fn start(
        settings: RedisSettings<RedisSeveralAddress>,
        node: &NodeId,
        inbound: Arc<dyn Inbound>,
    ) -> Result<RedisSentinelBroker, RedisError> {
        let RedisSettings { cluster, address, pace } = settings;
        check_cluster(&cluster)?;
        let Kind::Sentinels { master, login } = address.kind.clone() else {
            return Err(RedisError::Url("there are no sentinels in it"));
        };
        let server = address.server();
        let dialler = Dialler::new(address.of(&address.hosts[0]), format!("tieline-{}", node.name))?;
        let sentinels = Sentinels {
            pace: pace.clone(),
            channels: Arc::new(Channels::new(&cluster, node.incarnation, ChannelKind::Plain)),
            asker: dialler.with_login(login),
            dialler,
            address,
            master,
        };
        Medium::begin(sentinels, pace, inbound)
            .await
            .map_err(|trouble| RedisError::Server { server, trouble })
    }
}

impl Sentinels {
    /// Asks one after the other where the master is. Each has its part of half the time.
    async fn find(&self) -> Result<Host, Trouble> {
        let hosts = &self.address.hosts;
        let share = self.pace.connect / (2 * hosts.len() as u32);
        let mut trouble = Trouble::Silent;
        for host in hosts {
            match timeout(share, self.ask(host)).await {
                Ok(Ok(master)) => return Ok(master),
                Ok(Err(error)) => trouble = error,
                Err(_) => {}
            }
        }
        Err(trouble)
    }

    async fn ask(&self, sentinel: &Host) -> Result<Host, Trouble> {
        let dialler = Arc::new(self.asker.to(sentinel)?);
        let (mut link, greetings) = Link::connect(&dialler).await?;
        link.say(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.master.as_bytes()]);
        link.send().await?;
        let address = link.answers(greetings + 1, |answers| {
            if let Some(Answer::Refused(reason)) =
                answers.iter().find(|answer| matches!(answer, Answer::Refused(_)))
            {
                return Err(dialler.refused(reason));
            }
            let Some(Answer::Many(parts)) = answers.last() else { return Err(Trouble::NoMaster) };
            let [Answer::Text(name), Answer::Text(port)] = &parts[..] else { return Err(Trouble::Garbage) };
            let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Trouble::Garbage);
            let port = text(port)?.parse().map_err(|_| Trouble::Garbage)?;
            Ok(Host { name: text(name)?.to_owned(), port })
        });
        address.await?
    }
}

/// Whether what a server says of itself, in answer to its greeting, is that it is a master.
fn is_master(greeting: &Answer<'_>) -> bool {
    let Answer::Many(parts) = greeting else { return false };
    parts.chunks_exact(2).any(|pair| pair == [Answer::Text(b"role"), Answer::Text(b"master")])
}

impl Engine for Sentinels {
    type Connection = Stream;
    type Words = Signs;
    type Fault = Trouble;

    const SERVER: &'static str = "Redis master";

    /// As with one server: there is one at a time.
    const ORDERS_CHANNELS: bool = true;

    fn server(&self) -> String {
        self.address.server()
    }

    fn strays(&self) -> Vec<(&'static str, u64)> {
        self.channels.strays()
    }

    async fn dial(&self, inbound: &dyn Inbound) -> Result<Stream, Trouble> {
        let master = self.find().await?;
        let dialler = Arc::new(self.dialler.to(&master)?);
        let (mut link, greetings) = Link::connect(&dialler).await?;
        link.send().await?;
        let greeting = link.answers(greetings, |answers| match &answers[0] {
            Answer::Refused(reason) => Err(dialler.refused(reason)),
            greeting if is_master(greeting) => Ok(()),
            _ => Err(Trouble::Replica),
        });
        greeting.await??;
        dialler.subscribe(link.into_stream(), Vec::new(), (true, true), &self.channels, inbound).await
    }

    async fn run(&self, stream: Stream, queue: &Arc<Queue<Signs>>, inbound: &dyn Inbound) -> Trouble {
        let channels = &self.channels;
        let hear = |inbox: &mut _| channels.hear(inbox, inbound, None);
        stream::run(&self.pace, stream, queue, Arc::clone(channels), hear).await
    }
}
