//! Several nodes in the one thread: a broker whose links carry an envelope when the scheduler says so, and the clusters'
//! tasks, which run when it says so, on a clock that stands still. Links lose nothing and keep their order; how long an
//! envelope takes, and which of two links is faster, is the dice's choice.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tieline_core::broker::{Broker, BrokerStats, Inbound, NotTaken, To};
use tieline_core::logs::{Engine, LogRules, Logs, LogsTask};
use tieline_core::{Cluster, ClusterSettings, ClusterTask, Node};
use tieline_proto::Incarnation;
use tieline_proto::envelope::{Envelope, Header};
use tokio::runtime::{Builder, Runtime};

use tieline_judge::Dice;

/// Turns that each task gets when the tasks run.
const TURNS: usize = 4;

/// The links between all nodes.
#[derive(Default)]
struct Links {
    /// In the order in which they were joined.
    ends: Vec<(Incarnation, Arc<dyn Inbound>)>,
    /// What is on its way from one node to another.
    waiting: BTreeMap<(usize, usize), VecDeque<Arc<[u8]>>>,
}

/// One node's end of them.
struct End {
    links: Arc<Mutex<Links>>,
    node: Incarnation,
}

fn lock(links: &Mutex<Links>) -> MutexGuard<'_, Links> {
    links.lock().expect("no call to a link panics")
}

impl Broker for End {
    fn send(&self, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        let mut links = lock(&self.links);
        let place = |node| links.ends.iter().position(|(id, _)| *id == node);
        let from = place(self.node).ok_or(NotTaken::Unreachable)?;
        let to: Vec<usize> = match to {
            To::One(node) => vec![place(node).ok_or(NotTaken::Unreachable)?],
            To::All => (0..links.ends.len()).filter(|to| *to != from).collect(),
        };
        for to in to {
            links.waiting.entry((from, to)).or_default().push_back(Arc::clone(envelope));
        }
        Ok(())
    }

    fn reports_peers(&self) -> bool {
        true
    }

    fn stats(&self) -> BrokerStats {
        BrokerStats::default()
    }

    fn close(&self) {}
}

/// The nodes' memberships.
pub(crate) struct Membership {
    runtime: Runtime,
    links: Arc<Mutex<Links>>,
    tasks: Vec<ClusterTask>,
    logs: Vec<LogsTask>,
}

impl Membership {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        Membership { runtime, links: Arc::default(), tasks: Vec::new(), logs: Vec::new() }
    }

    /// Joins one more node with all that are there.
    pub(crate) fn join(&mut self, node: &Arc<Node>) {
        let id = node.id().incarnation;
        let links = Arc::clone(&self.links);
        let connect = |inbound: Arc<dyn Inbound>| {
            let mut known = lock(&links);
            for (other, theirs) in &known.ends {
                theirs.reachable(id);
                inbound.reachable(*other);
            }
            known.ends.push((id, inbound));
            let end: Arc<dyn Broker> = Arc::new(End { links: Arc::clone(&links), node: id });
            std::future::ready(Ok::<_, Infallible>(end))
        };
        let start = Cluster::start(Arc::clone(node), ClusterSettings::default(), connect);
        let (_, task) = self.runtime.block_on(start).unwrap();
        self.tasks.push(task);
    }

    /// Gives a node its logs. To be called before it joins.
    pub(crate) fn keep(&mut self, node: &Arc<Node>, rules: LogRules, engine: Engine) {
        let _in_it = self.runtime.enter();
        self.logs.push(Logs::start(node, rules, Some(engine)));
    }

    /// So much time passes for the tasks.
    pub(crate) fn pass(&self, time: Duration) {
        self.runtime.block_on(tokio::time::advance(time));
        self.run_tasks();
    }

    /// Some link loses a message that waits in it; never anything else.
    pub(crate) fn lose(&self, dice: &mut Dice) {
        let mut links = lock(&self.links);
        let mut messages: Vec<((usize, usize), usize)> = Vec::new();
        for (between, link) in &links.waiting {
            let is_message = |bytes: &Arc<[u8]>| {
                let said = Header::read(bytes, Incarnation(0)).and_then(|(_, _, said)| {
                    Envelope::read(said).map(|said| matches!(said, Envelope::Message(_)))
                });
                said.unwrap_or(false)
            };
            let places = link.iter().enumerate().filter(|(_, bytes)| is_message(bytes));
            messages.extend(places.map(|(place, _)| (*between, place)));
        }
        if !messages.is_empty() {
            let (between, place) = dice.pick(&messages);
            links.waiting.get_mut(&between).expect("it was just seen").remove(place);
        }
    }

    /// Lets the clusters' tasks run until they wait for something.
    pub(crate) fn run_tasks(&self) {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Some link hands up what waited longest in it.
    pub(crate) fn carry(&self, dice: &mut Dice) {
        let mut links = lock(&self.links);
        let busy: Vec<_> =
            links.waiting.iter().filter(|(_, link)| !link.is_empty()).map(|(between, _)| *between).collect();
        if busy.is_empty() {
            return;
        }
        let between = dice.pick(&busy);
        let link = links.waiting.get_mut(&between).expect("it was just seen");
        let count = 1 + dice.below(link.len());
        let envelopes: Vec<_> = link.drain(..count).collect();
        let inbound = Arc::clone(&links.ends[between.1].1);
        // What is handed up may be answered at once.
        drop(links);
        envelopes.iter().for_each(|envelope| inbound.envelope(envelope));
    }

    /// Hands up everything. Returns whether there was anything.
    pub(crate) fn carry_all(&self) -> bool {
        let (ends, waiting) = {
            let mut links = lock(&self.links);
            (
                links.ends.iter().map(|(_, inbound)| Arc::clone(inbound)).collect::<Vec<_>>(),
                std::mem::take(&mut links.waiting),
            )
        };
        let mut any = false;
        for ((_, to), link) in waiting {
            any |= !link.is_empty();
            link.iter().for_each(|envelope| ends[to].envelope(envelope));
        }
        any
    }

    /// Ends the tasks.
    pub(crate) fn stop(self) {
        for task in self.tasks {
            self.runtime.block_on(task.stop());
        }
        for task in self.logs {
            self.runtime.block_on(task.stop());
        }
    }
}
