//! What every broker must do, as functions that take any: the suite that all engines pass.
//! [`heartbeat`] and [`directory`] are the suites of the traits beside it, over any broker; [`registry`] is that of registries with
//! a server.
//!
//! A test gives a [`Fabric`] of its engine and awaits [`broker`]. A failure is a panic that says what was missing. There are no
//! sleeps: each step waits for what it wants to see, at most [`PATIENCE`]. An engine with a server of its own also awaits what is
//! in [`outage`].

pub mod directory;
pub mod heartbeat;
pub mod outage;
#[cfg(test)]
pub mod private;
pub mod registry;
mod seat;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tieline_core::broker::{Broker, Inbound, NotTaken, To};
use tieline_proto::{Incarnation, NodeId, NodeName};
use tokio::sync::watch;
use tokio::time::timeout;

mod dice;
pub mod records;
pub mod store;

/// How long a step waits for what it wants to see.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A future on the heap, so that a [`Fabric`] can be any engine.
pub type Joining<'a> = Pin<Box<dyn Future<Output = Arc<dyn Broker>> + Send + 'a>>;

/// Something that joins nodes by one engine.
pub trait Fabric: Send + Sync {
    /// Joins a node, which is reached when this is over, if the engine does not report peers. The same name again is the same
    /// node, started again.
    fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_>;
}

/// Something a broker told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An envelope.
    Envelope(Vec<u8>),
    /// A peer came.
    Reachable(Incarnation),
    /// A peer went.
    Unreachable(Incarnation),
    /// The broker carries nothing.
    Away,
    /// It carries again.
    Back,
}

/// An [`Inbound`] that keeps all it hears, and checks that peers come and go in turn.
pub struct Recorder {
    /// Everything, in order.
    heard: Mutex<Vec<Heard>>,
    /// Changes with each.
    changed: watch::Sender<()>,
}

impl Recorder {
    /// One that has heard nothing.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Recorder { heard: Mutex::default(), changed: watch::Sender::new(()) })
    }

    fn hear(&self, heard: Heard) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
        self.changed.send_replace(());
    }

    /// Everything so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at everything so far without a copy.
    pub fn with<T>(&self, look: impl FnOnce(&[Heard]) -> T) -> T {
        look(&self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The envelopes so far.
    pub fn envelopes(&self) -> Vec<Vec<u8>> {
        let envelope = |heard| if let Heard::Envelope(bytes) = heard { Some(bytes) } else { None };
        self.heard().into_iter().filter_map(envelope).collect()
    }

    /// Waits until what was heard is as wished.
    ///
    /// # Panics
    /// When it is not within [`PATIENCE`].
    pub async fn until(&self, wish: &str, mut is_met: impl FnMut(&[Heard]) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !self.with(&mut is_met) {
                changed.changed().await.expect("the recorder outlives its wait");
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            let last = self.with(|heard| heard.iter().rev().take(5).map(brief).collect::<Vec<_>>());
            panic!("waited in vain: {wish}; heard {} things, the last ones {last:?}", self.with(<[_]>::len));
        }
    }

    /// Waits until this peer can be reached.
    ///
    /// # Panics
    /// When it cannot within [`PATIENCE`].
    pub async fn until_reachable(&self, peer: Incarnation) {
        self.until("a peer to be reachable", |heard| is_reachable(heard, peer)).await;
    }

    /// Waits until this peer, which was reachable, is not.
    ///
    /// # Panics
    /// When it still is after [`PATIENCE`].
    pub async fn until_unreachable(&self, peer: Incarnation) {
        let is_over =
            |heard: &[Heard]| heard.contains(&Heard::Unreachable(peer)) && !is_reachable(heard, peer);
        self.until("a peer to be unreachable", is_over).await;
    }

    /// Waits for so many envelopes, or more.
    ///
    /// # Panics
    /// When they do not come within [`PATIENCE`].
    pub async fn until_count(&self, count: usize) {
        let is_envelope = |heard: &&Heard| matches!(heard, Heard::Envelope(_));
        self.until("envelopes", |heard| heard.iter().filter(is_envelope).count() >= count).await;
    }

    /// Waits for so many envelopes, and gives them.
    ///
    /// # Panics
    /// When they do not come within [`PATIENCE`], or more come.
    pub async fn until_envelopes(&self, count: usize) -> Vec<Vec<u8>> {
        self.until_count(count).await;
        let envelopes = self.envelopes();
        assert_eq!(envelopes.len(), count, "too many envelopes");
        envelopes
    }
}

fn brief(heard: &Heard) -> String {
    match heard {
        Heard::Envelope(bytes) => format!("envelope of {} bytes", bytes.len()),
        other => format!("{other:?}"),
    }
}

fn is_reachable(heard: &[Heard], peer: Incarnation) -> bool {
    let last = |heard: &&Heard| **heard == Heard::Reachable(peer) || **heard == Heard::Unreachable(peer);
    heard.iter().rev().find(last) == Some(&Heard::Reachable(peer))
}

/// Checks that each peer came and went in turn, and came first; and that the broker did, if it tells of itself alone.
///
/// # Panics
/// When one did not.
pub fn check_turns(heard: &[Heard], reports_peers: bool) {
    let mut is_away = false;
    let mut reachable = std::collections::HashSet::new();
    for heard in heard {
        match heard {
            Heard::Reachable(peer) => assert!(reachable.insert(*peer), "{peer} was reachable twice in a row"),
            Heard::Unreachable(peer) => {
                assert!(reachable.remove(peer), "{peer} was unreachable without having been reachable");
            }
            Heard::Envelope(_) => {
                assert!(!reports_peers || !reachable.is_empty(), "an envelope came from nobody");
            }
            Heard::Away => {
                assert!(!std::mem::replace(&mut is_away, true), "the broker went away twice in a row")
            }
            Heard::Back => {
                assert!(std::mem::replace(&mut is_away, false), "the broker came back without having gone")
            }
        }
    }
}

impl Inbound for Recorder {
    fn envelope(&self, bytes: &[u8]) {
        self.hear(Heard::Envelope(bytes.to_vec()));
    }

    fn reachable(&self, node: Incarnation) {
        self.hear(Heard::Reachable(node));
    }

    fn unreachable(&self, node: Incarnation) {
        self.hear(Heard::Unreachable(node));
    }

    fn away(&self) {
        self.hear(Heard::Away);
    }

    fn back(&self) {
        self.hear(Heard::Back);
    }
}

/// A node under test.
pub struct Joined {
    /// Who it is.
    pub node: NodeId,
    /// Its broker.
    pub broker: Arc<dyn Broker>,
    /// What it heard.
    pub recorder: Arc<Recorder>,
}

impl Joined {
    /// Whether it hears of peers.
    fn reports_peers(&self) -> bool {
        self.broker.reports_peers()
    }

    /// Sends, and says that it was taken.
    fn send(&self, to: To, bytes: &[u8]) {
        let envelope: Arc<[u8]> = bytes.into();
        assert_eq!(self.broker.send(to, &envelope), Ok(()), "{} to {to:?}", self.node);
    }
}

/// A node id of this name, with an incarnation that no other call of this process gives.
///
/// # Panics
/// When the name breaks the rule of names.
pub fn fresh_node(name: &str) -> NodeId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Spread, so that neither the older nor the younger is always the smaller one.
    let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let name = NodeName::new(name).expect("names of tests keep the rule");
    NodeId { name, incarnation: Incarnation(number) }
}

/// Joins nodes of these names, and waits until all reach each other.
pub async fn join(fabric: &dyn Fabric, names: &[&str]) -> Vec<Joined> {
    let mut joined: Vec<Joined> = Vec::new();
    for name in names {
        let (node, recorder) = (fresh_node(name), Recorder::new());
        let broker = fabric.join(node.clone(), Arc::clone(&recorder) as Arc<dyn Inbound>).await;
        joined.push(Joined { node, broker, recorder });
    }
    for a in joined.iter().filter(|a| a.reports_peers()) {
        for b in joined.iter().filter(|b| b.node != a.node) {
            a.recorder.until_reachable(b.node.incarnation).await;
        }
    }
    joined
}

/// The whole suite. Each part joins nodes of its own to the fabric that `new` makes: a cluster of its own, on the same server if
/// there is one.
pub async fn broker<F: Fabric>(new: impl Fn() -> F) {
    to_all_and_to_one(&new()).await;
    order_over_both_channels(&new()).await;
    a_large_envelope(&new()).await;
    ten_thousand_from_each_side(&new()).await;
    close_and_restart(&new()).await;
    clusters_do_not_meet(&new(), &new()).await;
}

/// To all is to all others; to one is to that one; nobody hears itself.
pub async fn to_all_and_to_one(fabric: &dyn Fabric) {
    let nodes = join(fabric, &["a", "b", "c"]).await;
    let [a, b, c] = &nodes[..] else { unreachable!("three were joined") };
    a.send(To::All, b"to all");
    a.send(To::One(b.node.incarnation), b"to b");
    a.send(To::One(c.node.incarnation), b"to c");
    a.send(To::All, b"");
    for (node, texts) in [(b, ["to all", "to b", ""]), (c, ["to all", "to c", ""])] {
        let (mut arrived, mut expected) = (node.recorder.until_envelopes(3).await, texts.map(str::as_bytes));
        if !node.broker.orders_channels() {
            arrived.sort();
            expected.sort();
        }
        assert_eq!(arrived, expected);
    }
    // What comes back over the same way tells that an echo would be there by now.
    b.send(To::One(a.node.incarnation), b"back");
    assert_eq!(a.recorder.until_envelopes(1).await, [b"back"]);
    let nobody = To::One(fresh_node("nobody").incarnation);
    let expected = if a.reports_peers() { Err(NotTaken::Unreachable) } else { Ok(()) };
    assert_eq!(a.broker.send(nobody, &Arc::from(&b"x"[..])), expected);
    close_all(nodes).await;
}

/// What goes to a receiver alone and what goes to all arrive in the order they were sent: together, where the broker says so, or
/// else each of the two.
pub async fn order_over_both_channels(fabric: &dyn Fabric) {
    const COUNT: u32 = 3_000;
    let nodes = join(fabric, &["a", "b", "c"]).await;
    let mut expected = vec![Vec::new(); nodes.len()];
    for number in 0..COUNT {
        for (from, sender) in nodes.iter().enumerate() {
            let mut bytes = vec![from as u8];
            bytes.extend_from_slice(&number.to_be_bytes());
            let only = (from + 1) % nodes.len();
            if number % 3 == from as u32 {
                sender.send(To::One(nodes[only].node.incarnation), &bytes);
                expected[only].push(bytes);
            } else {
                sender.send(To::All, &bytes);
                (0..nodes.len()).filter(|to| *to != from).for_each(|to| expected[to].push(bytes.clone()));
            }
        }
    }
    for (node, expected) in nodes.iter().zip(expected) {
        let arrived = node.recorder.until_envelopes(expected.len()).await;
        for origin in 0..nodes.len() as u8 {
            let of = |list: &[Vec<u8>]| {
                let mut of_origin: Vec<Vec<u8>> =
                    list.iter().filter(|bytes| bytes[0] == origin).cloned().collect();
                if !node.broker.orders_channels() {
                    // Those of one channel keep their places among each other.
                    of_origin.sort_by_key(|bytes| number_of(bytes) % 3 == u32::from(origin));
                }
                of_origin
            };
            assert!(of(&arrived) == of(&expected), "order of {origin} at {}", node.node);
        }
    }
    close_all(nodes).await;
}

/// The number of an envelope of [`order_over_both_channels`].
fn number_of(bytes: &[u8]) -> u32 {
    bytes[1..].try_into().map_or(0, u32::from_be_bytes)
}

/// A mebibyte arrives as it was sent, and what is behind it too.
pub async fn a_large_envelope(fabric: &dyn Fabric) {
    let nodes = join(fabric, &["a", "b"]).await;
    let large: Vec<u8> =
        (0..1u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    for node in &nodes {
        node.send(To::All, &large);
        node.send(To::All, b"behind");
    }
    for node in &nodes {
        let arrived = node.recorder.until_envelopes(2).await;
        assert!(arrived[0] == large, "the large envelope was changed on its way");
        assert_eq!(arrived[1], b"behind");
    }
    close_all(nodes).await;
}

/// Nothing is lost, doubled or reordered while nothing fails.
pub async fn ten_thousand_from_each_side(fabric: &dyn Fabric) {
    const COUNT: u32 = 10_000;
    let nodes = join(fabric, &["a", "b"]).await;
    for number in 0..COUNT {
        for node in &nodes {
            node.send(To::All, &number.to_be_bytes());
        }
    }
    for node in &nodes {
        let arrived = node.recorder.until_envelopes(COUNT as usize).await;
        assert!((0..COUNT).zip(&arrived).all(|(number, bytes)| number.to_be_bytes() == bytes[..]));
    }
    close_all(nodes).await;
}

/// What was taken before a close arrives; then the node is gone; started again it is another one.
pub async fn close_and_restart(fabric: &dyn Fabric) {
    const COUNT: u32 = 1_000;
    let mut nodes = join(fabric, &["a", "b", "c"]).await;
    let gone = nodes.pop().expect("three were joined");
    for number in 0..COUNT {
        gone.send(To::All, &number.to_be_bytes());
    }
    gone.broker.close();
    assert_eq!(gone.broker.send(To::All, &Arc::from(&b"late"[..])), Err(NotTaken::Unreachable));
    for node in &nodes {
        if node.reports_peers() {
            node.recorder.until_unreachable(gone.node.incarnation).await;
            gone.recorder.until_unreachable(node.node.incarnation).await;
            let to_gone = node.broker.send(To::One(gone.node.incarnation), &Arc::from(&b"x"[..]));
            assert_eq!(to_gone, Err(NotTaken::Unreachable));
        }
        // All of it was taken before the close.
        let arrived = node.recorder.until_envelopes(COUNT as usize).await;
        assert!((0..COUNT).zip(&arrived).all(|(number, bytes)| number.to_be_bytes() == bytes[..]));
    }

    let (again, recorder) = (fresh_node("c"), Recorder::new());
    let broker = fabric.join(again.clone(), Arc::clone(&recorder) as Arc<dyn Inbound>).await;
    let again = Joined { node: again, broker, recorder };
    for node in &nodes {
        if again.reports_peers() {
            node.recorder.until_reachable(again.node.incarnation).await;
            again.recorder.until_reachable(node.node.incarnation).await;
        }
        again.send(To::One(node.node.incarnation), b"again");
        node.recorder.until_envelopes(COUNT as usize + 1).await;
    }
    check_turns(&gone.recorder.heard(), gone.reports_peers());
    nodes.push(again);
    close_all(nodes).await;
}

/// Clusters side by side, on one server if there is one, hear nothing of each other.
pub async fn clusters_do_not_meet(one: &dyn Fabric, other: &dyn Fabric) {
    let (ours, theirs) = (join(one, &["a", "b"]).await, join(other, &["a", "b"]).await);
    let stranger = theirs[1].node.incarnation;
    // It is taken where nobody knows who is there, and reaches nobody all the same.
    let sent = ours[0].broker.send(To::One(stranger), &Arc::from(&b"to a stranger"[..]));
    assert_eq!(sent.is_ok(), !ours[0].reports_peers());
    for (nodes, text) in [(&ours, b"ours"), (&theirs, b"them")] {
        nodes[0].send(To::All, text);
        nodes[0].send(To::One(nodes[1].node.incarnation), text);
    }
    for (nodes, text) in [(&ours, b"ours"), (&theirs, b"them")] {
        assert_eq!(nodes[1].recorder.until_envelopes(2).await, [text, text]);
        nodes[1].send(To::All, b"back");
        assert_eq!(nodes[0].recorder.until_envelopes(1).await, [b"back"]);
    }
    close_all(ours).await;
    close_all(theirs).await;
}

/// Closes all nodes, and checks that each heard of each peer in turn.
async fn close_all(nodes: Vec<Joined>) {
    nodes.iter().for_each(|node| node.broker.close());
    for a in &nodes {
        for b in nodes.iter().filter(|b| a.reports_peers() && b.node != a.node) {
            a.recorder.until_unreachable(b.node.incarnation).await;
        }
        check_turns(&a.recorder.heard(), a.reports_peers());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_core::broker::MemoryExchange;

    impl Fabric for MemoryExchange {
        fn join(&self, node: NodeId, inbound: Arc<dyn Inbound>) -> Joining<'_> {
            Box::pin(async move {
                let broker: Arc<dyn Broker> = Arc::new(MemoryExchange::join(self, node.incarnation, inbound));
                broker
            })
        }
    }

    #[tokio::test]
    async fn links_within_one_process() {
        broker(MemoryExchange::links).await;
    }

    #[tokio::test]
    async fn registries_over_links_and_over_a_medium() {
        heartbeat::suite(MemoryExchange::links).await;
        heartbeat::suite(MemoryExchange::medium).await;
        heartbeat::suite(MemoryExchange::crossing).await;
    }

    #[tokio::test]
    async fn directories_over_links_and_over_a_medium() {
        directory::suite_of(&directory::Replicated, MemoryExchange::links).await;
        directory::suite_of(&directory::Replicated, MemoryExchange::medium).await;
        directory::suite_of(&directory::Replicated, MemoryExchange::crossing).await;
    }

    #[tokio::test]
    async fn directories_by_the_ring() {
        directory::suite_of(&directory::Ringed, MemoryExchange::links).await;
        directory::suite_of(&directory::Ringed, MemoryExchange::medium).await;
        directory::suite_of(&directory::Ringed, MemoryExchange::crossing).await;
    }

    #[tokio::test]
    async fn a_medium_within_one_process() {
        broker(MemoryExchange::medium).await;
        broker(MemoryExchange::crossing).await;
    }

    impl outage::Server for MemoryExchange {
        fn kill(&mut self) {
            self.go_away();
        }

        fn restart(&mut self) {
            self.come_back();
        }

        fn stand_still(&mut self) {
            self.go_away();
        }

        fn go_on(&mut self) {
            self.come_back();
        }
    }

    #[tokio::test]
    async fn an_outage_within_one_process() {
        let mut exchange = MemoryExchange::medium();
        outage::server_killed_and_back(&exchange.clone(), &mut exchange).await;
    }

    #[tokio::test]
    async fn an_outage_of_a_medium_that_keeps() {
        let mut exchange = MemoryExchange::keeping();
        outage::server_killed_and_back(&exchange.clone(), &mut exchange).await;
    }
}
