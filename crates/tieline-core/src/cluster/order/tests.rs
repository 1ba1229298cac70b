//! One origin and one receiver, with two channels between them that keep their own order and not each other's.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::broker::To;
use crate::cluster::numbers::Numbers;
use crate::cluster::sequence::Arrived;

const ORIGIN: Incarnation = Incarnation(1);
const ME: Incarnation = Incarnation(2);
const OTHER: Incarnation = Incarnation(3);
const BEAT: Duration = Duration::from_secs(5);

/// An envelope on its way: its number, what it waits for, and what it says.
#[derive(Clone, Copy)]
struct Sent {
    number: u64,
    after: Option<u64>,
    text: u8,
}

/// The receiver's side.
#[derive(Default)]
struct Receiver {
    order: Order,
    seen: Seen,
    heard: Vec<u8>,
    missing: u64,
}

impl Receiver {
    fn take(&mut self, channel: Channel, number: u64, text: u8) {
        match self.seen.envelope(ORIGIN, channel, number) {
            Arrived::InOrder => {}
            Arrived::AfterGap(missing) => self.missing += missing,
            // It was passed over.
            Arrived::Again => return,
        }
        self.heard.push(text);
    }

    /// The held bytes of this test are channel, number, text, and what it waits for, or 255.
    fn take_held(&mut self, bytes: &[u8]) {
        self.take(channel_of(bytes), u64::from(bytes[1]), bytes[2]);
    }

    fn arrive(&mut self, channel: Channel, sent: Sent, now: Instant) {
        if self.order.must_wait(ORIGIN, channel, sent.after, &self.seen) {
            let after = sent.after.map_or(255, |after| after as u8);
            let bytes = [u8::from(channel == Channel::One), sent.number as u8, sent.text, after];
            return self.order.hold(ORIGIN, channel, sent.after, &bytes, now);
        }
        self.take(channel, sent.number, sent.text);
        self.go_on();
    }

    fn go_on(&mut self) {
        while let Some(bytes) = self.order.ready(ORIGIN, &self.seen) {
            self.take_held(&bytes);
        }
    }

    fn end_waits(&mut self, before: Instant) {
        while let Some((_, bytes)) = self.order.late(before) {
            if bytes[3] < 255 {
                let other = channel_of(&bytes).other();
                self.missing += self.seen.last_number(ORIGIN, other, u64::from(bytes[3]));
            }
            self.take_held(&bytes);
            self.go_on();
        }
    }
}

fn channel_of(held: &[u8]) -> Channel {
    if held[0] == 0 { Channel::All } else { Channel::One }
}

/// What an origin says: to all, to the receiver, or to another node alone.
fn sent(ways: &[u8]) -> [VecDeque<Sent>; 2] {
    let mut numbers = Numbers::default();
    let mut channels = [VecDeque::new(), VecDeque::new()];
    for (text, way) in ways.iter().enumerate() {
        let (to, channel) = match way % 3 {
            0 => (To::All, Some(0)),
            1 => (To::One(ME), Some(1)),
            _ => (To::One(OTHER), None),
        };
        let (number, after) = numbers.next_message(to);
        let after = after.iter().find(|(node, _)| *node == ME).map(|(_, number)| *number);
        if let Some(channel) = channel {
            channels[channel].push_back(Sent { number, after, text: text as u8 });
        }
    }
    channels
}

const CHANNELS: [Channel; 2] = [Channel::All, Channel::One];

proptest! {
    #[test]
    fn any_crossing_of_the_channels_keeps_the_order_while_nothing_is_lost(
        ways in proptest::collection::vec(0u8..3, 0..60),
        turns in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let mut channels = sent(&ways);
        let expected: Vec<u8> =
            (0..ways.len()).filter(|text| ways[*text] % 3 < 2).map(|text| text as u8).collect();
        let mut receiver = Receiver::default();
        let now = Instant::now();
        let mut turns = turns.into_iter().cycle();
        while channels.iter().any(|channel| !channel.is_empty()) {
            let turn = usize::from(turns.next().unwrap());
            let turn = if channels[turn].is_empty() { 1 - turn } else { turn };
            let sent = channels[turn].pop_front().unwrap();
            receiver.arrive(CHANNELS[turn], sent, now);
        }
        prop_assert_eq!(receiver.heard, expected);
        prop_assert_eq!(receiver.missing, 0);
        prop_assert_eq!(receiver.order.bytes, 0);
        prop_assert!(receiver.order.held.is_empty());
    }

    #[test]
    fn what_waits_for_something_lost_goes_on_after_a_beat_in_order_and_the_rest_is_known_to_be_missing(
        ways in proptest::collection::vec(0u8..2, 0..60),
        turns in proptest::collection::vec((any::<bool>(), 0u8..5), 120),
    ) {
        let mut channels = sent(&ways);
        let last = channels.each_ref().map(|channel| channel.back().map_or(0, |sent| sent.number));
        let mut receiver = Receiver::default();
        let mut now = Instant::now();
        let mut turns = turns.into_iter().cycle();
        while channels.iter().any(|channel| !channel.is_empty()) {
            let (turn, luck) = turns.next().unwrap();
            let turn = if channels[usize::from(turn)].is_empty() { 1 - usize::from(turn) } else { usize::from(turn) };
            let sent = channels[turn].pop_front().unwrap();
            now += Duration::from_secs(1);
            // Nothing tells what those behind it wait for where the one that says so is lost.
            if luck > 0 || sent.after.is_some() {
                receiver.arrive(CHANNELS[turn], sent, now);
            }
            receiver.end_waits(now.checked_sub(BEAT).unwrap());
        }
        receiver.end_waits(now);
        prop_assert!(receiver.heard.is_sorted(), "{:?}", receiver.heard);
        prop_assert_eq!(receiver.order.bytes, 0);
        // What the next words of the origin tell is missing too.
        for (channel, last) in CHANNELS.into_iter().zip(last) {
            receiver.missing += match receiver.seen.last(ORIGIN, channel) {
                0 => 0,
                _ => receiver.seen.last_number(ORIGIN, channel, last),
            };
        }
        let unseen = CHANNELS.iter().zip(last).filter(|(channel, _)| receiver.seen.last(ORIGIN, **channel) == 0);
        let never: u64 = unseen.map(|(_, last)| last).sum();
        prop_assert!(receiver.heard.len() as u64 + receiver.missing + never <= ways.len() as u64);
    }
}

#[test]
fn there_is_room_for_so_much_and_no_more() {
    let mut order = Order::default();
    let now = Instant::now();
    let large = vec![0; HELD_BYTES / 4];
    for _ in 0..4 {
        order.hold(ORIGIN, Channel::One, Some(9), &large, now);
    }
    let long_ago = now.checked_sub(BEAT).unwrap();
    assert_eq!(order.late(long_ago), None);
    order.hold(ORIGIN, Channel::One, None, &large, now);
    assert!(order.late(long_ago).is_some());
    assert_eq!(order.late(long_ago), None);
    assert_eq!(
        std::iter::from_fn(|| order.give_up(ORIGIN)).count(),
        4,
        "what is held is not lost with its origin"
    );
    assert_eq!(order.bytes, 0);
}
