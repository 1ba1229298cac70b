//! The reliable protocol: numbers, acknowledgements, cuts at every byte, and the return.

use tieline_websocket::Kind;

use super::net::Got;
use super::program::{Arrival, HELLO, Message, Note};
use super::world::{NUMBERING, ROOM, ROOMY, World, numbered};
use crate::*;

/// The payload of a numbered frame.
fn frame(sequence: u64, number: u64, len: usize) -> Vec<u8> {
    let body = Message::new(number, len).body(0, true);
    [NUMBERING.0, sequence.to_string().as_bytes(), NUMBERING.1, &body].concat()
}

fn first_sequence(first_sequence: u64) -> Settings {
    Settings { first_sequence, ..Settings::default() }
}

#[test]
fn numbers_are_consecutive_for_each_connection() {
    let first = (7 << 32) + 1;
    for deflate in [0, 9, 15] {
        let mut world = World::new(first_sequence(first));
        let early = world.member(numbered(deflate), ROOMY);
        world.publish(0, 200);
        let late = world.member(numbered(deflate), ROOMY);
        world.publish(1, 200);
        world.publish(2, 40_000);
        world.shard.send(late, Kind::Text, |out| out.extend_from_slice(b"direct"));
        world.publish(3, 0);
        world.flush_all();
        let sizes = [200, 200, 40_000, 0];
        let all: Vec<_> = (0..4).map(|n| frame(first + n, n, sizes[n as usize])).collect();
        assert_eq!(world.payloads(early), all);
        let mut fewer: Vec<_> = (1..4).map(|n| frame(first + n - 1, n, sizes[n as usize])).collect();
        fewer.insert(2, b"direct".to_vec());
        assert_eq!(world.payloads(late), fewer);
    }
}

#[test]
fn a_cut_at_any_byte_loses_nothing() {
    let stream = {
        let mut world = World::new(Settings::default());
        let slot = world.member(numbered(0), ROOMY);
        (0..3).for_each(|number| assert_eq!(world.publish(number, 60), 1));
        world.flush_all();
        world.client(slot).taken
    };
    for at in 0..=stream {
        for deflate in [0, 12] {
            let mut world = World::new(Settings::default());
            let slot = world.member(numbered(0), at);
            world.publish(0, 60);
            world.flush_all();
            world.publish(1, 60);
            world.publish(2, 60);
            world.flush_all();
            world.client(slot).broken = true;
            world.lose(slot);
            assert!(world.shard.is_detached(slot));
            assert_eq!(world.publish(3, 60), 1, "it is still a member");
            assert_eq!(world.arrive(numbered(deflate), ROOMY, Arrival::Resume(slot)), slot);
            world.publish(4, 60);
            world.flush_all();
            let again = (0..5).map(|number| frame(number + 1, number, 60));
            let expected: Vec<_> = std::iter::once(HELLO.to_vec()).chain(again).collect();
            assert_eq!(world.payloads(slot), expected, "cut at {at}");
        }
    }
}

#[test]
fn what_was_acknowledged_is_not_sent_again() {
    let mut world = World::new(Settings::default());
    let slot = world.member(numbered(15), ROOMY);
    (0..6).for_each(|number| assert_eq!(world.publish(number, 300), 1));
    world.flush_all();
    assert_eq!(world.shard.last_sequence(slot), Some(6));
    for (sequence, last) in [(2, 2), (1, 2), (0, 2), (2, 2), (7, 2), (u64::MAX, 2), (3, 3)] {
        assert_eq!(world.shard.acknowledge(slot, sequence), Some(last), "{sequence}");
        world.settle();
    }
    world.lose(slot);
    world.arrive(numbered(9), 0, Arrival::Resume(slot));
    // It had four and five before the cut, and says so before they are sent again.
    world.shard.acknowledge(slot, 5);
    world.settle();
    world.shard.send(slot, Kind::Text, |out| out.extend_from_slice(b"before"));
    world.publish(6, 300);
    world.drain(slot, ROOMY);
    world.flush_all();
    let expected = [HELLO.to_vec(), frame(6, 5, 300), b"before".to_vec(), frame(7, 6, 300)];
    assert_eq!(world.payloads(slot), expected);
    world.shard.acknowledge(slot, 7);
    world.settle();
    assert_eq!(world.shard.connections[slot as usize].lag(), 0);
}

#[test]
fn a_replay_is_compressed_only_for_the_window_it_was_compressed_for() {
    for (now, expected) in [(15, [true, true]), (9, [false, true]), (0, [false, false])] {
        for len in [2_000, 40_000] {
            let mut world = World::new(Settings::default());
            let slot = world.member(numbered(15), ROOMY);
            world.publish(0, len);
            world.flush_all();
            assert_eq!(world.client(slot).compressed, [true]);
            world.lose(slot);
            world.arrive(numbered(now), ROOMY, Arrival::Resume(slot));
            world.publish(2, len);
            world.flush_all();
            assert_eq!(world.client(slot).compressed[1..], expected, "{now}");
            assert_eq!(world.payloads(slot)[1..], [frame(1, 0, len), frame(2, 2, len)]);
        }
    }
}

#[test]
fn of_two_sockets_the_newer_wins() {
    let mut world = World::new(Settings::default());
    let slot = world.member(numbered(0), 10);
    world.publish(0, 60);
    world.flush_all();
    let old = world.net.client(slot).unwrap();
    world.arrive(numbered(0), ROOMY, Arrival::Resume(slot));
    world.flush_all();
    assert!(world.net.clients[old].dropped);
    assert_eq!(world.payloads(slot), [HELLO.to_vec(), frame(1, 0, 60)]);
    let notes = [Note::Opened(0), Note::Resumed(0)];
    assert_eq!(world.program.notes, notes, "nothing was cut, nothing has ended");
    assert_eq!(world.shard.counters().resumed, 1);
}

#[test]
fn who_does_not_return_in_time_has_ended() {
    let mut world =
        World::new(Settings { resume_window: std::time::Duration::from_secs(5), ..Settings::default() });
    let slot = world.member(numbered(0), ROOMY);
    let address = world.shard.address(slot);
    world.publish(0, 60);
    world.lose(slot);
    world.seconds(4);
    assert_eq!(world.shard.find(address), Some(slot));
    assert_eq!(world.shard.counters().detached, 1);
    world.arrive(numbered(0), ROOMY, Arrival::Resume(slot));
    world.lose(slot);
    world.seconds(4);
    assert_eq!(world.closed(), [], "the second cut has a window of its own");
    world.seconds(1);
    assert_eq!(world.closed(), [(0, Cause::Expired)]);
    assert_eq!((world.shard.find(address), world.shard.group_len(ROOM)), (None, 0));
    assert_eq!(world.shard.counters().connections, 0);
}

#[test]
fn a_detached_connection_that_misses_too_much_has_ended() {
    let mut world = World::new(Settings { max_lag: 1_000, ..Settings::default() });
    let slot = world.member(numbered(0), ROOMY);
    world.lose(slot);
    while world.closed().is_empty() {
        world.publish(0, 100);
    }
    assert_eq!(world.closed(), [(0, Cause::Lag)]);
    // Whoever comes back for it is told so, in a slot of its own.
    let refused = world.arrive(numbered(0), ROOMY, Arrival::Resume(slot));
    world.flush_all();
    assert_eq!(world.client(refused).got, [Got::Close(Some(1008))]);
}

#[test]
fn a_connection_that_ends_while_it_is_resumed_gets_no_frame_behind_its_close() {
    let lag = HELLO.len() + 1;
    let mut world = World::new(Settings { max_lag: 100 + 32 + lag, ..Settings::default() });
    let slot = world.member(numbered(0), ROOMY);
    world.publish(0, 100);
    world.lose(slot);
    // The hello of `resumed` is one byte too much.
    world.arrive(numbered(0), ROOMY, Arrival::Resume(slot));
    world.flush_all();
    assert_eq!(world.client(slot).got, [Got::Close(Some(4001))]);
    assert_eq!(world.closed(), [(0, Cause::Lag)]);
}

#[test]
fn a_connection_that_is_closed_while_it_is_resumed_gets_no_frame_behind_its_close() {
    let mut world = World::new(Settings::default());
    let slot = world.member(numbered(0), ROOMY);
    world.publish(0, 100);
    world.lose(slot);
    world.program.closes_on_resume = true;
    world.arrive(numbered(0), ROOMY, Arrival::Resume(slot));
    world.flush_all();
    assert_eq!(world.client(slot).got, [Got::Message(Kind::Text, HELLO.to_vec()), Got::Close(Some(4010))]);
    assert_eq!(world.closed(), [(0, Cause::Application(4010))]);
}

#[test]
fn who_stood_still_before_a_cut_stands_still_after_it() {
    let mut world = World::new(Settings::default());
    let slot = world.connect(numbered(0), ROOMY);
    world.shard.park(slot);
    world.lose(slot);
    assert!(!world.shard.is_parked(slot), "nothing can be read from it, so nothing stands still");
    world.arrive(numbered(0), ROOMY, Arrival::Resume(slot));
    assert!(world.shard.is_parked(slot));
    world.say(slot, "early");
    let heard = |world: &World| world.program.notes.iter().any(|note| matches!(note, Note::Message(..)));
    assert!(!heard(&world));
    world.shard.unpark(slot);
    let kept = world.shard.take_unread(slot).expect("what came meanwhile is kept");
    world.receive(slot, kept.into());
    assert!(heard(&world));
}
