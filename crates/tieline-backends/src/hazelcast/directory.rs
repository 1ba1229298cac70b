//! [`Map`]: a directory's [`Table`] on a Hazelcast cluster. Nothing has to be configured there, and no class to be known.
//!
//! The map `tieline:CLUSTER:directory` has an entry for each user, which says who holds it and who remembers where it is
//! (`directory/row.rs`), one that lists the nodes, and one for each node's lease (`directory/roll.rs`). All are texts, which every client
//! can read.
//!
//! **One entry for each user** is what members change as a whole: a node puts it there if there is none, and otherwise replaces what
//! it has read if that is there still, and reads again if not. So of a claim and a look at once, the later sees the former, and no
//! holder is lost. A first login is one call, and what finds an entry there is two.
//!
//! **One lease for each node.** Users name the stay of their node, and count only as long as its lease has not ended, so all of a
//! dead node's are gone with that one entry, whose end members see to. Each node looks once a second who is listed, sooner when somebody
//! has come, and relies on it for [`Times::fresh`]. What a dead node leaves is taken out by whoever changes the entry next. Entries in which
//! nobody is left, whoever they were and whenever they went, are removed by one call when a node leaves, and after a death as soon as no
//! node can rely any more on what it saw; those of a whole cluster that died, when one of its nodes starts again.
//!
//! **What is lost.** Members keep one copy of each entry beside it, if nothing else is configured, so a member may die. If more is
//! lost, the map tells its clients; then, and when the map, its lease or its place on the roll is gone, and after each outage, a node
//! comes with a new number and puts all its users there anew. When two parts of a split Hazelcast cluster are one again, the members of the
//! smaller one drop their clients, so their nodes do the same; what was brought back of their earlier stays counts no longer.
//!
//! Tested by the conformance suite on real members, killed and standing ones among them, and beside the official client, in
//! `directory/tests.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tieline_core::directory::Asked;
use tieline_core::directory::asked::{Answer, Request};
use tieline_proto::Incarnation;
use tokio::time::{Instant, timeout};

use super::protocol::{MapCall, Reply, read_text};
use super::{Attempt, HazelcastAddress, HazelcastError, Members, Trouble, check_cluster, connection, topics};
use crate::directory::{ANSWER, AT_ONCE, Table, TableDirectory};
use crate::hosts::{self, Host};
use errand::Errand;
use link::Link;
use roll::{ROLL, Roll, Stay, View};

mod errand;
mod link;
mod roll;
mod row;
#[cfg(test)]
mod tests;

/// The first pause before it is looked again for a node that is not listed; each further one is twice as long, up to a beat.
const SOON: Duration = Duration::from_millis(50);

/// How long after a loss all users are put there once more: what is being lost may go on being lost for a while.
const ONCE_MORE: Duration = Duration::from_secs(5);

/// Stays whose entries are removed at once. The rest is for the next time.
const SWEPT_AT_ONCE: usize = 64;

/// The value of a lease. Only that it is there matters.
const LIVES: &str = "lives";

/// How a node uses a Hazelcast cluster as its directory.
#[derive(Clone, Debug)]
pub struct HazelcastDirectorySettings {
    /// Where the members are.
    pub address: HazelcastAddress,
    /// The name of our cluster, which is in the name of the map.
    pub cluster: String,
    /// How long others believe in a node that says nothing. Members count whole seconds.
    pub lease: Duration,
}

impl HazelcastDirectorySettings {
    /// The defaults.
    pub fn new(address: HazelcastAddress, cluster: &str) -> Self {
        HazelcastDirectorySettings { address, cluster: cluster.to_owned(), lease: Duration::from_secs(15) }
    }

    /// Opens a node's directory, whose task is one of the runtime that this is called in.
    ///
    /// # Errors
    /// [`HazelcastError`], when the settings are wrong or no member is there or takes this node, at the latest after 5 s.
    pub async fn open(self, me: Incarnation) -> Result<TableDirectory, HazelcastError> {
        let HazelcastDirectorySettings { address, cluster, lease } = self;
        check_cluster(&cluster)?;
        let server = hosts::listed(&address.members);
        let asked = Arc::new(Asked::new(me, "hazelcast"));
        let map = Map {
            asked: Arc::clone(&asked),
            members: Members::new(&address),
            client: format!("tieline-directory-{:016x}", me.0),
            name: format!("tieline:{}:directory", topics::plain(&cluster)),
            times: Times::of(lease),
            address,
            node: me,
            connections: 0,
            stay: Stay { node: me, number: 0 },
            view: View::default(),
            missing: HashMap::new(),
            sweeping: None,
            looked: 0,
            once_more: None,
        };
        TableDirectory::open(asked, map).await.map_err(|trouble| HazelcastError::Server { server, trouble })
    }
}

/// When what is done. A node looks before it relies on what it saw for too long, and nothing is removed that anybody relies on.
#[derive(Clone, Copy)]
struct Times {
    lease: Duration,
    /// How often a node renews its lease, and looks who is listed.
    beat: Duration,
    /// How long what was seen is relied on.
    fresh: Duration,
    /// How long a lease has been over before what is left of its stay is removed.
    swept: Duration,
}

impl Times {
    fn of(lease: Duration) -> Self {
        let part = |part: u32, most: u64| (lease / part).min(Duration::from_secs(most));
        let fresh = part(4, 4);
        // Who relied on what it saw was answered by then.
        Times { lease, beat: part(15, 1), fresh, swept: fresh + 2 * ANSWER }
    }

    fn ttl(&self) -> u64 {
        self.lease.as_millis() as u64
    }
}

/// Connects to a member, and hears from then on of losses of the map.
struct Dial<'a> {
    address: &'a HazelcastAddress,
    /// What members call this client.
    client: &'a str,
    map: &'a str,
    /// A number that no other connection has.
    id: u128,
}

impl Attempt for Dial<'_> {
    type Connection = Link;

    async fn at(&self, member: &Host) -> Result<Link, Trouble> {
        let dialling = async {
            let greeted = connection::greet(member, self.address, self.client, self.id).await?;
            let mut link = Link::new(greeted, self.map);
            link.ask(&[MapCall::Listen], ANSWER).await?;
            Ok(link)
        };
        timeout(ANSWER, dialling).await.unwrap_or(Err(Trouble::Silent))
    }
}

/// The map, as one node uses it.
struct Map {
    asked: Arc<Asked>,
    address: HazelcastAddress,
    members: Members,
    /// What members call this client.
    client: String,
    /// What the map is called.
    name: String,
    times: Times,
    node: Incarnation,
    /// The attempts to connect so far.
    connections: u32,
    /// This node's present stay, or its last one.
    stay: Stay,
    view: View,
    /// Since when stays on the roll have been seen without a lease.
    missing: HashMap<Stay, Instant>,
    /// Whose entries are being removed.
    sweeping: Option<Vec<Stay>>,
    /// How often in a row somebody was not listed whom this node knows.
    looked: u32,
    /// When all users are put there once more, after a loss.
    once_more: Option<Instant>,
}

impl Map {
    /// Puts all of this node's users there, as far as they are not.
    async fn put_all(&self, link: &mut Link) -> Result<(), Trouble> {
        for part in self.asked.own_claims().chunks(AT_ONCE) {
            self.ask_all(link, part).await?;
            self.renew(link).await?;
        }
        Ok(())
    }

    /// Does so, when it is time, and has all nodes forget what they were answered meanwhile.
    async fn put_once_more(&mut self, link: &mut Link) -> Result<(), Trouble> {
        if self.once_more.is_some_and(|at| at <= Instant::now()) {
            self.once_more = None;
            self.put_all(link).await?;
            self.asked.entered();
        }
        Ok(())
    }

    /// All users are put there anew now, and once more when nothing is being lost any longer.
    fn note_loss(&mut self) {
        self.once_more = Some(Instant::now() + ONCE_MORE);
    }

    /// Whether all other nodes that this one knows are listed.
    fn lists_all(&self) -> bool {
        self.asked.fellows().iter().all(|node| self.view.lists(*node))
    }

    /// Renews this node's lease. Returns whether it was there.
    async fn renew(&self, link: &mut Link) -> Result<bool, Trouble> {
        let replies = link.ask(&[MapCall::SetTtl(&self.stay.lease(), self.times.ttl())], ANSWER).await?;
        Ok(replies == [Reply::Is(true)])
    }

    /// Renews this node's lease, looks who is listed, and sees to what dead nodes have left. Returns whether this node is listed.
    async fn beat(&mut self, link: &mut Link) -> Result<bool, Trouble> {
        let began = Instant::now();
        if !self.renew(link).await? {
            return Ok(false);
        }
        let roll = read_roll(link).await?.1;
        let stays: Vec<Stay> = roll.stays().collect();
        let leases: Vec<String> = stays.iter().map(Stay::lease).collect();
        let calls: Vec<MapCall<'_>> = leases.iter().map(|lease| MapCall::Get(lease)).collect();
        let replies = link.ask(&calls, ANSWER).await?;
        let lives = stays.iter().zip(&replies).filter(|(_, reply)| matches!(reply, Reply::Value(Some(_))));
        let lives: HashSet<Stay> = lives.map(|(stay, _)| *stay).collect();
        self.view = View::new(self.stay, roll, |stay| lives.contains(&stay), began);
        self.missing.retain(|stay, _| stays.contains(stay) && !lives.contains(stay));
        for stay in stays.iter().filter(|stay| !lives.contains(stay)) {
            self.missing.entry(*stay).or_insert_with(Instant::now);
        }
        self.looked = if self.lists_all() { 0 } else { self.looked + 1 };
        self.sweep(link).await?;
        Ok(self.view.has(self.stay))
    }

    /// Removes what is left of those whose leases were over for long enough: the entries in which nobody else lives, and then their places
    /// on the roll. The node whose stay is the first one does it.
    async fn sweep(&mut self, link: &mut Link) -> Result<(), Trouble> {
        if !link.is_aside_done() {
            return Ok(());
        }
        if let Some(gone) = self.sweeping.take() {
            return self.change_roll(link, |roll| roll.strike(&gone)).await;
        }
        let over = self.missing.iter().filter(|(_, since)| since.elapsed() >= self.times.swept);
        let over: Vec<Stay> = over.map(|(stay, _)| *stay).take(SWEPT_AT_ONCE).collect();
        let is_first = self.view.listed().all(|other| (other.number, other) > (self.stay.number, self.stay));
        if is_first && !over.is_empty() {
            let entries = self.view.roll().entries_without(&over);
            link.ask_aside(&MapCall::RemoveAll(&entries), ANSWER).await?;
            self.sweeping = Some(over);
        }
        Ok(())
    }

    /// Changes the roll, however many do so at once, and gives what the change has given.
    async fn change_roll<T>(
        &self,
        link: &mut Link,
        mut change: impl FnMut(&mut Roll) -> T,
    ) -> Result<T, Trouble> {
        let changing = async {
            loop {
                let (former, mut roll) = read_roll(link).await?;
                let given = change(&mut roll);
                let text = roll.text();
                let call = match (&former, &text) {
                    (None, None) => return Ok(given),
                    (None, Some(text)) => MapCall::PutIfAbsent(ROLL, text),
                    (Some(former), Some(text)) => MapCall::ReplaceIfSame(ROLL, former, text),
                    (Some(former), None) => MapCall::RemoveIfSame(ROLL, former),
                };
                if let [Reply::Value(None) | Reply::Is(true)] = link.ask(&[call], ANSWER).await?[..] {
                    return Ok(given);
                }
            }
        };
        timeout(ANSWER, changing).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Asks all of this: each user's entry is changed until nobody else has changed it meanwhile.
    async fn ask_all(&self, link: &mut Link, requests: &[Request]) -> Result<Vec<Answer>, Trouble> {
        let mut answers = vec![Answer::default(); requests.len()];
        let running = self.run_errands(link, Errand::of(requests), &mut answers);
        timeout(ANSWER, running).await.unwrap_or(Err(Trouble::Silent))?;
        Ok(answers)
    }

    async fn run_errands(
        &self,
        link: &mut Link,
        mut errands: Vec<Errand<'_>>,
        answers: &mut [Answer],
    ) -> Result<(), Trouble> {
        while !errands.is_empty() {
            let is_fresh = self.view.is_fresh(self.times.fresh);
            errands.iter_mut().for_each(|errand| errand.serve(self.stay, &self.view, is_fresh));
            let calls: Vec<Option<MapCall<'_>>> = errands.iter().map(Errand::call).collect();
            let made: Vec<MapCall<'_>> = calls.iter().flatten().copied().collect();
            let mut replies = link.ask(&made, ANSWER).await?.into_iter();
            let has_call: Vec<bool> = calls.iter().map(Option::is_some).collect();
            let mut open = Vec::new();
            for (mut errand, has_call) in errands.into_iter().zip(has_call) {
                let is_done = match has_call {
                    true => errand.hear(replies.next().ok_or(Trouble::Garbage)?)?,
                    false => true,
                };
                if is_done {
                    errand.settle(answers);
                } else {
                    open.push(errand);
                }
            }
            errands = open;
        }
        Ok(())
    }
}

impl Table for Map {
    type Link = Link;
    type Trouble = Trouble;

    const SILENT: Trouble = Trouble::Silent;

    fn server(&self) -> String {
        hosts::listed(&self.address.members)
    }

    /// One attempt at each member, of which it hears of losses from then on. The last one is not the first to be tried again.
    async fn connect(&mut self) -> Result<Link, Trouble> {
        if self.connections > 0 {
            self.members.pass_on();
        }
        self.connections = self.connections.wrapping_add(1);
        // No other connection of any node has it: those of brokers have smaller ones.
        let id = u128::from(self.node.0) << 64 | 1 << 63 | u128::from(self.connections);
        let dial = Dial { address: &self.address, client: &self.client, map: &self.name, id };
        self.members.dial(&dial).await
    }

    /// Under a new number.
    async fn enter(&mut self, link: &mut Link) -> Result<(), Trouble> {
        // What was seen may be of a map that is gone.
        self.view = View::default();
        self.missing.clear();
        self.sweeping = None;
        self.looked = 0;
        link.ask(&[MapCall::Delete(&self.stay.lease())], ANSWER).await?;
        let (node, above) = (self.node, self.stay.number);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        self.stay = self.change_roll(link, |roll| roll.enter(node, now, above)).await?;
        let (stay, lease, ttl) = (self.stay, self.stay.lease(), self.times.ttl());
        link.ask(&[MapCall::Set(&lease, LIVES, ttl)], ANSWER).await?;
        self.put_all(link).await?;
        self.change_roll(link, |roll| roll.ready(stay)).await?;
        if self.beat(link).await? { Ok(()) } else { Err(Trouble::Silent) }
    }

    fn pause(&self) -> Duration {
        let pause = if self.lists_all() { self.times.beat } else { SOON * 2u32.pow(self.looked.min(8)) };
        pause.min(self.times.beat)
    }

    async fn stay(&mut self, link: &mut Link) -> Result<bool, Trouble> {
        let is_there = self.beat(link).await? && !link.has_lost();
        if is_there {
            self.put_once_more(link).await?;
        } else {
            self.note_loss();
        }
        Ok(is_there)
    }

    async fn ask(&mut self, link: &mut Link, requests: &[Request]) -> Result<Option<Vec<Answer>>, Trouble> {
        let answers = self.ask_all(link, requests).await?;
        if link.has_lost() {
            self.note_loss();
            return Ok(None);
        }
        Ok(Some(answers))
    }

    /// What it cannot in time is swept by others. The last one leaves nothing: where others have left meanwhile, entries are looked
    /// through again that were theirs as well.
    async fn leave(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let (me, lease) = (self.stay, self.stay.lease());
        let leaving = async {
            link.ask(&[MapCall::Delete(&lease)], ANSWER).await?;
            loop {
                let (_, roll) = read_roll(link).await?;
                let was_last = roll.is_only(me);
                link.ask(&[MapCall::RemoveAll(&roll.entries_without(&[me]))], ANSWER).await?;
                let strike = |roll: &mut Roll| {
                    let is_done = was_last || !roll.is_only(me);
                    if is_done {
                        roll.strike(&[me]);
                    }
                    is_done
                };
                if self.change_roll(link, strike).await? {
                    return Ok(());
                }
            }
        };
        // Whoever waits for the end waits as long.
        timeout(2 * ANSWER, leaving).await.unwrap_or(Err(Trouble::Silent))
    }
}

/// The roll, and its value as members keep it.
async fn read_roll(link: &mut Link) -> Result<(Option<Vec<u8>>, Roll), Trouble> {
    match link.ask(&[MapCall::Get(ROLL)], ANSWER).await?.pop() {
        Some(Reply::Value(value)) => {
            let roll = Roll::read(value.as_deref().and_then(read_text));
            Ok((value, roll))
        }
        _ => Err(Trouble::Garbage),
    }
}
