//! Users of nodes that are processes, found by each directory: wherever they are, after they have moved, when a node was killed, and while
//! the server that knows of them is away.

use std::time::Duration;

use serde_json::json;
use xtask::{Engine, left_out};

use crate::client::{Client, assert_ack, to_user};
use crate::processes::{TestCluster, eventually, eventually_within};

/// A lease, a beat, and some time for a busy machine.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(30);

/// Three nodes with two users each, and a sender at each.
struct Town {
    cluster: TestCluster,
    users: Vec<Client>,
    senders: Vec<Client>,
    /// What was sent last.
    number: u64,
}

impl Town {
    fn build(directory: &str) -> Town {
        let cluster = TestCluster::start_with(3, &["--directory", directory], &[]);
        let users =
            (0..6).map(|user| cluster.nodes[user % 3].connect("h", &format!("user-{user}"))).collect();
        let senders = cluster.nodes.iter().map(|node| node.connect("h", "sender")).collect();
        Town { cluster, users, senders, number: 0 }
    }

    /// Each sender reaches each user that is left, once, and knows it.
    fn all_are_found(&mut self) {
        for sender in &mut self.senders {
            for (user, client) in self.users.iter_mut().enumerate() {
                self.number += 1;
                let name = format!("user-{user}");
                assert_ack(&sender.ask(to_user(&name, self.number)), 1, 0);
                assert_eq!(client.next_data(), json!(self.number), "{name}");
            }
        }
    }

    /// A user is at another node from now on, and found there by all at once.
    fn move_on(&mut self, user: usize, to: usize) {
        self.users[user] = self.cluster.nodes[to].connect("h", &format!("user-{user}"));
        let (sender, number) = (&mut self.senders[0], &mut self.number);
        // The former connection may be there for a moment.
        eventually("the former connection is gone", || {
            *number += 1;
            let ack = sender.ask(to_user(&format!("user-{user}"), *number));
            ack["delivered"] == 1
        });
        while self.users[user].next_data() != json!(self.number) {}
    }
}

fn finds_users(directory: &str) -> Town {
    let mut town = Town::build(directory);
    town.all_are_found();
    for user in 0..3 {
        town.move_on(user, (user + 1) % 3);
    }
    town.all_are_found();
    // Nobody answers for the users of a node that was killed, once that is known.
    town.cluster.kill(2);
    town.senders.pop();
    let gone: Vec<usize> = vec![1, 5];
    let sender = &mut town.senders[0];
    for user in &gone {
        let name = format!("user-{user}");
        eventually_within(FORGOTTEN_WITHIN, "its users are unknown", || {
            let ack = sender.ask(to_user(&name, "nobody hears it"));
            ack["delivered"] == 0 && ack["unknown"] == 1
        });
    }
    for user in gone {
        town.users[user] = town.cluster.nodes[0].connect("h", &format!("user-{user}"));
    }
    town.all_are_found();
    town
}

#[test]
fn users_are_found_by_the_ring() {
    finds_users("ring");
}

#[test]
fn users_are_found_by_a_table_on_redis_and_while_that_is_away() {
    if std::env::var_os("TIELINE_TEST_REDIS").is_some() {
        left_out("users in a table on Redis", "TIELINE_TEST_REDIS names a server that was not started here");
        return;
    }
    by_a_table_and_while_that_is_away(Engine::redis().start().unwrap());
}

#[cfg(feature = "hazelcast")]
#[test]
fn users_are_found_by_a_map_of_hazelcast_and_while_that_is_away() {
    if std::env::var_os("TIELINE_TEST_HAZELCAST").is_some() {
        left_out(
            "users in a map of Hazelcast",
            "TIELINE_TEST_HAZELCAST names members that were not started here",
        );
        return;
    }
    by_a_table_and_while_that_is_away(Engine::hazelcast().start().unwrap());
}

fn by_a_table_and_while_that_is_away(mut server: Engine) {
    let mut town = finds_users(server.url());
    server.kill().unwrap();
    let is_up = |town: &Town| (0..2).all(|node| town.cluster.nodes[node].metric("tieline_directory_up") == 1);
    town.all_are_found();
    town.move_on(3, 1);
    town.all_are_found();
    eventually("it is said that the directory is away", || {
        (0..2).all(|node| town.cluster.nodes[node].metric("tieline_directory_up") == 0)
    });
    server.restart().unwrap();
    eventually("the directory is back", || is_up(&town));
    town.move_on(4, 0);
    town.all_are_found();
}
