//! The REST API of one node for connections of another.

use serde_json::{Value, json};

use crate::client::{Client, assert_ack, to_group};
use crate::processes::TestCluster;
use crate::support::http::post_json;

#[test]
fn any_node_answers_for_connections_of_every_other() {
    let cluster = TestCluster::start(3);
    let rest = &cluster.nodes[0];
    let mut anna = cluster.nodes[1].connect("h", "anna");
    let mut ben = cluster.nodes[2].connect("h", "ben");
    let mut elsewhere = cluster.nodes[1].connect("other", "anna");

    // Who is there.
    for path in ["/users/anna", "/users/ben", &format!("/connections/{}", anna.id)] {
        assert_eq!(rest.call("HEAD", path).status, 200, "{path}");
    }
    for path in ["/users/elsewhere", &format!("/connections/{}", elsewhere.id), "/groups/room"] {
        assert_eq!(rest.call("HEAD", path).status, 404, "{path}");
    }

    // To a user, a connection, everybody.
    assert_eq!(rest.post("/users/anna/:send", &json!(1)).status, 202);
    expect(&mut anna, 1);
    assert_eq!(rest.post(&format!("/connections/{}/:send", ben.id), &json!(2)).status, 202);
    expect(&mut ben, 2);
    assert_eq!(rest.post("/:send", &json!(3)).status, 202);
    expect(&mut anna, 3);
    expect(&mut ben, 3);
    assert_eq!(rest.post(&format!("/:send?excluded={}", anna.id), &json!(4)).status, 202);
    expect(&mut ben, 4);
    assert_eq!(rest.post("/:send?filter=userId%20eq%20'anna'", &json!(5)).status, 202);
    expect(&mut anna, 5);

    // Into groups and out of them; from the answer on it holds for every node.
    assert_eq!(rest.call("PUT", &format!("/groups/room/connections/{}", anna.id)).status, 200);
    assert_eq!(rest.call("PUT", "/users/ben/groups/room").status, 200);
    assert_eq!(rest.call("HEAD", "/groups/room").status, 200);
    for (number, node) in (6..).zip(&cluster.nodes) {
        assert_eq!(node.post("/groups/room/:send", &json!(number)).status, 202);
        expect(&mut anna, number);
        expect(&mut ben, number);
    }
    let members = rest.call("GET", "/groups/room/connections").json();
    let mut ids: Vec<_> =
        members["value"].as_array().unwrap().iter().map(|member| member["connectionId"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    let mut due = [json!(anna.id), json!(ben.id)];
    due.sort_by_key(Value::to_string);
    assert_eq!(ids, due, "{members}");
    assert_eq!(rest.call("DELETE", &format!("/groups/room/connections/{}", anna.id)).status, 204);
    assert_ack(&anna.ask(to_group("room", 9)), 1, 0);
    expect_from(&mut ben, 9);
    assert_eq!(rest.call("DELETE", "/users/ben/groups/room").status, 204);
    assert_ack(&anna.ask(to_group("room", 10)), 0, 0);

    // Nobody of another hub has heard of it, nobody has heard anything twice.
    for client in [&mut anna, &mut ben, &mut elsewhere] {
        client.expect_nothing();
    }

    // To many at once, with what became of it.
    let body =
        json!({"to": {"users": ["anna", "nobody"], "connections": [ben.id]}, "dataType": "json", "data": 11});
    let answer = post_json(rest.address, "/api/v1/hubs/h/:send", &body.to_string());
    assert_eq!(answer.status, 200);
    let became = answer.json();
    let counts = ["delivered", "queued", "unknown"].map(|key| &became[key]);
    assert_eq!(counts, [&json!(2), &json!(0), &json!(1)], "{became}");
    expect(&mut anna, 11);
    expect(&mut ben, 11);

    // Closing: the connection is told why, and is gone everywhere.
    assert_eq!(rest.call("DELETE", &format!("/connections/{}?reason=enough", anna.id)).status, 204);
    let told = anna.next();
    assert_eq!((&told["event"], &told["message"]), (&json!("disconnected"), &json!("enough")), "{told}");
    assert_eq!(anna.next(), json!({"type": "close", "code": 4403}));
    assert_eq!(rest.call("POST", "/users/ben/:closeConnections").status, 204);
    assert_eq!(ben.next()["event"], "disconnected");
    assert_eq!(ben.next(), json!({"type": "close", "code": 4403}));
    for node in &cluster.nodes {
        for path in ["/users/anna", "/users/ben", &format!("/connections/{}", anna.id)] {
            assert_eq!(node.call("HEAD", path).status, 404, "{path} at {}", node.name);
        }
    }
    elsewhere.expect_nothing();
}

/// The next frame must be the server's message with this number.
fn expect(client: &mut Client, number: u64) {
    let message = client.next();
    assert!(message["fromUserId"].is_null(), "{message}");
    assert_eq!(message["data"], number, "{message}");
}

/// The next frame must be anna's message with this number.
fn expect_from(client: &mut Client, number: u64) {
    let message = client.next();
    assert_eq!((&message["fromUserId"], &message["data"]), (&json!("anna"), &json!(number)), "{message}");
}
