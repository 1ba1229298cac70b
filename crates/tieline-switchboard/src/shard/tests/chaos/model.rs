//! What must come out of a shard, computed the slow way: for each connection the list of frames that its present
//! socket must deliver, byte counts included, and the window of what it has not acknowledged.

use std::collections::{HashMap, VecDeque};

use tieline_websocket::{Deflater, Kind, server_header};

use super::super::net::Got;
use super::super::program::{HELLO, Message, Note, close_code};
use super::super::world::{NUMBERING, World};
use crate::*;

/// A frame that a client must get next.
#[derive(Clone, Debug)]
struct Item {
    got: Got,
    /// Its bytes on the wire, for a frame that is not numbered.
    bytes: usize,
    sequence: Option<u64>,
}

/// Where the model believes a connection to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Detached,
    /// The program was told; the socket may still get what stands before its close frame.
    Ended,
    /// There is no socket any more either.
    Over,
}

struct Peer {
    shard: usize,
    id: u32,
    address: Address,
    format: Format,
    resumable: bool,
    standing: Standing,
    groups: Vec<GroupId>,
    client: usize,
    /// How many of the client's events were compared.
    seen: usize,
    expected: VecDeque<Item>,
    /// Number, weight and content of what is not acknowledged.
    window: VecDeque<(u64, usize, Got)>,
    next_sequence: u64,
    /// The highest number of which a byte was sent.
    ever_sent: u64,
    /// Bytes that arrived of the frame that is not whole.
    received: usize,
    /// There are such bytes.
    open: bool,
    /// It ended for want of memory: what still arrives is not predicted.
    lost: bool,
    /// When it was cut, or told to close.
    since: u64,
    /// The peer closed or answered: only flushing remains.
    finishing: bool,
}

pub(super) struct Model {
    seed: u64,
    settings: Settings,
    peers: Vec<Peer>,
    deflaters: HashMap<u8, Deflater>,
    /// Bytes of the frames of messages that are encoded once for both shards.
    encoded: HashMap<(u64, Format), usize>,
    /// Ends that the shard must tell of in this step.
    predicted: Vec<(u32, Cause)>,
    clock: [u64; 2],
    short: bool,
}

impl Model {
    pub(super) fn new(seed: u64, settings: Settings) -> Self {
        Model {
            seed,
            short: settings.max_copied < 1 << 20,
            settings,
            peers: Vec::new(),
            deflaters: HashMap::new(),
            encoded: HashMap::new(),
            predicted: Vec::new(),
            clock: [0; 2],
        }
    }

    // ---- choosing ----

    fn choose(&self, dice: &mut dyn FnMut(usize) -> usize, of: impl Fn(&Peer) -> bool) -> Option<usize> {
        let among: Vec<_> = (0..self.peers.len()).filter(|&peer| of(&self.peers[peer])).collect();
        (!among.is_empty()).then(|| among[dice(among.len())])
    }

    /// One that is open or cut.
    pub(super) fn pick(&self, shard: usize, dice: &mut dyn FnMut(usize) -> usize) -> Option<usize> {
        self.choose(dice, |p| p.shard == shard && matches!(p.standing, Standing::Open | Standing::Detached))
    }

    pub(super) fn pick_with_socket(
        &self,
        shard: usize,
        dice: &mut dyn FnMut(usize) -> usize,
    ) -> Option<usize> {
        self.choose(dice, |p| p.shard == shard && matches!(p.standing, Standing::Open | Standing::Ended))
    }

    pub(super) fn any_address(&self, dice: &mut dyn FnMut(usize) -> usize) -> Option<Address> {
        self.choose(dice, |_| true).map(|peer| self.peers[peer].address)
    }

    pub(super) fn standing(&self, shard: usize, standing: Standing) -> Vec<usize> {
        let of = |peer: &usize| self.peers[*peer].shard == shard && self.peers[*peer].standing == standing;
        (0..self.peers.len()).filter(of).collect()
    }

    pub(super) fn with_socket(&self, shard: usize) -> Vec<usize> {
        [self.standing(shard, Standing::Open), self.standing(shard, Standing::Ended)].concat()
    }

    pub(super) fn alive(&self, shard: usize) -> usize {
        self.standing(shard, Standing::Open).len() + self.standing(shard, Standing::Detached).len()
    }

    pub(super) fn next_id(&self) -> u32 {
        self.peers.len() as u32
    }

    pub(super) fn slot(&self, peer: usize) -> Slot {
        self.peers[peer].address.slot
    }

    pub(super) fn client(&self, peer: usize) -> usize {
        self.peers[peer].client
    }

    pub(super) fn format(&self, peer: usize) -> Format {
        self.peers[peer].format
    }

    pub(super) fn has_socket(&self, peer: usize) -> bool {
        matches!(self.peers[peer].standing, Standing::Open | Standing::Ended)
    }

    pub(super) fn may_resume(&self, peer: usize) -> bool {
        self.peers[peer].format.numbered
    }

    pub(super) fn memory_is_short(&self) -> bool {
        self.short
    }

    /// A number to acknowledge: old, right, or beyond everything.
    pub(super) fn some_sequence(&self, peer: usize, dice: &mut dyn FnMut(usize) -> usize) -> Option<u64> {
        let peer = &self.peers[peer];
        peer.format.numbered.then(|| {
            let base = peer.next_sequence - peer.window.len() as u64;
            (base + dice(peer.window.len() + 4) as u64).saturating_sub(2)
        })
    }

    pub(super) fn last_sequence(&self, peer: usize) -> Option<u64> {
        self.peers[peer].window.back().map(|(sequence, ..)| *sequence)
    }

    // ---- what happens ----

    pub(super) fn opened(
        &mut self,
        shard: usize,
        address: Address,
        format: Format,
        resumable: bool,
        client: usize,
    ) {
        let known = self.peers.iter().any(|peer| peer.address == address);
        assert!(!known, "an address is never used twice");
        self.peers.push(Peer {
            shard,
            id: self.peers.len() as u32,
            address,
            format,
            resumable,
            standing: Standing::Open,
            groups: Vec::new(),
            client,
            seen: 0,
            expected: VecDeque::new(),
            window: VecDeque::new(),
            next_sequence: 1,
            ever_sent: 0,
            received: 0,
            open: false,
            lost: false,
            since: 0,
            finishing: false,
        });
    }

    pub(super) fn join(&mut self, peer: usize, group: GroupId) -> bool {
        let groups = &mut self.peers[peer].groups;
        let new = !groups.contains(&group);
        groups.extend(new.then_some(group));
        new
    }

    pub(super) fn leave(&mut self, peer: usize, group: GroupId) -> bool {
        let groups = &mut self.peers[peer].groups;
        let before = groups.len();
        groups.retain(|of| *of != group);
        groups.len() < before
    }

    fn frame_bytes(&mut self, format: Format, payload: &[u8], compress: bool) -> usize {
        let mut len = payload.len();
        if compress && format.deflate > 0 {
            let deflater =
                self.deflaters.entry(format.deflate).or_insert_with(|| Deflater::new(format.deflate));
            let mut deflated = Vec::new();
            deflater.compress(payload, &mut deflated);
            len = len.min(deflated.len());
        }
        server_header(tieline_websocket::Opcode::Text, false, len).len() + len
    }

    /// An unnumbered frame for one open connection.
    fn queue(&mut self, peer: usize, got: Got, bytes: usize) {
        if self.peers[peer].standing != Standing::Open {
            return;
        }
        if self.lag(peer) + bytes > self.settings.max_lag {
            self.end(peer, Cause::Lag);
        } else {
            self.peers[peer].expected.push_back(Item { got, bytes, sequence: None });
        }
    }

    pub(super) fn direct(&mut self, peer: usize, kind: Kind, payload: &[u8]) {
        let bytes = self.frame_bytes(self.peers[peer].format, payload, payload.len() >= 1024);
        self.queue(peer, Got::Message(kind, payload.to_vec()), bytes);
    }

    pub(super) fn pinged(&mut self, peer: usize, payload: &[u8]) {
        self.queue(peer, Got::Pong(payload.to_vec()), 2 + payload.len());
    }

    /// One of the shard's own rules ends it, and what it did not read is dropped but for an open frame.
    fn end(&mut self, peer: usize, cause: Cause) {
        let clock = self.clock[self.peers[peer].shard];
        let peer = &mut self.peers[peer];
        self.predicted.push((peer.id, cause.clone()));
        peer.window.clear();
        if peer.standing == Standing::Detached {
            peer.standing = Standing::Over;
            return;
        }
        peer.standing = Standing::Ended;
        peer.since = clock;
        // Whether a frame is open is known when the client is next looked at, before anything more is sent.
        peer.expected.truncate(usize::from(peer.open));
        peer.expected.push_back(close(Some(close_code(&cause))));
    }

    pub(super) fn closed_by_program(&mut self, peer: usize, code: u16) {
        let clock = self.clock[self.peers[peer].shard];
        let peer = &mut self.peers[peer];
        self.predicted.push((peer.id, Cause::Application(code)));
        match peer.standing {
            Standing::Detached => peer.standing = Standing::Over,
            _ => {
                peer.standing = Standing::Ended;
                peer.since = clock;
                peer.expected.push_back(close(Some(code)));
            }
        }
    }

    pub(super) fn closed_by_peer(&mut self, peer: usize, code: u16) {
        let clock = self.clock[self.peers[peer].shard];
        let peer = &mut self.peers[peer];
        if peer.standing == Standing::Open {
            self.predicted.push((peer.id, Cause::Peer(code)));
            peer.standing = Standing::Ended;
            peer.since = clock;
            peer.expected.push_back(close(Some(code)));
        }
        peer.finishing = true;
    }

    /// Returns how many it reaches and how many miss it.
    pub(super) fn publish(
        &mut self,
        shard: usize,
        message: &Message,
        to: &[Recipients],
        except: &[Address],
        only: impl Fn(u32) -> bool,
        when_lagging: WhenLagging,
    ) -> (usize, u64) {
        let direct = matches!(to, [Recipients::Connection(_)]);
        let mut bodies: HashMap<(u8, bool), Vec<u8>> = HashMap::new();
        let (mut reached, mut dropped) = (0, 0);
        for at in 0..self.peers.len() {
            let peer = &self.peers[at];
            let alive = matches!(peer.standing, Standing::Open | Standing::Detached);
            let address = |of: &Address| *of == peer.address;
            let meant = to.iter().any(|to| match to {
                Recipients::Group(group) => peer.groups.contains(group),
                Recipients::Connection(of) => address(of),
            });
            if peer.shard != shard || !alive || !meant {
                continue;
            }
            // Encoding happens for whoever is met, excluded or not.
            let (format, id, except) = (peer.format, peer.id, except.iter().any(address));
            let body = bodies
                .entry((format.wire, format.numbered))
                .or_insert_with(|| message.body(format.wire, format.numbered))
                .clone();
            let weight = if format.numbered {
                32 + body.len()
            } else if let Some(bytes) = self.encoded.get(&(message.number, format)) {
                *bytes
            } else {
                let bytes = self.frame_bytes(format, &body, !direct || body.len() >= 1024);
                self.encoded.insert((message.number, format), bytes);
                bytes
            };
            if except || !only(id) {
                continue;
            }
            if self.lag(at) + weight > self.settings.max_lag {
                match when_lagging {
                    WhenLagging::End => self.end(at, Cause::Lag),
                    WhenLagging::Drop => dropped += 1,
                }
                continue;
            }
            reached += 1;
            let peer = &mut self.peers[at];
            if format.numbered {
                let sequence = peer.next_sequence;
                peer.next_sequence += 1;
                let payload = [NUMBERING.0, sequence.to_string().as_bytes(), NUMBERING.1, &body].concat();
                let got = Got::Message(Kind::Text, payload);
                peer.window.push_back((sequence, weight, got.clone()));
                if peer.standing == Standing::Open {
                    peer.expected.push_back(Item { got, bytes: 0, sequence: Some(sequence) });
                }
            } else {
                let got = Got::Message(message.kind(format.wire), body);
                peer.expected.push_back(Item { got, bytes: weight, sequence: None });
            }
        }
        if message.frames().is_none() {
            self.encoded.retain(|(number, _), _| *number != message.number);
        }
        (reached, dropped)
    }

    pub(super) fn acknowledged(&mut self, peer: usize, sequence: u64) {
        let peer = &mut self.peers[peer];
        if sequence > peer.ever_sent {
            return;
        }
        peer.window.retain(|(of, ..)| *of > sequence);
        // What was to be sent again need not be, unless it is half on the wire.
        let mut first = true;
        let open = peer.open;
        peer.expected.retain(|item| {
            let stays = std::mem::take(&mut first) && open;
            stays || item.sequence.is_none_or(|of| of > sequence)
        });
    }

    pub(super) fn resumed(&mut self, peer: usize, format: Format, client: usize) {
        let of = &mut self.peers[peer];
        of.format = format;
        of.standing = Standing::Open;
        of.client = client;
        of.seen = 0;
        of.open = false;
        of.received = 0;
        of.expected.clear();
        let bytes = 2 + HELLO.len();
        self.queue(peer, Got::Message(Kind::Text, HELLO.to_vec()), bytes);
        let peer = &mut self.peers[peer];
        if peer.standing == Standing::Open {
            let window = peer.window.iter();
            let again = window.map(|(of, _, got)| Item { got: got.clone(), bytes: 0, sequence: Some(*of) });
            peer.expected.extend(again);
        }
    }

    /// A second passes: pings, and the ends of waits.
    pub(super) fn tick(&mut self, shard: usize) {
        self.clock[shard] += 1;
        let (clock, period) = (self.clock[shard], self.settings.ping_every.as_secs());
        for peer in self.standing(shard, Standing::Open) {
            if u64::from(self.slot(peer)) % period == clock % period {
                self.queue(peer, Got::Ping, 2);
            }
        }
        for peer in self.standing(shard, Standing::Detached) {
            let peer = &mut self.peers[peer];
            if peer.since + self.settings.resume_window.as_secs() <= clock {
                self.predicted.push((peer.id, Cause::Expired));
                peer.standing = Standing::Over;
                peer.window.clear();
            }
        }
    }

    /// Bytes that count against the limit.
    fn lag(&self, peer: usize) -> usize {
        let peer = &self.peers[peer];
        let unsent: usize = peer.expected.iter().map(|item| item.bytes).sum();
        let counted = peer.expected.front().is_some_and(|item| item.sequence.is_none());
        let held: usize = peer.window.iter().map(|(_, weight, _)| weight).sum();
        unsent - if counted { peer.received } else { 0 } + held
    }

    // ---- comparing ----

    /// Compares what the clients got and what the program was told with what was predicted.
    pub(super) fn observe(&mut self, shard: usize, world: &mut World, step: usize) {
        let context = format!("seed {} step {step}", self.seed);
        for note in std::mem::take(&mut world.program.notes) {
            match note {
                Note::Opened(_) | Note::Resumed(_) => {}
                Note::Message(..) => panic!("{context}: nobody said anything"),
                Note::Cut(id, cause) => {
                    let peer = &mut self.peers[id as usize];
                    assert!(world.net.clients[peer.client].broken, "{context}: {id} was not cut");
                    assert_eq!((cause, peer.standing), (Cause::Cut, Standing::Open), "{context}");
                    if peer.resumable {
                        peer.standing = Standing::Detached;
                        peer.since = self.clock[shard];
                        peer.expected.clear();
                    }
                }
                Note::Closed(id, cause) => self.told_closed(world, id, cause, &context),
            }
        }
        let untold = self.predicted.iter().find(|(id, _)| self.peers[*id as usize].shard == shard);
        assert_eq!(untold, None, "{context}: the program was not told");
        for at in 0..self.peers.len() {
            if self.peers[at].shard == shard && self.peers[at].standing != Standing::Over {
                self.compare(at, world, &context);
            }
        }
    }

    fn told_closed(&mut self, world: &World, id: u32, cause: Cause, context: &str) {
        if let Some(at) = self.predicted.iter().position(|of| *of == (id, cause.clone())) {
            self.predicted.swap_remove(at);
            return;
        }
        let peer = &mut self.peers[id as usize];
        match cause {
            Cause::Cut => {
                assert!(world.net.clients[peer.client].broken, "{context}: {id} was not cut");
                assert!(!(peer.resumable && peer.format.numbered), "{context}: {id} may come back");
                peer.standing = Standing::Over;
            }
            Cause::Memory if self.short => {
                peer.window.clear();
                if peer.standing == Standing::Detached || peer.open {
                    peer.standing = Standing::Over;
                } else {
                    peer.standing = Standing::Ended;
                    peer.since = self.clock[peer.shard];
                    // Bytes may have gone out in the same step, before memory ran short.
                    peer.lost = true;
                }
            }
            cause => panic!("{context}: {id} ended unexpectedly for {cause:?}"),
        }
    }

    fn compare(&mut self, at: usize, world: &World, context: &str) {
        let clock = self.clock[self.peers[at].shard];
        let peer = &mut self.peers[at];
        let id = peer.id;
        if peer.standing != Standing::Detached {
            let client = &world.net.clients[peer.client];
            for got in &client.got[peer.seen..] {
                let item = peer.expected.pop_front();
                if peer.lost {
                    continue;
                }
                let item = item.unwrap_or_else(|| panic!("{context}: {id} got {} unasked", brief(got)));
                assert!(item.got == *got, "{context}: {id} got {}, not {}", brief(got), brief(&item.got));
                peer.ever_sent = peer.ever_sent.max(item.sequence.unwrap_or(0));
            }
            peer.seen = client.got.len();
            peer.received = client.partial.len();
            peer.open = peer.received > 0;
            if peer.open
                && let Some(Item { sequence: Some(sequence), .. }) = peer.expected.front()
            {
                peer.ever_sent = peer.ever_sent.max(*sequence);
            }
            if client.dropped {
                assert_eq!(peer.standing, Standing::Ended, "{context}: {id} was dropped");
                let late = clock + 1 >= peer.since + self.settings.close_timeout.as_secs();
                let done = peer.finishing && peer.expected.is_empty();
                assert!(done || late || client.broken || self.short, "{context}: {id} was dropped too soon");
                peer.standing = Standing::Over;
                return;
            }
        }
        if matches!(peer.standing, Standing::Open | Standing::Detached) {
            assert!(world.shard.find(peer.address).is_some(), "{context}: {id} is not found");
            let lag = world.shard.connections[peer.address.slot as usize].lag();
            assert_eq!(lag, self.lag(at), "{context}: lag of {id}");
        } else {
            assert_eq!(world.shard.find(peer.address), None, "{context}: {id} is still found");
        }
    }

    /// Every client that is still there has everything.
    pub(super) fn check_all_arrived(&self, shard: usize, world: &World) {
        for peer in self.peers.iter().filter(|peer| peer.shard == shard && !peer.lost) {
            let there = matches!(peer.standing, Standing::Open | Standing::Ended);
            if there && !world.net.clients[peer.client].broken {
                let next = peer.expected.front().map(|item| brief(&item.got));
                assert_eq!(next, None, "seed {}: {} misses frames", self.seed, peer.id);
                assert!(!peer.open);
            }
        }
    }
}

fn close(code: Option<u16>) -> Item {
    Item { got: Got::Close(code), bytes: 0, sequence: None }
}

/// A frame in a message of an assertion.
fn brief(got: &Got) -> String {
    match got {
        Got::Message(kind, payload) => {
            let start = String::from_utf8_lossy(&payload[..payload.len().min(40)]).into_owned();
            format!("{kind:?} of {} bytes: {start}", payload.len())
        }
        other => format!("{other:?}"),
    }
}
