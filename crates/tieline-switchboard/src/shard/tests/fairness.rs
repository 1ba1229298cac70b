//! Turns: nobody waits for another's megabytes, and a long flush can be interrupted.

use super::program::Message;
use super::world::{ROOM, ROOMY, World};
use crate::flush::TURN;
use crate::*;

#[test]
fn a_megabyte_pending_holds_others_up_for_one_turn_only() {
    for format in [Format::plain(0), super::world::numbered(0)] {
        let mut world = World::new(Settings::default());
        let heavy = world.connect(format, ROOMY);
        let light = world.connect(Format::plain(0), ROOMY);
        let message = Message { number: 1, len: 1 << 20, compressible: false, frames: Frames::default() };
        let to = [Recipients::Connection(world.shard.address(heavy))];
        let publication = Publication {
            message: &message,
            to: &to,
            except: &[],
            only: None,
            when_lagging: WhenLagging::End,
        };
        assert_eq!(world.shard.publish(&publication), 1);
        world.shard.send(light, tieline_websocket::Kind::Text, |out| out.extend_from_slice(b"light"));

        assert!(world.flush(), "the heavy one is not done");
        assert_eq!(world.payloads(light), [b"light".to_vec()]);
        assert!(world.client(heavy).taken <= TURN + 1024, "{}", world.client(heavy).taken);
        let mut rounds = 1;
        while world.flush() {
            rounds += 1;
        }
        assert!((4..=5).contains(&rounds), "{rounds} turns for a megabyte");
        assert_eq!(world.payloads(heavy).len(), 1);
    }
}

#[test]
fn many_small_frames_are_sent_in_turns_too() {
    let mut world = World::new(Settings::default());
    let heavy = world.member(Format::plain(0), ROOMY);
    for number in 0..1_000 {
        world.publish(number, 1_000);
    }
    let light = world.member(Format::plain(0), ROOMY);
    world.publish(1_000, 10);
    world.flush();
    assert_eq!(world.payloads(light).len(), 1);
    assert!(world.client(heavy).taken <= TURN + 64 * 1024);
    world.flush_all();
    assert_eq!(world.payloads(heavy).len(), 1_001);
}

#[test]
fn a_publication_to_thousands_is_interrupted_and_goes_on() {
    let mut world = World::new(Settings::default());
    for _ in 0..5_000 {
        let slot = world.shard.adopt(
            &mut world.program,
            &[],
            Format::plain(0),
            None,
            super::program::Arrival::Open { id: 0, resumable: false },
        );
        let slot = slot.expect("there is room");
        world.net.put(slot, super::net::Client::new(ROOMY, false));
        world.shard.join(slot, ROOM);
    }
    let message = Message::new(1, 100);
    let to = [Recipients::Group(ROOM)];
    let publication =
        Publication { message: &message, to: &to, except: &[], only: None, when_lagging: WhenLagging::End };
    assert_eq!(world.shard.publish(&publication), 5_000);
    let mut flushed = 0;
    let more = world.shard.flush(&mut world.net, || {
        flushed += 1;
        flushed == 256
    });
    assert!(more);
    assert_eq!(world.net.writes.len(), 256, "one write each, and no more than asked for");
    // A direct message that comes now waits its turn behind the others, but input can be read before.
    world.shard.send(0, tieline_websocket::Kind::Text, |out| out.push(b'x'));
    while world.shard.flush(&mut world.net, || false) {}
    assert_eq!(world.net.writes.len(), 5_001);
    assert!(world.net.clients.iter().all(|client| client.got.len() == 1 + usize::from(client.taken > 104)));
}
