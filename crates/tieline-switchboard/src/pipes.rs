//! [`Pipes`]: sockets joined in pairs, on threads of their own: what one says the other hears, and nobody looks inside.
//!
//! A pair is an entry in its thread's table and nothing else: no task, timer or buffer. All pairs of a thread are read into
//! one buffer; bytes are kept for a pair only while the other end does not take them, and then the one who sends is not
//! read, so there are never more of them than that buffer holds. What this is not: no protocol is spoken here. Who the two
//! are, and what was said before they were joined, is the caller's business.
//!
//! `pipes/flow.rs` is what happens between two ends, without I/O, `pipes/lane.rs` the thread. Tested in `pipes/tests.rs`, by
//! properties without sockets and over real ones.

mod flow;
mod lane;
#[cfg(test)]
mod tests;

use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use mio::{Poll, Waker};

use crate::switchboard::Error;
use lane::{Lane, WAKE};

/// How long pairs may be silent.
#[derive(Clone, Copy, Debug)]
pub struct PipeSettings {
    /// A pair over which nothing went for so long, in either direction, is closed. Both ends of a WebSocket send pings more
    /// often, so this finds only those whose other end is gone without a word.
    pub idle: Duration,
    /// The same where one of the two has ended its stream already.
    pub half_closed: Duration,
}

impl Default for PipeSettings {
    fn default() -> Self {
        PipeSettings { idle: Duration::from_secs(120), half_closed: Duration::from_secs(10) }
    }
}

/// Two sockets that are to be joined. They must not block.
pub struct Pair<G> {
    /// The two ends.
    pub ends: [TcpStream; 2],
    /// What was read of each end already, and is for the other. It goes before all else.
    pub early: [Vec<u8>; 2],
    /// Dropped when the pair is closed.
    pub guard: G,
}

/// What the pairs of all threads came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipeCounters {
    /// Pairs that are open, and those that wait to be joined.
    pub pairs: u64,
    /// Bytes that were read of the first and of the second end of pairs.
    pub bytes: [u64; 2],
    /// Pairs that were closed because they were silent.
    pub silent: u64,
    /// Bytes that are kept because an end does not take them.
    pub kept: u64,
}

/// What a lane has published of that, read by whoever asks.
#[derive(Default)]
struct Published {
    pairs: AtomicU64,
    bytes: [AtomicU64; 2],
    silent: AtomicU64,
    kept: AtomicU64,
}

/// What waits for a lane's thread. Pairs are not counted: how many there are is limited where they are accepted.
struct Post<G> {
    pairs: Vec<Pair<G>>,
    /// Close all pairs by then, and end when there is none any more.
    stop: Option<Instant>,
    /// The thread has ended.
    is_closed: bool,
}

/// What a lane shares with those who reach it.
struct Shared<G> {
    post: Mutex<Post<G>>,
    waker: Waker,
    published: Published,
}

impl<G> Shared<G> {
    fn lock(&self) -> MutexGuard<'_, Post<G>> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> (Vec<Pair<G>>, Option<Instant>) {
        let mut post = self.lock();
        (mem::take(&mut post.pairs), post.stop)
    }

    fn close(&self) {
        let mut post = self.lock();
        post.is_closed = true;
        post.pairs.clear();
    }
}

/// The running threads. Dropping it without [`Pipes::stop`] leaves them running.
pub struct Pipes<G> {
    handle: PipesHandle<G>,
    threads: Vec<JoinHandle<Result<(), Error>>>,
}

/// Reaches the threads from anywhere. Cheap to clone.
pub struct PipesHandle<G> {
    lanes: Arc<Vec<Arc<Shared<G>>>>,
    next: Arc<AtomicUsize>,
}

impl<G> Clone for PipesHandle<G> {
    fn clone(&self) -> Self {
        PipesHandle { lanes: Arc::clone(&self.lanes), next: Arc::clone(&self.next) }
    }
}

impl<G: Send + 'static> Pipes<G> {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// When the kernel has no readiness queue or thread left; threads that were started are ended again.
    pub fn start(threads: usize, settings: PipeSettings) -> Result<Self, Error> {
        let (mut polls, mut lanes) = (Vec::new(), Vec::new());
        for _ in 0..threads.max(1) {
            let poll = Poll::new().map_err(Error::Poll)?;
            let waker = Waker::new(poll.registry(), WAKE).map_err(Error::Poll)?;
            let post = Mutex::new(Post { pairs: Vec::new(), stop: None, is_closed: false });
            lanes.push(Arc::new(Shared { post, waker, published: Published::default() }));
            polls.push(poll);
        }
        let handle = PipesHandle { lanes: Arc::new(lanes), next: Arc::default() };
        let mut pipes = Pipes { handle, threads: Vec::new() };
        for (index, poll) in polls.into_iter().enumerate() {
            let shared = Arc::clone(&pipes.handle.lanes[index]);
            let run = move || Lane::new(poll, shared, settings).run();
            match Builder::new().name(format!("pipes-{index}")).spawn(run) {
                Ok(thread) => pipes.threads.push(thread),
                Err(error) => {
                    let _ = pipes.stop(Duration::ZERO);
                    return Err(Error::Thread(error));
                }
            }
        }
        Ok(pipes)
    }

    /// Reaches the threads.
    pub fn handle(&self) -> &PipesHandle<G> {
        &self.handle
    }

    /// Whether a thread has ended by itself, which it never should.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Gives all pairs so much time to end by themselves, closes those that are left, and joins the threads.
    ///
    /// # Errors
    /// The first error or panic of a thread.
    pub fn stop(self, grace: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + grace;
        for lane in self.handle.lanes.iter() {
            lane.lock().stop = Some(deadline);
            // It fails only when the thread is gone, which joining it tells.
            let _ = lane.waker.wake();
        }
        let mut result = Ok(());
        for thread in self.threads {
            result = result.and(thread.join().unwrap_or(Err(Error::Panicked)));
        }
        result
    }
}

impl<G> PipesHandle<G> {
    /// Joins a pair, on the thread that has the fewest.
    ///
    /// # Errors
    /// When the thread has ended, or cannot be woken; the pair is closed.
    pub fn join(&self, pair: Pair<G>) -> io::Result<()> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.lanes.len();
        let turn = (0..count).map(|index| &self.lanes[(start + index) % count]);
        let lane = turn.min_by_key(|lane| lane.published.pairs.load(Ordering::Relaxed));
        let lane = lane.ok_or(io::ErrorKind::NotFound)?;
        let mut post = lane.lock();
        if post.is_closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        lane.published.pairs.fetch_add(1, Ordering::Relaxed);
        let first = post.pairs.is_empty();
        post.pairs.push(pair);
        drop(post);
        if first { lane.waker.wake() } else { Ok(()) }
    }

    /// What all threads came to, at most a round old.
    pub fn counters(&self) -> PipeCounters {
        let mut total = PipeCounters::default();
        for Published { pairs, bytes, silent, kept } in self.lanes.iter().map(|lane| &lane.published) {
            total.pairs += pairs.load(Ordering::Relaxed);
            total.silent += silent.load(Ordering::Relaxed);
            total.kept += kept.load(Ordering::Relaxed);
            for (total, bytes) in total.bytes.iter_mut().zip(bytes) {
                *total += bytes.load(Ordering::Relaxed);
            }
        }
        total
    }
}
