//! How connections end, both close handshakes, broken protocols, silence, parking, and the reuse of slots.

use std::time::Duration;

use tieline_websocket::{Kind, Opcode, encode_close_masked, encode_masked};

use super::net::Got;
use super::program::{Arrival, Message, Note};
use super::world::{ROOM, ROOMY, World, numbered};
use crate::*;

fn text(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_masked(&mut frame, Opcode::Text, payload, [7, 8, 9, 1]);
    frame
}

fn echo() -> Got {
    Got::Message(Kind::Text, b"echo".to_vec())
}

#[test]
fn the_peer_closes_and_gets_what_it_had_coming_and_its_code_back() {
    for (code, answer, cause) in
        [(Some(1000), Some(1000), 1000), (Some(4321), Some(4321), 4321), (None, None, 1005)]
    {
        let mut world = World::new(Settings::default());
        let slot = world.member(Format::plain(0), 3);
        world.publish(1, 10);
        let client = world.net.client(slot).unwrap();
        world.say_close(slot, code);
        world.flush_all();
        // The end of its stream changes nothing: it still reads.
        world.shard.end_of_input(slot);
        world.settle();
        assert_eq!(world.closed(), [(0, Cause::Peer(cause))]);
        assert!(!world.net.clients[client].dropped);
        assert_eq!(world.publish(2, 10), 0, "no member any more");
        world.drain(slot, ROOMY);
        world.flush_all();
        let message = Got::Message(Kind::Text, Message::new(1, 10).body(0, false));
        assert_eq!(world.net.clients[client].got, [message, Got::Close(answer)]);
        assert!(world.net.clients[client].dropped);
        assert_eq!(world.shard.counters().connections, 0);
    }
}

#[test]
fn we_close_and_wait_for_the_answer_but_not_for_ever() {
    for answers in [true, false] {
        let mut world = World::new(Settings { close_timeout: Duration::from_secs(3), ..Settings::default() });
        let slot = world.connect(Format::plain(0), ROOMY);
        let client = world.net.client(slot).unwrap();
        world.shard.close(slot, 4000, "bye");
        world.shard.close(slot, 4001, "twice");
        world.settle();
        assert_eq!(world.closed(), [(0, Cause::Application(4000))], "told at once");
        world.flush_all();
        world.say(slot, "echo");
        assert!(!world.net.clients[client].dropped);
        if answers {
            world.say_close(slot, Some(4000));
            world.flush_all();
        } else {
            world.seconds(2);
            assert!(!world.net.clients[client].dropped);
            world.seconds(1);
        }
        assert!(world.net.clients[client].dropped);
        assert_eq!(world.net.clients[client].got, [Got::Close(Some(4000))]);
        assert_eq!(world.closed().len(), 1);
    }
}

#[test]
fn a_broken_protocol_is_answered_then_the_stream_ends() {
    let no_mask = vec![0x81, 2, b'h', b'i'];
    let bad_text = text(&[0xff]);
    let mut huge = text(&[]);
    huge[1] = 0x80 | 127;
    huge.splice(2..2, (2u64 << 20).to_be_bytes());
    for (bytes, code) in [(no_mask, 1002), (bad_text, 1007), (huge, 1009)] {
        let mut world = World::new(Settings::default());
        let slot = world.connect(Format::plain(0), ROOMY);
        let client = world.net.client(slot).unwrap();
        world.receive(slot, [text(b"echo"), bytes, text(b"echo")].concat());
        world.flush_all();
        assert_eq!(world.closed(), [(0, Cause::Protocol(code))]);
        // What it earned before its mistake it gets, then the reason, then the end; not waiting for an answer.
        assert_eq!(world.client(slot).got, [echo(), Got::Close(Some(code))]);
        assert!(world.client(slot).ended && !world.client(slot).dropped);
        // What it still says is thrown away, so that no reset destroys the close frame on its way.
        world.say(slot, "echo");
        world.say_close(slot, Some(code));
        world.flush_all();
        assert_eq!(world.client(slot).got.len(), 2);
        world.shard.end_of_input(slot);
        world.settle();
        assert!(world.net.clients[client].dropped);
        assert_eq!(world.shard.counters().connections, 0);
    }
}

#[test]
fn a_socket_that_stays_after_a_failure_is_dropped_in_time() {
    let mut world = World::new(Settings::default());
    let slot = world.connect(Format::plain(0), 0);
    world.receive(slot, vec![0xff; 4]);
    world.flush_all();
    world.seconds(5);
    assert_eq!(world.shard.counters().connections, 0);
}

#[test]
fn the_end_of_input_without_a_close_frame_is_a_cut() {
    let mut world = World::new(Settings::default());
    let (plain, reliable) = (world.connect(Format::plain(0), ROOMY), world.connect(numbered(0), ROOMY));
    for slot in [plain, reliable] {
        world.shard.end_of_input(slot);
        world.settle();
    }
    assert_eq!(world.program.notes[2..], [Note::Closed(0, Cause::Cut), Note::Cut(1, Cause::Cut)]);
    assert!(world.shard.is_detached(reliable));
}

#[test]
fn the_end_of_input_while_we_close_still_lets_the_close_frame_out() {
    let mut world = World::new(Settings::default());
    let slot = world.connect(Format::plain(0), 0);
    let client = world.net.client(slot).unwrap();
    world.shard.close(slot, 4000, "bye");
    world.flush_all();
    world.shard.end_of_input(slot);
    world.settle();
    world.drain(slot, ROOMY);
    world.flush_all();
    assert_eq!(world.net.clients[client].got, [Got::Close(Some(4000))]);
    assert!(world.net.clients[client].dropped);
}

#[test]
fn many_sockets_that_fail_in_one_flush_are_each_told_once() {
    let mut world = World::new(Settings { max_log: 64 * 1024, ..Settings::default() });
    let slots: Vec<_> =
        (0..20).map(|i| world.member(if i % 2 == 0 { Format::plain(0) } else { numbered(0) }, 10)).collect();
    for number in 0..10 {
        world.publish(number, 1_000);
    }
    for slot in slots {
        world.client(slot).broken = true;
    }
    world.flush_all();
    let notes = &world.program.notes[20..];
    assert_eq!(notes.len(), 20);
    assert_eq!(world.closed().len(), 10);
    assert_eq!((world.shard.counters().connections, world.shard.counters().detached), (10, 10));
}

#[test]
fn silence_ends_a_connection_and_any_byte_keeps_it() {
    let settings = Settings { ping_every: Duration::from_secs(2), ping_misses: 2, ..Settings::default() };
    let mut world = World::new(settings);
    let silent = world.connect(Format::plain(0), ROOMY);
    let alive = world.connect(Format::plain(0), ROOMY);
    let parked = world.connect(Format::plain(0), ROOMY);
    world.say(parked, "park");
    for _ in 0..10 {
        world.flush_all();
        let mut pong = Vec::new();
        encode_masked(&mut pong, Opcode::Pong, b"", [1, 2, 3, 4]);
        world.receive(alive, pong);
        world.seconds(1);
    }
    assert_eq!(world.closed(), [(0, Cause::Silent)]);
    assert_eq!(world.net.clients[silent as usize].got, [Got::Ping, Got::Ping]);
    assert_eq!(world.client(alive).got, vec![Got::Ping; 5]);
    assert_eq!(world.client(parked).got, [], "nobody listens to it, so its silence says nothing");
    assert_eq!(world.shard.counters().ended_silent, 1);
}

#[test]
fn the_applications_pings_stand_behind_its_messages_and_their_pongs_are_told() {
    let mut world = World::new(Settings::default());
    let slot = world.member(Format::plain(0), ROOMY);
    let pong = |payload: &[u8]| {
        let mut frame = Vec::new();
        encode_masked(&mut frame, Opcode::Pong, payload, [1, 2, 3, 4]);
        frame
    };
    world.publish(0, 100);
    world.shard.ping(slot, b"so far");
    world.publish(1, 100);
    world.flush_all();
    let got = &world.client(slot).got;
    assert!(matches!(&got[..], [Got::Message(..), Got::Ping, Got::Message(..)]), "{got:?}");
    // Also those that nobody asked for: what they say is for the application to judge.
    for payload in [&b"so far"[..], b"", &[7; 125]] {
        world.receive(slot, pong(payload));
    }
    let told = [(0, b"so far".to_vec()), (0, vec![]), (0, vec![7; 125])];
    assert_eq!(world.program.pongs, told);
    // Nobody is pinged who is not there, nor heard who is being closed.
    world.shard.close(slot, 4000, "");
    world.settle();
    world.shard.ping(slot, b"late");
    world.receive(slot, pong(b"late"));
    world.flush_all();
    assert_eq!((world.program.pongs.len(), world.client(slot).got.len()), (3, 4));
}

#[test]
fn who_says_nothing_of_its_own_is_idle() {
    let settings = Settings {
        ping_every: Duration::from_secs(1),
        ping_misses: 100,
        idle: Some(Duration::from_secs(5)),
        ..Settings::default()
    };
    let mut world = World::new(settings);
    let (idle, busy) = (world.connect(Format::plain(0), ROOMY), world.connect(Format::plain(0), ROOMY));
    for _ in 0..8 {
        world.say(busy, "something");
        world.seconds(1);
        world.flush_all();
    }
    assert_eq!(world.closed(), [(0, Cause::Idle)]);
    assert_eq!(world.client(idle).got.last(), Some(&Got::Close(Some(4003))));
}

#[test]
fn a_parked_connection_keeps_its_unread_messages_in_order() {
    let mut world = World::new(Settings::default());
    let slot = world.connect(Format::plain(0), ROOMY);
    world.receive(slot, [text(b"park"), text(b"one"), text(b"park"), text(b"two")].concat());
    let said = |world: &World| {
        let notes = world.program.notes.iter();
        notes
            .filter_map(
                |note| if let Note::Message(_, _, payload) = note { Some(payload.clone()) } else { None },
            )
            .collect::<Vec<_>>()
    };
    assert_eq!(said(&world), [b"park"]);
    for expected in [3, 4] {
        assert!(world.shard.is_parked(slot));
        world.shard.unpark(slot);
        assert_eq!(world.shard.take_readable(), [slot]);
        let unread = world.shard.take_unread(slot).expect("it waited");
        world.receive(slot, unread.into());
        assert_eq!(said(&world).len(), expected);
    }
    assert_eq!(said(&world), [&b"park"[..], b"one", b"park", b"two"]);
    assert!(!world.shard.is_parked(slot));
}

#[test]
fn a_parked_connection_that_ends_reads_on_for_the_close_frame() {
    let mut world = World::new(Settings::default());
    let slot = world.connect(Format::plain(0), ROOMY);
    let client = world.net.client(slot).unwrap();
    let mut close = Vec::new();
    encode_close_masked(&mut close, Some(1000), "", [1, 2, 3, 4]);
    world.receive(slot, [text(b"park"), text(b"never heard"), close].concat());
    world.shard.close(slot, 4000, "bye");
    world.settle();
    assert_eq!(world.shard.take_readable(), [slot]);
    let unread = world.shard.take_unread(slot).expect("it waited");
    world.receive(slot, unread.into());
    world.flush_all();
    assert!(world.net.clients[client].dropped, "its close frame was there all the time");
    assert_eq!(world.program.notes.len(), 3, "opened, park, closed");
}

#[test]
fn a_message_that_fills_another_shards_mailbox_holds_up_its_connection_alone() {
    let mut world = World::new(Settings::default());
    let (publisher, other) = (world.connect(Format::plain(0), ROOMY), world.connect(Format::plain(0), ROOMY));
    world.receive(publisher, [text(b"post"), text(b"echo")].concat());
    world.say(other, "echo");
    world.flush_all();
    assert!(world.shard.is_parked(publisher) && !world.shard.is_parked(other));
    assert_eq!((world.payloads(publisher).len(), world.payloads(other).len()), (0, 1));
    // The application's own wait does not end with the other one.
    world.shard.park(publisher);
    world.shard.release_held_up();
    assert!(world.shard.is_parked(publisher));
    world.shard.unpark(publisher);
    assert_eq!(world.shard.take_readable(), [publisher]);
    // A connection that takes the slot of one that was held up has nothing to do with it.
    world.say(other, "post");
    world.lose(other);
    let next = world.connect(Format::plain(0), ROOMY);
    assert_eq!(next, other);
    world.say(next, "park");
    world.shard.release_held_up();
    assert!(world.shard.is_parked(next));
}

#[test]
fn an_old_address_never_reaches_the_slots_next_connection() {
    let mut world = World::new(Settings::default());
    let mut old = Vec::new();
    for _ in 0..50 {
        let slot = world.member(Format::plain(0), ROOMY);
        let address = world.shard.address(slot);
        assert!(!old.contains(&address));
        old.push(address);
        let to: Vec<_> = old.iter().copied().map(Recipients::Connection).collect();
        let message = Message::new(1, 5);
        let publication = Publication {
            message: &message,
            to: &to,
            except: &old[..old.len() - 1],
            only: None,
            when_lagging: WhenLagging::End,
        };
        assert_eq!(world.shard.publish(&publication), 1, "only the one that is there");
        world.flush_all();
        assert_eq!(world.payloads(slot).len(), 1);
        world.lose(slot);
        assert_eq!(world.shard.group_len(ROOM), 0);
    }
}

#[test]
fn a_refused_client_is_told_why_and_nothing_else_hears_of_it() {
    let mut world = World::new(Settings::default());
    let slot = world.arrive(Format::plain(0), ROOMY, Arrival::Refuse(4100));
    world.flush_all();
    assert_eq!(world.client(slot).got, [Got::Close(Some(4100))]);
    world.say_close(slot, Some(4100));
    world.flush_all();
    assert_eq!(world.program.notes, []);
    assert_eq!(world.shard.counters(), Counters { log_bytes: 65536, ..world.shard.counters() });
    assert_eq!(world.shard.counters().connections, 0);
}

#[test]
fn stopping_tells_everybody() {
    let mut world = World::new(Settings::default());
    let (open, cut) = (world.connect(Format::plain(0), ROOMY), world.connect(numbered(0), ROOMY));
    world.lose(cut);
    world.shard.stop(1001, "bye");
    world.settle();
    world.flush_all();
    assert_eq!(world.client(open).got, [Got::Close(Some(1001))]);
    let mut closed = world.closed();
    closed.sort_by_key(|(id, _)| *id);
    assert_eq!(closed, [(0, Cause::Stopped), (1, Cause::Stopped)]);
    assert_eq!(world.shard.counters().connections, 1, "the open one may still answer");
}
