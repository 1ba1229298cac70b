//! Three nodes that ask one table, with answers, words and statements that come late, in any order of the nodes; nodes that do not know
//! each other yet; a table that forgets nodes; all under seeds.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use tieline_proto::envelope::Change;

use super::*;

const NODES: usize = 3;
const USERS: usize = 3;

type Key = (HubName, UserId);

/// What the table has of one node.
#[derive(Default)]
struct Rows {
    users: HashMap<Key, u64>,
    remembered: HashSet<Key>,
}

/// The table, as a server's script has it.
#[derive(Default)]
struct Table(HashMap<Incarnation, Rows>);

impl Table {
    /// Nothing where it does not know the node.
    fn answer(&mut self, me: Incarnation, request: &Request) -> Option<Answer> {
        let key = (request.key().0.clone(), request.key().1.clone());
        self.0.get(&me)?;
        let mut others: Vec<Incarnation> = self.0.keys().copied().filter(|node| *node != me).collect();
        others.sort_unstable();
        let claim = |node: &Incarnation| self.0[node].users.get(&key).copied().unwrap_or(0);
        let remembers = |node: &Incarnation| u64::from(self.0[node].remembered.contains(&key));
        let newest = others.iter().map(|node| (claim(node), *node)).filter(|(claim, _)| *claim > 0).max();
        let nodes = match request {
            Request::Forget { .. } => Vec::new(),
            Request::Look { .. } => others.iter().map(|node| (*node, claim(node))).collect(),
            _ => others.iter().map(|node| (*node, remembers(node))).collect(),
        };
        let mut answer = Answer { nodes, ..Answer::default() };
        let own = self.0.get_mut(&me).unwrap();
        match request {
            Request::Claim { number, is_exact, .. } => {
                answer.number = match (newest, own.users.get(&key)) {
                    _ if *is_exact => *number,
                    (Some(newest), Some(own)) if (*own, me) > newest => *own.max(number),
                    (Some((newest, _)), _) => *number.max(&(newest + 1)),
                    (None, _) => *number,
                };
                own.users.insert(key, answer.number);
            }
            Request::Release { .. } => drop(own.users.remove(&key)),
            Request::Look { .. } => drop(own.remembered.insert(key)),
            Request::Forget { .. } => drop(own.remembered.remove(&key)),
        }
        Some(answer)
    }
}

/// Something one node says to another.
#[derive(Clone)]
enum Mail {
    Word(Rare),
    Changes(u64, Vec<Change>),
    /// By this the receiver knows the sender, and all that it states.
    Beat(u64, Vec<(HubName, Held, u64)>),
    Read(u64),
}

struct Side {
    me: Incarnation,
    asked: Asked,
    statements: Arc<Statements>,
    /// What the table has answered, and this node has not heard.
    answers: Vec<(Request, Answer)>,
    /// What is on its way to it.
    mail: std::collections::VecDeque<(usize, Mail)>,
    /// Which others it has met.
    met: [bool; NODES],
    /// What each other has read of its statements, if it has said so.
    read: [Option<u64>; NODES],
    live: Vec<Live>,
}

/// A claim that was not taken back.
struct Live {
    user: usize,
    number: u64,
    until: Until,
    /// The nodes that were met when it was known, once it is.
    known_to: Option<[bool; NODES]>,
}

impl Side {
    /// It knows others from now on.
    fn meet(&mut self, others: impl Iterator<Item = usize>) {
        others.for_each(|other| self.met[other] = true);
        let met: Vec<u64> = (0..NODES).filter(|other| self.met[*other]).map(|n| n as u64 + 1).collect();
        meet(&self.asked, &met);
    }
}

/// Tells a node who the others are.
fn meet(asked: &Asked, others: &[u64]) {
    let fellow = |other: &u64| Fellow {
        name: other.to_string().into(),
        node: Incarnation(*other),
        weight: 1,
        directory: Some("table".into()),
    };
    let fellows: Vec<Fellow> = others.iter().map(fellow).collect();
    asked.meet(&fellows, 1, &mut |_| {});
}

fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

struct World {
    sides: Vec<Side>,
    table: Table,
}

impl World {
    /// Whose nodes know each other, or nobody.
    fn new(have_met: bool) -> Self {
        let mut table = Table::default();
        let sides: Vec<Side> = (0..NODES)
            .map(|n| {
                let me = Incarnation(n as u64 + 1);
                let statements = Arc::<Statements>::default();
                let asked = Asked::new(me, "table");
                asked.state_by(Arc::clone(&statements));
                table.0.insert(me, Rows::default());
                asked.entered();
                let (answers, mail, met) = Default::default();
                let read = [have_met.then_some(0); NODES];
                let mut side = Side { me, asked, statements, answers, mail, met, read, live: Vec::new() };
                if have_met {
                    side.meet((0..NODES).filter(|other| *other != n));
                }
                side
            })
            .collect();
        World { sides, table }
    }

    /// What those that a node has met have read of its statements.
    fn read(&self, at: usize) -> Option<u64> {
        let side = &self.sides[at];
        side.statements.were_read((0..NODES).filter(|other| side.met[*other]).map(|other| side.read[other]))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Claim(at, n) => {
                let Claimed { number, until } = self.sides[at].asked.claim(&hub(), &user(n));
                self.sides[at].live.push(Live { user: n, number, until, known_to: None });
            }
            Step::Release(at, which) => {
                let side = &mut self.sides[at];
                if !side.live.is_empty() {
                    let Live { user: n, number, .. } = side.live.swap_remove(which % side.live.len());
                    side.asked.release(&hub(), &user(n), number);
                }
            }
            Step::Find(at, n) => drop(self.sides[at].asked.find(&hub(), &user(n))),
            Step::Ask(at, most) => {
                let side = &mut self.sides[at];
                if !side.asked.is_up() {
                    return self.enter(at);
                }
                for request in side.asked.take(most) {
                    match self.table.answer(side.me, &request) {
                        Some(answer) => side.answers.push((request, answer)),
                        None => {
                            side.answers.clear();
                            return side.asked.away();
                        }
                    }
                }
            }
            Step::Answer(at) => {
                let side = &mut self.sides[at];
                for (request, answer) in std::mem::take(&mut side.answers) {
                    side.asked.answered(&request, &answer);
                }
            }
            Step::Tell(at) => self.tell(at),
            Step::Beat(at) => self.beat(at),
            Step::Hear(at) => self.hear(at),
            // Late enough for what waits for a little while, and for all that waits.
            Step::Tick(at) => self.sides[at].asked.tick(Instant::now() + PATIENCE),
            Step::Late(at) => self.sides[at].asked.tick(Instant::now() + 4 * PATIENCE),
            Step::Lose(at) => drop(self.table.0.remove(&self.sides[at].me)),
            Step::Away(at) => {
                self.sides[at].answers.clear();
                self.sides[at].asked.away();
            }
        }
    }

    fn enter(&mut self, at: usize) {
        let side = &self.sides[at];
        let users = side.asked.own_claims().into_iter().map(|request| match request {
            Request::Claim { hub, user, number, .. } => ((hub, user), number),
            _ => panic!("only claims are put there"),
        });
        let rows = Rows { users: users.collect(), ..Rows::default() };
        self.table.0.insert(side.me, rows);
        side.asked.entered();
    }

    fn tell(&mut self, at: usize) {
        let others = (0..NODES).filter(|other| *other != at);
        let mut mail: Vec<(usize, Mail)> = Vec::new();
        for (to, word) in self.sides[at].asked.words() {
            let is_to = |other: &usize| to.is_none_or(|to| to == self.sides[*other].me);
            mail.extend(others.clone().filter(is_to).map(|other| (other, Mail::Word(word.clone()))));
        }
        let (version, changes) = self.sides[at].statements.take_untold();
        if !changes.is_empty() {
            mail.extend(others.map(|other| (other, Mail::Changes(version, changes.clone()))));
        }
        for (to, word) in mail {
            self.sides[to].mail.push_back((at, word));
        }
    }

    /// Says that it is there, when all that it states was told.
    fn beat(&mut self, at: usize) {
        self.tell(at);
        let told =
            self.sides[at].statements.when_told(|roster| (roster.version(), roster.entries().collect()));
        let (version, entries): (u64, Vec<_>) = told.unwrap();
        for other in (0..NODES).filter(|other| *other != at) {
            self.sides[other].mail.push_back((at, Mail::Beat(version, entries.clone())));
        }
    }

    fn hear(&mut self, at: usize) {
        let Some((from, word)) = self.sides[at].mail.pop_front() else { return };
        let origin = self.sides[from].me;
        let side = &mut self.sides[at];
        let answer = match word {
            Mail::Word(Rare::Stale(stale)) => side.asked.hear_stale(&stale).map(Mail::Word),
            Mail::Word(Rare::Forgotten(numbers)) => {
                side.asked.hear_forgotten(origin, &numbers);
                None
            }
            Mail::Word(_) => panic!("nothing else is said"),
            // Nothing is read of somebody who is not known: the first beat has it all.
            Mail::Changes(..) if !side.met[from] => None,
            Mail::Beat(version, entries) => {
                if !side.met[from] {
                    for (hub, what, claim) in entries {
                        let Held::User(user) = what else { panic!("only users are stated") };
                        side.asked.stated(&hub, &user, origin, Some(claim));
                    }
                    side.meet(std::iter::once(from));
                }
                Some(Mail::Read(version))
            }
            Mail::Changes(version, changes) => {
                for Change { hub, what, held, claim } in changes {
                    let Held::User(user) = what else { panic!("only users are stated") };
                    side.asked.stated(&hub, &user, origin, held.then_some(claim));
                }
                Some(Mail::Read(version))
            }
            Mail::Read(version) => {
                side.read[from] = side.read[from].max(Some(version));
                None
            }
        };
        if let Some(answer) = answer {
            self.sides[from].mail.push_back((at, answer));
        }
    }

    /// Whoever was told that the others know is sent to by all that its node had met then.
    fn check(&mut self) {
        for at in 0..NODES {
            let read = self.read(at);
            let Side { live, asked, met, .. } = &mut self.sides[at];
            for one in live.iter_mut().filter(|one| one.known_to.is_none()) {
                one.known_to = one.until.is_over(read, Some(asked)).then_some(*met);
            }
        }
        for at in 0..NODES {
            for Live { user: n, known_to, .. } in &self.sides[at].live {
                let Some(known_to) = known_to else { continue };
                for other in (0..NODES).filter(|other| known_to[*other]).map(|other| &self.sides[other]) {
                    let found = other.asked.find(&hub(), &user(*n));
                    let is_found = found.holders.iter().any(|holder| holder.node == self.sides[at].me);
                    assert!(is_found || found.beside == Beside::Anybody, "{at} {n}: {found:?}");
                }
            }
        }
    }

    fn settle(&mut self) {
        (0..NODES).for_each(|at| self.step(&Step::Late(at)));
        (0..NODES).for_each(|at| self.step(&Step::Beat(at)));
        for _ in 0..30 {
            for at in 0..NODES {
                for step in [Step::Ask(at, 100), Step::Answer(at), Step::Tell(at), Step::Tick(at)] {
                    self.step(&step);
                }
                while !self.sides[at].mail.is_empty() {
                    self.hear(at);
                }
            }
            for (at, n) in (0..NODES).flat_map(|at| (0..USERS).map(move |n| (at, n))) {
                self.step(&Step::Find(at, n));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Claim(usize, usize),
    Release(usize, usize),
    Find(usize, usize),
    /// The engine asks the table, or puts all there again.
    Ask(usize, usize),
    /// What it has answered is heard.
    Answer(usize),
    /// What a node has to tell others leaves.
    Tell(usize),
    /// A node says that it is there.
    Beat(usize),
    Hear(usize),
    Tick(usize),
    Late(usize),
    /// The table forgets a node, which finds out when it asks.
    Lose(usize),
    /// A node cannot reach the table.
    Away(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0..NODES;
    let step = prop_oneof![
        4 => (node.clone(), 0..USERS).prop_map(|(at, n)| Step::Claim(at, n)),
        3 => (node.clone(), any::<usize>()).prop_map(|(at, which)| Step::Release(at, which)),
        4 => (node.clone(), 0..USERS).prop_map(|(at, n)| Step::Find(at, n)),
        6 => (node.clone(), 1..4usize).prop_map(|(at, most)| Step::Ask(at, most)),
        6 => node.clone().prop_map(Step::Answer),
        5 => node.clone().prop_map(Step::Tell),
        2 => node.clone().prop_map(Step::Beat),
        8 => node.clone().prop_map(Step::Hear),
        3 => node.clone().prop_map(Step::Tick),
        1 => node.clone().prop_map(Step::Late),
        1 => node.clone().prop_map(Step::Lose),
        1 => node.prop_map(Step::Away),
    ];
    proptest::collection::vec(step, 0..150)
}

proptest! {
    #[test]
    fn who_was_told_is_found_and_in_the_end_all_know_the_same(have_met in any::<bool>(), steps in steps()) {
        let mut world = World::new(have_met);
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.settle();
        for n in 0..USERS {
            let found: Vec<Whereabouts> =
                world.sides.iter().map(|side| side.asked.find(&hub(), &user(n))).collect();
            let mut holders: Vec<Incarnation> = found[0].holders.iter().map(|holder| holder.node).collect();
            holders.sort_unstable();
            let claims = |side: &&Side| side.live.iter().any(|live| live.user == n);
            let truth: Vec<Incarnation> = world.sides.iter().filter(claims).map(|side| side.me).collect();
            prop_assert_eq!(holders, truth);
            prop_assert!(found.iter().all(|one| *one == found[0]), "{:?}", found);
            prop_assert_eq!(found[0].beside, Beside::Nobody);
        }
        for side in &world.sides {
            prop_assert_eq!(side.statements.when_told(|roster| roster.users()), Some(0), "nothing is stated");
            prop_assert!(side.asked.are_settled(side.asked.last_number(), 0), "nothing is left");
            prop_assert!(side.asked.desk().is_idle());
        }
    }
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_not_needed_is_forgotten() {
    let cache = Cache::new(2);
    let now = Instant::now();
    let look =
        |n: usize| matches!(cache.look(&hub(), &user(n)), Look::Absent) && cache.begin(&hub(), &user(n));
    assert!(look(0) && look(1) && !look(2));
    assert!(cache.sweep(now).is_empty());
    for n in 0..2 {
        assert!(matches!(cache.found(&hub(), &user(n), Some(Holders::new())), Found::Kept));
    }
    let later = |n: u32| now + n * Duration::from_secs(31);
    assert!(cache.sweep(later(1)).is_empty());
    assert!(matches!(cache.look(&hub(), &user(1)), Look::Known(_)));
    assert_eq!(cache.sweep(later(2)), [(hub(), user(0))]);
    assert!(look(2) && !look(3));
    assert_eq!(cache.len(), 2);
}

#[test]
fn a_dead_node_holds_nobody_though_the_table_still_says_so() {
    let asked = Asked::new(Incarnation(1), "table");
    asked.entered();
    meet(&asked, &[2, 3]);
    asked.find(&hub(), "u0");
    let answer = Answer { number: 0, nodes: vec![(Incarnation(2), 7), (Incarnation(3), 0)] };
    let answered = |request: Request| asked.answered(&request, &answer);
    let holders = || asked.find(&hub(), "u0").holders.iter().map(|holder| holder.node).collect::<Vec<_>>();
    asked.take(10).into_iter().for_each(answered);
    assert_eq!(holders(), [Incarnation(2)]);
    // It was asked for before the death was known, and is answered afterwards.
    asked.hear_stale(&[(0, hub(), user(0))]);
    asked.find(&hub(), "u0");
    asked.forget(Incarnation(2));
    meet(&asked, &[3]);
    asked.take(10).into_iter().for_each(answered);
    assert_eq!(asked.find(&hub(), "u0"), Whereabouts::default());
}

#[test]
fn nobody_asks_and_nobody_waits_where_there_is_no_other_node() {
    let asked = Asked::new(Incarnation(1), "table");
    asked.entered();
    assert_eq!(asked.find(&hub(), "u"), Whereabouts::default());
    assert!(!asked.is_sought(&hub(), "u") && asked.take(10).is_empty());
    asked.claim(&hub(), &user(0));
    assert!(matches!(&asked.take(10)[..], [Request::Claim { number: 1, .. }]));
}

/// A shard may look for a user in the very moment in which another node says that what is remembered of it is old. Were the table asked
/// first and told of the older forgetting then, it would not know who remembers what it has answered.
#[test]
fn the_table_hears_of_looking_and_forgetting_in_the_order_of_both() {
    let asked = Asked::new(Incarnation(1), "table");
    asked.entered();
    meet(&asked, &[2]);
    asked.find(&hub(), "u0");
    for request in asked.take(10) {
        asked.answered(&request, &Answer { number: 0, nodes: vec![(Incarnation(2), 0)] });
    }
    let is_remembered = || asked.cache.peek(&hub(), "u0").is_some();
    assert!(is_remembered());
    std::thread::scope(|scope| {
        let desk = asked.desk();
        let threads = [
            scope.spawn(|| drop(asked.hear_stale(&[(0, hub(), user(0))]))),
            scope.spawn(|| drop(asked.find(&hub(), "u1"))),
        ];
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(50) {
            assert!(is_remembered() && asked.cache.len() == 1, "both are done with the desk in hand alone");
            std::thread::yield_now();
        }
        drop(desk);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert!(!is_remembered());
    let mut told = asked.take(10);
    told.sort_by_key(|request| request.key().1.clone());
    assert_eq!(
        told,
        [Request::Forget { hub: hub(), user: user(0) }, Request::Look { hub: hub(), user: user(1) }]
    );
}
