//! How many envelopes a second one link of the mesh carries, and how long one takes: two nodes in this process, real
//! sockets on loopback. `cargo bench -p tieline-backends` prints a line per case.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tieline_backends::{MeshBroker, MeshSettings, Secret};
use tieline_core::broker::{Broker, Inbound, NotTaken, To};
use tieline_proto::{Incarnation, NodeId, NodeName};
use tokio::sync::Notify;

/// Counts what arrives.
#[derive(Default)]
struct Count {
    envelopes: AtomicU64,
    peers: AtomicU64,
    /// The count to be told of.
    goal: AtomicU64,
    reached: Notify,
}

impl Inbound for Count {
    fn envelope(&self, _bytes: &[u8]) {
        let count = self.envelopes.fetch_add(1, Ordering::AcqRel) + 1;
        if count == self.goal.load(Ordering::Acquire) {
            self.reached.notify_one();
        }
    }

    fn reachable(&self, _node: Incarnation) {
        self.peers.fetch_add(1, Ordering::AcqRel);
        self.reached.notify_one();
    }

    fn unreachable(&self, _node: Incarnation) {}

    fn away(&self) {}

    fn back(&self) {}
}

impl Count {
    /// Wants so many more envelopes than came so far.
    fn want(&self, more: u64) {
        self.goal.store(self.envelopes.load(Ordering::Acquire) + more, Ordering::Release);
    }

    /// Waits until they came.
    async fn arrived(&self) {
        while self.envelopes.load(Ordering::Acquire) < self.goal.load(Ordering::Acquire) {
            self.reached.notified().await;
        }
    }
}

fn start(name: &str, number: u64, seeds: &[SocketAddr]) -> (MeshBroker, SocketAddr, Arc<Count>) {
    let settings = MeshSettings {
        seeds: seeds.iter().map(ToString::to_string).collect(),
        secret: Secret::new("the secret of the bench").ok(),
        ..MeshSettings::new("bench", SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    let node = NodeId {
        name: NodeName::new(name).expect("a short name of letters"),
        incarnation: Incarnation(number),
    };
    let count = Arc::new(Count::default());
    let inbound = Arc::clone(&count) as Arc<dyn Inbound>;
    let (broker, address) = MeshBroker::start(settings, node, inbound).expect("a free port on loopback");
    (broker, address, count)
}

/// Sends, and yields while the queue is full.
async fn send(from: &MeshBroker, envelope: &Arc<[u8]>, count: u64) {
    for _ in 0..count {
        while from.send(To::All, envelope) == Err(NotTaken::Full) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (a, address, at_a) = start("a", 1, &[]);
    let (b, _, at_b) = start("b", 2, &[address]);
    for count in [&at_a, &at_b] {
        while count.peers.load(Ordering::Acquire) == 0 {
            count.reached.notified().await;
        }
    }
    for (size, count) in [(64, 1_000_000), (256, 1_000_000), (1024, 500_000), (65_536, 20_000)] {
        let envelope: Arc<[u8]> = vec![7; size].into();
        for (name, from, to) in [("server to client", &a, &at_b), ("client to server", &b, &at_a)] {
            let mut rates = Vec::new();
            for _ in 0..3 {
                to.want(count);
                let began = Instant::now();
                send(from, &envelope, count).await;
                to.arrived().await;
                rates.push(count as f64 / began.elapsed().as_secs_f64());
            }
            rates.sort_by(f64::total_cmp);
            let rate = rates[1];
            println!("{name}, {size} bytes: {rate:.0} envelopes/s, {:.0} MB/s", rate * size as f64 / 1e6);
        }
        at_a.want(count);
        at_b.want(count);
        let began = Instant::now();
        tokio::join!(send(&a, &envelope, count), send(&b, &envelope, count));
        at_a.arrived().await;
        at_b.arrived().await;
        let rate = 2.0 * count as f64 / began.elapsed().as_secs_f64();
        println!("both ways, {size} bytes: {rate:.0} envelopes/s, {:.0} MB/s", rate * size as f64 / 1e6);
    }

    let envelope: Arc<[u8]> = vec![7; 256].into();
    let mut turns: Vec<Duration> = Vec::new();
    for _ in 0..20_000 {
        let began = Instant::now();
        at_b.want(1);
        send(&a, &envelope, 1).await;
        at_b.arrived().await;
        at_a.want(1);
        send(&b, &envelope, 1).await;
        at_a.arrived().await;
        turns.push(began.elapsed());
    }
    turns.sort();
    println!(
        "there and back, 256 bytes: median {:?}, 99 % {:?}",
        turns[turns.len() / 2],
        turns[turns.len() / 100 * 99]
    );
}
