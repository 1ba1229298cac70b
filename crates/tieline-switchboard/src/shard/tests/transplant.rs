//! Connections that move between two shards: what both have comes once, in order, under numbers that go on.

use std::collections::HashSet;

use proptest::prelude::*;

use super::program::{Arrival, HELLO, Message, Session};
use super::world::{NUMBERING, ROOM, ROOMY, World, numbered};
use crate::*;

/// Puts a member of the room into a world, as if it had been cut there.
fn plant(world: &mut World) -> Slot {
    let slot = world.shard.plant(Session { id: 1_000, resumable: true }, numbered(0)).unwrap();
    assert!(world.shard.join(slot, ROOM));
    world.settle();
    slot
}

/// All frames of a connection, by pages of so many bytes.
fn pages(world: &World, slot: Slot, most: usize) -> Vec<Numbered> {
    let (base, end) = world.shard.held(slot).unwrap();
    let (mut from, mut all) = (base, Vec::new());
    loop {
        let (page, is_all) = world.shard.frames(slot, from, most);
        from += page.len() as u64;
        all.extend(page);
        if is_all {
            assert_eq!(from, end);
            return all;
        }
    }
}

fn frame(sequence: u64, number: u64, len: usize) -> Vec<u8> {
    let body = Message::new(number, len).body(0, true);
    [NUMBERING.0, sequence.to_string().as_bytes(), NUMBERING.1, &body].concat()
}

proptest! {
    /// `before` messages come while it is connected, of which it acknowledges some; then some come to the old place alone, some
    /// to both, and some to the new one alone.
    #[test]
    fn what_both_places_have_comes_once(
        sizes in proptest::collection::vec(prop_oneof![0usize..300, Just(40_000)], 1..40),
        cuts in proptest::collection::vec(0usize..40, 4),
        deflate in prop_oneof![Just(0u8), Just(12)],
        most in prop_oneof![Just(1usize), Just(1_000), Just(1 << 20)],
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (sizes.len() + 1)).collect();
        cuts.sort_unstable();
        let [acknowledged, before, both, after] = cuts[..] else { unreachable!("there are four") };
        let (mut old, mut new) = (World::new(Settings::default()), World::new(Settings::default()));
        let slot = old.member(numbered(deflate), ROOMY);
        for (number, len) in sizes[..before].iter().enumerate() {
            old.publish(number as u64, *len);
            old.flush_all();
        }
        old.shard.acknowledge(slot, acknowledged as u64);
        prop_assert!(old.shard.unplug(&mut old.program, slot));
        old.settle();
        let there = plant(&mut new);
        for (number, len) in sizes.iter().enumerate().skip(before) {
            if number < after {
                old.publish(number as u64, *len);
            }
            if number >= both {
                new.publish(number as u64, *len);
            }
        }
        let frames = pages(&old, slot, most);
        let known: HashSet<Mark> = frames.iter().map(|frame| frame.mark).collect();
        let (base, _) = old.shard.held(slot).unwrap();
        old.shard.close(slot, 1008, "gone");
        old.settle();
        prop_assert_eq!(old.shard.counters().detached, 0);
        new.shard.refill(there, base, &frames, &known);
        new.settle();
        // A client that got the last frame of its old socket without having acknowledged it may do so now.
        let resumed = new.arrive(numbered(deflate), ROOMY, Arrival::Resume(there));
        new.flush_all();
        let held = sizes.iter().enumerate().skip(acknowledged);
        let mut expected = vec![HELLO.to_vec()];
        expected.extend(held.map(|(number, len)| frame(number as u64 + 1, number as u64, *len)));
        prop_assert_eq!(new.payloads(resumed), expected);
        new.shard.acknowledge(resumed, sizes.len() as u64);
        new.settle();
        prop_assert_eq!(new.shard.lag(resumed), 0);
    }
}

#[test]
fn one_that_has_too_much_is_ended_and_one_that_nobody_resumes_too() {
    let mut world = World::new(Settings { max_lag: 1_000, ..Settings::default() });
    let slot = plant(&mut world);
    let frames = vec![Numbered { body: vec![b'a'; 2_000], mark: 1 }];
    world.shard.refill(slot, 1, &frames, &HashSet::new());
    world.settle();
    assert_eq!(world.closed(), [(1_000, Cause::Lag)]);
    let slot = plant(&mut world);
    assert!(world.shard.is_detached(slot));
    world.seconds(world.shard.settings().resume_window.as_secs() + 1);
    assert_eq!(world.closed().last(), Some(&(1_000, Cause::Expired)));
}
