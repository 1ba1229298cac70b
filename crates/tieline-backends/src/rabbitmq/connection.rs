//! A connection to the server, from the name's resolution until it is proved to carry: authenticated, everything declared, and a canary
//! has come back through it. Not what is done with it then: that is `session.rs`.
//!
//! Every attempt resolves the name anew, so a server that moved is found, and declares everything anew, so nothing has to be remembered
//! of what a server forgot. Tested by the broker's tests, against a real server with and without users and TLS, and against strangers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tieline_core::broker::Inbound;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::confirms::Confirms;
use super::ear::{Ear, check};
use super::frames::{self, FRAME_MAX, FRAME_MIN, GREETING, Method, Value};
use super::messages::{Messages, Said};
use super::mouth::Mouth;
use super::names::Names;
use super::settings::RabbitMqAddress;
use super::{Counts, RabbitMqError, Trouble};
use crate::inbox::{Inbox, Reader, Writer};
use crate::tls::{self, Tls};

/// The channel that all of it happens on: one, so that everything keeps its order.
pub(super) const CHANNEL: u16 = 1;

/// The mechanism of authentication that every server knows.
const MECHANISM: &[u8] = b"PLAIN";

/// How often the server must hear of us at least, unless canaries are rarer: it forgets a node that it hears nothing of for twice as long.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A connection that carries.
pub struct Connection {
    pub(super) ear: Ear,
    pub(super) mouth: Mouth,
    pub(super) write: Writer,
}

/// Who connects, and how.
pub(super) struct Dialler {
    address: RabbitMqAddress,
    /// With `amqps://`.
    tls: Option<(Tls, ServerName<'static>)>,
    /// What the server's list of connections calls this one.
    name: String,
    /// What the server keeps for this node while it does not read, in bytes.
    backlog: u32,
    /// How long the server waits for a sign of life.
    heartbeat: u16,
    /// How many connections were tried.
    generation: AtomicU64,
}

impl Dialler {
    /// Reads the system's certificates, if TLS is wanted.
    pub(super) fn new(
        address: RabbitMqAddress,
        name: String,
        backlog: u32,
        canary: Duration,
    ) -> Result<Self, RabbitMqError> {
        let tls = if address.tls { Some((Tls::new()?, Tls::name(&address.host)?)) } else { None };
        // Canaries are the signs of life, so two of them must fit.
        let heartbeat = HEARTBEAT.max(canary * 2).as_secs().try_into().unwrap_or(u16::MAX);
        Ok(Dialler { address, tls, name, backlog, heartbeat, generation: AtomicU64::new(0) })
    }

    /// Connects, authenticates, declares, consumes, and waits for a canary. What others publish meanwhile goes to `inbound`.
    pub(super) async fn dial(
        &self,
        names: &Arc<Names>,
        counts: &Arc<Counts>,
        inbound: &dyn Inbound,
    ) -> Result<Connection, Trouble> {
        let (read, mut write) = self.connect().await?;
        let mut messages = Messages::new(Inbox::new(read, Vec::new()));
        send(&mut write, GREETING).await?;
        let is_plain = due(&mut messages, |method| match method {
            Method::Start { mechanisms } => {
                Some(mechanisms.split(|byte| *byte == b' ').any(|known| known == MECHANISM))
            }
            _ => None,
        });
        if !is_plain.await? {
            return Err(Trouble::Refused("it takes no passwords (PLAIN)".to_owned()));
        }
        send(&mut write, &self.login()).await?;
        let proposed = due(&mut messages, |method| match method {
            Method::Tune { frame_max } => Some(*frame_max as usize),
            _ => None,
        });
        let frame_max = match proposed.await? {
            0 => FRAME_MAX,
            proposed => proposed.min(FRAME_MAX),
        };
        if frame_max < FRAME_MIN {
            return Err(Trouble::Garbage);
        }
        let confirms = Arc::new(Confirms::default());
        let mouth = Mouth::new(Arc::clone(names), frame_max, Arc::clone(&confirms));
        let mut ear = Ear::new(messages, Arc::clone(names), Arc::clone(counts), confirms);
        let mut out = Vec::new();
        self.declare(&mut out, frame_max, names);
        mouth.canary(&mut out);
        send(&mut write, &out).await?;
        while !ear.hear(inbound)?.canary {
            ear.read().await?;
        }
        Ok(Connection { ear, mouth, write })
    }

    /// Connects, and says nothing yet.
    async fn connect(&self) -> Result<(Reader, Writer), Trouble> {
        let target = (self.address.host.as_str(), self.address.port);
        let stream = TcpStream::connect(target).await.map_err(Trouble::Connect)?;
        // Without it batches are only later, not wrong.
        drop(stream.set_nodelay(true));
        match &self.tls {
            None => Ok(tls::plain(stream)),
            Some((tls, name)) => tls.over(stream, name.clone()).await.map_err(Trouble::Tls),
        }
    }

    /// Who we are, and what we can do.
    fn login(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let response = ["", &self.address.user, &self.address.password].join("\0");
        frames::write(&mut out, 0, (10, 11), |arguments| {
            // A server tells who can hear it why it does not let him in, when it is short of memory, and when a queue is gone.
            let capabilities = [
                ("authentication_failure_close", Value::Yes),
                ("connection.blocked", Value::Yes),
                ("consumer_cancel_notify", Value::Yes),
                ("publisher_confirms", Value::Yes),
                ("basic.nack", Value::Yes),
            ];
            let properties = [
                ("product", Value::Text("tieline")),
                ("version", Value::Text(env!("CARGO_PKG_VERSION"))),
                ("connection_name", Value::Text(&self.name)),
                ("capabilities", Value::Table(&capabilities)),
            ];
            arguments.table(&properties).short(MECHANISM).long(response.as_bytes()).short(b"en_US");
        });
        out
    }

    /// Everything from what is agreed on to what is consumed. The server answers in order, and the first refusal tells what is wrong.
    fn declare(&self, out: &mut Vec<u8>, frame_max: usize, names: &Names) {
        const AUTO_DELETE: u8 = 4;
        const EXCLUSIVE: u8 = 4;
        const NO_ACK: u8 = 2;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let queue = names.queue(generation);
        let queue = queue.as_bytes();
        frames::write(out, 0, (10, 31), |arguments| {
            arguments.u16(CHANNEL).u32(frame_max as u32).u16(self.heartbeat);
        });
        frames::write(out, 0, (10, 40), |arguments| {
            arguments.short(self.address.vhost.as_bytes()).short(b"").u8(0);
        });
        frames::write(out, CHANNEL, (20, 10), |arguments| {
            arguments.short(b"");
        });
        for (exchange, kind) in [(&names.all, "fanout"), (&names.one, "direct")] {
            // Whoever is the last to have a queue behind it takes it along.
            frames::write(out, CHANNEL, (40, 10), |arguments| {
                arguments.u16(0).short(exchange.as_bytes()).short(kind.as_bytes()).u8(AUTO_DELETE).table(&[]);
            });
        }
        frames::write(out, CHANNEL, (50, 10), |arguments| {
            let limits = [
                ("x-max-length-bytes", Value::Number(self.backlog.into())),
                ("x-overflow", Value::Text("drop-head")),
            ];
            arguments.u16(0).short(queue).u8(EXCLUSIVE).table(&limits);
        });
        for (exchange, key) in [(&names.all, ""), (&names.one, names.own.as_str())] {
            frames::write(out, CHANNEL, (50, 20), |arguments| {
                let arguments = arguments.u16(0).short(queue).short(exchange.as_bytes());
                arguments.short(key.as_bytes()).u8(0).table(&[]);
            });
        }
        frames::write(out, CHANNEL, (85, 10), |arguments| {
            arguments.u8(0);
        });
        frames::write(out, CHANNEL, (60, 20), |arguments| {
            arguments.u16(0).short(queue).short(b"tieline").u8(NO_ACK).table(&[]);
        });
    }
}

/// Waits for the method that is due.
async fn due<T>(
    messages: &mut Messages,
    take: impl Fn(&Method<'_>) -> Option<T> + Send,
) -> Result<T, Trouble> {
    loop {
        while let Some(said) = messages.next()? {
            let Said::Method(method) = said else { return Err(Trouble::Garbage) };
            check(&method)?;
            if let Some(taken) = take(&method) {
                return Ok(taken);
            }
        }
        if messages.read().await.map_err(Trouble::Io)? == 0 {
            return Err(Trouble::Left);
        }
    }
}

async fn send(write: &mut Writer, bytes: &[u8]) -> Result<(), Trouble> {
    write.write_all(bytes).await.map_err(Trouble::Io)?;
    // With TLS written is not sent yet.
    write.flush().await.map_err(Trouble::Io)
}
