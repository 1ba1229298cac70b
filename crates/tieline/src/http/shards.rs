//! [`Shards`]: the reception of a node, whose sockets become connections of the switchboard.

use std::io;
use std::net::TcpStream;

use tieline_switchboard::{Adoption, Application, Format, Handle};
use tieline_websocket::{AcceptKey, DeflateParams, DeflatePolicy, InflateMode, Role, response_head};

use super::endpoint::{Asked, Endpoint, Verdict, Welcome};
use super::head::Head;
use super::reception::{Judgement, Reception};
use super::refusal::Refusal;

/// What an application is told of a connection.
type Arrival<A> = <A as Application>::Arrival;

/// Takes sockets for the shards of a switchboard.
pub struct Shards<E: Endpoint> {
    pub(super) endpoint: E,
    /// Takes the sockets.
    pub(super) switchboard: Handle<E::Application>,
    /// What is agreed to when a client offers permessage-deflate; `None` to decline.
    pub(super) deflate: Option<DeflatePolicy>,
}

/// A connection that is granted: what its client is answered, and what its shard is told.
pub struct Granted<A: Application> {
    answer: String,
    shard: Option<u16>,
    format: Format,
    inflate: Option<InflateMode>,
    arrival: Arrival<A>,
}

/// The part of an answer that follows from the handshake alone.
struct Terms {
    accept_key: AcceptKey,
    deflate: Option<DeflateParams>,
}

impl Terms {
    fn grant<A: Application>(self, welcome: Welcome<Arrival<A>>) -> Granted<A> {
        let Terms { accept_key, deflate } = self;
        let mut format = welcome.format;
        format.deflate = deflate.as_ref().map_or(0, |params| params.server_max_window_bits);
        Granted {
            answer: response_head(accept_key, welcome.protocol, deflate.as_ref()),
            shard: welcome.shard,
            format,
            inflate: deflate.map(|params| params.inflate_mode(Role::Server)),
            arrival: welcome.arrival,
        }
    }
}

impl<E: Endpoint> Reception for Shards<E> {
    type Granted = Granted<E::Application>;

    fn owns(&self, head: &Head<'_>) -> bool {
        self.endpoint.owns(head.path())
    }

    fn connections(&self) -> u64 {
        self.switchboard.counters().connections
    }

    fn judge(&self, asked: &Asked<'_>) -> Result<Judgement<Self::Granted>, Refusal> {
        let verdict = self.endpoint.receive(asked)?;
        let deflate = self.deflate.as_ref().and_then(|policy| asked.upgrade.negotiate_deflate(policy));
        let terms = Terms { accept_key: asked.upgrade.accept_key(), deflate };
        Ok(match verdict {
            Verdict::Granted(welcome) => Judgement::Granted(terms.grant(welcome)),
            Verdict::Pending(pending) => {
                Judgement::Pending(Box::pin(async move { Ok(terms.grant(pending.await?)) }))
            }
        })
    }

    /// Gives the socket to its shard, with the answer, which goes out together with the first frames.
    fn take(&self, granted: Self::Granted, stream: TcpStream, leftover: Vec<u8>) -> io::Result<()> {
        let Granted { answer, shard, format, inflate, arrival } = granted;
        let adoption = Adoption { stream, head: answer.into_bytes(), leftover, format, inflate, arrival };
        self.switchboard.adopt(shard, adoption)
    }
}
