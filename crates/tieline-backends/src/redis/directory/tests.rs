//! The directory against real servers: the suite, outages, what is left on the server, and two clusters on one.

use tieline_core::broker::MemoryExchange;
use tieline_core::directory::Directory;
use xtask::Engine;

use super::*;
use crate::conformance::directory as suite;
use crate::conformance::private;
use crate::directory::tests::{Shelf, found, hub, meet, until, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_links() {
    let engine = Engine::redis().start().unwrap();
    suite::suite_of(&Shelf::redis(&engine), MemoryExchange::links).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_a_medium() {
    let engine = Engine::redis().start().unwrap();
    suite::suite_of(&Shelf::redis(&engine), MemoryExchange::medium).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_its_server() {
    if private::is_private("TIELINE_TEST_REDIS", "the Redis directory", "outages") {
        let mut server = Engine::redis().start().unwrap();
        let shelf = Shelf::redis(&server);
        suite::outlives_its_server(&MemoryExchange::links(), &shelf, &mut server).await;
    }
}

/// Has a server run one command, by a connection of its own, and gives what it answers as texts.
async fn command(url: &str, words: &[&[u8]]) -> Vec<String> {
    let dialler = Arc::new(Dialler::new(RedisAddress::parse(url).unwrap(), "tests".to_owned()).unwrap());
    let (mut link, greetings) = Link::connect(&dialler).await.unwrap();
    link.say(words);
    link.send().await.unwrap();
    for _ in 0..greetings {
        link.grant(|_| ()).await.unwrap();
    }
    let text = |answer: &resp::Answer<'_>| match answer {
        resp::Answer::Text(text) => String::from_utf8_lossy(text).into_owned(),
        resp::Answer::Number(number) => number.to_string(),
        _ => String::new(),
    };
    link.grant(|answer| match answer {
        resp::Answer::Many(all) => all.iter().map(text).collect(),
        one => vec![text(one)],
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_dead_node_is_left_after_its_lease() {
    let engine = Engine::redis().start().unwrap();
    let shelf = Shelf::redis(&engine);
    let node = shelf.open_one(7, Duration::from_secs(4)).await;
    for n in 0..50 {
        node.asked().claim(&hub(), &user(&format!("u{n}")));
    }
    let pattern = format!("tieline:{}:directory*", shelf.cluster);
    let users = format!("tieline:{}:directory/users/{:016x}", shelf.cluster, 7);
    until("all users to be there", async || {
        command(engine.url(), &[b"HLEN", users.as_bytes()]).await == ["51"]
    })
    .await;
    // It is gone without a word, as a killed one is.
    drop(node);
    assert_eq!(command(engine.url(), &[b"EXISTS", users.as_bytes()]).await, ["1"]);
    until("nothing to be left", async || {
        command(engine.url(), &[b"KEYS", pattern.as_bytes()]).await.is_empty()
    })
    .await;
    // Who says goodbye leaves nothing at once.
    let node = shelf.open_one(8, Duration::from_secs(600)).await;
    node.asked().claim(&hub(), &user("u"));
    node.close().await;
    assert!(command(engine.url(), &[b"KEYS", pattern.as_bytes()]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_on_one_server_do_not_meet() {
    let engine = Engine::redis().start().unwrap();
    let (one, other) = (Shelf::redis(&engine), Shelf::redis(&engine));
    let lease = Duration::from_secs(600);
    let nodes = [one.open_one(1, lease).await, one.open_one(2, lease).await, other.open_one(3, lease).await];
    meet(&nodes[0], &[2]);
    meet(&nodes[1], &[1]);
    nodes[0].asked().claim(&hub(), &user("u"));
    nodes[2].asked().claim(&hub(), &user("u"));
    until("the claim to be found", async || found(&nodes[1], "u").await == [1]).await;
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_emptied_is_made_anew() {
    let engine = Engine::redis().start().unwrap();
    let shelf = Shelf::redis(&engine);
    // The server runs on.
    let lose = async || drop(command(engine.url(), &[b"FLUSHALL"]).await);
    suite::a_lost_table_is_made_anew(&MemoryExchange::links(), &shelf, lose).await;
}

#[tokio::test]
async fn a_beginning_without_a_server_says_why() {
    let settings =
        RedisDirectorySettings::new(RedisAddress::parse("redis://:hush@127.0.0.1:1").unwrap(), "c");
    let Err(error) = settings.open(Incarnation(1)).await else { panic!("nobody is there") };
    let error = error.to_string();
    assert!(
        error.contains("127.0.0.1:1") && error.contains("cannot connect") && !error.contains("hush"),
        "{error}"
    );
}
