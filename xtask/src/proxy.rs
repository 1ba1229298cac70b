//! [`Proxy`]: stands between two parties of a test and passes TCP on; it cuts, delays and loses what it is told to.
//!
//! Each proxy is a thread with a runtime of its own. A connection is one task, so that a cut drops both of its sockets at once.
//! What it can do is tested by those who break clusters with it, `crates/tieline/tests/cluster` and `chaos.rs` here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// What becomes of bytes in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// They pass so much later.
    Late(Duration),
    /// They are lost, while both sockets stay open. When the way is another one again, those connections are reset: no stream
    /// goes on behind a hole.
    Lost,
}

/// The two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who connected to the target.
    There,
    /// From the target to who connected.
    Back,
}

/// How connections are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// By a reset: both ends lose what they have not read.
    Reset,
    /// By an end of both streams.
    End,
}

/// What all connections of a proxy obey.
#[derive(Clone, Copy)]
struct Orders {
    ways: [Way; 2],
    /// Raised for each cut; what was open before is cut.
    cuts: u64,
    cut: Cut,
    /// New connections are reset at once.
    refuses: bool,
}

/// What connections tell.
#[derive(Default)]
struct Told {
    /// Bytes that were lost on purpose, in each direction.
    lost: [AtomicU64; 2],
    /// The target that comes next.
    next: AtomicUsize,
}

/// Where a proxy passes connections on to.
struct Targets {
    addresses: Vec<SocketAddr>,
    /// What each target is sent before anything else, such as a header of the PROXY protocol.
    greeting: Vec<u8>,
}

/// A running proxy. Dropped, it ends, and its connections with it.
pub struct Proxy {
    /// Where to connect.
    pub address: SocketAddr,
    orders: Option<watch::Sender<Orders>>,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of one target.
    pub fn before(target: SocketAddr) -> Proxy {
        Proxy::start(Targets { addresses: vec![target], greeting: Vec::new() })
    }

    /// A balancer: each connection goes to the target after that of the one before, or to the next one that accepts.
    pub fn balancer(targets: Vec<SocketAddr>) -> Proxy {
        Proxy::start(Targets { addresses: targets, greeting: Vec::new() })
    }

    /// A balancer that sends these bytes ahead of each connection, such as a header that says for whom it connects.
    pub fn balancer_with(targets: Vec<SocketAddr>, greeting: Vec<u8>) -> Proxy {
        Proxy::start(Targets { addresses: targets, greeting })
    }

    fn start(targets: Targets) -> Proxy {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("this machine has room for a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("this machine has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let orders = Orders { ways: [Way::Open; 2], cuts: 0, cut: Cut::Reset, refuses: false };
        let (orders, obeyed) = watch::channel(orders);
        let told = Arc::new(Told::default());
        let telling = Arc::clone(&told);
        // Its connections are tasks of the runtime, and end with it.
        let thread = thread::spawn(move || runtime.block_on(accept(listener, targets, obeyed, telling)));
        Proxy { address, orders: Some(orders), told, thread: Some(thread) }
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.orders.as_ref().expect("it has not ended").send_modify(change);
    }

    /// What becomes of bytes in one direction from now on.
    pub fn set(&self, direction: Direction, way: Way) {
        self.order(|orders| orders.ways[direction as usize] = way);
    }

    /// The same for both directions.
    pub fn set_both(&self, way: Way) {
        self.order(|orders| orders.ways = [way; 2]);
    }

    /// Ends all connections. New ones pass.
    pub fn cut(&self, cut: Cut) {
        self.order(|orders| (orders.cuts, orders.cut) = (orders.cuts + 1, cut));
    }

    /// Resets all connections, and those that come until it is healed.
    pub fn sever(&self) {
        self.order(|orders| {
            (orders.cuts, orders.cut, orders.refuses) = (orders.cuts + 1, Cut::Reset, true);
        });
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.order(|orders| (orders.ways, orders.refuses) = ([Way::Open; 2], false));
    }

    /// How many bytes were lost on purpose in one direction.
    pub fn lost(&self, direction: Direction) -> u64 {
        self.told.lost[direction as usize].load(Ordering::Relaxed)
    }

    /// The number of the target that the next connection goes to, if it accepts.
    pub fn next_target(&self, targets: usize) -> usize {
        self.told.next.load(Ordering::Relaxed) % targets
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.orders.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || !matches!(ended, Some(Err(_))), "a proxy has panicked");
    }
}

/// Accepts connections until the proxy is dropped.
async fn accept(
    listener: TcpListener,
    targets: Targets,
    mut orders: watch::Receiver<Orders>,
    told: Arc<Told>,
) {
    let targets = Arc::new(targets);
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted.expect("a socket of this machine is accepted").0,
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if orders.borrow().refuses {
            reset(&client);
            continue;
        }
        tokio::spawn(carry(client, Arc::clone(&targets), orders.clone(), Arc::clone(&told)));
    }
}

/// Makes a socket end by a reset when it is dropped.
fn reset(stream: &TcpStream) {
    // It is one already if the other end has reset it.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Connects to a target that accepts, beginning with the one whose turn it is.
async fn connect(targets: &Targets, told: &Told) -> io::Result<TcpStream> {
    let mut result = Err(io::ErrorKind::NotConnected.into());
    for _ in &targets.addresses {
        let turn = told.next.fetch_add(1, Ordering::Relaxed) % targets.addresses.len();
        result = TcpStream::connect(targets.addresses[turn]).await;
        if let Ok(stream) = &mut result {
            stream.set_nodelay(true)?;
            stream.write_all(&targets.greeting).await?;
            break;
        }
    }
    result
}

/// One connection, to its end.
async fn carry(
    mut client: TcpStream,
    targets: Arc<Targets>,
    mut orders: watch::Receiver<Orders>,
    told: Arc<Told>,
) {
    let begun = orders.borrow().cuts;
    // Who connects while bytes are lost gets no answer: nobody is there.
    let waits = orders.wait_for(|orders| orders.cuts != begun || !orders.ways.contains(&Way::Lost));
    if waits.await.map_or(true, |orders| orders.cuts != begun) {
        return reset(&client);
    }
    let Ok(mut target) = connect(&targets, &told).await else { return reset(&client) };
    let _ = client.set_nodelay(true);
    let holes = [AtomicBool::new(false), AtomicBool::new(false)];
    let cut = {
        let (client_reads, client_writes) = client.split();
        let (target_reads, target_writes) = target.split();
        let there = pump(client_reads, target_writes, Direction::There, orders.clone(), &holes, &told);
        let back = pump(target_reads, client_writes, Direction::Back, orders.clone(), &holes, &told);
        tokio::select! {
            _ = async { tokio::join!(there, back) } => Cut::End,
            cut = until_cut(&mut orders, begun, &holes) => cut,
        }
    };
    if cut == Cut::Reset {
        reset(&client);
        reset(&target);
    }
}

/// Returns when the connection is to be cut.
async fn until_cut(orders: &mut watch::Receiver<Orders>, begun: u64, holes: &[AtomicBool; 2]) -> Cut {
    let is_cut = |orders: &Orders| {
        let is_hole = |direction: usize| {
            holes[direction].load(Ordering::Relaxed) && orders.ways[direction] != Way::Lost
        };
        orders.cuts != begun || is_hole(0) || is_hole(1)
    };
    match orders.wait_for(is_cut).await {
        Ok(orders) if orders.cuts != begun => orders.cut,
        _ => Cut::Reset,
    }
}

/// Passes on one direction, up to its end, which it passes on too.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut orders: watch::Receiver<Orders>,
    holes: &[AtomicBool; 2],
    told: &Told,
) {
    // What comes is read at once, however late it is to be passed on: a network has room.
    let (sender, mut received) = mpsc::unbounded_channel();
    let read = async move {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut chunk).await.unwrap_or(0);
            let is_taken = sender.send((Instant::now(), chunk[..read].to_vec())).is_ok();
            if read == 0 || !is_taken {
                return;
            }
        }
    };
    let write = async {
        while let Some((came, bytes)) = received.recv().await {
            // What follows a hole never passes, also in the moment before the connection is cut for it.
            let is_broken = holes[direction as usize].load(Ordering::Relaxed);
            if is_broken || !passes(came, direction, &mut orders).await {
                holes[direction as usize].store(true, Ordering::Relaxed);
                told.lost[direction as usize].fetch_add(bytes.len() as u64, Ordering::Relaxed);
            } else if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                let _ = to.shutdown().await;
                return;
            }
        }
        // The end itself was lost: nobody is told until the connection is cut.
        std::future::pending().await
    };
    tokio::join!(read, write);
}

/// Waits until something that came then may pass; false when it is lost.
async fn passes(came: Instant, direction: Direction, orders: &mut watch::Receiver<Orders>) -> bool {
    loop {
        let way = orders.borrow_and_update().ways[direction as usize];
        match way {
            Way::Open => return true,
            Way::Lost => return false,
            Way::Late(delay) => tokio::select! {
                () = tokio::time::sleep_until((came + delay).into()) => return true,
                changed = orders.changed() => if changed.is_err() { return false },
            },
        }
    }
}
