//! The window of a numbered connection: frames that carry a sequence number each, kept until the peer
//! acknowledges them, so that they can be sent again after a cut.
//!
//! Neither the number nor the place of a frame is stored: the first frame of the window has number `base`, the
//! next `base + 1`, and bodies that stand side by side in the shard's log are one entry, a run, which holds one
//! reference to its chunk. So a thousand windows with the same thousand frames cost next to nothing but the log,
//! which all of them share and which therefore stays in the processor's cache. To be walked, each body is a
//! record that begins with its own lengths. Frame header, number and body are joined when the frame is sent
//! (`gather.rs`). Tested below, and through the properties of the shard.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::encode::Encode;
use crate::log::{Extent, Log};
use crate::transplant::Tape;

#[cfg(test)]
mod tests;

/// What a numbered frame counts beside its plain body: its header, its number, and its place in the window. So a
/// window of empty bodies is bounded too.
pub(crate) const NUMBERED_FRAME: usize = 32;

/// Entries whose memory an empty window keeps, for the next frame.
const KEPT_ENTRIES: usize = 4;

/// Bytes of the two lengths before a body in the log.
pub(crate) const RECORD_HEADER: usize = 4;

/// A numbered body in the log: two lengths, the plain form, and the compressed form if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) plain: &'a [u8],
    /// Compressed for the window of the format it was made for; empty without.
    pub(crate) deflated: &'a [u8],
}

impl<'a> Record<'a> {
    /// What stands before the two forms. Both lengths are below the size of a record of the log.
    pub(crate) fn header(plain: usize, deflated: usize) -> [u8; RECORD_HEADER] {
        let ([a, b], [c, d]) = ((plain as u16).to_le_bytes(), (deflated as u16).to_le_bytes());
        [a, b, c, d]
    }

    /// The lengths of both forms of the first record.
    #[inline]
    fn lengths(records: &[u8]) -> (usize, usize) {
        let of = |at: usize| usize::from(u16::from_le_bytes([records[at], records[at + 1]]));
        (of(0), of(2))
    }

    /// The first record and those behind it.
    #[inline]
    fn split(records: &'a [u8]) -> (Self, &'a [u8]) {
        let (plain, deflated) = Self::lengths(records);
        let (first, rest) = records.split_at(RECORD_HEADER + plain + deflated);
        let (plain, deflated) = first[RECORD_HEADER..].split_at(plain);
        (Record { plain, deflated }, rest)
    }
}

/// A body above the size that is kept in the log.
#[derive(Clone, Debug)]
pub(crate) struct LargeBody {
    pub(crate) plain: Arc<Box<[u8]>>,
    /// Compressed for the window of the format it was made for.
    pub(crate) deflated: Option<Arc<Box<[u8]>>>,
}

/// A frame to be sent, without its header and number.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Small(Record<'a>),
    Large(&'a LargeBody),
}

/// How much records that stand side by side are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    /// Bytes of the records.
    len: u32,
    /// How many they are.
    frames: u32,
    /// What they count against the connection's limit.
    weight: u32,
}

impl Run {
    /// The first `frames` of the records.
    #[inline]
    fn measure(records: &[u8], frames: u32) -> Run {
        let (mut len, mut weight) = (0, 0);
        for _ in 0..frames {
            let (plain, deflated) = Record::lengths(&records[len..]);
            len += RECORD_HEADER + plain + deflated;
            weight += NUMBERED_FRAME + plain;
        }
        Run { len: len as u32, frames, weight: weight as u32 }
    }

    /// Bytes of the records without their compressed forms.
    fn plain_len(self) -> usize {
        self.weight as usize - self.frames as usize * (NUMBERED_FRAME - RECORD_HEADER)
    }

    fn remove(&mut self, first: Run) {
        self.len -= first.len;
        self.frames -= first.frames;
        self.weight -= first.weight;
    }
}

/// One or several frames of a window; never none.
#[derive(Debug)]
enum Entry {
    /// Records in one chunk of the log, to which this is one reference. Their compressed forms are of use only
    /// while the connection has the format that they were made for.
    Log { start: u64, run: Run, deflated: bool },
    /// Records without compressed forms, copied out of a retired chunk. Those that are not acknowledged are the
    /// last ones; the memory goes with the last of them.
    Copied { records: Box<[u8]>, run: Run },
    /// A large body, shared by its recipients.
    Large(LargeBody),
}

impl Entry {
    fn frames(&self) -> u32 {
        match self {
            Entry::Log { run, .. } | Entry::Copied { run, .. } => run.frames,
            Entry::Large(_) => 1,
        }
    }

    /// What it counts against the connection's limit.
    fn weight(&self) -> usize {
        match self {
            Entry::Log { run, .. } | Entry::Copied { run, .. } => run.weight as usize,
            Entry::Large(body) => NUMBERED_FRAME + body.plain.len(),
        }
    }

    /// Its records; none of a large body.
    #[inline]
    fn records<'a>(&'a self, log: &'a Log) -> &'a [u8] {
        match self {
            Entry::Log { start, run, .. } => log.bytes(Extent { start: *start, len: run.len }),
            Entry::Copied { records, run } => &records[records.len() - run.len as usize..],
            Entry::Large(_) => &[],
        }
    }

    /// Drops the first `frames`, which are not all. Returns what they were.
    fn shorten(&mut self, log: &Log, frames: u32) -> Run {
        let first = Run::measure(self.records(log), frames);
        match self {
            Entry::Log { start, run, .. } => {
                *start += u64::from(first.len);
                run.remove(first);
            }
            Entry::Copied { run, .. } => run.remove(first),
            Entry::Large(_) => debug_assert!(false, "a part of one frame"),
        }
        first
    }

    /// Gives its reference back. Returns how many copied bytes went with it.
    fn release(self, log: &mut Log) -> usize {
        match self {
            Entry::Log { start, run, .. } => {
                log.release(Extent { start, len: run.len });
                0
            }
            Entry::Copied { records, .. } => records.len(),
            Entry::Large(_) => 0,
        }
    }

    /// Whether it stands in one of the log's chunks up to `chunk`.
    fn is_old(&self, chunk: u64) -> bool {
        matches!(self, Entry::Log { start, .. } if Extent { start: *start, len: 0 }.chunk() <= chunk)
    }
}

/// A place between two frames. At the end of an entry it stays there, because the entry may grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// Index of the entry.
    entry: usize,
    /// Frames of the entry before it.
    frames: u32,
    /// Bytes of the entry's records before it.
    bytes: u32,
}

/// What an acknowledgement changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// How many of the frames were about to be sent again.
    pub(crate) again: u32,
    /// Copied bytes that were freed.
    pub(crate) copied: usize,
}

/// The frames that are not acknowledged: first those that were sent, then those that were not.
#[derive(Debug)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// Sequence number of the first frame.
    base: u64,
    /// Sequence number of the first frame that was not sent on the present socket, and its place.
    next: u64,
    cursor: Cursor,
    /// Number behind the last frame that was sent on any socket: what the peer may acknowledge ends before it.
    ever_sent: u64,
    /// Number behind the last frame.
    end: u64,
    /// Sum of the frames' weights.
    held: usize,
    /// What came since the connection was cut.
    tape: Option<Box<Tape>>,
}

impl Window {
    pub(crate) fn new(first_sequence: u64) -> Self {
        Window {
            entries: VecDeque::new(),
            base: first_sequence,
            next: first_sequence,
            cursor: Cursor::default(),
            ever_sent: first_sequence,
            end: first_sequence,
            held: 0,
            tape: None,
        }
    }

    /// The numbers of the first frame, and behind the last one.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        (self.base, self.end)
    }

    /// All frames may have been sent elsewhere: they may be acknowledged before they are sent here.
    pub(crate) fn count_as_sent(&mut self) {
        self.ever_sent = self.end;
    }

    /// Writes the marks of what comes down from now on.
    pub(crate) fn begin_tape(&mut self) {
        self.tape = Some(Tape::from(self.end));
    }

    /// Does so no longer.
    pub(crate) fn end_tape(&mut self) {
        self.tape = None;
    }

    pub(crate) fn tape(&self) -> Option<&Tape> {
        self.tape.as_deref()
    }

    /// The message of the frame that was pushed last.
    #[inline]
    pub(crate) fn note(&mut self, message: &dyn Encode) {
        if let Some(tape) = &mut self.tape {
            tape.note(message);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The weight of what is held until it is acknowledged.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// How many frames wait to be sent, or to be sent again.
    pub(crate) fn unsent(&self) -> u32 {
        (self.end - self.next) as u32
    }

    /// Adds a record of the log whose plain form has so many bytes. Returns whether that took an entry of its own,
    /// which then is one more reference to the log.
    #[inline]
    pub(crate) fn push(&mut self, record: Extent, plain: u32) -> bool {
        let weight = NUMBERED_FRAME as u32 + plain;
        self.held += weight as usize;
        self.end += 1;
        if let Some(Entry::Log { start, run, deflated: true }) = self.entries.back_mut()
            && Log::adjacent(Extent { start: *start, len: run.len }, record)
        {
            run.len += record.len;
            run.frames += 1;
            run.weight += weight;
            return false;
        }
        let run = Run { len: record.len, frames: 1, weight };
        self.push_entry(Entry::Log { start: record.start, run, deflated: true });
        true
    }

    /// Adds a large body.
    pub(crate) fn push_large(&mut self, body: LargeBody) {
        let entry = Entry::Large(body);
        self.held += entry.weight();
        self.end += 1;
        self.push_entry(entry);
    }

    fn push_entry(&mut self, entry: Entry) {
        if self.entries.capacity() == 0 {
            // Whoever keeps up never has more than one.
            self.entries.reserve_exact(1);
        }
        self.entries.push_back(entry);
    }

    /// The number of the first unsent frame.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The frames that were not sent on the present socket.
    #[inline]
    pub(crate) fn unsent_frames<'a>(&'a self, log: &'a Log) -> Unsent<'a> {
        let mut unsent =
            Unsent { window: self, log, entry: self.cursor.entry, left: 0, records: &[], deflated: false };
        unsent.open(self.cursor.frames, self.cursor.bytes);
        unsent
    }

    /// Notes that the next `frames` frames are on their way.
    #[inline]
    pub(crate) fn mark_sent(&mut self, log: &Log, frames: u32) {
        self.next += u64::from(frames);
        self.ever_sent = self.ever_sent.max(self.next);
        debug_assert!(self.next <= self.end);
        let (mut left, cursor) = (frames, &mut self.cursor);
        while left > 0 {
            let entry = &self.entries[cursor.entry];
            let here = entry.frames() - cursor.frames;
            if here == 0 {
                *cursor = Cursor { entry: cursor.entry + 1, ..Cursor::default() };
            } else if left >= here {
                cursor.frames += here;
                cursor.bytes = entry.records(log).len() as u32;
                left -= here;
            } else {
                cursor.bytes += Run::measure(&entry.records(log)[cursor.bytes as usize..], left).len;
                cursor.frames += left;
                left = 0;
            }
        }
    }

    /// The number of the last frame that was sent on the present socket, or acknowledged.
    pub(crate) fn last_sent(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// The number of the last frame that was acknowledged; none before the first that there can be.
    pub(crate) fn last_acknowledged(&self) -> Option<u64> {
        self.base.checked_sub(1)
    }

    /// The number of the last frame of all; the same.
    pub(crate) fn last(&self) -> Option<u64> {
        self.end.checked_sub(1)
    }

    /// Everything must be sent again: the connection was cut.
    pub(crate) fn rewind(&mut self) {
        self.next = self.base;
        self.cursor = Cursor::default();
    }

    /// What was compressed is sent plain from now on: the format has changed.
    pub(crate) fn forget_deflated(&mut self) {
        for entry in &mut self.entries {
            match entry {
                Entry::Log { deflated, .. } => *deflated = false,
                Entry::Large(body) => body.deflated = None,
                Entry::Copied { .. } => {}
            }
        }
    }

    /// The peer has everything up to `sequence`. Numbers it was never sent are ignored, as are old ones.
    pub(crate) fn acknowledge(&mut self, log: &mut Log, sequence: u64) -> Acknowledged {
        let mut done = Acknowledged::default();
        let end = sequence.saturating_add(1);
        if end <= self.base || end > self.ever_sent {
            return done;
        }
        let mut left = (end - self.base) as u32;
        while left > 0
            && let Some(first) = self.entries.front_mut()
        {
            let frames = first.frames();
            if frames > left {
                let gone = first.shorten(log, left);
                self.held -= gone.weight as usize;
                if self.cursor.entry == 0 {
                    // Both stop at nothing together: the cursor was at the frame's start or before it.
                    self.cursor.frames = self.cursor.frames.saturating_sub(gone.frames);
                    self.cursor.bytes = self.cursor.bytes.saturating_sub(gone.len);
                }
                break;
            }
            left -= frames;
            self.held -= first.weight();
            match self.cursor.entry.checked_sub(1) {
                Some(before) => self.cursor.entry = before,
                None => self.cursor = Cursor::default(),
            }
            if let Some(entry) = self.entries.pop_front() {
                done.copied += entry.release(log);
            }
        }
        self.base = end;
        done.again = end.saturating_sub(self.next) as u32;
        self.next = self.next.max(end);
        self.shrink();
        done
    }

    /// A long list must not leave its memory behind.
    fn shrink(&mut self) {
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if len == 0 && capacity > KEPT_ENTRIES {
            self.entries = VecDeque::new();
        } else if capacity > 1024 && len * 4 < capacity {
            self.entries.shrink_to(len * 2);
        }
    }

    /// Drops every frame: the connection ends. Returns how many copied bytes were freed.
    pub(crate) fn clear(self, log: &mut Log) -> usize {
        self.entries.into_iter().map(|entry| entry.release(log)).sum()
    }

    /// Bytes that must be copied before the log can lose all chunks up to `chunk`; `None` when the window refers to
    /// none of them.
    pub(crate) fn wanted(&self, chunk: u64) -> Option<usize> {
        self.old(chunk).map(|(_, run)| run.plain_len()).reduce(|sum, len| sum + len)
    }

    /// Copies what stands in the log's chunks up to `chunk`, without compressed forms.
    pub(crate) fn copy_out(&mut self, log: &mut Log, chunk: u64) {
        let old: Vec<_> = self.old(chunk).map(|(index, _)| index).collect();
        for index in old {
            let entry = &mut self.entries[index];
            let Entry::Log { start, run, .. } = *entry else { continue };
            let mut records = Vec::with_capacity(run.plain_len());
            let mut rest = entry.records(log);
            while !rest.is_empty() {
                let (record, behind) = Record::split(rest);
                records.extend_from_slice(&Record::header(record.plain.len(), 0));
                records.extend_from_slice(record.plain);
                rest = behind;
            }
            log.release(Extent { start, len: run.len });
            if index == self.cursor.entry {
                self.cursor.bytes = Run::measure(&records, self.cursor.frames).len;
            }
            let run = Run { len: records.len() as u32, ..run };
            *entry = Entry::Copied { records: records.into(), run };
        }
    }

    /// The entries that stand in the log's chunks up to `chunk`, and their indexes.
    fn old(&self, chunk: u64) -> impl Iterator<Item = (usize, Run)> {
        // Later entries stand in later chunks.
        self.entries
            .iter()
            .enumerate()
            .take_while(move |(_, entry)| !matches!(entry, Entry::Log { .. }) || entry.is_old(chunk))
            .filter_map(
                |(index, entry)| if let Entry::Log { run, .. } = entry { Some((index, *run)) } else { None },
            )
    }
}

/// Walks the frames that were not sent.
pub(crate) struct Unsent<'a> {
    window: &'a Window,
    log: &'a Log,
    /// Index of the entry in which it stands, the frames of it that are left, and their records.
    entry: usize,
    left: u32,
    records: &'a [u8],
    /// The records' compressed forms are of use.
    deflated: bool,
}

impl<'a> Unsent<'a> {
    /// Enters the present entry behind so many frames and bytes.
    fn open(&mut self, frames: u32, bytes: u32) {
        let Some(entry) = self.window.entries.get(self.entry) else { return };
        self.left = entry.frames() - frames;
        self.records = &entry.records(self.log)[bytes as usize..];
        self.deflated = matches!(entry, Entry::Log { deflated: true, .. });
    }
}

impl<'a> Iterator for Unsent<'a> {
    type Item = Frame<'a>;

    #[inline]
    fn next(&mut self) -> Option<Frame<'a>> {
        if self.left == 0 {
            self.entry += 1;
            self.open(0, 0);
        }
        self.left = self.left.checked_sub(1)?;
        if self.records.is_empty()
            && let Some(Entry::Large(body)) = self.window.entries.get(self.entry)
        {
            return Some(Frame::Large(body));
        }
        let (mut record, rest) = Record::split(self.records);
        self.records = rest;
        if !self.deflated {
            record.deflated = &[];
        }
        Some(Frame::Small(record))
    }
}
