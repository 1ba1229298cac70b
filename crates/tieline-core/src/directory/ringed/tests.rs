//! Nodes that learn of each other, and forget each other, each at its own time, under seeds: no message goes past who claims.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use tieline_proto::NodeName;
use tieline_proto::envelope::Change;

use super::*;

const NODES: usize = 4;
const USERS: usize = 6;

/// Something one node says to all others, in order.
#[derive(Clone)]
enum Word {
    Changes(u64, Vec<Change>),
    /// What its directory is called.
    Name(Box<str>),
}

struct Side {
    id: NodeId,
    directory: Ringed,
    statements: Arc<Statements>,
    /// Whom it takes for members, with what each has said that its directory is called.
    members: BTreeMap<usize, Option<Box<str>>>,
    /// Whom it takes for members of another mind.
    apart: BTreeSet<usize>,
    /// What each other has told it.
    copies: BTreeMap<usize, (u64, BTreeMap<UserId, u64>)>,
    mail: BTreeMap<usize, VecDeque<Word>>,
    /// User, number, what has to be read, and by whom: those that it has not lost since.
    live: Vec<(usize, u64, u64, BTreeSet<usize>)>,
}

#[derive(Clone, Debug)]
enum Step {
    Claim(usize, usize),
    Release(usize, usize),
    /// A node says what it has stated, and what its directory is called.
    Tell(usize),
    /// A node takes in the next word of another.
    Hear(usize, usize),
    /// A node learns of another, with all that it states, or forgets it.
    Meet(usize, usize),
    Part(usize, usize),
}

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

struct World(Vec<Side>);

impl World {
    fn new() -> Self {
        let side = |n: usize| {
            let id = NodeId {
                name: NodeName::new(&format!("n{n}")).unwrap(),
                incarnation: Incarnation(n as u64 + 1),
            };
            let statements = Arc::<Statements>::default();
            let directory = Ringed::new(id.clone(), RingHash::default(), Arc::clone(&statements));
            let (members, apart, copies, mail, live) = Default::default();
            Side { id, directory, statements, members, apart, copies, mail, live }
        };
        World((0..NODES).map(side).collect())
    }

    /// What the cluster's task does when the members or what they say has changed.
    fn show(&mut self, at: usize) {
        let fellow = |(n, name): (&usize, &Option<Box<str>>)| Fellow {
            name: self.0[*n].id.name.as_str().into(),
            node: self.0[*n].id.incarnation,
            weight: 1,
            directory: name.clone(),
        };
        let fellows: Vec<Fellow> = self.0[at].members.iter().map(fellow).collect();
        let Side { directory, members, apart, .. } = &mut self.0[at];
        let mut show = |own: &str| {
            let is_apart = |(_, name): &(&usize, &Option<Box<str>>)| name.as_deref() != Some(own);
            *apart = members.iter().filter(is_apart).map(|(n, _)| *n).collect();
        };
        if directory.meet(&fellows, 1, &mut show) {
            self.tell(at);
        }
    }

    fn tell(&mut self, at: usize) {
        let (version, changes) = self.0[at].statements.take_untold();
        let name = self.0[at].directory.name();
        for other in (0..NODES).filter(|other| *other != at) {
            // Who does not know it does not listen.
            if self.0[other].members.contains_key(&at) {
                let mail = self.0[other].mail.entry(at).or_default();
                if !changes.is_empty() {
                    mail.push_back(Word::Changes(version, changes.clone()));
                }
                mail.push_back(Word::Name(name.clone()));
            }
        }
    }

    fn hear(&mut self, at: usize, from: usize) {
        let Some(word) = self.0[at].mail.get_mut(&from).and_then(VecDeque::pop_front) else { return };
        let origin = self.0[from].id.incarnation;
        let side = &mut self.0[at];
        match word {
            Word::Changes(version, changes) => {
                let copy = side.copies.entry(from).or_default();
                copy.0 = version;
                for Change { what, held, claim, .. } in changes {
                    let Held::User(user) = what else { panic!("only users are stated") };
                    if held {
                        copy.1.insert(user.clone(), claim);
                    } else {
                        copy.1.remove(&user);
                    }
                    side.directory.stated(&hub(), &user, origin, held.then_some(claim));
                }
            }
            Word::Name(name) => {
                side.members.insert(from, Some(name));
                self.show(at);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Claim(at, n) => {
                let Claimed { number, until } = self.0[at].directory.claim(&hub(), &user(n));
                let members = self.0[at].members.keys().copied().collect();
                self.0[at].live.push((n, number, until.read, members));
            }
            Step::Release(at, which) => {
                let side = &mut self.0[at];
                if !side.live.is_empty() {
                    let (n, number, ..) = side.live.swap_remove(which % side.live.len());
                    side.directory.release(&hub(), &user(n), number);
                }
            }
            Step::Tell(at) => self.tell(at),
            Step::Hear(at, from) => self.hear(at, from),
            Step::Meet(at, other) => self.meet(at, other),
            Step::Part(at, other) => {
                let gone = self.0[other].id.incarnation;
                let side = &mut self.0[at];
                for (.., by) in &mut side.live {
                    by.remove(&other);
                }
                if side.members.remove(&other).is_some() {
                    side.copies.remove(&other);
                    side.mail.remove(&other);
                    side.directory.forget(gone);
                    self.show(at);
                }
            }
        }
    }

    /// A node learns of another one, and reads all that it states.
    fn meet(&mut self, at: usize, other: usize) {
        if at == other || self.0[at].members.contains_key(&other) {
            return;
        }
        self.tell(other);
        let told = self.0[other]
            .statements
            .when_told(|roster| (roster.version(), roster.entries().collect::<Vec<_>>()));
        let (version, entries) = told.unwrap();
        let (name, origin) = (self.0[other].directory.name(), self.0[other].id.incarnation);
        let mut users = BTreeMap::new();
        for (hub, what, claim) in entries {
            let Held::User(user) = what else { panic!("only users are stated") };
            self.0[at].directory.stated(&hub, &user, origin, Some(claim));
            users.insert(user, claim);
        }
        self.0[at].copies.insert(other, (version, users));
        self.0[at].members.insert(other, Some(name));
        self.show(at);
    }

    /// Whoever claims a user is sent to by all that know the claimer and have read what the claim had to wait for.
    fn check(&self) {
        for (at, side) in self.0.iter().enumerate() {
            for (other, sender) in self.0.iter().enumerate().filter(|(other, _)| *other != at) {
                let (Some(copy), true) = (sender.copies.get(&at), sender.members.contains_key(&at)) else {
                    continue;
                };
                // The claimer has waited for whom it knows.
                let is_owed = |read: &u64, by: &BTreeSet<usize>| copy.0 >= *read && by.contains(&other);
                for (n, _, read, _) in side.live.iter().filter(|(_, _, read, by)| is_owed(read, by)) {
                    let found = sender.directory.find(&hub(), &user(*n));
                    let me = side.id.incarnation;
                    let is_found = found.holders.iter().any(|holder| holder.node == me)
                        || found.beside == Beside::One(me)
                        || sender.apart.contains(&at);
                    assert!(is_found, "{other} sends u{n} past {at}, after {read}: {found:?}");
                }
            }
        }
    }

    fn settle(&mut self) {
        for (at, other) in (0..NODES).flat_map(|at| (0..NODES).map(move |other| (at, other))) {
            self.meet(at, other);
        }
        for _ in 0..6 {
            (0..NODES).for_each(|at| self.tell(at));
            for (at, from) in (0..NODES).flat_map(|at| (0..NODES).map(move |from| (at, from))) {
                while self.0[at].mail.get(&from).is_some_and(|mail| !mail.is_empty()) {
                    self.hear(at, from);
                }
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0..NODES;
    let step = prop_oneof![
        4 => (node.clone(), 0..USERS).prop_map(|(at, n)| Step::Claim(at, n)),
        2 => (node.clone(), any::<usize>()).prop_map(|(at, which)| Step::Release(at, which)),
        5 => node.clone().prop_map(Step::Tell),
        12 => (node.clone(), node.clone()).prop_map(|(at, from)| Step::Hear(at, from)),
        3 => (node.clone(), node.clone()).prop_map(|(at, other)| Step::Meet(at, other)),
        1 => (node.clone(), node).prop_map(|(at, other)| Step::Part(at, other)),
    ];
    proptest::collection::vec(step, 0..150)
}

proptest! {
    // Each makes hundreds of rings.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_message_goes_past_who_claims_and_in_the_end_only_those_away_from_home_are_told_of(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.settle();
        world.check();
        for n in 0..USERS {
            let claims = |side: &&Side| side.live.iter().any(|(of, ..)| *of == n);
            let truth: Vec<Incarnation> = world.0.iter().filter(claims).map(|side| side.id.incarnation).collect();
            for side in &world.0 {
                prop_assert!(side.apart.is_empty(), "all go by one ring");
                let home = side.directory.view().home(&user(n)).unwrap();
                let told: BTreeSet<Incarnation> = match &truth[..] {
                    [one] if *one == home => BTreeSet::new(),
                    all => all.iter().copied().collect(),
                };
                let found = side.directory.find(&hub(), &user(n)).holders;
                let known: BTreeSet<Incarnation> =
                    found.iter().map(|holder| holder.node).filter(|node| *node != side.id.incarnation).collect();
                prop_assert_eq!(known, told.into_iter().filter(|node| *node != side.id.incarnation).collect());
                if truth.len() > 1 {
                    prop_assert_eq!(&found, &world.0[0].directory.find(&hub(), &user(n)).holders);
                }
            }
        }
    }
}
