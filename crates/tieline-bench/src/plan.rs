//! Who sends to whom: the three shapes of load, as arithmetic over seat numbers.
//! No sockets and no counts of what arrived. The choices are pseudo-random from a fixed seed, so that two runs, and
//! a server and the floor, get the same traffic. Tested here.

use crate::dialect::{Destination, Seat};
use crate::error::BenchError;

/// The seed of every run's choices.
const SEED: u64 = 0x7469_656c_696e_6521;

/// Numbers that look random and are the same in each run (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    /// From the fixed seed.
    pub(crate) fn new() -> Self {
        Self(SEED)
    }

    /// A number below `limit`, which must not be 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^= value >> 31;
        ((u128::from(value) * limit as u128) >> 64) as usize
    }
}

/// One message as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    /// The seat that sends.
    pub(crate) sender: usize,
    /// Where it goes.
    pub(crate) to: Destination,
    /// How many deliveries it makes.
    pub(crate) recipients: usize,
}

/// A shape of load.
pub(crate) enum Plan {
    /// Seat 0 publishes to one group of all others.
    Fanout {
        /// Members of the group.
        subscribers: usize,
    },
    /// Members of groups publish to their groups.
    Groups(Groups),
    /// Users send to users.
    Unicast {
        /// How many there are.
        users: usize,
        /// Whether those of one node send to those of the other alone.
        across: bool,
    },
}

/// A user who is in no group yet; every second one connects to the other node.
fn every_second_far(user: u32) -> Seat {
    Seat { user, groups: Vec::new(), is_far: !user.is_multiple_of(2) }
}

/// Equal groups cut from the users; when there are more groups than one cut gives, from the users shuffled anew.
pub(crate) struct Groups {
    /// How many users there are.
    users: usize,
    /// Members of each group.
    size: usize,
    /// Members by group.
    members: Vec<Vec<u32>>,
    /// For each shuffle, the place of each user in it; place / size is the group, place % size the position in it.
    places: Vec<Vec<u32>>,
    /// Whether users send in turn to the first of their groups, so that each has sent; else all is chosen at random.
    in_turn: bool,
}

impl Plan {
    /// `groups` groups of `size` members among `users` users, all of whom are used equally.
    pub(crate) fn groups(users: usize, groups: usize, size: usize) -> Result<Self, BenchError> {
        if size < 2 || groups == 0 || users == 0 || !users.is_multiple_of(size) {
            return Err(BenchError::arguments(format!(
                "{users} users cannot be cut into groups of {size}: the size must be at least 2 and divide the users"
            )));
        }
        let per_cut = users / size;
        let mut dice = Dice::new();
        let mut order: Vec<u32> = (0..users as u32).collect();
        let (mut members, mut places) = (Vec::with_capacity(groups), Vec::new());
        while members.len() < groups {
            let mut place = vec![0; users];
            for (index, user) in order.iter().enumerate() {
                place[*user as usize] = index as u32;
            }
            places.push(place);
            let left = groups - members.len();
            members.extend(order.chunks(size).take(left.min(per_cut)).map(<[u32]>::to_vec));
            for index in (1..users).rev() {
                order.swap(index, dice.below(index + 1));
            }
        }
        Ok(Self::Groups(Groups { users, size, members, places, in_turn: false }))
    }

    /// One cut of `users` users into groups of `size`, in which users send in turn.
    pub(crate) fn in_turn(users: usize, size: usize) -> Result<Self, BenchError> {
        let mut plan = Self::groups(users, users / size.max(1), size)?;
        if let Self::Groups(groups) = &mut plan {
            groups.in_turn = true;
        }
        Ok(plan)
    }

    /// The connections that the load needs, in seat order.
    pub(crate) fn seats(&self) -> Vec<Seat> {
        match self {
            Self::Fanout { subscribers } => {
                let publisher = Seat::default();
                let others =
                    (1..=*subscribers as u32).map(|user| Seat { user, groups: vec![0], is_far: true });
                std::iter::once(publisher).chain(others).collect()
            }
            Self::Groups(groups) => {
                let mut seats: Vec<Seat> = (0..groups.users as u32).map(every_second_far).collect();
                for (group, members) in groups.members.iter().enumerate() {
                    members.iter().for_each(|user| seats[*user as usize].groups.push(group as u32));
                }
                seats
            }
            Self::Unicast { users, .. } => (0..*users as u32).map(every_second_far).collect(),
        }
    }

    /// Message `number`, counted from 0.
    pub(crate) fn next(&self, dice: &mut Dice, number: u64) -> Sending {
        match self {
            Self::Fanout { subscribers } => {
                Sending { sender: 0, to: Destination::Group(0), recipients: *subscribers }
            }
            Self::Groups(groups) if groups.in_turn => {
                let sender = (number % groups.users as u64) as usize;
                let to = Destination::Group((sender / groups.size) as u32);
                Sending { sender, to, recipients: groups.size - 1 }
            }
            Self::Groups(groups) => {
                let group = dice.below(groups.members.len());
                let sender = groups.members[group][dice.below(groups.size)] as usize;
                Sending { sender, to: Destination::Group(group as u32), recipients: groups.size - 1 }
            }
            Self::Unicast { users, across: true } => {
                let sender = dice.below(*users / 2) * 2;
                let target = dice.below(*users / 2) as u32 * 2 + 1;
                Sending { sender, to: Destination::User(target), recipients: 1 }
            }
            Self::Unicast { users, across: false } => {
                let sender = dice.below(*users);
                let target = dice.below(*users) as u32;
                Sending { sender, to: Destination::User(target), recipients: 1 }
            }
        }
    }

    /// How many streams there are: a stream is one sender and one destination, and its messages must keep their order.
    pub(crate) fn streams(&self) -> usize {
        match self {
            Self::Fanout { .. } => 1,
            Self::Groups(groups) => groups.members.len() * groups.size,
            Self::Unicast { users, .. } => users * users,
        }
    }

    /// The stream of a message.
    pub(crate) fn stream(&self, sending: &Sending) -> usize {
        match (self, sending.to) {
            (Self::Groups(groups), Destination::Group(group)) => {
                group as usize * groups.size + groups.position(group as usize, sending.sender).unwrap_or(0)
            }
            (Self::Unicast { users, .. }, Destination::User(target)) => {
                sending.sender * users + target as usize
            }
            _ => 0,
        }
    }

    /// How many pairs of a stream and one of its receivers there are.
    pub(crate) fn pairs(&self) -> usize {
        match self {
            Self::Fanout { subscribers } => *subscribers,
            Self::Groups(groups) => self.streams() * groups.size,
            Self::Unicast { .. } => self.streams(),
        }
    }

    /// The pair of a message's stream and `receiver`; `None` when `receiver` is none of its receivers.
    pub(crate) fn pair(&self, sending: &Sending, receiver: usize) -> Option<usize> {
        match (self, sending.to) {
            (Self::Fanout { .. }, _) => receiver.checked_sub(1),
            (Self::Groups(groups), Destination::Group(group)) if receiver != sending.sender => {
                let position = groups.position(group as usize, receiver)?;
                Some(self.stream(sending) * groups.size + position)
            }
            (Self::Unicast { .. }, Destination::User(target)) if target as usize == receiver => {
                Some(self.stream(sending))
            }
            _ => None,
        }
    }
}

impl Groups {
    /// The position of `user` among the members of `group`.
    fn position(&self, group: usize, user: usize) -> Option<usize> {
        let per_cut = self.users / self.size;
        let place = self.places[group / per_cut][user] as usize;
        (place / self.size == group % per_cut).then_some(place % self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Every message's receivers, found by asking each seat, are as many as it says and have pairs of their own.
    fn check(plan: &Plan, messages: usize) {
        let seats = plan.seats();
        let mut dice = Dice::new();
        for number in 0..messages as u64 {
            let sending = plan.next(&mut dice, number);
            assert!(plan.stream(&sending) < plan.streams());
            let pairs: Vec<usize> = (0..seats.len()).filter_map(|seat| plan.pair(&sending, seat)).collect();
            assert_eq!(pairs.len(), sending.recipients, "{sending:?}");
            assert!(pairs.iter().all(|pair| *pair < plan.pairs()));
            assert_eq!(pairs.iter().collect::<HashSet<_>>().len(), pairs.len());
            if let Destination::Group(group) = sending.to {
                let receivers = (0..seats.len()).filter(|seat| plan.pair(&sending, *seat).is_some());
                receivers.for_each(|seat| assert!(seats[seat].groups.contains(&group)));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn groups_have_their_size_and_streams_of_their_own(cuts in 1usize..6, size in 2usize..9, groups in 1usize..20) {
            let plan = Plan::groups(cuts * size, groups, size).unwrap();
            let seats = plan.seats();
            for group in 0..groups as u32 {
                prop_assert_eq!(seats.iter().filter(|seat| seat.groups.contains(&group)).count(), size);
            }
            let most = seats.iter().map(|seat| seat.groups.len()).max().unwrap();
            let least = seats.iter().map(|seat| seat.groups.len()).min().unwrap();
            prop_assert!(most - least <= 1);
            check(&plan, 50);
        }
    }

    #[test]
    fn a_fanout_reaches_all_but_the_publisher_and_a_unicast_one() {
        check(&Plan::Fanout { subscribers: 7 }, 3);
        check(&Plan::Unicast { users: 9, across: false }, 100);
        check(&Plan::Unicast { users: 10, across: true }, 100);
    }

    #[test]
    fn in_turn_everybody_sends_and_is_sent_to() {
        let plan = Plan::in_turn(20, 4).unwrap();
        check(&plan, 40);
        let senders: Vec<usize> = (0..20).map(|number| plan.next(&mut Dice::new(), number).sender).collect();
        assert_eq!(senders, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn pairs_of_different_streams_do_not_meet() {
        let plan = Plan::groups(12, 9, 4).unwrap();
        let mut owner = vec![None; plan.pairs()];
        let mut dice = Dice::new();
        for number in 0..2000 {
            let sending = plan.next(&mut dice, number);
            for seat in 0..12 {
                if let Some(pair) = plan.pair(&sending, seat) {
                    let this = (sending.sender, sending.to, seat);
                    assert_eq!(*owner[pair].get_or_insert(this), this);
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_divide_are_refused() {
        for (users, groups, size) in [(1000, 20, 30), (10, 1, 1), (10, 0, 5), (0, 1, 2)] {
            assert!(Plan::groups(users, groups, size).is_err());
        }
    }
}
