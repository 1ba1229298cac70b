//! Lag to the byte, and memory: of the log, of copies, of lists.

use tieline_websocket::Kind;

use super::net::Got;
use super::program::{Message, Note};
use super::world::{ROOMY, World, numbered};
use crate::log::CHUNK;
use crate::numbered::NUMBERED_FRAME;
use crate::pending::MAX_ENTRIES;
use crate::*;

fn with_lag(max_lag: usize) -> Settings {
    Settings { max_lag, ..Settings::default() }
}

/// Header and payload of a frame of 100 bytes.
const FRAME: usize = 102;

#[test]
fn a_connection_may_have_its_limit_coming_and_not_a_byte_more() {
    for (max_lag, survives) in [(10 * FRAME, true), (10 * FRAME - 1, false)] {
        let mut world = World::new(with_lag(max_lag));
        let slot = world.member(Format::plain(0), 0);
        (0..9).for_each(|number| assert_eq!(world.publish(number, 100), 1));
        assert_eq!(world.publish(9, 100), usize::from(survives));
        let ended = if survives { vec![] } else { vec![(0, Cause::Lag)] };
        assert_eq!(world.closed(), ended, "of {max_lag}");
        // What it had coming is dropped, so that it gets to know why.
        world.flush_all();
        world.drain(slot, ROOMY);
        world.flush_all();
        let got = &world.client(slot).got;
        if survives {
            assert_eq!(got.len(), 10);
        } else {
            assert_eq!(*got, [Got::Close(Some(4001))]);
        }
    }
}

#[test]
fn what_the_kernel_took_does_not_count() {
    let mut world = World::new(with_lag(2 * FRAME));
    let slot = world.member(Format::plain(0), 1);
    world.publish(0, 100);
    world.flush_all();
    world.publish(1, 100);
    assert_eq!(world.publish(2, 100), 0, "one byte was taken, and a whole frame does not fit");
    assert_eq!(world.closed(), [(0, Cause::Lag)]);
    // The frame that is open is completed before the close frame.
    world.drain(slot, ROOMY);
    world.flush_all();
    let first = Message::new(0, 100).body(0, false);
    assert_eq!(world.client(slot).got, [Got::Message(Kind::Text, first), Got::Close(Some(4001))]);
}

#[test]
fn a_droppable_message_is_missed_by_laggards_alone() {
    let mut world = World::new(with_lag(2 * FRAME));
    let (slow, quick) = (world.member(Format::plain(0), 0), world.member(Format::plain(0), ROOMY));
    for number in 0..6 {
        world.publish_with(&Message::new(number, 100), WhenLagging::Drop);
        world.flush_all();
    }
    assert_eq!(world.closed(), []);
    assert_eq!(world.shard.counters().dropped_lag, 4);
    world.drain(slow, ROOMY);
    world.flush_all();
    let sent: Vec<_> = (0..6).map(|number| Message::new(number, 100).body(0, false)).collect();
    assert_eq!(world.payloads(slow), sent[..2]);
    assert_eq!(world.payloads(quick), sent);
}

#[test]
fn numbered_frames_count_until_they_are_acknowledged() {
    let weight = 100 + NUMBERED_FRAME;
    let mut world = World::new(with_lag(3 * weight));
    let slot = world.member(numbered(0), ROOMY);
    for number in 0..3 {
        assert_eq!(world.publish(number, 100), 1);
        world.flush_all();
    }
    world.shard.acknowledge(slot, 1);
    assert_eq!(world.publish(3, 100), 1, "one was acknowledged, so one more fits");
    assert_eq!(world.publish(4, 100), 0);
    assert_eq!(world.closed(), [(0, Cause::Lag)]);
    // Even frames without a byte of body come to an end.
    let mut world = World::new(with_lag(10 * NUMBERED_FRAME));
    world.member(numbered(0), ROOMY);
    assert_eq!((0..20).map(|number| world.publish(number, 0)).sum::<usize>(), 10);
}

#[test]
fn a_laggard_pins_no_log_and_others_go_on() {
    for format in [Format::plain(0), numbered(0)] {
        let settings = Settings { max_log: 2 * CHUNK, max_lag: 10 << 20, ..Settings::default() };
        let mut world = World::new(settings);
        let slow = world.member(format, 0);
        let quick = world.member(Format::plain(0), ROOMY);
        for number in 0..1_000 {
            assert_eq!(world.publish(number, 1_000), 2);
            world.flush_all();
        }
        let copied = world.shard.counters().copied_bytes as usize;
        assert!((800_000..1_100_000).contains(&copied), "{copied} bytes copied");
        assert_eq!(world.payloads(quick).len(), 1_000);
        world.drain(slow, ROOMY);
        world.flush_all();
        assert_eq!(world.payloads(slow).len(), 1_000);
        world.shard.acknowledge(slow, 1_000);
        world.flush_all();
        assert_eq!(world.shard.counters().copied_bytes, 0);
        assert_eq!(world.shard.counters().log_bytes as usize, CHUNK);
    }
}

#[test]
fn who_asks_for_the_next_copy_is_ended_when_copies_fill_their_memory() {
    let max_copied = 200_000;
    let settings = Settings { max_log: CHUNK, max_copied, max_lag: 1 << 20, ..Settings::default() };
    let mut world = World::new(settings);
    let slow: Vec<_> = (0..10).map(|_| world.member(Format::plain(0), 0)).collect();
    let quick = world.member(Format::plain(0), ROOMY);
    for number in 0..100 {
        world.publish(number, 1_000);
        world.flush_all();
        assert!(world.shard.copied <= max_copied);
    }
    assert_eq!(world.payloads(quick).len(), 100);
    let closed = world.closed();
    assert!(closed.len() == 7 && closed.iter().all(|(_, cause)| *cause == Cause::Memory), "{closed:?}");
    assert_eq!(world.shard.counters().ended_memory as usize, closed.len());
    // They can still be told, as none of them has a frame open.
    for (id, _) in closed {
        world.drain(slow[id as usize], ROOMY);
        world.flush_all();
        assert_eq!(world.client(slow[id as usize]).got, [Got::Close(Some(4002))]);
    }
}

#[test]
fn a_list_of_tiny_frames_is_copied_together() {
    let mut world = World::new(Settings::default());
    let slow = world.member(Format::plain(0), 0);
    let other = world.connect(Format::plain(0), ROOMY);
    for number in 0..3_000 {
        world.publish(number, 1);
        // So that the next frame is not a neighbour of this one.
        world.shard.send(other, Kind::Text, |out| out.push(b'-'));
        world.flush_all();
        assert!(world.shard.connections[slow as usize].pending.len() <= MAX_ENTRIES + 1);
    }
    world.drain(slow, ROOMY);
    world.flush_all();
    assert_eq!(world.payloads(slow).len(), 3_000);
    assert_eq!(world.shard.copied, 0);
}

#[test]
fn a_large_message_is_shared_and_its_lag_is_counted_once() {
    let mut world = World::new(with_lag(3 << 20));
    for format in [Format::plain(0), numbered(0), numbered(15)] {
        world.member(format, 100);
    }
    assert_eq!(world.publish(1, 2 << 20), 3);
    world.flush_all();
    assert_eq!(world.publish(3, 900 << 10), 3, "a body half sent counts once");
    assert_eq!(world.shard.copied, 0, "large frames are never copied");
}

#[test]
fn an_idle_connection_is_small() {
    let size = size_of::<crate::connection::Connection<()>>();
    assert!(size <= 176, "{size} bytes");
    let mut world = World::new(Settings::default());
    let slot = world.member(Format::plain(0), ROOMY);
    world.publish(1, 500);
    world.flush_all();
    let connection = &world.shard.connections[slot as usize];
    assert!(connection.pending.is_empty() && connection.decoder.buffered() == 0, "nothing stays behind");
    assert_eq!(world.program.notes, [Note::Opened(0)]);
}
