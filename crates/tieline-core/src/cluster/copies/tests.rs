//! Three directories that tell each other what they state, with losses, restarts and late words.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use tieline_proto::presence::{Details, Turn};
use tieline_proto::{GroupName, UserId};

use super::*;
use crate::cluster::Statements;
use crate::directory::{Claimed, Directory, Holder, Replicated, Standing};
use crate::logins::{HubRule, Login, Logins, PerUser};
use crate::presence::{Presence, PresenceRules};

/// Nodes, and users that they claim.
const NODES: usize = 3;
const USERS: usize = 3;

/// One node, with what it was told of the others.
struct Side {
    me: Incarnation,
    statements: Arc<Statements>,
    users: Replicated,
    /// Of a hub where each user has one place.
    logins: Logins,
    interest: Interest,
    presence: Presence,
    /// Who is in a hub or in a group, as far as was told.
    told: BTreeSet<Stay>,
    copies: BTreeMap<usize, Copy>,
    /// Its connections: user and claim.
    live: Vec<(usize, u64)>,
    /// Its connections in the other hub.
    logged_in: Vec<Login>,
    /// Its connections where it is told who is present, each with its device.
    present: Vec<(Stay, Option<u8>)>,
    /// What is on its way to it: from whom, and to which version.
    mail: VecDeque<(usize, u64, Vec<Change>)>,
}

/// Whether somebody is in the group, or in the hub; and who, if it is anybody.
type Stay = (bool, Option<usize>);

#[derive(Clone, Debug)]
enum Step {
    Claim(usize, usize),
    Release(usize, usize),
    /// A user logs in where it has one place.
    LogIn(usize, usize),
    LogOut(usize, usize),
    /// A user, or nobody, is in the hub, or in the group, with one device or another.
    Enter(usize, Stay, Option<u8>),
    Exit(usize, usize),
    /// A node tells its own subscribers what it knows.
    News(usize),
    /// What a node has stated so far leaves for the others.
    Tell(usize),
    /// A node takes in the next word.
    Read(usize),
    /// It is lost.
    Lose(usize),
    /// A node takes in another's whole roster.
    Whole(usize, usize),
    /// A node is started again: its connections are gone, and the others find out.
    Restart(usize),
}

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

/// The hub where each user has one place.
fn single() -> HubName {
    HubName::new("single").unwrap()
}

fn details(device: Option<u8>) -> Option<Details> {
    Details::new(device.map(|device| device.to_string()).as_deref(), None).unwrap()
}

fn names((in_group, who): Stay) -> (Option<GroupName>, Option<UserId>) {
    (in_group.then(|| GroupName::new("room").unwrap()), who.map(user))
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

impl Side {
    fn new(incarnation: u64) -> Self {
        let statements = Arc::<Statements>::default();
        let me = Incarnation(incarnation);
        let rules = vec![HubRule { pattern: "single".into(), per_user: PerUser::One }];
        let logins = Logins::new(me, rules);
        logins.state_by(Arc::clone(&statements));
        let id =
            tieline_proto::NodeId { name: tieline_proto::NodeName::new("node").unwrap(), incarnation: me };
        // Time is not what is tested here.
        let rules = PresenceRules {
            hubs: vec![("hub".into(), true)],
            groups: vec![("room".into(), true)],
            grace: std::time::Duration::ZERO,
        };
        let presence = Presence::new(id, rules);
        presence.state_by(Arc::clone(&statements));
        Side {
            me,
            logins,
            presence,
            told: BTreeSet::new(),
            present: Vec::new(),
            users: Replicated::new(me, Arc::clone(&statements)),
            statements,
            interest: Interest::default(),
            copies: BTreeMap::new(),
            live: Vec::new(),
            logged_in: Vec::new(),
            mail: VecDeque::new(),
        }
    }

    /// Ends the connections that have lost their place, as the shards do.
    fn end_displaced(&mut self) {
        for (hub, place) in self.logins.take_lost() {
            let is_lost = |login: &Login| {
                login.place == place && self.logins.standing(&hub, login) == Standing::Outranked
            };
            let (lost, kept) = self.logged_in.drain(..).partition(is_lost);
            self.logged_in = kept;
            let lost: Vec<Login> = lost;
            lost.iter().for_each(|login| self.logins.release(&hub, login));
        }
    }

    /// What its subscribers are told: nobody comes twice, or leaves who was not there.
    fn take_news(&mut self) {
        for (room, told) in self.presence.told() {
            let stay = |who: &UserId| {
                let n = (0..USERS).find(|n| user(*n) == *who);
                (room.group.is_some(), n)
            };
            for event in told {
                match event.turn {
                    Turn::Join => assert!(self.told.insert(stay(&event.user)), "{event:?}"),
                    Turn::Leave => assert!(self.told.remove(&stay(&event.user)), "{event:?}"),
                }
            }
        }
    }

    fn order(&self, n: usize) -> Vec<Holder> {
        self.users.find(&hub(), &user(n)).holders.to_vec()
    }
}

fn tell(sides: &mut [Side], from: usize) {
    let (version, changes) = sides[from].statements.take_untold();
    if changes.is_empty() {
        return;
    }
    for to in (0..NODES).filter(|to| *to != from) {
        sides[to].mail.push_back((from, version, changes.clone()));
    }
}

fn whole(sides: &mut [Side], to: usize, from: usize) {
    tell(sides, from);
    let told = |roster: &Roster| (roster.version(), roster.entries().collect::<Vec<_>>());
    let (version, entries) = sides[from].statements.when_told(told).unwrap();
    let node = sides[from].me;
    let Side { copies, users, logins, interest, presence, .. } = &mut sides[to];
    let copy = copies.entry(from).or_default();
    // A roster that is older than what was read came late; it is never asked for.
    if copy.version() <= version {
        assert_eq!(
            copy.take_part(node, (version, 0), entries, Tables { interest, users, logins, presence }),
            Taken::Followed
        );
    }
}

fn step(sides: &mut [Side], step: &Step, next: &mut u64) {
    match *step {
        Step::Claim(at, n) => {
            let before = sides[at].order(n);
            let Claimed { number, .. } = sides[at].users.claim(&hub(), &user(n));
            let is_own = before.first().is_some_and(|newest| newest.node == sides[at].me);
            let known = before.iter().map(|holder| holder.claim).max().unwrap_or(0);
            assert_eq!(number, if is_own { known } else { known + 1 });
            assert_eq!(sides[at].order(n)[0], Holder { node: sides[at].me, claim: number });
            sides[at].live.push((n, number));
        }
        Step::Release(at, which) => {
            if !sides[at].live.is_empty() {
                let which = which % sides[at].live.len();
                let (n, number) = sides[at].live.swap_remove(which);
                sides[at].users.release(&hub(), &user(n), number);
            }
        }
        Step::LogIn(at, n) => {
            let side = &mut sides[at];
            let place = side.logins.place(&single(), &user(n), None).unwrap();
            let Claimed { number, .. } = side.logins.claim(&single(), &place);
            let login = Login { place, number };
            assert_ne!(side.logins.standing(&single(), &login), Standing::Outranked);
            side.logged_in.push(login.clone());
            if side.logins.standing(&single(), &login) == Standing::Newest {
                side.logins.lose(&single(), login.place);
            }
        }
        Step::LogOut(at, which) => {
            let side = &mut sides[at];
            if !side.logged_in.is_empty() {
                let login = side.logged_in.swap_remove(which % side.logged_in.len());
                side.logins.release(&single(), &login);
            }
        }
        Step::Enter(at, stay, device) => {
            let (group, user) = names(stay);
            sides[at].presence.enter(&hub(), group.as_ref(), user.as_ref(), details(device).as_ref());
            sides[at].present.push((stay, device));
        }
        Step::Exit(at, which) => {
            let side = &mut sides[at];
            if !side.present.is_empty() {
                let (stay, device) = side.present.swap_remove(which % side.present.len());
                let (group, user) = names(stay);
                side.presence.exit(&hub(), group.as_ref(), user.as_ref(), details(device).as_ref());
            }
        }
        Step::News(at) => sides[at].take_news(),
        Step::Tell(from) => tell(sides, from),
        Step::Read(to) => {
            let Some((from, version, changes)) = sides[to].mail.pop_front() else { return };
            let node = sides[from].me;
            let Side { copies, users, logins, interest, presence, .. } = &mut sides[to];
            copies.entry(from).or_default().follow(
                node,
                version,
                &changes,
                Tables { interest, users, logins, presence },
            );
        }
        Step::Lose(to) => drop(sides[to].mail.pop_front()),
        Step::Whole(to, from) if to != from => whole(sides, to, from),
        Step::Whole(..) => {}
        Step::Restart(at) => {
            let gone = sides[at].me;
            *next += 1;
            sides[at] = Side::new(*next);
            for side in sides.iter_mut().filter(|side| side.me.0 != *next) {
                if let Some(copy) = side.copies.remove(&at) {
                    copy.forget(gone, &side.interest, &side.presence);
                }
                side.users.forget(gone);
                side.logins.forget(gone);
                side.presence.part(gone);
                side.mail.retain(|(from, ..)| *from != at);
            }
        }
    }
}

/// Connections of each user in the hub where it has one place.
fn logged_in_all(sides: &[Side]) -> [usize; USERS] {
    let all = || sides.iter().flat_map(|side| &side.logged_in);
    std::array::from_fn(|n| all().filter(|login| login.place.user == user(n)).count())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..NODES, 0..USERS).prop_map(|(at, n)| Step::Claim(at, n)),
        3 => (0..NODES, any::<usize>()).prop_map(|(at, which)| Step::Release(at, which)),
        4 => (0..NODES, 0..USERS).prop_map(|(at, n)| Step::LogIn(at, n)),
        2 => (0..NODES, any::<usize>()).prop_map(|(at, which)| Step::LogOut(at, which)),
        5 => (0..NODES, any::<bool>(), 0..USERS + 1, proptest::option::of(0..2u8))
            .prop_map(|(at, group, n, device)| Step::Enter(at, (group, (n < USERS).then_some(n)), device)),
        4 => (0..NODES, any::<usize>()).prop_map(|(at, which)| Step::Exit(at, which)),
        2 => (0..NODES).prop_map(Step::News),
        4 => (0..NODES).prop_map(Step::Tell),
        6 => (0..NODES).prop_map(Step::Read),
        1 => (0..NODES).prop_map(Step::Lose),
        1 => (0..NODES, 0..NODES).prop_map(|(to, from)| Step::Whole(to, from)),
        1 => (0..NODES).prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn after_an_exchange_all_have_one_order_and_no_live_claim_is_missing(steps in steps()) {
        let mut sides: Vec<Side> = (0..NODES).map(|n| Side::new(n as u64 + 1)).collect();
        let mut next = NODES as u64;
        let (mut has_come, mut has_ended) = ([false; USERS], [false; USERS]);
        for one in &steps {
            let before = logged_in_all(&sides);
            step(&mut sides, one, &mut next);
            let after = logged_in_all(&sides);
            // Who ends by itself may be the newest; what displaces an older one never ends.
            for n in 0..USERS {
                has_ended[n] |= after[n] < before[n];
                has_come[n] |= after[n] > before[n];
            }
            sides.iter_mut().for_each(Side::end_displaced);
        }
        for to in 0..NODES {
            (0..NODES).filter(|from| *from != to).for_each(|from| whole(&mut sides, to, from));
        }
        sides.iter_mut().for_each(Side::end_displaced);
        for n in 0..USERS {
            let left = logged_in_all(&sides)[n];
            prop_assert!(left <= 1, "user {} has {} places", n, left);
            prop_assert!(left == 1 || has_ended[n] || !has_come[n], "user {} was displaced by nobody", n);
        }
        // What was released last is not told yet.
        for to in 0..NODES {
            (0..NODES).filter(|from| *from != to).for_each(|from| whole(&mut sides, to, from));
        }
        for n in 0..USERS {
            let newest: Vec<_> = sides.iter().map(|side| side.logins.newest(&single(), &user(n))).collect();
            prop_assert!(newest.iter().all(|one| one == &newest[0]), "{:?}", newest);
            prop_assert_eq!(newest[0].is_some(), logged_in_all(&sides)[n] == 1);
        }
        for n in 0..USERS {
            let mut expected: Vec<Holder> = Vec::new();
            for side in &sides {
                let claim = side.live.iter().filter(|(of, _)| *of == n).map(|(_, claim)| *claim).max();
                expected.extend(claim.map(|claim| Holder { node: side.me, claim }));
            }
            expected.sort_by_key(|holder| std::cmp::Reverse((holder.claim, holder.node)));
            for side in &sides {
                prop_assert_eq!(&side.order(n), &expected);
            }
        }
    }
}

proptest! {
    #[test]
    fn after_an_exchange_all_know_who_is_present_and_have_told_so(steps in steps()) {
        let mut sides: Vec<Side> = (0..NODES).map(|n| Side::new(n as u64 + 1)).collect();
        let mut next = NODES as u64;
        steps.iter().for_each(|one| step(&mut sides, one, &mut next));
        for to in 0..NODES {
            (0..NODES).filter(|from| *from != to).for_each(|from| whole(&mut sides, to, from));
        }
        sides.iter_mut().for_each(Side::take_news);
        let truth: Vec<(Stay, Option<u8>)> = sides.iter().flat_map(|side| side.present.clone()).collect();
        for side in &sides {
            let present: BTreeSet<Stay> =
                truth.iter().map(|(stay, _)| *stay).filter(|(_, who)| who.is_some()).collect();
            prop_assert_eq!(&side.told, &present);
            for in_group in [false, true] {
                let (group, _) = names((in_group, None));
                let page = side.presence.page(&hub(), group.as_ref(), None, 100).unwrap();
                let here: Vec<_> = truth.iter().filter(|((group, _), _)| *group == in_group).collect();
                let nobody = here.iter().filter(|((_, who), _)| who.is_none()).count() as u64;
                prop_assert_eq!(page.totals.connections, here.len() as u64);
                prop_assert_eq!(page.totals.anonymous, nobody);
                prop_assert_eq!(page.totals.users as usize, page.users.len());
                for person in page.users {
                    let own = here.iter().filter(|((_, who), _)| who.map(user) == Some(person.user.clone()));
                    prop_assert_eq!(person.connections, own.count() as u64);
                    for place in person.places {
                        prop_assert!(place.connections > 0);
                        let like = |((_, who), device): &&&(Stay, Option<u8>)| {
                            who.map(user) == Some(person.user.clone()) && details(*device) == place.details
                        };
                        prop_assert!(here.iter().any(|one| like(&one)));
                    }
                }
            }
        }
    }
}

#[test]
fn a_release_takes_back_its_own_claim_alone() {
    let mut sides = [Side::new(1), Side::new(2), Side::new(3)];
    let claim = |side: &Side| side.users.claim(&hub(), &user(0)).number;
    let old = claim(&sides[0]);
    whole(&mut sides, 1, 0);
    let other = claim(&sides[1]);
    whole(&mut sides, 0, 1);
    let new = claim(&sides[0]);
    assert_eq!((old, other, new), (1, 2, 3));
    let (a, b) = (sides[0].me, sides[1].me);
    let holder = |node, claim| Holder { node, claim };
    assert_eq!(sides[0].order(0), [holder(a, 3), holder(b, 2)]);
    sides[0].users.release(&hub(), &user(0), new);
    assert_eq!(sides[0].order(0), [holder(b, 2), holder(a, 1)], "the older connection is still there");
    sides[0].users.release(&hub(), &user(0), new);
    sides[0].users.release(&hub(), &user(0), other);
    assert_eq!(
        sides[0].order(0),
        [holder(b, 2), holder(a, 1)],
        "what is not its own, or gone, is not released"
    );
    sides[0].users.release(&hub(), &user(0), old);
    whole(&mut sides, 1, 0);
    assert_eq!(sides[1].order(0), [holder(b, 2)]);
}
