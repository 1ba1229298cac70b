//! Nodes that are emptied, by a signal and by the command, while clients and senders go on.

use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::client::{Client, to_user};
use crate::processes::{TestCluster, eventually};
use crate::support::PATIENCE;
use crate::support::http::call;
use crate::support::program::tieline;

/// Clients of the node that is emptied.
const CLIENTS: usize = 30;

/// How long the tests give a node.
const DRAIN: (&str, &str) = ("TIELINE_TIMES_DRAIN", "6s");

/// Reads all that is sent to a user until its end, and goes where it is told. Returns the numbers that came.
fn follow(mut client: Client, user: &str, next: std::net::SocketAddr) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut moved: Option<Client> = None;
    loop {
        let Some(frame) = client.next_within(PATIENCE) else { panic!("{user} hears nothing any more") };
        match (frame["type"].as_str(), frame["event"].as_str()) {
            (Some("message"), _) => match frame["data"].as_u64() {
                Some(number) => numbers.push(number),
                None => return numbers,
            },
            (_, Some("reconnect")) => {
                let query = format!("user={user}&replaces={}", client.id);
                moved = Some(Client::enter(next, "h", &query).unwrap());
            }
            (_, Some("disconnected")) => {}
            (Some("close"), _) => {
                assert_eq!(frame["code"], 1000, "it has another connection");
                client = moved.take().expect("it was told before");
            }
            _ => panic!("{frame}"),
        }
    }
}

#[test]
fn a_node_that_is_stopped_sends_its_clients_to_the_others_and_no_message_is_lost() {
    let mut cluster = TestCluster::start_with(3, &[], &[DRAIN]);
    let (next, first) = (cluster.nodes[1].address, cluster.nodes[0].address);
    let stop = AtomicBool::new(false);
    let user = |n: usize| format!("u{n}");
    let clients: Vec<Client> = (0..CLIENTS).map(|n| cluster.nodes[0].connect("h", &user(n))).collect();
    let mut sender = cluster.nodes[2].connect("h", "sender");
    let (sent, got) = thread::scope(|scope| {
        let readers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(n, client)| scope.spawn(move || follow(client, &user(n), next)))
            .collect();
        let stop = &stop;
        let writer = scope.spawn(move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                for n in 0..CLIENTS {
                    let ack = sender.ask(to_user(&user(n), sent));
                    assert_eq!((&ack["success"], &ack["unknown"]), (&json!(true), &json!(0)), "{ack}");
                }
                sent += 1;
            }
            for n in 0..CLIENTS {
                sender.ask(to_user(&user(n), "end"));
            }
            sent
        });
        let began = Instant::now();
        cluster.nodes[0].signal(Signal::SIGTERM);
        eventually("it says that it is being emptied", || {
            let answer = call(first, "GET", "/readyz", "", "");
            answer.status == 503 && answer.body.contains("\"draining\"")
        });
        let refused = call(
            first,
            "GET",
            "/client/hubs/h?user=new",
            "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tieline.v1\r\n",
            "",
        );
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(cluster.nodes[0].exit_code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(12), "it took {:?}", began.elapsed());
        stop.store(true, Ordering::Relaxed);
        let sent: u64 = writer.join().unwrap();
        (sent, readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>())
    });
    for (n, mut numbers) in got.into_iter().enumerate() {
        // While it has two connections it may get a message on both.
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "u{n}");
    }
    assert!(cluster.nodes[1].reaches() == ["n1", "n2"], "it said goodbye");
}

#[test]
fn a_second_signal_hurries() {
    let mut cluster = TestCluster::start_with(2, &[], &[("TIELINE_TIMES_DRAIN", "1h")]);
    let mut deaf = cluster.nodes[0].connect("h", "deaf");
    cluster.nodes[0].signal(Signal::SIGTERM);
    cluster.nodes[0].wait_for_log("is being emptied");
    cluster.nodes[0].signal(Signal::SIGTERM);
    assert_eq!(cluster.nodes[0].exit_code(), Some(0));
    let mut last = deaf.next();
    while last["type"] != "close" {
        last = deaf.next();
    }
    assert_eq!(last["code"], 1001);
}

#[test]
fn the_command_empties_a_node_by_way_of_another_and_says_how_far_it_is() {
    let mut cluster = TestCluster::start_with(2, &[], &[DRAIN]);
    let url = format!("http://{}", cluster.nodes[1].address);
    let drain = |node: &str| {
        let mut command = tieline(&["drain", "--url", &url, "--node", node]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    };
    let (code, said) = drain("nobody");
    assert_eq!(code, Some(1));
    assert!(said.contains("404") && said.contains("no node of this name"), "{said}");
    let user = cluster.nodes[0].connect("h", "anna");
    let next = cluster.nodes[1].address;
    let reader = thread::spawn(move || follow(user, "anna", next));
    let (code, said) = drain("n0");
    assert_eq!(code, Some(0), "{said}");
    for line in ["n0 is being emptied.", "n0 is gone."] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(cluster.nodes[0].exit_code(), Some(0));
    let mut sender = cluster.nodes[1].connect("h", "sender");
    sender.ask(to_user("anna", "end"));
    assert_eq!(reader.join().unwrap(), [] as [u64; 0]);
}
