//! The link to one peer: a task that reads, and one that writes, so that neither direction waits for the other.
//!
//! The reading task owns the link's life: it says `reachable`, starts the writer, hands up envelopes, watches for silence, and
//! says `unreachable` when both are over. Tested by the mesh's tests.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tieline_proto::NodeId;
use tieline_websocket::{Event, Kind, Opcode};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Mesh;
use super::handshake::Shaken;
use super::refusal::Refusal;
use super::wire::{Inbox, Outbox, Wire};
use super::words::Word;
use crate::queue::{self, Words, cost};

/// Frames are gathered up to about so many bytes for one write: more system calls would not be felt, and more memory
/// would.
const GATHER: usize = 256 * 1024;

/// What is said to a peer beside envelopes.
#[derive(Default)]
pub(super) struct Signs {
    /// The payload of a pong, at most 125 bytes.
    pong: Option<Vec<u8>>,
    /// Whether to ask for a sign of life.
    ping: bool,
    /// The payload of a text frame that tells of other members.
    pub(super) members: Option<Vec<u8>>,
}

impl Words for Signs {
    fn is_empty(&self) -> bool {
        self.pong.is_none() && !self.ping && self.members.is_none()
    }
}

/// What waits to be written to a peer.
type Queue = queue::Queue<Arc<[u8]>, Signs>;

/// One peer, and the way to it.
pub(super) struct Link {
    /// Who is there.
    pub(super) node: NodeId,
    /// `host:port` where it is dialled.
    pub(super) address: String,
    /// The number that the node with the smaller incarnation gave this link.
    pub(super) number: u64,
    /// What waits to be written.
    pub(super) queue: Queue,
    /// Payloads of envelopes that came.
    pub(super) received: AtomicU64,
    /// Wakes the reader to end; a permit is kept if it does not listen yet.
    end: Notify,
}

impl Link {
    pub(super) fn new(node: NodeId, address: String, number: u64, queue: usize) -> Self {
        let queue = Queue::new(queue);
        Link { node, address, number, queue, received: AtomicU64::new(0), end: Notify::new() }
    }

    /// Ends the link; what waits is lost.
    pub(super) fn stop(&self) {
        self.queue.close();
        self.end.notify_one();
    }
}

/// How a link ended.
enum End {
    /// The peer said goodbye, or closed the socket.
    Left,
    /// No byte came for too long.
    Silent,
    /// It was stopped from this side.
    Stopped,
    /// The peer sent what is no frame, or none of ours.
    Garbage,
    /// The network failed.
    Io(io::Error),
}

/// Runs a claimed link to its end.
pub(super) async fn run(mesh: Arc<Mesh>, shaken: Shaken, wire: Wire) {
    let Shaken { link, greeting } = shaken;
    let peer = link.node.incarnation;
    tracing::info!(peer = %link.node, address = %link.address, "peer is linked");
    mesh.inbound.reachable(peer);
    mesh.met(&link);

    let Wire { stream, mut inbox, outbox, .. } = wire;
    let (mut read, write) = stream.into_split();
    // Owned here, so that it is aborted with this task.
    let mut writer = JoinSet::new();
    let writing = Arc::clone(&link);
    writer.spawn(async move {
        if writer_task(&writing, write, outbox, greeting).await.is_err() {
            writing.stop();
        }
    });
    let end = reader(&mesh, &link, &mut inbox, &mut read).await;
    link.queue.close();
    writer.shutdown().await;
    match end {
        End::Left | End::Stopped => tracing::info!(peer = %link.node, "peer's link is over"),
        End::Silent => tracing::warn!(peer = %link.node, "peer was silent for too long"),
        End::Garbage => tracing::warn!(peer = %link.node, "peer broke the protocol"),
        End::Io(error) => tracing::warn!(peer = %link.node, %error, "peer's link broke"),
    }
    mesh.inbound.unreachable(peer);
    mesh.peers.release(&link);
}

/// Reads until the link is over.
async fn reader(mesh: &Arc<Mesh>, link: &Link, inbox: &mut Inbox, read: &mut OwnedReadHalf) -> End {
    let mut heard = Instant::now();
    loop {
        loop {
            match inbox.next() {
                Ok(None) => break,
                Ok(Some(Event::Message { kind: Kind::Binary, payload })) => {
                    link.received.fetch_add(1, Ordering::Relaxed);
                    mesh.inbound.envelope(payload);
                }
                Ok(Some(Event::Message { kind: Kind::Text, payload })) => {
                    // Words of a later version are not for this node.
                    if let Some(Word::Members { members }) = Word::from_text(payload) {
                        mesh.learn(members);
                    }
                }
                Ok(Some(Event::Ping(payload))) => link.queue.say(|signs| signs.pong = Some(payload.to_vec())),
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close(_))) => return End::Left,
                Err(_) => return End::Garbage,
            }
        }
        let read = tokio::select! {
            read = timeout(mesh.settings.ping, inbox.read(read)) => read,
            () = link.end.notified() => return End::Stopped,
        };
        match read {
            Ok(Ok(0)) => return End::Left,
            Ok(Ok(_)) => heard = Instant::now(),
            Ok(Err(error)) => return End::Io(error),
            Err(_) if heard.elapsed() >= mesh.settings.silence => return End::Silent,
            Err(_) => link.queue.say(|signs| signs.ping = true),
        }
    }
}

/// Writes whatever the queue has, all of it in one write as far as it is small, until the last batch or an error.
async fn writer_task(
    link: &Link,
    mut write: OwnedWriteHalf,
    mut outbox: Outbox,
    greeting: Option<Vec<u8>>,
) -> io::Result<()> {
    let mut out = Vec::new();
    if let Some(greeting) = greeting {
        outbox.frame(&mut out, Opcode::Text, &greeting)?;
        write.write_all(&out).await?;
        out.clear();
    }
    let mut batch = queue::Batch::default();
    loop {
        batch = link.queue.take(batch).await;
        if let Some(payload) = batch.words.pong.take() {
            outbox.frame(&mut out, Opcode::Pong, &payload)?;
        }
        if std::mem::take(&mut batch.words.ping) {
            outbox.frame(&mut out, Opcode::Ping, b"")?;
        }
        if let Some(text) = batch.words.members.take() {
            outbox.frame(&mut out, Opcode::Text, &text)?;
        }
        let mut gathered = 0;
        for envelope in batch.envelopes.drain(..) {
            outbox.frame(&mut out, Opcode::Binary, &envelope)?;
            gathered += cost(envelope.len());
            if out.len() >= GATHER {
                write.write_all(&out).await?;
                out.clear();
                link.queue.written(std::mem::take(&mut gathered));
            }
        }
        if batch.last {
            outbox.close(&mut out, Refusal::Stopping)?;
        }
        write.write_all(&out).await?;
        out.clear();
        link.queue.written(gathered);
        if batch.last {
            // The reader goes on until the peer has read everything and closes.
            return write.shutdown().await;
        }
        // After a burst the memory is given back.
        out.shrink_to(GATHER);
        batch.envelopes.shrink_to(1024);
    }
}
