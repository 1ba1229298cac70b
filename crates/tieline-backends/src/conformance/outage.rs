//! What a broker with a server of its own must do when that server is killed, or stands still, and comes back: say that it
//! is away, take nothing meanwhile, and carry again soon, without being started anew. One that keeps what it takes goes on taking, and
//! afterwards nothing is missing; what comes a second time there is dropped here by its number, as the cluster does.

use std::sync::Arc;
use std::time::Duration;

use tieline_core::broker::{NotTaken, To};
use tokio::time::{Instant, timeout_at};

use super::{Fabric, Heard, Joined, close_all, join};

/// For how long the server is gone.
const GONE: Duration = Duration::from_secs(5);

/// How soon after the server's return envelopes must flow.
pub const RETURN: Duration = Duration::from_secs(5);

/// The same where a broker keeps what it takes, so that nothing is lost by being late: its servers elect leaders first, and on a
/// busy machine that takes several attempts.
const KEPT_RETURN: Duration = Duration::from_secs(20);

/// The server under a [`Fabric`]. Its calls return when it is as wished.
pub trait Server: Send {
    /// Ends it without a word.
    fn kill(&mut self);

    /// Starts it again, at the same address.
    fn restart(&mut self);

    /// Keeps it from running; its sockets stay open.
    fn stand_still(&mut self);

    /// Lets it run on.
    fn go_on(&mut self);
}

/// The server is killed, and back after five seconds.
pub async fn server_killed_and_back(fabric: &dyn Fabric, server: &mut dyn Server) {
    let nodes = join(fabric, &["a", "b", "c"]).await;
    let mut flow = Flow::new(&nodes);
    flow.through().await;
    server.kill();
    flow.is_away_for(GONE).await;
    server.restart();
    flow.is_back().await;
    flow.through().await;
    // A second time, so that nothing is left of the first.
    server.kill();
    flow.is_away_for(Duration::ZERO).await;
    server.restart();
    flow.is_back().await;
    flow.through().await;
    close_all(nodes).await;
}

/// The server stands still until everybody has noticed, and five seconds more; then it goes on where it was.
pub async fn server_stands_still(fabric: &dyn Fabric, server: &mut dyn Server) {
    let nodes = join(fabric, &["a", "b", "c"]).await;
    let mut flow = Flow::new(&nodes);
    flow.through().await;
    server.stand_still();
    // Nobody can know yet: these are taken, and may arrive or not, but late ones never behind newer ones.
    flow.try_send();
    flow.is_away_for(GONE).await;
    server.go_on();
    flow.is_back().await;
    flow.through().await;
    close_all(nodes).await;
}

/// Numbered envelopes from each node to each, over both channels.
struct Flow<'a> {
    nodes: &'a [Joined],
    /// The last number that was sent.
    number: u32,
}

impl<'a> Flow<'a> {
    fn new(nodes: &'a [Joined]) -> Self {
        Flow { nodes, number: 0 }
    }

    /// Every node's index and the next number, to all and to each alone.
    fn send(&mut self, mut send: impl FnMut(&Joined, To, &[u8])) {
        for is_to_all in [true, false] {
            self.number += 1;
            for (from, node) in self.nodes.iter().enumerate() {
                let mut bytes = vec![from as u8];
                bytes.extend_from_slice(&self.number.to_be_bytes());
                let others = self.nodes.iter().filter(|other| other.node != node.node);
                if is_to_all {
                    send(node, To::All, &bytes);
                } else {
                    others.for_each(|other| send(node, To::One(other.node.incarnation), &bytes));
                }
            }
        }
    }

    /// Sends what may be taken.
    fn try_send(&mut self) {
        self.send(|node, to, bytes| {
            let _ = node.broker.send(to, &Arc::from(bytes));
        });
    }

    /// Sends, and waits until all of it has arrived everywhere, in order and once.
    async fn through(&mut self) {
        for _ in 0..100 {
            self.send(Joined::send);
        }
        for (to, node) in self.nodes.iter().enumerate() {
            // Numbers to all are odd. Channels without an order among each other are looked at one by one.
            let channels: &[&[u32]] = if node.broker.orders_channels() { &[&[0, 1]] } else { &[&[0], &[1]] };
            let others = (0..self.nodes.len()).filter(|from| *from != to);
            for (from, channel) in others.flat_map(|from| channels.iter().map(move |channel| (from, channel)))
            {
                let is_of = |number: &u32| channel.contains(&(number % 2));
                let numbers = |heard: &[Heard]| -> Vec<u32> {
                    let all = heard.iter().filter_map(|heard| number(heard, from)).filter(is_of);
                    let mut last = 0;
                    let is_new = |number: &u32| {
                        let before = last;
                        last = last.max(*number);
                        *number > before
                    };
                    if node.broker.keeps() { all.filter(is_new).collect() } else { all.collect() }
                };
                let due = (self.number - 199..=self.number).filter(is_of).collect::<Vec<_>>();
                node.recorder.until("what was sent", |heard| numbers(heard).ends_with(&due)).await;
                let all = node.recorder.with(numbers);
                assert!(all.is_sorted_by(|a, b| a < b), "order or doubles from {from} at {to}: {all:?}");
                if node.broker.keeps() {
                    let whole = (1..=self.number).filter(is_of);
                    assert!(all.iter().copied().eq(whole), "holes from {from} at {to}: {all:?}");
                }
            }
        }
    }

    /// Waits until all know that the broker is away, and for so long more while nobody may say otherwise.
    async fn is_away_for(&mut self, length: Duration) {
        self.are_away().await;
        for node in self.nodes.iter().filter(|node| !node.broker.keeps()) {
            let envelope = Arc::from(&b"nobody hears it"[..]);
            assert_eq!(node.broker.send(To::All, &envelope), Err(NotTaken::Unreachable));
            let to_one = node.broker.send(To::One(node.node.incarnation), &envelope);
            assert_eq!(to_one, Err(NotTaken::Unreachable));
        }
        if self.nodes.iter().all(|node| node.broker.keeps()) {
            self.send(Joined::send);
        }
        if self.is_back_within(length).await {
            // On a busy machine one may think so a moment too early, and be taught otherwise, once, by what was on its way.
            self.are_away().await;
            assert!(!self.is_back_within(length).await, "somebody is back without the server");
        }
    }

    /// Waits until all know that the broker is away.
    async fn are_away(&self) {
        for node in self.nodes {
            node.recorder
                .until("the broker to be away", |heard| last_word(heard) == Some(&Heard::Away))
                .await;
        }
    }

    /// Whether anybody says that the broker is back, in so long a time.
    async fn is_back_within(&self, length: Duration) -> bool {
        let end = Instant::now() + length;
        let backs = |heard: &[Heard]| heard.iter().filter(|heard| **heard == Heard::Back).count();
        let before: Vec<usize> = self.nodes.iter().map(|node| node.recorder.with(backs)).collect();
        for (node, before) in self.nodes.iter().zip(before) {
            let back = node.recorder.until("never", |heard| backs(heard) > before);
            if timeout_at(end, back).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Waits until all are back, which must be soon.
    async fn is_back(&mut self) {
        let began = Instant::now();
        for node in self.nodes {
            let within = if node.broker.keeps() { KEPT_RETURN } else { RETURN };
            let back =
                node.recorder.until("the broker to be back", |heard| last_word(heard) == Some(&Heard::Back));
            assert!(
                timeout_at(began + within, back).await.is_ok(),
                "{} is not back after {within:?}",
                node.node
            );
        }
    }
}

/// What was told last of the broker itself.
fn last_word(heard: &[Heard]) -> Option<&Heard> {
    heard.iter().rev().find(|heard| matches!(heard, Heard::Away | Heard::Back))
}

/// The number of an envelope of [`Flow`] from this node.
fn number(heard: &Heard, from: usize) -> Option<u32> {
    let Heard::Envelope(bytes) = heard else { return None };
    let (origin, number) = bytes.split_first()?;
    (usize::from(*origin) == from).then(|| u32::from_be_bytes(number.try_into().unwrap_or_default()))
}
