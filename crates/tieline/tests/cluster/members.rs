//! Stored members of a group whose nodes are killed: who comes back to another node gets exactly what was missed.

use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::dialects::{Dialect, Heard, Speaker};
use crate::processes::{TestCluster, eventually, eventually_within};

/// How long a node that is killed may be believed to live, and more.
const FORGOTTEN: Duration = Duration::from_secs(40);

fn tell(cluster: &TestCluster, node: usize, number: u64) -> (u64, u64) {
    let body = json!({"to": {"groups": ["club"]}, "dataType": "json", "data": number});
    let node = &cluster.nodes[node];
    let answer = crate::support::http::post_json(node.address, "/api/v1/hubs/h/:send", &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    let count = |name: &str| answer.json()[name].as_u64().unwrap_or(u64::MAX);
    (count("delivered"), count("queued"))
}

#[test]
fn who_comes_back_to_another_node_after_a_kill_gets_what_was_missed_and_then_what_follows() {
    let folder = std::env::temp_dir().join(format!("tieline-members-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("tieline.toml");
    let store = format!("sqlite://{}", folder.join("s.db").display());
    let rules =
        format!("store = {store:?}\n[[group]]\nmatch = \"club*\"\nhistory = {{}}\nmembers = \"stored\"\n");
    std::fs::write(&config, rules).unwrap();
    let mut cluster = TestCluster::start_with(3, &["--config", config.to_str().unwrap()], &[]);
    // One is made a member by a back end before ever coming, two join by themselves at the node that dies.
    assert_eq!(cluster.nodes[1].call("PUT", "/users/offline/groups/club").status, 200);
    let mut ours = cluster.nodes[0].connect("h", "ours");
    let ack = ours.ask(json!({"type": "joinGroup", "group": "club"}));
    assert_eq!(ack["success"], true, "{ack}");
    let mut plain = Speaker::connect(cluster.nodes[0].address, Dialect::Plain, "h", "plain");
    plain.join("club");
    assert_eq!(tell(&cluster, 1, 1), (2, 1));
    let first = ours.next();
    assert_eq!((&first["data"], &first["position"]["offset"]), (&json!(1), &json!(1)));
    assert_eq!(plain.next(), Heard::Message(1));
    // Read, and told so: that is written within a second, which the second node sees.
    ours.send(&json!({"type": "groupAck", "group": "club", "offset": 1}));
    eventually("the place is written", || {
        let mut twin = cluster.nodes[1].connect("h", "ours");
        let ack = twin.send_acked(json!({"type": "joinGroup", "group": "club"}));
        twin.next()["ackId"] == ack
    });
    assert_eq!(tell(&cluster, 2, 2), (2, 1));
    cluster.kill(0);
    for node in &cluster.nodes[1..] {
        eventually_within(FORGOTTEN, "the killed node is forgotten", || node.nodes().len() == 2);
    }
    for number in [3, 4, 5] {
        assert_eq!(tell(&cluster, 2, number), (0, 3));
    }
    let data = |client: &mut Client| client.next()["data"].as_u64().unwrap();
    let mut ours = cluster.nodes[1].connect("h", "ours");
    let got: Vec<u64> = (0..4).map(|_| data(&mut ours)).collect();
    assert_eq!(got, [2, 3, 4, 5], "it had read the first");
    assert_eq!(tell(&cluster, 2, 6), (1, 2));
    assert_eq!(data(&mut ours), 6);
    let mut offline = cluster.nodes[2].connect("h", "offline");
    let got: Vec<u64> = (0..6).map(|_| data(&mut offline)).collect();
    assert_eq!(got, [1, 2, 3, 4, 5, 6], "it was never here");
    let mut plain = Speaker::connect(cluster.nodes[1].address, Dialect::Plain, "h", "plain");
    // Its pong to the first came, or not, before its node died.
    let first = plain.next();
    assert!([Heard::Message(1), Heard::Message(2)].contains(&first), "{first:?}");
    let Heard::Message(first) = first else { unreachable!() };
    for number in first + 1..=6 {
        assert_eq!(plain.next(), Heard::Message(number));
    }
    assert_eq!(tell(&cluster, 1, 7), (3, 0));
    assert_eq!((data(&mut ours), data(&mut offline), plain.next()), (7, 7, Heard::Message(7)));
    // Who leaves at one node is a member at none.
    assert_eq!(cluster.nodes[2].call("DELETE", "/users/ours/groups/club").status, 204);
    assert_eq!(tell(&cluster, 1, 8), (2, 0));
    std::fs::remove_dir_all(&folder).unwrap();
}
