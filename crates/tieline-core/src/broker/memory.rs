//! The broker within one process: nodes that are started side by side, as tests do. An exchange is of a kind, as
//! engines are: links between every two nodes, whose ends are told, or a medium that tells of nobody and can be away, and
//! whose two channels may cross, or which keeps what it takes while it is away.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tieline_proto::Incarnation;

use super::{Broker, BrokerStats, Inbound, NotTaken, To};

/// Envelopes that may wait for one node; more are not taken.
const QUEUE: usize = 65_536;

/// What comes within so long of each other may be handed up in another order, where channels cross.
const MOMENT: Duration = Duration::from_micros(200);

/// What a node's thread hands up.
#[derive(Clone)]
enum News {
    Envelope(Channel, Arc<[u8]>),
    Reachable(Incarnation),
    Unreachable(Incarnation),
    Away,
    Back,
}

/// How an envelope went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    All,
    One,
}

#[derive(Default)]
struct State {
    nodes: HashMap<Incarnation, SyncSender<News>>,
    /// From whom nothing comes to whom; of links that are cut, both ways round.
    parted: HashSet<(Incarnation, Incarnation)>,
    is_medium: bool,
    /// Whether what went to all and what went to one is handed up in turns of chance.
    is_crossing: bool,
    /// Whether the medium carries nothing now.
    is_away: bool,
    /// Whether it takes envelopes all the same.
    is_keeping: bool,
    /// What it took meanwhile, and from whom; at most as much as may wait for one node.
    kept: Vec<(Incarnation, To, Arc<[u8]>)>,
}

/// Joins the nodes of one process.
#[derive(Clone, Default)]
pub struct MemoryExchange(Arc<Mutex<State>>);

impl MemoryExchange {
    /// Links between every two nodes; each hears of the others.
    #[must_use]
    pub fn links() -> Self {
        MemoryExchange::default()
    }

    /// A medium between all nodes; nobody hears of anybody but by what it says.
    #[must_use]
    pub fn medium() -> Self {
        MemoryExchange(Arc::new(Mutex::new(State { is_medium: true, ..State::default() })))
    }

    /// A medium that keeps the order of what went to all, and of what went to one, and not of the two with each other.
    #[must_use]
    pub fn crossing() -> Self {
        let state = State { is_medium: true, is_crossing: true, ..State::default() };
        MemoryExchange(Arc::new(Mutex::new(state)))
    }

    /// A medium that keeps what it takes while it is away, and then gives the first of it twice.
    #[must_use]
    pub fn keeping() -> Self {
        let state = State { is_medium: true, is_keeping: true, ..State::default() };
        MemoryExchange(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a node. Of links, it and all others hear that they reach each other.
    pub fn join(&self, node: Incarnation, inbound: Arc<dyn Inbound>) -> MemoryBroker {
        let (news, heard) = sync_channel(QUEUE);
        let mut state = self.lock();
        let is_crossing = state.is_crossing;
        let thread = std::thread::spawn(move || {
            if is_crossing { hand_up_crossing(&heard, &*inbound, node) } else { hand_up(&heard, &*inbound) }
        });
        if state.is_away {
            tell(&news, News::Away);
        }
        if !state.is_medium {
            for (id, other) in &state.nodes {
                tell(other, News::Reachable(node));
                tell(&news, News::Reachable(*id));
            }
        }
        state.nodes.insert(node, news);
        let (is_medium, is_keeping) = (state.is_medium, state.is_keeping);
        drop(state);
        let exchange = self.clone();
        MemoryBroker { exchange, node, is_medium, is_crossing, is_keeping, thread: Mutex::new(Some(thread)) }
    }

    /// Cuts a node off for good. Of links, the others hear that it is gone, and it that they are; of a medium, it
    /// alone hears that it carries nothing for it any more.
    pub fn cut(&self, node: Incarnation) {
        let mut state = self.lock();
        let Some(gone) = state.nodes.remove(&node) else { return };
        if state.is_medium {
            return tell(&gone, News::Away);
        }
        for (id, other) in &state.nodes {
            tell(other, News::Unreachable(node));
            tell(&gone, News::Unreachable(*id));
        }
    }

    /// Cuts the link between two nodes.
    pub fn part(&self, one: Incarnation, other: Incarnation) {
        let mut state = self.lock();
        state.parted.extend([(one, other), (other, one)]);
        state.tell_pair(one, other, News::Unreachable);
    }

    /// From now on nothing that one node says comes to the other, and neither hears of that.
    pub fn mute(&self, from: Incarnation, to: Incarnation) {
        self.lock().parted.insert((from, to));
    }

    /// Joins them again.
    pub fn mend(&self, one: Incarnation, other: Incarnation) {
        let mut state = self.lock();
        state.parted.retain(|pair| *pair != (one, other) && *pair != (other, one));
        state.tell_pair(one, other, News::Reachable);
    }

    /// From now on a medium carries nothing; what is on its way still arrives.
    pub fn go_away(&self) {
        self.switch(true, &News::Away);
    }

    /// It carries again.
    pub fn come_back(&self) {
        self.switch(false, &News::Back);
    }

    fn switch(&self, is_away: bool, news: &News) {
        let mut state = self.lock();
        state.is_away = is_away;
        let kept = std::mem::take(&mut state.kept);
        for (from, to, envelope) in kept.first().into_iter().chain(&kept) {
            // Whoever has no room misses it, and its number tells.
            let _ = state.carry(*from, *to, envelope);
        }
        state.nodes.values().for_each(|node| tell(node, news.clone()));
    }
}

impl State {
    fn tell_pair(&self, one: Incarnation, other: Incarnation, news: fn(Incarnation) -> News) {
        for (to, of) in [(one, other), (other, one)] {
            if let Some(node) = self.nodes.get(&to) {
                tell(node, news(of));
            }
        }
    }

    /// Gives an envelope to whom it is for.
    fn carry(&self, from: Incarnation, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        let channel = if to == To::All { Channel::All } else { Channel::One };
        let give = |node: &SyncSender<News>| {
            node.try_send(News::Envelope(channel, Arc::clone(envelope))).map_err(|_| NotTaken::Full)
        };
        match to {
            To::One(id) => match self.nodes.get(&id) {
                Some(node) if self.has_way(from, id) => give(node),
                // A medium does not know who listens.
                None if self.is_medium => Ok(()),
                _ => Err(NotTaken::Unreachable),
            },
            To::All => {
                let others = self.nodes.iter().filter(|(id, _)| self.has_way(from, **id));
                others.map(|(_, node)| give(node)).fold(Ok(()), Result::and)
            }
        }
    }

    fn has_way(&self, from: Incarnation, to: Incarnation) -> bool {
        from != to && !self.parted.contains(&(from, to))
    }
}

/// Waits for room: a queue that stays full is one that nobody empties any more.
fn tell(node: &SyncSender<News>, news: News) {
    let _ = node.send(news);
}

fn hand_up(heard: &Receiver<News>, inbound: &dyn Inbound) {
    while let Ok(news) = heard.recv() {
        hand(news, inbound);
    }
}

fn hand(news: News, inbound: &dyn Inbound) {
    match news {
        News::Envelope(_, bytes) => inbound.envelope(&bytes),
        News::Reachable(node) => inbound.reachable(node),
        News::Unreachable(node) => inbound.unreachable(node),
        News::Away => inbound.away(),
        News::Back => inbound.back(),
    }
}

/// Hands up what comes within a moment in turns of chance, which a run repeats for the same node.
fn hand_up_crossing(heard: &Receiver<News>, inbound: &dyn Inbound, node: Incarnation) {
    let mut chance = node.0 | 1;
    while let Ok(first) = heard.recv() {
        let mut channels = [VecDeque::new(), VecDeque::new()];
        let mut next = Some(first);
        while let Some(news) = next {
            let is_one = matches!(news, News::Envelope(Channel::One, _));
            channels[usize::from(is_one)].push_back(news);
            next = heard.recv_timeout(MOMENT).ok();
        }
        while channels.iter().any(|channel| !channel.is_empty()) {
            // Xorshift (Marsaglia): its quality does not matter here.
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let turn = (chance >> 32) as usize % 2;
            let news = channels[turn].pop_front().or_else(|| channels[1 - turn].pop_front());
            news.into_iter().for_each(|news| hand(news, inbound));
        }
    }
}

/// One node's end of a [`MemoryExchange`].
pub struct MemoryBroker {
    exchange: MemoryExchange,
    node: Incarnation,
    is_medium: bool,
    is_crossing: bool,
    is_keeping: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Broker for MemoryBroker {
    fn send(&self, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        let mut state = self.exchange.lock();
        let is_here = state.nodes.contains_key(&self.node);
        match (is_here, state.is_away) {
            (true, false) => state.carry(self.node, to, envelope),
            (true, true) if state.is_keeping && state.kept.len() < QUEUE => {
                state.kept.push((self.node, to, Arc::clone(envelope)));
                Ok(())
            }
            (true, true) if state.is_keeping => Err(NotTaken::Full),
            _ => Err(NotTaken::Unreachable),
        }
    }

    fn stats(&self) -> BrokerStats {
        // What it takes is in the receiver's queue before the call returns.
        BrokerStats::default()
    }

    fn reports_peers(&self) -> bool {
        !self.is_medium
    }

    fn orders_channels(&self) -> bool {
        !self.is_crossing
    }

    fn keeps(&self) -> bool {
        self.is_keeping
    }

    fn close(&self) {
        self.exchange.cut(self.node);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It ends once it has handed up what was on its way; a panic in it was the application's.
            let _ = thread.join();
        }
    }
}
