//! Beside the official Python client: each hears what the other publishes to a cluster's topics.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use tieline_core::broker::To;
use tieline_proto::Incarnation;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::super::topics::{ALL, Names};
use super::*;
use crate::conformance::{PATIENCE, Recorder, fresh_node};

/// The program that stands for another node. It knows the protocol from the official client, and a message's layout from
/// `topics.rs`.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hazelcast/other_node.py");

#[tokio::test]
#[ignore = "`tests/run-hazelcast.sh` brings the official client"]
async fn hears_the_official_client_and_is_heard_by_it() {
    let python =
        std::env::var_os("TIELINE_HAZELCAST_PYTHON").expect("the script names a Python with the client");
    let engine = Engine::hazelcast().start().unwrap();
    let settings = settings(engine.url());
    let (node, recorder) = (fresh_node("n"), Recorder::new());
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    let broker = HazelcastBroker::start(settings.clone(), &node, inbound).await.unwrap();

    let other = Incarnation(0x0123_4567_89ab_cdef);
    let theirs = Names::new(&settings.cluster, other);
    let ours = Names::new(&settings.cluster, node.incarnation);
    let mut child = Command::new(python)
        .arg(PROGRAM)
        .args([engine.url(), theirs.name(ALL), theirs.name(theirs.own()), ours.name(ours.own())])
        .args([other.to_string(), node.incarnation.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let (said, mut says) = unbounded_channel();
    let reader = thread::spawn(move || lines.for_each(|line| drop(said.send(line.unwrap()))));
    let mut next =
        async || timeout(PATIENCE, says.recv()).await.expect("it goes on").expect("it did not fail");
    assert_eq!(next().await, "listening");
    // Envelopes behind each other may come in one message or in several.
    for envelope in ["to all", "", "ä"] {
        broker.send(To::All, &Arc::from(envelope.as_bytes())).unwrap();
    }
    broker.send(To::One(other), &Arc::from(&b"to one"[..])).unwrap();
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(next().await);
    }
    heard.sort();
    assert_eq!(heard, ["all ", "all 746f20616c6c", "all c3a4", "one 746f206f6e65"]);
    let expected = [&b"from Python to all"[..], b"and one more", b"from Python to one"].map(<[u8]>::to_vec);
    let mut envelopes = recorder.until_envelopes(3).await;
    envelopes.sort_by_key(|envelope| expected.iter().position(|expected| expected == envelope));
    assert_eq!(envelopes, expected);
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
}
