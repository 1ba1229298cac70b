//! Two connections to the broker that has the topic, from the name servers to the proof that they carry: the topic is there, and a
//! canary was sent by one and has come back by the other. Not what is done with them then: that is `session.rs`.
//!
//! A node remembers its broker, and looks there first: it needs no name server while the broker stays where it is. Only where that
//! fails the name servers are asked, and the topic is made only by who does not know where it is, or was told by its broker that it is
//! not there: a broker that is away still has it. Tested by the broker's tests.

use std::sync::PoisonError;

use tieline_core::broker::Inbound;
use tokio::time::timeout;

use super::link::Link;
use super::questions::{self, Pulled};
use super::reading::{Heard, Start};
use super::{RocketMq, Trouble, messages};
use crate::medium::parts;

/// The connections to a broker.
pub struct Connection {
    pub(super) sending: Link,
    pub(super) pulling: Link,
}

impl RocketMq {
    /// Connects where the topic was, or is.
    pub(super) async fn connect(&self, inbound: &dyn Inbound) -> Result<Connection, Trouble> {
        let known = self.broker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failed = None;
        if let Some(broker) = &known {
            // A broker that moved without a word must not use up the time of this attempt.
            let joined = timeout(self.pace.connect / 2, self.join(broker, inbound)).await;
            match joined.unwrap_or(Err(Trouble::Silent)) {
                Ok(connection) => return Ok(connection),
                Err(trouble) => failed = Some(trouble),
            }
        }
        let may_create = failed.as_ref().is_none_or(Trouble::is_no_topic);
        match (self.find(may_create).await, failed) {
            // Where it just failed it fails again, unless the topic was made only now.
            (Ok(broker), Some(failed)) if known.as_ref() == Some(&broker) && !may_create => Err(failed),
            (Ok(broker), _) => {
                let connection = self.join(&broker, inbound).await?;
                *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
                Ok(connection)
            }
            // What is wrong with the broker says more than that nobody knows it.
            (Err(_), Some(failed)) => Err(failed),
            (Err(trouble), None) => Err(trouble),
        }
    }

    /// Asks one name server after the other where the topic is, and makes it where it is nowhere.
    async fn find(&self, may_create: bool) -> Result<String, Trouble> {
        // An equal share of the time for each, and one for the broker.
        let share = self.pace.connect / (self.servers.len() as u32 + 1);
        let mut last = Trouble::Silent;
        for server in &self.servers {
            match timeout(share, self.ask(&server.to_string(), may_create)).await {
                Ok(Ok(broker)) => return Ok(broker),
                Ok(Err(trouble)) => last = trouble,
                Err(_) => last = Trouble::Silent,
            }
        }
        Err(last)
    }

    async fn ask(&self, server: &str, may_create: bool) -> Result<String, Trouble> {
        let mut link = Link::open(server, self.signer.as_ref()).await?;
        if let Some(broker) = questions::route(&mut link, &self.names.topic).await? {
            return Ok(broker);
        }
        if !may_create {
            return Err(Trouble::NoBroker);
        }
        let broker = questions::any_broker(&mut link).await?.ok_or(Trouble::NoBroker)?;
        let mut link = Link::open(&broker, self.signer.as_ref()).await?;
        questions::create_topic(&mut link, &self.names.topic).await?;
        Ok(broker)
    }

    /// Connects to a broker, finds its place in the queue, and waits for a canary. What others send meanwhile goes to `inbound`.
    async fn join(&self, broker: &str, inbound: &dyn Inbound) -> Result<Connection, Trouble> {
        let open = || Link::open(broker, self.signer.as_ref());
        let (mut sending, mut pulling) = tokio::try_join!(open(), open())?;
        self.take_place(&mut pulling).await?;
        let mut canary = Vec::new();
        messages::put(&mut canary, self.names.own(), &[&parts::canary(self.me)]);
        questions::send(&mut sending, &self.names.topic, &canary).await?;
        while self.hear(&mut pulling, inbound).await? == Heard::Nothing {}
        Ok(Connection { sending, pulling })
    }

    /// Finds where to read on, after an outage too.
    async fn take_place(&self, pulling: &mut Link) -> Result<(), Trouble> {
        let start = self.reading().start();
        let next = match start {
            Start::At(next) => next,
            Start::Since(time) => questions::since(pulling, &self.names.topic, time).await?,
            Start::Newest => questions::newest(pulling, &self.names.topic).await?,
        };
        self.reading().begin(next);
        Ok(())
    }

    /// Pulls once, and hands up what came.
    pub(super) async fn hear(&self, pulling: &mut Link, inbound: &dyn Inbound) -> Result<Heard, Trouble> {
        let from = self.reading().next();
        match questions::pull(pulling, &self.names, from).await? {
            Pulled::Messages { answer, next } => {
                let body = answer.as_ref().map_or(&b""[..], |answer| answer.body());
                Ok(self.reading().hear(&self.names, body, next, inbound))
            }
            Pulled::Moved => {
                self.reading().lose();
                Err(Trouble::Moved)
            }
        }
    }
}
