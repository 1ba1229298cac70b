//! The directory against real members: the suite, outages, what is left in the map, lost maps, two members, two clusters on one, and
//! the official client.

use tieline_core::broker::MemoryExchange;
use tieline_core::directory::Directory;
use xtask::Engine;
use xtask::engine::hazelcast::Hazelcast;

use super::*;
use crate::conformance::directory as suite;
use crate::conformance::private::{self, nobody, stranger};
use crate::directory::tests::{Shelf, found, hub, meet, until, user};

mod official;

/// A client of a shelf's map, which is no node.
async fn map_of(shelf: &Shelf) -> Link {
    let address = HazelcastAddress::parse(&shelf.url).unwrap();
    let greeted = connection::greet(&address.members[0], &address, "tests", 1).await.unwrap();
    Link::new(greeted, &format!("tieline:{}:directory", topics::plain(&shelf.cluster)))
}

/// Whether the members are ours to hurt. If not, that is said.
fn is_private(test: &str) -> bool {
    private::is_private("TIELINE_TEST_HAZELCAST", "the Hazelcast directory", test)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let engine = Engine::hazelcast().start().unwrap();
    suite::suite_of(&Shelf::hazelcast(&engine), MemoryExchange::links).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_its_server() {
    if is_private("outages") {
        let mut server = Engine::hazelcast().start().unwrap();
        let shelf = Shelf::hazelcast(&server);
        suite::outlives_its_server(&MemoryExchange::links(), &shelf, &mut server).await;
    }
}

/// The text of an entry.
async fn text(map: &mut Link, key: &str) -> Option<String> {
    match map.ask(&[MapCall::Get(key)], ANSWER).await.unwrap().pop() {
        Some(Reply::Value(value)) => value.map(|value| read_text(&value).unwrap().to_owned()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_dead_node_is_left_soon_after_its_lease() {
    let engine = Engine::hazelcast().start().unwrap();
    let shelf = Shelf::hazelcast(&engine);
    let mut map = map_of(&shelf).await;
    let lease = Duration::from_secs(4);
    let [dead, lives] = [shelf.open_one(7, lease).await, shelf.open_one(8, lease).await];
    let keys: Vec<String> = (0..50).map(|n| format!("user/hub/u{n}")).collect();
    for n in 0..50 {
        dead.asked().claim(&hub(), &user(&format!("u{n}")));
    }
    lives.asked().claim(&hub(), &user("u0"));
    for key in &keys {
        until("all users to be there", async || {
            text(&mut map, key).await.is_some_and(|text| text.contains("0000000000000007."))
        })
        .await;
    }
    // It is gone without a word, as a killed one is.
    drop(dead);
    for key in &keys[1..] {
        until("nothing to be left", async || text(&mut map, key).await.is_none()).await;
    }
    until("the roll to have forgotten it", async || {
        text(&mut map, ROLL).await.is_some_and(|roll| !roll.contains("0000000000000007."))
    })
    .await;
    // What others hold as well is weeded by who changes it next.
    until("the dead one to be taken out", async || {
        lives.asked().claim(&hub(), &user("u0"));
        text(&mut map, &keys[0]).await.is_some_and(|text| !text.contains("0000000000000007."))
    })
    .await;
    // Who says goodbye leaves nothing at once.
    lives.close().await;
    assert_eq!((text(&mut map, &keys[0]).await, text(&mut map, ROLL).await), (None, None));
}

/// Of who holds or remembers a user together, the last one takes the entry along, however the others went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_those_who_went_one_after_the_other() {
    let engine = Engine::hazelcast().start().unwrap();
    let shelf = Shelf::hazelcast(&engine);
    let mut map = map_of(&shelf).await;
    for round in 0..5 {
        let lease = Duration::from_secs(if round == 0 { 4 } else { 600 });
        let mut nodes = Vec::new();
        for me in 1..=4 {
            nodes.push(shelf.open_one(round * 10 + me, lease).await);
        }
        for node in &nodes {
            node.asked().claim(&hub(), &user("u"));
        }
        until("all to hold the user", async || {
            text(&mut map, "user/hub/u").await.is_some_and(|text| text.split(' ').count() == 4)
        })
        .await;
        let [first, second, third, last] = <[_; 4]>::try_from(nodes).ok().unwrap();
        if round == 0 {
            // Gone without a word, and struck off the roll, before the next one goes.
            drop(first);
            let roll = async |map: &mut Link| text(map, ROLL).await.unwrap();
            until("the roll to have forgotten it", async || roll(&mut map).await.split(' ').count() == 4)
                .await;
            drop(second);
            until("the roll to have forgotten it", async || roll(&mut map).await.split(' ').count() == 3)
                .await;
        } else {
            first.close().await;
            second.close().await;
        }
        // At once, so that each may take the other for the last one.
        tokio::join!(third.close(), last.close());
        assert_eq!((text(&mut map, "user/hub/u").await, text(&mut map, ROLL).await), (None, None), "{round}");
    }
}

/// Members, whose regular expressions they are, keep the entries of those who are there, and of those who come after the roll was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_remove_the_entries_in_which_nobody_is_left() {
    let engine = Engine::hazelcast().start().unwrap();
    let mut map = map_of(&Shelf::hazelcast(&engine)).await;
    let stay = |node, number| Stay { node: Incarnation(node), number };
    let name = |node, number| stay(node, number).to_string();
    for next in [1, 9, 10, 11, 100, 105, 999, 1_000, 10_901, 1_763_834_000_123, 2_000_000_000_000, u64::MAX] {
        map.ask(&[MapCall::RemoveAll(".*")], ANSWER).await.unwrap();
        let (one, two) = (next / 2, next / 2 + 1);
        let roll = Roll::read(Some(&format!("{next} {} {}?", name(1, one), name(2, two))));
        let mut numbers = vec![0, next, next.saturating_mul(10)];
        for power in (0..20).map(|exponent| 10u64.pow(exponent)) {
            numbers.extend([next.saturating_add(power), next.saturating_sub(power), next / power]);
        }
        // Each with whether it is removed.
        let mut entries: Vec<(String, bool)> = vec![
            (LIVES.to_owned(), false),
            (roll.text().unwrap(), false),
            (format!("{}=7~", name(1, one)), true),
            (format!("{}=7 {}~", name(1, one), name(2, two)), false),
            (format!("{}~ {}=7", name(2, two), name(1, one)), false),
            (format!("{}=7 what is this=~", name(1, one)), false),
        ];
        for number in numbers {
            // Node 3 is not on the roll.
            let is_gone = number < next;
            entries.push((format!("{}~", name(3, number)), is_gone));
            entries.push((format!("{}=1 {}=2~", name(1, one), name(3, number)), is_gone));
            entries.push((format!("{}=1 {}=2", name(3, number), name(2, two)), false));
        }
        let keys: Vec<String> = (0..entries.len()).map(|at| format!("user/hub/{at}")).collect();
        let puts = keys.iter().zip(&entries).map(|(key, (text, _))| MapCall::PutIfAbsent(key, text));
        map.ask(&puts.collect::<Vec<_>>(), ANSWER).await.unwrap();
        let pattern = roll.entries_without(&[stay(1, one)]);
        map.ask(&[MapCall::RemoveAll(&pattern)], ANSWER).await.unwrap();
        for (key, (text, is_removed)) in keys.iter().zip(&entries) {
            let is_gone = self::text(&mut map, key).await.is_none();
            assert_eq!(is_gone, *is_removed, "{text:?} by {pattern}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_on_one_member_do_not_meet() {
    let engine = Engine::hazelcast().start().unwrap();
    let (one, other) = (Shelf::hazelcast(&engine), Shelf::hazelcast(&engine));
    let lease = Duration::from_secs(600);
    let nodes = [one.open_one(1, lease).await, one.open_one(2, lease).await, other.open_one(3, lease).await];
    meet(&nodes[1], &[1]);
    nodes[0].asked().claim(&hub(), &user("u"));
    nodes[2].asked().claim(&hub(), &user("u"));
    let mut maps = [map_of(&one).await, map_of(&other).await];
    for (map, node) in maps.iter_mut().zip([1, 3]) {
        until("the claim to be there", async || text(map, "user/hub/u").await.is_some()).await;
        let text = text(map, "user/hub/u").await.unwrap();
        assert!(text.starts_with(&format!("{node:016x}.")) && text.ends_with("=1"), "{text}");
    }
    assert_eq!(found(&nodes[1], "u").await, [1]);
    // What is no entry of a node is no harm, and does not stay.
    let garbage = MapCall::PutIfAbsent("user/hub/v", "what is this=~");
    maps[0].ask(&[garbage], ANSWER).await.unwrap();
    nodes[0].asked().claim(&hub(), &user("v"));
    until("the garbage to be gone", async || {
        text(&mut maps[0], "user/hub/v").await.is_some_and(|text| text.starts_with("0000000000000001."))
    })
    .await;
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_somebody_cleared_is_made_anew() {
    let engine = Engine::hazelcast().start().unwrap();
    let shelf = Shelf::hazelcast(&engine);
    let lose = async || {
        let mut map = map_of(&shelf).await;
        map.ask(&[MapCall::RemoveAll(".*")], ANSWER).await.unwrap();
    };
    suite::a_lost_table_is_made_anew(&MemoryExchange::links(), &shelf, lose).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_die_and_a_map_that_has_lost_a_part_is_made_whole() {
    if !is_private("dead members") {
        return;
    }
    let one = Engine::hazelcast().start().unwrap();
    let mut others = [0, 1].map(|_| Engine::of(Hazelcast::beside(one.url())).start().unwrap());
    let shelf = Shelf::hazelcast(&one);
    // Each entry is on two of three members, and so many of them are on the two that die alone.
    let lose = async || others.iter_mut().for_each(|member| member.kill().unwrap());
    suite::a_lost_table_is_made_anew(&MemoryExchange::links(), &shelf, lose).await;
}

/// What is wrong with members, found in time.
async fn trouble(url: &str) -> Trouble {
    let settings = HazelcastDirectorySettings::new(HazelcastAddress::parse(url).unwrap(), "c");
    let began = Instant::now();
    let Err(error) = settings.open(Incarnation(1)).await else { panic!("{url} is fine") };
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}: {error}", began.elapsed());
    assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    let HazelcastError::Server { trouble, .. } = error else { panic!("{error}") };
    trouble
}

#[tokio::test]
async fn a_beginning_that_cannot_be_says_why() {
    let nowhere = trouble(&format!("hazelcast://u:hush@{}", nobody())).await;
    assert!(matches!(nowhere, Trouble::Connect(_)), "{nowhere}");
    let silent = trouble(&format!("hazelcast://u:hush@{}", stranger(b""))).await;
    assert!(matches!(silent, Trouble::Silent), "{silent}");
    let garbage =
        trouble(&format!("hazelcast://u:hush@{}", stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n"))).await;
    assert!(matches!(garbage, Trouble::Garbage), "{garbage}");
    let engine = Engine::hazelcast().start().unwrap();
    let place = engine.url().split('?').next().unwrap();
    let other = trouble(&format!("{place}?cluster=other")).await;
    assert!(matches!(&other, Trouble::Login { cluster } if cluster == "other"), "{other}");
    let settings = HazelcastDirectorySettings::new(HazelcastAddress::parse(place).unwrap(), "");
    assert!(matches!(settings.open(Incarnation(1)).await, Err(HazelcastError::Cluster)));
}
