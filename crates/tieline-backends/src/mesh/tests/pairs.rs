//! Two nodes and a third: both dial at once, seeds tell of others, restarts, and one that stops reading.

use tieline_proto::Incarnation;
use tieline_websocket::Role;
use tokio::net::{TcpListener, TcpStream};

use super::strangers::until_refused;
use super::*;
use crate::mesh::dial::{Wish, want};
use crate::mesh::proof::{Prover, Side};
use crate::mesh::upgrade;
use crate::mesh::wire::Wire;
use crate::mesh::words::{Hello, Member, VERSION, Word};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dial_at_once_and_one_link_remains_with_nothing_lost_or_doubled() {
    const ENVELOPES: u32 = 50;
    let mut refused = 0;
    for round in 0..100 {
        let [a, b] = ["a", "b"].map(|name| start(name, settings(&[])));
        want(&a.broker.0, &b.address.to_string(), Wish::Seed);
        want(&b.broker.0, &a.address.to_string(), Wish::Seed);
        // Each sends as soon as it may, while the second link is perhaps being refused.
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.recorder.until_reachable(to.node.incarnation).await;
            for number in 0..ENVELOPES {
                from.send(to, &number.to_be_bytes()).unwrap();
            }
        }
        for (node, other) in [(&a, &b), (&b, &a)] {
            let arrived = node.recorder.until_envelopes(ENVELOPES as usize).await;
            assert!((0..ENVELOPES).zip(&arrived).all(|(number, bytes)| number.to_be_bytes() == bytes[..]));
            let peers = node.broker.peers();
            assert_eq!(peers.len(), 1, "round {round}");
            assert_eq!(peers[0].node, other.node);
        }
        for node in [&a, &b] {
            let links =
                node.recorder.with(|heard| heard.iter().filter(|h| matches!(h, Heard::Reachable(_))).count());
            assert_eq!(links, 1, "round {round}: the link was changed under way");
            node.broker.close();
        }
        for node in [&a, &b] {
            node.broker.closed().await;
            check_turns(&node.recorder.heard(), true);
            refused += node.broker.refusals(Refusal::Duplicate);
        }
    }
    assert!(refused > 0, "in 100 rounds the two never met in the middle, so nothing was tested");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_node_is_learned_through_a_seed() {
    let seed = start("seed", settings(&[]));
    let nodes: Vec<_> = ["a", "b", "c"].map(|name| start(name, settings(&[seed.address]))).into();
    for node in &nodes {
        node.meets(&seed).await;
        for other in nodes.iter().filter(|other| other.node != node.node) {
            node.meets(other).await;
        }
    }
    // The seed is not needed any more.
    seed.broker.close();
    seed.broker.closed().await;
    nodes[0].recorder.until_unreachable(seed.node.incarnation).await;
    nodes[0].send(&nodes[2], b"without the seed").unwrap();
    nodes[2].recorder.until_envelopes(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_is_oneself_does_no_harm() {
    let a = start("a", settings(&[]));
    let b = start("b", settings(&[a.address]));
    // By its address, and by a name, so that only the handshake can tell.
    for itself in [a.address.to_string(), format!("localhost:{}", a.address.port())] {
        want(&a.broker.0, &itself, Wish::Seed);
    }
    until_refused(&a, Refusal::Itself, 4).await;
    a.meets(&b).await;
    // Envelopes to all do not come back.
    a.broker.send(To::All, &b"x"[..].into()).unwrap();
    b.recorder.until_envelopes(1).await;
    b.send(&a, b"y").unwrap();
    assert_eq!(a.recorder.until_envelopes(1).await, [b"y"]);
    assert_eq!(a.broker.peers().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_started_again_is_dialled_again_and_is_a_new_one() {
    // A host of its own, so that nobody else is given its port between two lives.
    let mut at_a = SocketAddr::from(([127, 0, 0, 2], 0));
    let b = start("b", settings(&[]));
    let mut before: Option<Incarnation> = None;
    for round in 0..5u8 {
        let a = start("a", MeshSettings { listen: at_a, ..settings(&[]) });
        at_a = a.address;
        want(&b.broker.0, &at_a.to_string(), Wish::Seed);
        a.meets(&b).await;
        if let Some(before) = before {
            assert!(b.recorder.with(|heard| heard.contains(&Heard::Unreachable(before))));
            assert_eq!(b.broker.send(To::One(before), &b"x"[..].into()), Err(NotTaken::Unreachable));
        }
        b.send(&a, &[round]).unwrap();
        assert_eq!(a.recorder.until_envelopes(1).await, [[round]]);
        before = Some(a.node.incarnation);
        a.broker.close();
        a.broker.closed().await;
    }
    check_turns(&b.recorder.heard(), true);
}

/// A peer that is played by hand, linked with `to`: younger than any other, so that `to` is the one that chooses.
pub(super) async fn played(to: &Peer, node: NodeId, address: &str, lost: u64) -> (Wire, Option<u64>) {
    let stream = TcpStream::connect(to.address).await.unwrap();
    let mut wire = Wire::new(stream, Role::Client);
    upgrade::ask(&mut wire, "test").await.unwrap();
    let hello =
        Hello { version: VERSION, cluster: "tests".into(), node, address: address.into(), nonce: [7; 32] };
    let mine = Word::Hello(hello).to_text();
    wire.say(&mine).await.unwrap();
    let theirs = text(&mut wire).await.expect("a hello");
    let prover = Prover::new(settings(&[]).secret.as_ref());
    let proof = prover.prove(Side::Dialler, &mine, &theirs);
    wire.say(&Word::Proof { proof, lost }.to_text()).await.unwrap();
    let answer = text(&mut wire).await.and_then(|text| Word::from_text(&text));
    let Some(Word::Proof { proof, .. }) = answer else { panic!("no proof but {answer:?}") };
    assert!(prover.holds(&proof, Side::Acceptor, &mine, &theirs));
    match text(&mut wire).await.and_then(|text| Word::from_text(&text)) {
        Some(Word::Link { number }) => (wire, Some(number)),
        Some(other) => panic!("{other:?} instead of a link"),
        None => (wire, None),
    }
}

/// The next text frame; `None` when the link is refused.
async fn text(wire: &mut Wire) -> Option<Vec<u8>> {
    use tieline_websocket::Event;
    loop {
        match wire.inbox.next().unwrap() {
            Some(Event::Message { payload, .. }) => return Some(payload.to_vec()),
            Some(Event::Close(frame)) => {
                assert_eq!(frame.map(|frame| frame.code), Some(Refusal::Duplicate.code()));
                return None;
            }
            Some(_) => {}
            None => wire.read().await.unwrap(),
        }
    }
}

/// The youngest node there can be.
pub(super) fn youngest(name: &str) -> NodeId {
    NodeId { incarnation: Incarnation(u64::MAX), ..fresh_node(name) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_reading_fills_its_own_queue_alone() {
    const SIZE: usize = 64 << 10;
    const QUEUE: usize = 1 << 20;
    // More than the kernel holds for one socket.
    const ENVELOPES: usize = 512;
    let a = start("a", MeshSettings { queue: QUEUE, ..settings(&[]) });
    let b = start("b", settings(&[a.address]));
    a.meets(&b).await;
    let stuck = youngest("stuck");
    let (wire, _) = played(&a, stuck.clone(), "127.0.0.1:1", 0).await;
    a.recorder.until_reachable(stuck.incarnation).await;

    // The kernel's buffers take some; then the queue fills, and from then on all that is for the stuck one is refused. The
    // other gets everything all the while, although sending to all says that one did not.
    let envelope: Arc<[u8]> = vec![1; SIZE].into();
    let mut refused = 0;
    let mut last = Ok(());
    for number in 0..ENVELOPES {
        last = a.broker.send(To::All, &envelope);
        refused += u64::from(last.is_err());
        b.recorder.until_count(number + 1).await;
    }
    assert_eq!(last, Err(NotTaken::Full));
    assert_eq!(a.broker.overflows(), refused);
    let peers = a.broker.peers();
    let queued = |id: Incarnation| peers.iter().find(|peer| peer.node.incarnation == id).unwrap().queued;
    assert!((QUEUE / 2..=QUEUE).contains(&queued(stuck.incarnation)));
    assert!(a.broker.stats().queued_bytes >= queued(stuck.incarnation) as u64);
    // What b has heard of may still be counted for a moment, but no more than the last one.
    assert!(queued(b.node.incarnation) < 2 * SIZE);
    assert_eq!(a.send(&b, b"and alone"), Ok(()));
    b.recorder.until_count(ENVELOPES + 1).await;
    drop(wire);
    a.recorder.until_unreachable(stuck.incarnation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_link_is_refused_unless_the_first_is_lost() {
    let a = start("a", settings(&[]));
    let node = youngest("b");
    let (first, number) = played(&a, node.clone(), "127.0.0.1:1", 0).await;
    let number = number.expect("the first link is claimed");
    let (_, none) = played(&a, node.clone(), "127.0.0.1:1", number - 1).await;
    assert_eq!(none, None, "its word may still be on the way");
    let (_second, newer) = played(&a, node.clone(), "127.0.0.1:1", number).await;
    assert!(newer.expect("the peer lost the first") > number);
    let wish = [
        Heard::Reachable(node.incarnation),
        Heard::Unreachable(node.incarnation),
        Heard::Reachable(node.incarnation),
    ];
    a.recorder.until("the old link's end before the new one's beginning", |heard| heard == wish).await;
    assert_eq!(a.broker.peers().len(), 1);
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_name_at_the_same_address_is_the_node_started_again() {
    let a = start("a", settings(&[]));
    let old = youngest("b");
    let new = NodeId { incarnation: Incarnation(u64::MAX - 1), ..old.clone() };
    let namesake = NodeId { incarnation: Incarnation(u64::MAX - 2), ..old.clone() };
    let (_old, _) = played(&a, old.clone(), "127.0.0.1:1", 0).await;
    let (_namesake, _) = played(&a, namesake.clone(), "127.0.0.1:2", 0).await;
    let (_new, _) = played(&a, new.clone(), "127.0.0.1:1", 0).await;
    a.recorder.until_unreachable(old.incarnation).await;
    a.recorder.until_reachable(new.incarnation).await;
    a.recorder.until_reachable(namesake.incarnation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_pinged_and_then_dead() {
    use tieline_websocket::Event;
    let quick = MeshSettings {
        ping: Duration::from_millis(20),
        silence: Duration::from_millis(100),
        ..settings(&[])
    };
    let a = start("a", quick);
    let node = youngest("silent");
    let (mut wire, _) = played(&a, node.clone(), "127.0.0.1:1", 0).await;
    let mut pings = 0;
    while wire.read().await.is_ok() {
        while let Some(event) = wire.inbox.next().unwrap() {
            pings += usize::from(event == Event::Ping(b""));
        }
    }
    assert!(pings >= 2, "{pings} pings");
    a.recorder.until_unreachable(node.incarnation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_lives_on_by_pings() {
    let quick = |seeds: &[SocketAddr]| MeshSettings {
        ping: Duration::from_millis(20),
        silence: Duration::from_millis(1000),
        ..settings(seeds)
    };
    let a = start("a", quick(&[]));
    let b = start("b", quick(&[a.address]));
    a.meets(&b).await;
    let until = tokio::time::Instant::now() + Duration::from_millis(1500);
    // Nothing is to be heard in this time, so the time itself is the event.
    let ended = tokio::time::timeout_at(until, a.recorder.until_unreachable(b.node.incarnation)).await;
    assert!(ended.is_err(), "an idle link was taken for dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_within_its_time_although_a_peer_does_not_read() {
    let a = start("a", settings(&[]));
    let stuck = youngest("stuck");
    let (_wire, _) = played(&a, stuck.clone(), "127.0.0.1:1", 0).await;
    a.recorder.until_reachable(stuck.incarnation).await;
    let envelope: Arc<[u8]> = vec![1; 1 << 20].into();
    while a.broker.send(To::All, &envelope).is_ok() {}
    let began = std::time::Instant::now();
    a.broker.close();
    tokio::time::timeout(PATIENCE, a.broker.closed()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    check_turns(&a.recorder.heard(), true);
    assert!(a.recorder.with(|heard| heard.contains(&Heard::Unreachable(stuck.incarnation))));
}

#[tokio::test]
async fn a_seed_or_an_address_that_is_wrong_is_told_at_the_start() {
    use crate::mesh::MeshError;
    let start = |settings| MeshBroker::start(settings, fresh_node("a"), Recorder::new()).map(|_| ());
    let bad_seed = MeshSettings { seeds: vec!["nowhere".into()], ..settings(&[]) };
    assert!(matches!(start(bad_seed), Err(MeshError::Address(_))));
    let unnamed = MeshSettings { cluster: String::new(), ..settings(&[]) };
    assert!(matches!(start(unnamed), Err(MeshError::Cluster)));
    let taken = TcpListener::bind(anywhere()).await.unwrap();
    let on_taken = MeshSettings { listen: taken.local_addr().unwrap(), ..settings(&[]) };
    assert!(matches!(start(on_taken), Err(MeshError::Listen(..))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_breaks_comes_back_whoever_notices_first() {
    const ROUNDS: usize = 20;
    let a = start("a", settings(&[]));
    let b = start("b", settings(&[a.address]));
    for round in 1..=ROUNDS {
        for (node, other) in [(&a, &b), (&b, &a)] {
            let is_back = |heard: &[Heard]| {
                let back = Heard::Reachable(other.node.incarnation);
                heard.iter().filter(|heard| **heard == back).count() >= round
            };
            node.recorder.until("the link to be back", is_back).await;
        }
        let (breaks, other) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        if let Some(link) = breaks.broker.0.peers.get(other.node.incarnation) {
            link.stop();
        }
    }
    a.meets(&b).await;
    for node in [&a, &b] {
        node.broker.close();
        node.broker.closed().await;
        check_turns(&node.recorder.heard(), true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_others_tell_of_is_dialled_and_after_a_while_forgotten() {
    use tieline_websocket::Opcode;
    use tokio::io::AsyncWriteExt;
    let a = start("a", MeshSettings { forget: Duration::from_millis(200), ..settings(&[]) });
    let (mut wire, _) = played(&a, youngest("teller"), "127.0.0.1:1", 0).await;
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let bad = Member { node: fresh_node("bad"), address: "not an address".into() };
    let itself = Member { node: fresh_node("itself"), address: a.address.to_string() };
    let told = Member { node: fresh_node("told"), address: address.clone() };
    let mut out = Vec::new();
    let text = Word::Members { members: vec![bad, itself, told] }.to_text();
    wire.outbox.frame(&mut out, Opcode::Text, &text).unwrap();
    wire.stream.write_all(&out).await.unwrap();
    drop(tokio::time::timeout(PATIENCE, listener.accept()).await.expect("it is dialled"));
    drop(listener);
    let targets = &a.broker.0.targets;
    assert!(targets.has(&address) && !targets.has("not an address") && !targets.has(&a.address.to_string()));
    let forgotten = async {
        while targets.has(&address) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("it is dialled no more");
    // The one that there is a link with is not forgotten.
    assert!(targets.has("127.0.0.1:1"));
}
