//! Places that are kept for clients on whose requests somebody still decides.

use super::net::Got;
use super::program::{Arrival, Note};
use super::world::{ROOMY, World};
use crate::*;

#[test]
fn a_reserved_place_is_taken_under_its_address() {
    let mut world = World::new(Settings::default());
    let address = world.shard.reserve().unwrap();
    world.settle();
    let other = world.connect(Format::plain(0), ROOMY);
    assert_ne!(other, address.slot, "nobody else gets it");
    assert_eq!(world.shard.find(address), None, "nobody is there yet");
    assert_eq!(world.shard.counters().connections, 2);
    let slot = world.arrive(Format::plain(0), ROOMY, Arrival::Take(address, 7));
    assert_eq!((slot, world.shard.find(address)), (address.slot, Some(slot)));
    assert_eq!(world.program.notes.last(), Some(&Note::Opened(7)));
    // It is a connection now, and given back by nobody.
    world.shard.give_back(address);
    world.settle();
    assert_eq!(world.shard.find(address), Some(slot));
}

#[test]
fn a_place_that_was_given_back_is_not_taken() {
    let mut world = World::new(Settings::default());
    let address = world.shard.reserve().unwrap();
    world.shard.give_back(address);
    world.shard.give_back(address);
    world.settle();
    assert_eq!(world.shard.counters().connections, 0);
    // The slot is used again, by another generation.
    let next = world.shard.reserve().unwrap();
    assert_eq!((next.slot, next.generation), (address.slot, address.generation + 1));
    let refused = world.arrive(Format::plain(0), ROOMY, Arrival::Take(address, 7));
    world.flush_all();
    assert_ne!(refused, next.slot);
    assert_eq!(world.client(refused).got, [Got::Close(Some(1013))]);
    assert_eq!(world.program.notes, []);
}

#[test]
fn a_shard_that_stops_waits_for_no_reserved_place() {
    let mut world = World::new(Settings::default());
    let address = world.shard.reserve().unwrap();
    world.seconds(60);
    world.shard.stop(1001, "bye");
    world.settle();
    assert_eq!(world.shard.counters().connections, 0);
    world.shard.give_back(address);
    world.settle();
}
