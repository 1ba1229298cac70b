//! One picture and a clock, held against a model; and what one cannot see from outside.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const USERS: usize = 3;
const NODES: u64 = 3;
const GRACE: Duration = Duration::from_secs(10);

fn node(n: u64) -> NodeId {
    NodeId { name: NodeName::new(&format!("n{n}")).unwrap(), incarnation: Incarnation(n) }
}

fn room() -> Room {
    Room { hub: HubName::new("hub").unwrap(), group: GroupName::new("room").ok() }
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

fn device(name: &str) -> Option<Details> {
    Details::new(Some(name), None).unwrap()
}

fn picture() -> Picture {
    let mut picture = Picture::new(node(1), GRACE);
    (2..=NODES).for_each(|n| picture.meet(&node(n)));
    picture
}

fn stated(visit: u64, connections: u64) -> Option<u64> {
    Some(Stay { visit, connections }.number())
}

/// The events of the only room, in words.
fn heard(picture: &mut Picture, now: Instant) -> Vec<String> {
    picture.pass(now);
    let news = picture.drain();
    let told = news.iter().flat_map(|news| &news.told);
    told.map(|told| format!("{} {} {}", told.event.turn.name(), &*told.event.user, told.event.node)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    /// A connection of a user comes to this node.
    Enter(usize),
    Exit(usize),
    /// Another node states how many it has.
    State(u64, usize, u64),
    /// So many seconds pass.
    Pass(u64),
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..USERS).prop_map(Step::Enter),
        3 => (0..USERS).prop_map(Step::Exit),
        4 => (2..=NODES, 0..USERS, 0u64..3).prop_map(|(n, of, count)| Step::State(n, of, count)),
        4 => (1u64..12).prop_map(Step::Pass),
        4 => Just(Step::Drain),
    ];
    proptest::collection::vec(step, 0..100)
}

proptest! {
    #[test]
    fn a_user_is_there_from_the_first_connection_until_grace_is_over_after_the_last(steps in steps()) {
        let start = Instant::now();
        let (mut picture, mut now) = (picture(), start);
        // Of each user the connections by node, and since when there are none.
        let mut counts: [BTreeMap<u64, u64>; USERS] = Default::default();
        let mut gone: [Option<Instant>; USERS] = [None; USERS];
        let mut is_told = [false; USERS];
        for step in steps {
            match step {
                Step::Enter(n) => {
                    *counts[n].entry(1).or_default() += 1;
                    let number = picture.enter(&room(), Some(&user(n)), None, 5);
                    prop_assert_eq!(Stay::of(number).connections, counts[n][&1]);
                }
                Step::Exit(n) => {
                    let Some(count) = counts[n].get_mut(&1).filter(|count| **count > 0) else { continue };
                    *count -= 1;
                    let number = picture.exit(&room(), Some(&user(n)), None, now);
                    prop_assert_eq!(number.map_or(0, |number| Stay::of(number).connections), *count);
                }
                Step::State(from, n, count) => {
                    if count > 0 || !counts[n].is_empty() {
                        counts[n].insert(from, count);
                    }
                    let number = stated(7, count).filter(|_| count > 0);
                    picture.stated(&room(), Some(&user(n)), None, Incarnation(from), number, now);
                }
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
                Step::Drain => {}
            }
            picture.pass(now);
            for n in 0..USERS {
                match counts[n].values().sum::<u64>() {
                    0 if !counts[n].is_empty() => gone[n] = gone[n].or(Some(now)),
                    _ => gone[n] = None,
                }
            }
            for n in 0..USERS {
                // Who is not there any more begins anew.
                if gone[n].is_some_and(|at| now >= at + GRACE) {
                    counts[n].clear();
                }
            }
            let is_there = |n: usize| !counts[n].is_empty();
            let page = picture.page(&room(), None, 100, usize::MAX);
            let there: Vec<UserId> = (0..USERS).filter(|n| is_there(*n)).map(user).collect();
            let shown: Vec<UserId> = page.users.iter().map(|person| person.user.clone()).collect();
            prop_assert_eq!(&shown, &there);
            prop_assert_eq!(picture.users(), there.len());
            let all: u64 = counts.iter().flat_map(BTreeMap::values).sum();
            prop_assert_eq!(page.totals.connections, all);
            if matches!(step, Step::Drain) {
                let mut left: Vec<usize> = (0..USERS).filter(|n| is_told[*n] != is_there(*n)).collect();
                for told in picture.drain().into_iter().flat_map(|news| news.told) {
                    let n = (0..USERS).find(|n| user(*n) == told.event.user).unwrap();
                    prop_assert!(left.contains(&n), "{:?} is no news", told);
                    left.retain(|of| *of != n);
                    prop_assert_eq!(told.event.turn == Turn::Join, is_there(n));
                    is_told[n] = is_there(n);
                }
                prop_assert!(left.is_empty(), "{:?} was not told of", left);
            }
        }
        // When all is over nothing is kept.
        for n in 0..USERS {
            for from in 2..=NODES {
                picture.stated(&room(), Some(&user(n)), None, Incarnation(from), None, now);
            }
            while picture.exit(&room(), Some(&user(n)), None, now).is_some() {}
        }
        picture.pass(now + GRACE);
        picture.drain();
        prop_assert!(picture.rooms.is_empty() && picture.absent.is_empty() && picture.users == 0);
    }
}

#[test]
fn who_comes_back_in_time_never_left() {
    let (mut picture, now) = (picture(), Instant::now());
    picture.enter(&room(), Some(&user(0)), None, 5);
    assert_eq!(heard(&mut picture, now), ["join u0 n1"]);
    picture.exit(&room(), Some(&user(0)), None, now);
    let almost = now + GRACE - Duration::from_millis(1);
    assert!(heard(&mut picture, almost).is_empty());
    picture.stated(&room(), Some(&user(0)), None, Incarnation(2), stated(9, 1), almost);
    assert!(heard(&mut picture, now + GRACE * 3).is_empty());
    // Also in the moment between the end of its grace and the word of it.
    picture.stated(&room(), Some(&user(0)), None, Incarnation(2), None, now);
    picture.pass(now + GRACE);
    picture.enter(&room(), Some(&user(0)), None, 99);
    assert!(heard(&mut picture, now + GRACE).is_empty());
    picture.exit(&room(), Some(&user(0)), None, now + GRACE);
    assert_eq!(picture.next(), Some(now + GRACE * 2));
    picture.pass(now + GRACE * 2);
    let told = picture.drain().remove(0).told.remove(0);
    assert_eq!((told.event.turn, told.visit), (Turn::Leave, 5), "it was one visit");
    assert_eq!(told.teller, node(1));
}

#[test]
fn of_two_nodes_that_see_a_user_come_at_once_the_first_tells() {
    for (theirs, teller) in [(4, 2), (6, 1)] {
        let (mut picture, now) = (picture(), Instant::now());
        picture.enter(&room(), Some(&user(0)), None, 5);
        picture.stated(&room(), Some(&user(0)), None, Incarnation(2), stated(theirs, 1), now);
        let told = picture.drain().remove(0).told.remove(0);
        assert_eq!((told.teller, told.visit), (node(teller), theirs.min(5)));
        // What is stated from now on belongs to the same visit.
        let number = picture.enter(&room(), Some(&user(0)), None, 50);
        assert_eq!(Stay::of(number), Stay { visit: theirs.min(5), connections: 2 });
    }
}

#[test]
fn devices_are_places_and_pages_are_cut_by_users_and_bytes() {
    let (mut picture, now) = (picture(), Instant::now());
    picture.enter(&room(), Some(&user(0)), device("phone").as_ref(), 1);
    picture.enter(&room(), Some(&user(0)), device("laptop").as_ref(), 1);
    picture.stated(&room(), Some(&user(0)), device("phone").as_ref(), Incarnation(2), stated(1, 3), now);
    picture.stated(&room(), Some(&user(2)), None, Incarnation(3), stated(1, 1), now);
    picture.stated(&room(), None, None, Incarnation(3), Some(70_000), now);
    let page = picture.page(&room(), None, 1, usize::MAX);
    assert_eq!(page.totals, Totals { users: 2, connections: 70_006, anonymous: 70_000 });
    assert_eq!((page.users.len(), page.users[0].places.len(), page.next), (1, 3, Some(user(0))));
    let page = picture.page(&room(), Some("u0"), 1, usize::MAX);
    assert_eq!((page.users[0].user.clone(), page.next), (user(2), None));
    assert_eq!(page.users[0].places[0].node, node(3).name);
    assert_eq!(picture.page(&room(), None, 10, 1).users.len(), 1, "one that is too large is given alone");
    assert_eq!(picture.page(&room(), None, 0, 100).users.len(), 0);
    let other = Room { hub: HubName::new("other").unwrap(), ..room() };
    assert_eq!(picture.page(&other, None, 10, usize::MAX), Page::default());
}

#[test]
fn ten_thousand_users_are_read_in_pages_while_others_come_and_go() {
    let (mut picture, now) = (picture(), Instant::now());
    let name = |n: usize| UserId::new(&format!("user-{n:05}")).unwrap();
    for n in 0..10_000 {
        picture.stated(&room(), Some(&name(n)), None, Incarnation(2), stated(1, 1), now);
    }
    let (mut seen, mut after) = (Vec::new(), None::<UserId>);
    loop {
        let page = picture.page(&room(), after.as_deref(), 500, 16 << 10);
        assert!(page.users.len() <= 500 && page.users.len() > 50);
        seen.extend(page.users.into_iter().map(|person| person.user));
        let Some(next) = page.next else { break };
        // Who comes before the page or behind it moves nobody else.
        picture.enter(&room(), Some(&user(seen.len())), None, 1);
        after = Some(next);
    }
    let stayed = seen.iter().filter(|user| user.starts_with("user-"));
    assert!(stayed.eq((0..10_000).map(name).collect::<Vec<_>>().iter()));
}
