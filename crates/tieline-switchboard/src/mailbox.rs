//! How other threads reach a shard: a queue bounded in bytes, and a waker.
//!
//! When it is full, [`Mailbox::post`] gives the command back: the sender decides between refusing and
//! dropping. A shard that finds another's mailbox full keeps its batch, stops reading the connections that add to
//! it, and is woken when there is room. Adoptions of new sockets are not counted: their number is limited where
//! they are accepted. Tested below, and by two shards with tiny mailboxes over real sockets.

use std::io::Result;
use std::mem;
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::Waker;
use tieline_websocket::InflateMode;

use crate::application::{Application, Weigh};
use crate::connection::Format;
use crate::parking::Outgoing;

/// A socket whose handshake is granted, on its way to its shard.
pub struct Adoption<T> {
    /// The socket. It must not block, and must not wait for acknowledgements of the peer's kernel (`TCP_NODELAY`):
    /// the shard joins what can be joined itself.
    pub stream: TcpStream,
    /// The answer to the handshake, at most 16 KiB, if it was not sent: the shard sends it together with the first
    /// frames.
    pub head: Vec<u8>,
    /// Bytes that were read behind the handshake.
    pub leftover: Vec<u8>,
    /// What its frames look like.
    pub format: Format,
    /// How its compressed messages are inflated; `None` where compression was not negotiated.
    pub inflate: Option<InflateMode>,
    /// What the handshake learned, for the application.
    pub arrival: T,
}

/// The command did not fit; here it is again.
#[derive(Debug, thiserror::Error)]
#[error("the shard's mailbox is full")]
pub struct Full<C>(pub C);

/// What arrived since the mailbox was last emptied.
pub(crate) struct Delivery<A: Application> {
    pub(crate) adoptions: Vec<Adoption<A::Arrival>>,
    pub(crate) commands: Vec<A::Command>,
    /// Close all connections with this code and reason, then end the thread.
    pub(crate) stop: Option<(u16, &'static str)>,
}

struct Queue<A: Application> {
    delivery: Delivery<A>,
    weight: usize,
    /// Shards that wait for room.
    waiting: Vec<u16>,
}

/// The mailbox of one shard.
pub(crate) struct Mailbox<A: Application> {
    queue: Mutex<Queue<A>>,
    /// Interrupts the shard's wait; there is none where no thread waits.
    waker: Option<Waker>,
    capacity: usize,
}

impl<A: Application> Mailbox<A> {
    pub(crate) fn new(waker: Option<Waker>, capacity: usize) -> Self {
        let delivery = Delivery { adoptions: Vec::new(), commands: Vec::new(), stop: None };
        let queue = Queue { delivery, weight: 0, waiting: Vec::new() };
        Mailbox { queue: Mutex::new(queue), waker, capacity }
    }

    pub(crate) fn adopt(&self, adoption: Adoption<A::Arrival>) -> Result<()> {
        let mut queue = self.lock();
        // The first of a round wakes the shard; it takes whatever has come by then.
        let first = queue.delivery.adoptions.is_empty();
        queue.delivery.adoptions.push(adoption);
        drop(queue);
        match &self.waker {
            Some(waker) if first => waker.wake(),
            _ => Ok(()),
        }
    }

    pub(crate) fn post(&self, command: A::Command) -> std::result::Result<(), Full<A::Command>> {
        let mut queue = self.lock();
        let weight = command.weight();
        if queue.weight > 0 && queue.weight + weight > self.capacity {
            return Err(Full(command));
        }
        let first = queue.delivery.commands.is_empty();
        queue.weight += weight;
        queue.delivery.commands.push(command);
        drop(queue);
        if first {
            self.wake();
        }
        Ok(())
    }

    /// Takes a whole batch of another shard, or nothing, and then wakes that shard (`from`) when there is room.
    pub(crate) fn post_batch(&self, from: u16, batch: &mut Outgoing<A::Command>) -> bool {
        let mut queue = self.lock();
        if queue.weight > 0 && queue.weight + batch.weight > self.capacity {
            if !queue.waiting.contains(&from) {
                queue.waiting.push(from);
            }
            return false;
        }
        let first = queue.delivery.commands.is_empty();
        queue.weight += mem::take(&mut batch.weight);
        if first {
            mem::swap(&mut queue.delivery.commands, &mut batch.commands);
        } else {
            queue.delivery.commands.append(&mut batch.commands);
        }
        drop(queue);
        if first {
            self.wake();
        }
        true
    }

    /// The weight of what waits in it.
    pub(crate) fn weight(&self) -> usize {
        self.lock().weight
    }

    pub(crate) fn stop(&self, code: u16, reason: &'static str) {
        self.lock().delivery.stop = Some((code, reason));
        self.wake();
    }

    /// Empties the mailbox. Returns what was in it and which shards waited for room.
    pub(crate) fn take(&self) -> (Delivery<A>, Vec<u16>) {
        let mut queue = self.lock();
        queue.weight = 0;
        let empty = Delivery { adoptions: Vec::new(), commands: Vec::new(), stop: None };
        (mem::replace(&mut queue.delivery, empty), mem::take(&mut queue.waiting))
    }

    /// Makes the shard run a round. A waker fails only when its poll is gone, and then so is the shard.
    pub(crate) fn wake(&self) {
        if let Some(Err(error)) = self.waker.as_ref().map(Waker::wake) {
            tracing::error!(%error, "A shard could not be woken.");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<A>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;
    use crate::{Cause, Placement, Shard, Slot};

    struct Quiet;

    impl Weigh for u32 {
        fn weight(&self) -> usize {
            *self as usize
        }
    }

    impl Application for Quiet {
        type Session = ();
        type Arrival = ();
        type Command = u32;

        fn arrive(&mut self, _: &mut Shard<Self>, _: ()) -> Placement<()> {
            Placement::Open(())
        }
        fn opened(&mut self, _: &mut Shard<Self>, _: Slot) {}
        fn resumed(&mut self, _: &mut Shard<Self>, _: Slot) {}
        fn message(&mut self, _: &mut Shard<Self>, _: Slot, _: tieline_websocket::Kind, _: &[u8]) {}
        fn cut(&mut self, _: &mut Shard<Self>, _: Slot, _: &Cause) -> bool {
            false
        }
        fn closed(&mut self, _: &mut Shard<Self>, _: Slot, _: (), _: &Cause) {}
        fn command(&mut self, _: &mut Shard<Self>, _: u32) {}
        fn tick(&mut self, _: &mut Shard<Self>) {}
        fn close_frame(&self, _: &(), _: &Cause) -> (u16, &'static str) {
            (1000, "")
        }
    }

    fn mailbox(capacity: usize) -> (Poll, Mailbox<Quiet>) {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(1)).unwrap();
        (poll, Mailbox::new(Some(waker), capacity))
    }

    fn batch(commands: &[u32]) -> Outgoing<u32> {
        let weight = commands.iter().map(Weigh::weight).sum();
        Outgoing { commands: commands.to_vec(), weight, blocked: false }
    }

    fn woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    #[test]
    fn the_first_command_wakes_and_the_next_do_not() {
        let (mut poll, mailbox) = mailbox(100);
        mailbox.post(1).unwrap();
        assert!(woken(&mut poll));
        mailbox.post(2).unwrap();
        assert!(mailbox.post_batch(0, &mut batch(&[3])));
        assert!(!woken(&mut poll));
        assert_eq!(mailbox.take().0.commands, [1, 2, 3]);
        assert!(mailbox.post_batch(0, &mut batch(&[4])));
        assert!(woken(&mut poll));
    }

    #[test]
    fn what_does_not_fit_comes_back_whole_and_its_sender_is_remembered() {
        let (_poll, mailbox) = mailbox(100);
        mailbox.post(60).unwrap();
        assert_eq!(mailbox.post(41).unwrap_err().0, 41);
        assert_eq!(mailbox.weight(), 60);
        let mut refused = batch(&[20, 21]);
        assert!(!mailbox.post_batch(3, &mut refused) && !mailbox.post_batch(3, &mut refused));
        assert_eq!(refused.commands, [20, 21]);
        mailbox.post(40).unwrap();
        let (delivery, waiting) = mailbox.take();
        assert_eq!((delivery.commands, waiting), (vec![60, 40], vec![3]));
        assert!(mailbox.post_batch(3, &mut refused));
        assert_eq!((refused.commands.len(), refused.weight, mailbox.weight()), (0, 0, 41));
        assert_eq!(mailbox.take().1, []);
    }

    #[test]
    fn a_command_above_the_limit_passes_alone() {
        let (_poll, mailbox) = mailbox(100);
        mailbox.post(500).unwrap();
        assert!(mailbox.post(1).is_err());
        assert_eq!(mailbox.take().0.commands, [500]);
    }
}
