//! What one delivery costs in user space: publishing to 1,000 members and flushing, with sockets that take
//! everything and do nothing. A send of the kernel costs about 4 µs, so a few tens of ns are what is aimed at.
//!
//! `cargo bench -p tieline-switchboard`

use std::hint::black_box;
use std::io::Result;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tieline_switchboard::{
    Application, Cause, Encode, Format, GroupId, Placement, Publication, Recipients, Settings, Shard, Slot,
    Sockets, Weigh, WhenLagging,
};
use tieline_websocket::Kind;

const MEMBERS: u64 = 1_000;

/// Sessions of the size that a real program keeps inline.
struct Quiet;

struct Session {
    _user: u32,
    _rest: [u64; 7],
}

struct Nothing;

impl Weigh for Nothing {
    fn weight(&self) -> usize {
        0
    }
}

impl Application for Quiet {
    type Session = Session;
    type Arrival = u32;
    type Command = Nothing;

    fn arrive(&mut self, _: &mut Shard<Self>, user: u32) -> Placement<Session> {
        Placement::Open(Session { _user: user, _rest: [0; 7] })
    }
    fn opened(&mut self, _: &mut Shard<Self>, _: Slot) {}
    fn resumed(&mut self, _: &mut Shard<Self>, _: Slot) {}
    fn message(&mut self, _: &mut Shard<Self>, _: Slot, _: Kind, _: &[u8]) {}
    fn cut(&mut self, _: &mut Shard<Self>, _: Slot, _: &Cause) -> bool {
        false
    }
    fn closed(&mut self, _: &mut Shard<Self>, _: Slot, _: Session, _: &Cause) {}
    fn command(&mut self, _: &mut Shard<Self>, _: Nothing) {}
    fn tick(&mut self, _: &mut Shard<Self>) {}
    fn close_frame(&self, _: &Session, _: &Cause) -> (u16, &'static str) {
        (1000, "")
    }
}

struct Payload([u8; 128]);

impl Encode for Payload {
    fn kind(&self, _: u8) -> Kind {
        Kind::Text
    }
    fn encode(&self, _: u8, _: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

/// Takes everything.
struct Sink;

impl Sockets for Sink {
    fn send(&mut self, _: Slot, bytes: &[u8]) -> Result<usize> {
        Ok(black_box(bytes).len())
    }
}

/// A shard whose members are each in one of `groups` groups in turn.
fn shard(format: Format, groups: u32) -> Shard<Quiet> {
    let settings = Settings { numbering: (b"{\"sequenceId\":", b","), ..Settings::default() };
    let mut shard = Shard::new(0, 1, Arc::new(settings));
    for user in 0..MEMBERS as u32 {
        let slot = shard.adopt(&mut Quiet, &[], format, None, user).expect("there is room");
        (0..groups).for_each(|group| assert!(shard.join(slot, GroupId(group))));
    }
    shard
}

fn publish(shard: &mut Shard<Quiet>, group: u32) {
    let to = [Recipients::Group(GroupId(group))];
    let message = &Payload([b'x'; 128]);
    let publication =
        Publication { message, to: &to, except: &[], only: None, when_lagging: WhenLagging::default() };
    assert_eq!(shard.publish(&publication), MEMBERS as usize);
}

fn deliveries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delivery");
    for outstanding in [1, 16] {
        group.throughput(Throughput::Elements(MEMBERS * outstanding));
        group.bench_function(format!("plain w={outstanding}"), |bencher| {
            let mut shard = shard(Format::plain(0), 1);
            bencher.iter(|| {
                (0..outstanding).for_each(|_| publish(&mut shard, 0));
                while shard.flush(&mut Sink, || false) {}
            });
        });
        group.bench_function(format!("numbered w={outstanding}"), |bencher| {
            let mut shard = shard(Format { wire: 0, numbered: true, deflate: 0 }, 1);
            let mut sequence = 0;
            bencher.iter(|| {
                (0..outstanding).for_each(|_| publish(&mut shard, 0));
                while shard.flush(&mut Sink, || false) {}
                sequence += outstanding;
                (0..MEMBERS as Slot).for_each(|slot| {
                    shard.acknowledge(slot, sequence);
                });
            });
        });
    }
    // Clients acknowledge once a second or so, and by then have thousands of frames.
    group.throughput(Throughput::Elements(MEMBERS * 16));
    group.bench_function("numbered w=16, acknowledged 2,000 late", |bencher| {
        let mut shard = shard(Format { wire: 0, numbered: true, deflate: 0 }, 1);
        let mut sequence: u64 = 0;
        bencher.iter(|| {
            (0..16).for_each(|_| publish(&mut shard, 0));
            while shard.flush(&mut Sink, || false) {}
            sequence += 16;
            if sequence.is_multiple_of(160) {
                let sequence = sequence.saturating_sub(2_000);
                (0..MEMBERS as Slot).for_each(|slot| {
                    shard.acknowledge(slot, sequence);
                });
            }
        });
    });
    group.throughput(Throughput::Elements(MEMBERS * 4));
    group.bench_function("four frames gathered", |bencher| {
        let mut shard = shard(Format::plain(0), 2);
        bencher.iter(|| {
            for turn in 0..4 {
                publish(&mut shard, turn % 2);
                // A frame for one keeps the next from being a neighbour of this one.
                shard.send(0, Kind::Text, |out| out.push(b'x'));
            }
            while shard.flush(&mut Sink, || false) {}
        });
    });
    group.finish();
}

criterion_group!(benches, deliveries);
criterion_main!(benches);
