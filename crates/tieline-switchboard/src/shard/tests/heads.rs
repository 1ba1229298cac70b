//! The answer to the handshake, which goes out before all frames, with the first of them, and in any case.

use tieline_websocket::Kind;

use super::net::Got;
use super::program::{Arrival, HELLO};
use super::world::{ROOM, ROOMY, World, numbered};
use crate::log::CHUNK;
use crate::*;

/// Its second byte would be a length if it were a frame.
const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";

const OPEN: Arrival = Arrival::Open { id: 0, resumable: true };

fn text(payload: &[u8]) -> Got {
    Got::Message(Kind::Text, payload.to_vec())
}

#[test]
fn the_answer_and_the_first_frames_leave_in_one_write() {
    for format in [Format::plain(0), numbered(0)] {
        let mut world = World::new(Settings::default());
        let slot = world.arrive_with(HEAD, format, ROOMY, OPEN);
        assert!(world.shard.join(slot, ROOM));
        world.shard.send(slot, Kind::Text, |out| out.extend_from_slice(b"connected"));
        world.publish(0, 100);
        world.flush_all();
        assert_eq!(world.net.writes.len(), 1);
        assert_eq!(world.payloads(slot).len(), 2);
    }
}

#[test]
fn it_does_not_wait_for_a_frame() {
    let mut world = World::new(Settings::default());
    let slot = world.arrive_with(HEAD, Format::plain(0), ROOMY, OPEN);
    world.shard.park(slot);
    world.flush_all();
    assert_eq!((world.client(slot).taken, world.client(slot).head.len()), (HEAD.len(), 0));
}

#[test]
fn it_may_be_cut_by_a_full_socket_at_any_byte() {
    for room in 0..HEAD.len() + 20 {
        for format in [Format::plain(0), numbered(0)] {
            let mut world = World::new(Settings::default());
            let slot = world.arrive_with(HEAD, format, room, OPEN);
            assert!(world.shard.join(slot, ROOM));
            world.publish(0, 30);
            world.flush_all();
            world.publish(1, 200);
            // What no socket took goes through the copies of a retired log too.
            let chunk = world.shard.log.oldest();
            world.shard.copy_for(slot, chunk.unwrap_or(u64::MAX));
            world.settle();
            world.drain(slot, 1);
            world.flush_all();
            world.drain(slot, ROOMY);
            world.flush_all();
            assert_eq!((world.payloads(slot).len(), world.client(slot).head.len()), (2, 0), "cut at {room}");
        }
    }
}

#[test]
fn whoever_is_refused_is_answered_before_the_close_frame() {
    let mut world = World::new(Settings::default());
    let slot = world.arrive_with(HEAD, Format::plain(0), 0, Arrival::Refuse(4100));
    world.flush_all();
    world.drain(slot, 7);
    world.flush_all();
    world.drain(slot, ROOMY);
    world.flush_all();
    assert_eq!(world.client(slot).got, [Got::Close(Some(4100))]);
}

#[test]
fn whoever_returns_is_answered_before_the_replay() {
    let mut world = World::new(Settings::default());
    let slot = world.member(numbered(0), 10);
    world.publish(0, 60);
    world.flush_all();
    world.lose(slot);
    world.arrive_with(HEAD, numbered(0), ROOMY, Arrival::Resume(slot));
    world.flush_all();
    assert_eq!(world.client(slot).got[0], text(HELLO));
    assert_eq!(world.payloads(slot).len(), 2);
}

#[test]
fn a_limit_that_is_passed_meanwhile_drops_frames_but_not_the_answer() {
    for room in 0..=HEAD.len() {
        let mut world = World::new(Settings { max_lag: 1_000, ..Settings::default() });
        let slot = world.arrive_with(HEAD, Format::plain(0), room, OPEN);
        world.shard.join(slot, ROOM);
        world.flush_all();
        while world.closed().is_empty() {
            world.publish(0, 300);
        }
        world.drain(slot, ROOMY);
        world.flush_all();
        assert_eq!(world.client(slot).got.last(), Some(&Got::Close(Some(4001))), "{room}");
        assert!(world.client(slot).got.len() < 4);
    }
}

#[test]
fn an_answer_that_is_not_read_pins_no_log() {
    let mut world = World::new(Settings { max_log: CHUNK, ..Settings::default() });
    let slot = world.arrive_with(HEAD, Format::plain(0), 0, OPEN);
    let reader = world.member(Format::plain(0), ROOMY);
    world.flush_all();
    for number in 0..100 {
        world.publish(number, 3_000);
        world.flush_all();
    }
    assert_eq!(world.payloads(reader).len(), 100);
    world.drain(slot, ROOMY);
    world.flush_all();
    assert!(world.client(slot).head.is_empty());
}
