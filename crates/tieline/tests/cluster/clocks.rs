//! A clock that leaps by an hour, forward and back, at one node of two: nothing that is kept is lost, given twice or out of order,
//! nobody is taken for dead, and tokens are judged by the clock of the node that they are shown to.

use serde_json::{Value, json};
use tieline_core::token::{Grant, Keys};
use tieline_core::unix_ms;
use tieline_proto::{HubName, UserId};
use xtask::clock::Clock;
use xtask::engine::redis::ask;
use xtask::{Engine, left_out};

use crate::client::{Client, to_group, to_user};
use crate::keepers::{Folder, command, join_since};
use crate::processes::{Process, eventually};
use crate::registries;

const KEY: &str = "a key of the cluster under test";

const HOUR: i32 = 3600;

/// The code that a connection is closed with whose token has expired.
const TOKEN_EXPIRED: u16 = 4401;

/// Messages of each of two senders between two leaps.
const EACH: usize = 20;

/// Connects by a token that lasts so many minutes, by the right time.
fn connect(node: &Process, user: &str, minutes: u64) -> Result<Client, u16> {
    let grant = Grant {
        endpoint: "http://h".into(),
        hub: HubName::new("h").unwrap(),
        user: Some(UserId::new(user).unwrap()),
        roles: ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup", "tieline.sendToUser"]
            .map(String::from)
            .into(),
        groups: vec![],
        presence: None,
        lifetime: 60 * minutes,
    };
    let token = Keys::new([KEY]).sign_client(&grant, unix_ms() / 1000).unwrap();
    Client::enter(node.address, "h", &format!("access_token={token}")).map_err(|answer| answer.status)
}

/// Has a message taken.
fn send(client: &mut Client, frame: Value) {
    let ack = client.ask(frame);
    assert_eq!(ack["success"], true, "{ack}");
}

#[test]
fn a_clock_that_leaps_by_an_hour_loses_nothing_and_nobody() {
    let clock = match Clock::new("leaps") {
        Ok(clock) => clock,
        Err(why) => return left_out("nodes whose clock leaps", &why),
    };
    let folder = Folder::new();
    let store = folder.store();
    let keyed = |name: &str, seed: Option<&Process>| {
        let mut command = command(name, &folder.rules(), &store, seed);
        command.args(["--access-key", KEY, "--admin-listen", "127.0.0.1:0"]);
        command
    };
    let mut leaping = keyed("leaping", None);
    clock.wear(&mut leaping);
    let leaping = Process::spawn("leaping", leaping);
    let steady = Process::spawn("steady", keyed("steady", Some(&leaping)));
    let nodes = [&leaping, &steady];
    let both = ["leaping", "steady"];
    eventually("the nodes reach each other", || nodes.iter().all(|node| node.reaches() == both));
    let enter = |node: &Process, user: &str| connect(node, user, 180).unwrap();
    let mut senders = [enter(&leaping, "anna"), enter(&steady, "ben")];
    let mut members = [enter(&leaping, "carol"), enter(&steady, "carol")];
    members.iter_mut().for_each(|member| member.join("kept"));
    let known = leaping.nodes();
    let (mut sent, mut heard, mut short) = (Vec::new(), 0, Vec::new());
    for (phase, hours) in [0, 1, 0, -1, 0].into_iter().enumerate() {
        clock.set(hours * HOUR).unwrap();
        // A token counts until it has expired by the clock of the node that judges it.
        match connect(&leaping, "short", 10) {
            Ok(client) => short.push(client),
            Err(status) => {
                assert_eq!((status, hours), (401, 1));
                // Who was let in before is closed.
                while let Some(mut client) = short.pop() {
                    let mut frames = std::iter::repeat_with(|| client.next());
                    let close = frames.find(|frame| frame["type"] == "close").expect("they never end");
                    assert_eq!(close["code"], TOKEN_EXPIRED);
                }
            }
        }
        assert!(hours != 1 || short.is_empty());
        assert!(connect(&steady, "short", 10).is_ok());
        for turn in 0..EACH {
            for (number, sender) in senders.iter_mut().enumerate() {
                let data = format!("{phase}-{turn}-{number}");
                send(sender, to_group("kept", &*data));
                send(sender, to_user("dora", &*data));
                sent.push(json!(data));
            }
        }
        // The same message is known again, whatever the clock said then and says now.
        for sender in &mut senders {
            let mut again = to_group("kept", "once");
            again["messageId"] = json!("once");
            send(sender, again);
        }
        if phase == 0 {
            sent.extend(["once", "once"].map(Value::from));
        }
        for member in &mut members {
            for (index, data) in sent.iter().enumerate().skip(heard) {
                let message = member.next();
                assert_eq!((&message["data"], &message["position"]["offset"]), (data, &json!(index + 1)));
            }
        }
        heard = sent.len();
        // Who lives is looked at all the time, and told by the beats.
        let before = nodes.map(|node| node.metric("tieline_envelopes_received_total"));
        for (node, before) in nodes.iter().zip(before).filter(|_| hours != 0) {
            eventually("the other node beats", || node.metric("tieline_envelopes_received_total") > before);
        }
        for node in nodes {
            assert_eq!((node.reaches(), node.nodes()), (both.map(String::from).to_vec(), known.clone()));
        }
    }
    let mut late = enter(&leaping, "late");
    let (missed, ack) = join_since(&mut late, 0, 0);
    assert_eq!(ack["recovered"], true, "{ack}");
    assert!(missed.iter().map(|message| &message["data"]).eq(&sent));
    // Who was away finds an inbox in the same order.
    let mut dora = enter(&steady, "dora");
    dora.send(&json!({"type": "hello"}));
    for data in sent.iter().filter(|data| *data != "once") {
        let message = dora.next();
        assert_eq!((&message["from"], &message["data"]), (&json!("user"), data), "{message}");
    }
    dora.expect_nothing();
}

/// A registry's leases run by the clock of its server, and what a node believes of it by none that leaps.
#[test]
fn a_clock_that_leaps_by_an_hour_leaves_everybody_registered() {
    let clock = match Clock::new("registered") {
        Ok(clock) => clock,
        Err(why) => return left_out("registered nodes whose clock leaps", &why),
    };
    let server = Engine::redis().start().unwrap();
    let mut leaping = registries::command("leaping", server.url());
    clock.wear(&mut leaping);
    let leaping = Process::spawn("leaping", leaping);
    let steady = Process::spawn("steady", registries::command("steady", server.url()));
    let nodes = [&leaping, &steady];
    let is_whole = || nodes.iter().all(|node| registries::registered(node) == 1 && node.reaches().len() == 2);
    eventually("the nodes find each other", is_whole);
    let (_, _, incarnation) = leaping.nodes().into_iter().find(|(name, ..)| name == "leaping").unwrap();
    let key = format!("tieline:test-{}:nodes", std::process::id());
    // Until when the lease runs, and what the node says.
    let lease = || ask(server.url(), &format!("HGET {key} leaping/{incarnation}")).unwrap();
    for hours in [1, -1, 0] {
        clock.set(hours * HOUR).unwrap();
        for _ in 0..2 {
            let before = lease();
            eventually("the lease is renewed", || {
                assert!(is_whole(), "somebody was lost");
                lease() != before
            });
        }
    }
}
