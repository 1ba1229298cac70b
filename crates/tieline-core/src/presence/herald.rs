//! [`Herald`]: the task that tells who has come and gone, to the subscribers on this node and to the application.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tieline_proto::presence::{Event, Turn};
use tieline_proto::{NodeId, reply};
use tieline_switchboard::{Encode, Frames, Full};
use tieline_websocket::Kind;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::beginning::{Beginning, Verdict};
use super::duties::Duties;
use super::picture::{News, Told};
use crate::command::Command;
use crate::events::Appearance;
use crate::hub::Group;
use crate::node::Node;
use crate::stamp::{started, unix_ms};

/// How long what happens is gathered, so that it goes out together: a room's subscribers get twenty frames a second at most.
const GATHER: Duration = Duration::from_millis(50);

/// How often it is looked whether those live who have to tell the application something, or were there before.
const LOOK: Duration = Duration::from_secs(1);

/// Events and bytes of one frame at most; what is more goes into further ones.
const EVENTS_PER_FRAME: usize = 500;
const BYTES_PER_FRAME: usize = 64 << 10;

/// Frames that wait for one shard that has no room. Beyond that all of them are dropped, and its clients are told of a gap.
const WAITING: usize = 1024;

/// Who has come and gone in one room, for its subscribers on all shards.
#[derive(Debug)]
pub struct Announcement {
    /// The subscribers.
    pub(crate) audience: Arc<Group>,
    /// The frame.
    text: Vec<u8>,
    frames: Frames,
}

impl Announcement {
    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }
}

impl Encode for Announcement {
    fn kind(&self, _wire: u8) -> Kind {
        Kind::Text
    }

    fn encode(&self, _wire: u8, _numbered: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text);
    }

    fn frames(&self) -> Option<&Frames> {
        Some(&self.frames)
    }
}

/// The task that tells who has come and gone. Whoever started it stops and joins it.
pub struct PresenceTask {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

impl PresenceTask {
    /// Starts it. None where nothing is to be told.
    pub fn start(node: &Arc<Node>) -> Option<Self> {
        if !node.presence().is_on() {
            return None;
        }
        let stop = Arc::new(Notify::new());
        let duties = Duties::new(node.id().clone());
        let lease = node.cluster().map_or(Duration::ZERO, |cluster| cluster.lease());
        let beginning = node.events().map(|_| Beginning::new(node.id().clone(), lease, Instant::now()));
        let herald = Herald { node: Arc::clone(node), waiting: Vec::new(), duties, beginning };
        let task = tokio::spawn(herald.run(Arc::clone(&stop)));
        Some(PresenceTask { task, stop })
    }

    /// Ends it. What was not told yet is not told any more.
    pub async fn stop(self) {
        self.stop.notify_one();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "The task of presence failed.");
        }
    }
}

/// What waits for one shard.
#[derive(Default)]
struct Waiting {
    frames: VecDeque<Arc<Announcement>>,
    /// Whether some were dropped, and its clients were not told so yet.
    has_gap: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && !self.has_gap
    }
}

struct Herald {
    node: Arc<Node>,
    /// By shard.
    waiting: Vec<Waiting>,
    /// What the application has to be told by this node, or by another.
    duties: Duties,
    /// Until it is clear whether the application has to be told that everything begins anew, where there is one.
    beginning: Option<Beginning>,
}

impl Herald {
    async fn run(mut self, stop: Arc<Notify>) {
        let node = Arc::clone(&self.node);
        self.waiting.resize_with(node.handle().shards(), Waiting::default);
        let stopped = stop.notified();
        tokio::pin!(stopped);
        loop {
            let (news, next) = node.presence().take_news();
            news.iter().for_each(|news| self.tell(news));
            self.hand_out();
            self.tell_application(news);
            let until = next.map(|next| next.saturating_duration_since(Instant::now()));
            let has_to_look = self.beginning.is_some() || !self.duties.is_idle();
            let until = if has_to_look { Some(until.unwrap_or(LOOK).min(LOOK)) } else { until };
            let until = if self.waiting.iter().all(Waiting::is_empty) { until } else { Some(GATHER) };
            let stirred = node.presence().stirred.notified();
            let woken = async {
                match until {
                    // Either is a reason to look.
                    Some(until) => drop(timeout(until, stirred).await),
                    None => stirred.await,
                }
                sleep(GATHER).await;
            };
            tokio::select! {
                () = &mut stopped => return,
                () = woken => {}
            }
        }
    }

    fn tell(&mut self, news: &News) {
        let counters = self.node.presence().counters();
        for told in &news.told {
            let counter = match told.event.turn {
                Turn::Join => &counters.joins,
                Turn::Leave => &counters.leaves,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let Some(audience) = &news.audience else { return };
        let events: Vec<Event> = news.told.iter().map(|told| told.event.clone()).collect();
        let mut rest = &events[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            rest = later;
            let mut text = Vec::new();
            reply::presence_events(&mut text, news.room.group.as_deref(), now);
            let (audience, frames) = (Arc::clone(audience), Frames::default());
            let announcement = Arc::new(Announcement { audience, text, frames });
            for shard in announcement.audience.shards() {
                self.waiting[usize::from(shard)].frames.push_back(Arc::clone(&announcement));
            }
            self.hand_out();
        }
    }

    /// Tells the application what this node has to.
    fn tell_application(&mut self, news: Vec<News>) {
        let Some(events) = self.node.events() else { return };
        let cluster = self.node.cluster();
        let others = cluster.map(|cluster| cluster.peers()).unwrap_or_default();
        let mut alive: Vec<NodeId> = others.into_iter().map(|peer| peer.id).collect();
        let now = Instant::now();
        let is_broker_up = cluster.is_none_or(|cluster| cluster.is_broker_up());
        if let Some(beginning) = &mut self.beginning {
            let verdict = beginning.see(&alive, is_broker_up, now, unix_ms());
            if verdict == Verdict::Here {
                tracing::info!(
                    "No other node was there before: presence begins anew, and the application is told."
                );
                events.began(started(self.node.id().incarnation));
            }
            if verdict != Verdict::Wait {
                self.beginning = None;
            }
        }
        alive.push(self.node.id().clone());
        self.duties.see(alive, now).into_iter().for_each(|appearance| events.appeared(appearance));
        for News { room, told, .. } in news {
            if !events.hears_presence(&room.hub) {
                continue;
            }
            for Told { event, visit, teller } in told {
                let (hub, group) = (room.hub.clone(), room.group.clone());
                let appearance = Appearance { hub, group, event, visit };
                if let Some(appearance) = self.duties.take(appearance, teller, now) {
                    events.appeared(appearance);
                }
            }
        }
    }

    /// Gives the shards what waits for them, as far as they have room.
    fn hand_out(&mut self) {
        let counters = self.node.presence().counters();
        for (shard, waiting) in self.waiting.iter_mut().enumerate() {
            let shard = shard as u16;
            if waiting.frames.len() > WAITING {
                counters.dropped.fetch_add(waiting.frames.len() as u64, Ordering::Relaxed);
                waiting.frames.clear();
                waiting.has_gap = true;
            }
            if waiting.has_gap {
                waiting.has_gap = self.node.post(shard, Command::Gap).is_err();
            }
            while let Some(announcement) = waiting.frames.pop_front() {
                match self.node.handle().post(shard, Command::Announce(announcement)) {
                    Ok(()) => drop(counters.frames.fetch_add(1, Ordering::Relaxed)),
                    Err(Full(Command::Announce(announcement))) => {
                        waiting.frames.push_front(announcement);
                        break;
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

/// How many of these fit into one frame, one at least.
fn fitting(events: &[Event]) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take(EVENTS_PER_FRAME).take_while(|event| {
        let details = event.details.as_ref().map_or(0, |details| details.members().len());
        bytes += 64 + event.user.len() + details;
        bytes <= BYTES_PER_FRAME
    });
    fits.count().max(1)
}
