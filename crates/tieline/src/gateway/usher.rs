//! [`Usher`]: what becomes of requests for a WebSocket at a gateway: each is asked of nodes until one answers, and then the
//! two sockets are joined.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tieline_proto::ErrorCode;
use tieline_switchboard::{Pair, PipesHandle};

use super::dialer::Answer;
use super::nodes::{Lease, Node};
use super::{Gateway, user};
use crate::http::{self, Asked, Head, Judgement, Reception, Refusal};

/// Finds nodes for those who ask for a WebSocket.
pub(super) struct Usher {
    pub(super) gateway: Arc<Gateway>,
    pub(super) pipes: PipesHandle<Lease>,
}

/// What a client's socket is for.
pub(super) enum Granted {
    /// To be joined with a node's.
    Joined { node: TcpStream, said: Vec<u8>, lease: Lease },
    /// To bear a node's refusal, and be closed.
    Refused(Vec<u8>),
}

impl Reception for Usher {
    type Granted = Granted;

    fn owns(&self, head: &Head<'_>) -> bool {
        // Some clients offer to speak HTTP/2 in every request, which is nothing that a node would take up.
        head.headers().any(|(name, value)| {
            name.eq_ignore_ascii_case("upgrade")
                && value
                    .split(|byte| *byte == b',')
                    .any(|offer| offer.trim_ascii().eq_ignore_ascii_case(b"websocket"))
        })
    }

    fn connections(&self) -> u64 {
        self.pipes.counters().pairs
    }

    fn judge(&self, asked: &Asked<'_>) -> Result<Judgement<Granted>, Refusal> {
        let gateway = &self.gateway;
        let peer = asked.peer.ip();
        let target = gateway.forwarding.prefix.apply(asked.head.target()).ok_or(ErrorCode::NotFound)?;
        let headers = gateway.forwarding.headers(asked.head, peer, asked.host)?;
        let mut bytes = format!("GET {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        let mut wish = gateway.wish(asked.head, &target, peer);
        wish.holder = user::holder(asked.head);
        let nodes = gateway.choose(&wish);
        Ok(Judgement::Pending(Box::pin(ask(Arc::clone(gateway), nodes, bytes))))
    }

    fn take(&self, granted: Granted, stream: TcpStream, leftover: Vec<u8>) -> io::Result<()> {
        match granted {
            Granted::Joined { node, said, lease } => {
                self.pipes.join(Pair { ends: [stream, node], early: [leftover, said], guard: lease })
            }
            Granted::Refused(answer) => {
                let stream = tokio::net::TcpStream::from_std(stream)?;
                // It ends by itself within the time that a refused client has to read its answer.
                tokio::spawn(async move { http::linger(stream, &answer).await });
                Ok(())
            }
        }
    }
}

/// Asks one node after the other, until one answers.
async fn ask(gateway: Arc<Gateway>, nodes: Vec<Arc<Node>>, head: Vec<u8>) -> Result<Granted, Refusal> {
    let tally = &gateway.tally;
    let mut busy = None;
    for (attempt, node) in nodes.iter().enumerate() {
        if attempt > 0 {
            tally.retries.fetch_add(1, Ordering::Relaxed);
        }
        let lease = Lease::of(node);
        match gateway.dialer.ask(&node.authority, &head).await {
            Ok(Answer::Agreed(stream, said)) => {
                node.answered();
                tally.joined.fetch_add(1, Ordering::Relaxed);
                return Ok(Granted::Joined { node: stream, said, lease });
            }
            Ok(Answer::Refused(answer)) => {
                node.answered();
                tally.refused_by_node.fetch_add(1, Ordering::Relaxed);
                return Ok(Granted::Refused(answer));
            }
            Ok(Answer::Busy(answer)) => busy = Some(answer),
            Err(error) => gateway.failed(node, &error),
        }
    }
    match busy {
        Some(answer) => {
            tally.refused_by_node.fetch_add(1, Ordering::Relaxed);
            Ok(Granted::Refused(answer))
        }
        None => Err(super::nobody()),
    }
}
