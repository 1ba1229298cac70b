//! Random interleavings of everything that can happen to two shards, against the model in `chaos/model.rs`.
//!
//! A failing seed is printed by the assertion's panic message; `run(seed, …)` repeats it.

mod model;

use tieline_websocket::{Kind, Opcode, encode_close_masked, encode_masked};

use self::model::{Model, Standing};
use super::program::{Arrival, Message};
use super::world::{ROOMY, World};
use crate::log::CHUNK;
use crate::*;

/// Random numbers that follow from a seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What kind of weather a run has.
struct Climate {
    settings: Settings,
    sizes: &'static [usize],
    /// Largest room that a client's kernel gains at once.
    gain: usize,
    steps: usize,
}

/// Sizes at every border: of frame headers, of log records, of chunks.
const BORDERS: &[usize] = &[
    0, 1, 125, 126, 127, 300, 1_023, 1_024, 4_000, 4_000, 4_000, 16_300, 16_380, 16_384, 16_385, 20_000,
    65_535, 65_536,
];
const SMALL: &[usize] = &[0, 1, 20, 100, 125, 126, 300, 1_100];

fn settings() -> Settings {
    Settings {
        ping_every: std::time::Duration::from_secs(3),
        ping_misses: 250,
        resume_window: std::time::Duration::from_secs(6),
        ..Settings::default()
    }
}

fn format(dice: &mut Dice) -> Format {
    let deflate = if dice.chance(50) { 0 } else { 9 + dice.below(7) as u8 };
    if dice.chance(40) {
        Format { wire: 0, numbered: true, deflate }
    } else {
        Format { wire: dice.below(2) as u8, numbered: false, deflate }
    }
}

fn run(seed: u64, climate: &Climate) {
    let mut dice = Dice::new(seed);
    let mut worlds = [0, 1].map(|index| World::on(index, climate.settings.clone()));
    let mut model = Model::new(seed, climate.settings.clone());
    let mut number = 0;
    for step in 0..climate.steps {
        let at = dice.below(2);
        let peer = model.pick(at, &mut |end| dice.below(end));
        let world = &mut worlds[at];
        match (dice.below(100), peer) {
            (0..8, _) | (_, None) => {
                if model.alive(at) < 12 {
                    let (format, resumable) = (format(&mut dice), dice.chance(80));
                    let arrival = Arrival::Open { id: model.next_id(), resumable };
                    let slot = world.arrive(format, dice.below(climate.gain), arrival);
                    let client = world.net.client(slot).unwrap();
                    model.opened(at, world.shard.address(slot), format, resumable, client);
                }
            }
            (8..18, Some(peer)) => {
                let group = GroupId(dice.below(4) as u32);
                if dice.chance(70) {
                    let slot = model.slot(peer);
                    assert_eq!(world.shard.join(slot, group), model.join(peer, group));
                } else {
                    let slot = model.slot(peer);
                    assert_eq!(world.shard.leave(slot, group), model.leave(peer, group));
                }
                world.settle();
            }
            (18..45, _) => {
                number += 1;
                let message = Message::new(number, dice.pick(climate.sizes));
                publish(&mut dice, &mut worlds, &mut model, &message);
            }
            (45..52, Some(peer)) => {
                let payload = vec![b'd'; dice.pick(climate.sizes)];
                model.direct(peer, Kind::Text, &payload);
                world.shard.send(model.slot(peer), Kind::Text, |out| out.extend_from_slice(&payload));
                world.settle();
            }
            (52..60, Some(peer)) => {
                if let Some(sequence) = model.some_sequence(peer, &mut |end| dice.below(end)) {
                    world.shard.acknowledge(model.slot(peer), sequence);
                    world.settle();
                    model.acknowledged(peer, sequence);
                }
            }
            (60..64, Some(peer)) if model.has_socket(peer) => {
                let mut frame = Vec::new();
                encode_masked(&mut frame, Opcode::Ping, b"?!", [1, 2, 3, 4]);
                model.pinged(peer, b"?!");
                world.receive(model.slot(peer), frame);
            }
            (64..67, Some(peer)) if model.has_socket(peer) => {
                world.net.clients[model.client(peer)].broken = true;
                if dice.chance(50) {
                    world.lose(model.slot(peer));
                }
            }
            (67..73, Some(peer)) if model.may_resume(peer) => {
                let slot = model.slot(peer);
                let format = Format { deflate: if dice.chance(50) { 0 } else { 12 }, ..model.format(peer) };
                world.arrive(format, dice.below(climate.gain), Arrival::Resume(slot));
                model.resumed(peer, format, world.net.client(slot).unwrap());
            }
            (73..75, Some(peer)) => {
                model.closed_by_program(peer, 4000);
                world.shard.close(model.slot(peer), 4000, "bye");
                world.settle();
            }
            (75..78, Some(_)) => {
                // Also those that were told to close answer in the end.
                if let Some(peer) = model.pick_with_socket(at, &mut |end| dice.below(end)) {
                    let mut frame = Vec::new();
                    encode_close_masked(&mut frame, Some(1000), "", [1, 2, 3, 4]);
                    model.closed_by_peer(peer, 1000);
                    world.receive(model.slot(peer), frame);
                }
            }
            (78..80, _) => {
                model.tick(at);
                world.seconds(1);
            }
            (80..90, _) => {
                let mut left = 1 + dice.below(8);
                world.shard.flush(&mut world.net, || {
                    left -= 1;
                    left == 0
                });
                world.settle();
            }
            _ => {
                if let Some(peer) = model.pick_with_socket(at, &mut |end| dice.below(end)) {
                    let gain = if dice.chance(10) { 1 } else { dice.below(climate.gain) };
                    world.drain(model.slot(peer), gain);
                }
            }
        }
        for (at, world) in worlds.iter_mut().enumerate() {
            model.observe(at, world, step);
        }
    }
    for (at, world) in worlds.iter_mut().enumerate() {
        wind_up(at, world, &mut model);
    }
}

fn publish(dice: &mut Dice, worlds: &mut [World; 2], model: &mut Model, message: &Message) {
    let mut to = Vec::new();
    for _ in 0..=dice.below(3) {
        to.push(match dice.below(3) {
            // Addresses of connections long gone among them, whose slots others have now.
            0 if model.any_address(&mut |end| dice.below(end)).is_some() => {
                Recipients::Connection(model.any_address(&mut |end| dice.below(end)).unwrap())
            }
            _ => Recipients::Group(GroupId(dice.below(4) as u32)),
        });
    }
    let mut except = Vec::new();
    for _ in 0..dice.below(3) {
        except.extend(model.any_address(&mut |end| dice.below(end)));
    }
    let rest = dice.below(4) as u32;
    let only = |_: Slot, session: &super::program::Session| session.id % 3 != rest;
    let when_lagging = if dice.chance(60) { WhenLagging::End } else { WhenLagging::Drop };
    for (at, world) in worlds.iter_mut().enumerate() {
        let publication = Publication { message, to: &to, except: &except, only: Some(&only), when_lagging };
        let predicted = model.publish(at, message, &to, &except, |id| id % 3 != rest, when_lagging);
        let before = world.shard.counters().dropped_lag;
        let reached = world.shard.publish(&publication);
        let dropped = world.shard.counters().dropped_lag - before;
        world.settle();
        if !model.memory_is_short() {
            assert_eq!((reached, dropped), predicted, "reached and dropped");
        }
    }
}

/// Everybody reads and acknowledges everything, then all are closed: nothing may remain anywhere.
fn wind_up(at: usize, world: &mut World, model: &mut Model) {
    for peer in model.with_socket(at) {
        if model.has_socket(peer) {
            world.drain(model.slot(peer), ROOMY);
        }
    }
    world.flush_all();
    model.observe(at, world, usize::MAX);
    model.check_all_arrived(at, world);
    for peer in model.standing(at, Standing::Open) {
        if let Some(last) = model.last_sequence(peer) {
            world.shard.acknowledge(model.slot(peer), last);
            model.acknowledged(peer, last);
        }
    }
    world.settle();
    model.observe(at, world, usize::MAX);
    let detached = !model.standing(at, Standing::Detached).is_empty();
    if !detached {
        world.flush_all();
        assert!(world.shard.log.memory() <= CHUNK, "a drained log is one chunk");
        assert_eq!(world.shard.copied, 0);
    }
    world.shard.stop(1001, "over");
    world.settle();
    world.seconds(10);
    assert_eq!(world.shard.counters().connections, 0, "all slots are free");
    assert_eq!(world.shard.copied, 0);
    assert!(world.shard.log.memory() <= CHUNK);
}

fn runs(seeds: std::ops::Range<u64>, climate: &Climate) {
    for seed in seeds {
        run(seed, climate);
    }
}

#[test]
fn small_frames_and_a_small_log() {
    let settings = Settings { max_lag: 20_000, max_log: 2 * CHUNK, ..settings() };
    runs(0..60, &Climate { settings, sizes: SMALL, gain: 2_000, steps: 600 });
}

#[test]
fn frames_of_every_border() {
    let settings = Settings { max_lag: 400_000, max_log: 3 * CHUNK, ..settings() };
    runs(1_000..1_016, &Climate { settings, sizes: BORDERS, gain: 60_000, steps: 400 });
}

#[test]
fn generous_limits() {
    let settings = Settings { max_lag: 4 << 20, ..settings() };
    runs(2_000..2_040, &Climate { settings, sizes: SMALL, gain: 500, steps: 500 });
}

#[test]
fn short_of_memory_for_copies() {
    let settings = Settings { max_lag: 300_000, max_log: CHUNK, max_copied: 40_000, ..settings() };
    runs(3_000..3_016, &Climate { settings, sizes: BORDERS, gain: 40_000, steps: 400 });
}
