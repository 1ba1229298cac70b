//! What the switchboard asks of the program above it: one [`Application`] value per shard, called on the
//! shard's own thread, never concurrently, and never allowed to wait.

use std::fmt::Debug;

use tieline_websocket::Kind;

use crate::{Address, Shard, Slot};

/// The program that a shard runs. All calls come from the shard's thread. A call must not block: whatever has
/// to be waited for is started elsewhere and comes back as a [`Application::Command`], while
/// [`Shard::park`] keeps the connection from reading on.
pub trait Application: Sized + 'static {
    /// What the application keeps for each connection.
    type Session: 'static;
    /// What the handshake learned about a new connection, made on another thread.
    type Arrival: Send + 'static;
    /// What other threads ask of this shard.
    type Command: Weigh + Send + 'static;

    /// A client finished its handshake: decides what becomes of it.
    fn arrive(&mut self, shard: &mut Shard<Self>, arrival: Self::Arrival) -> Placement<Self::Session>;

    /// The connection stands in its slot and may be sent to. Its first inbound message comes after this call.
    fn opened(&mut self, shard: &mut Shard<Self>, slot: Slot);

    /// A resumed connection has its new socket. Frames sent from here go out first, then what the peer has
    /// not acknowledged, then everything new.
    fn resumed(&mut self, shard: &mut Shard<Self>, slot: Slot);

    /// A whole message arrived. `payload` is valid UTF-8 when `kind` is text.
    fn message(&mut self, shard: &mut Shard<Self>, slot: Slot, kind: Kind, payload: &[u8]);

    /// The peer sent a pong with this payload: an answer to a ping of [`Shard::ping`] or to one of the shard's own, whose
    /// payload is empty, or to none at all. Nothing is proven but what the payload proves.
    fn pong(&mut self, shard: &mut Shard<Self>, slot: Slot, payload: &[u8]) {
        let _ = (shard, slot, payload);
    }

    /// The socket of a numbered connection is gone although nobody said goodbye. Returns whether the connection may be
    /// resumed: then it keeps its groups, its frames are held, and `closed` follows only if nobody returns in time.
    fn cut(&mut self, shard: &mut Shard<Self>, slot: Slot, cause: &Cause) -> bool;

    /// The connection has ended, for whatever cause, and is called so exactly once for each `opened`. It is still a
    /// member of its groups, and leaves them all when this returns; nothing can be sent to it any more.
    fn closed(&mut self, shard: &mut Shard<Self>, slot: Slot, session: Self::Session, cause: &Cause);

    /// Another thread asks for something.
    fn command(&mut self, shard: &mut Shard<Self>, command: Self::Command);

    /// A second has passed.
    fn tick(&mut self, shard: &mut Shard<Self>);

    /// The code and reason of the close frame that ends a connection for one of the switchboard's own causes.
    fn close_frame(&self, session: &Self::Session, cause: &Cause) -> (u16, &'static str);
}

/// The weight of something that waits in a bounded queue.
pub trait Weigh {
    /// Bytes of memory it stands for, roughly: what the queue's limit is counted in.
    fn weight(&self) -> usize;
}

/// What becomes of a client that finished its handshake.
#[derive(Debug)]
pub enum Placement<S> {
    /// A new connection.
    Open(S),
    /// A new connection at the place that was kept for it by [`Shard::reserve`]. Where it was given back meanwhile, the
    /// client is refused with 1013.
    Take(Address, S),
    /// The socket belongs to a connection of this shard that was cut, or whose old socket it replaces. One that has
    /// ended meanwhile is refused with 1008.
    Resume(Slot),
    /// It is answered with this close code and reason.
    Refuse(u16, &'static str),
}

/// Why a connection ended or was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer closed with this code; 1005 when it named none.
    Peer(u16),
    /// The socket ended or failed without a close frame.
    Cut,
    /// Nothing was heard from the peer, not even an answer to pings.
    Silent,
    /// The peer sent nothing but answers to pings for longer than the idle limit.
    Idle,
    /// The peer broke the protocol; the close code says how (1002, 1007 or 1009).
    Protocol(u16),
    /// The peer did not read, or did not acknowledge, what it had coming.
    Lag,
    /// The shard had no memory left for copies of what the peer did not read.
    Memory,
    /// A cut connection was not resumed in time.
    Expired,
    /// The application closed it.
    Application(u16),
    /// The shard stops.
    Stopped,
}
