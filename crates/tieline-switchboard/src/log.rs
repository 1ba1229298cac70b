//! The log of frames of one shard: bytes are appended once and referred to by every recipient.
//!
//! It is a queue of chunks of 64 KiB. A record never straddles two chunks, so that it is always one slice.
//! Each chunk counts the references to it; a chunk that nobody refers to any more is used again at once, so a
//! shard whose clients keep up works in one chunk that stays in the processor's cache. It is not bounded by
//! itself: the shard retires the oldest chunk, by copying out what is still wanted, when `len` passes its limit.
//! Tested below, and through the properties of the shard.

use std::collections::VecDeque;

/// Size of a chunk in bytes.
pub(crate) const CHUNK: usize = 64 * 1024;

/// The largest record that is kept in the log; larger ones are shared by reference count instead.
pub(crate) const MAX_RECORD: usize = 16 * 1024;

/// Chunks kept for use again, beyond those in use: enough to absorb a burst without the allocator.
const MAX_SPARE: usize = 4;

/// Where bytes stand in the log. An address is used again only when nobody refers to its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) len: u32,
}

impl Extent {
    /// The number of the chunk that holds it.
    pub(crate) fn chunk(self) -> u64 {
        self.start / CHUNK as u64
    }
}

/// One chunk and how many extents refer into it.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    references: u32,
}

/// The chunks, oldest first. The last one is being written.
pub(crate) struct Log {
    chunks: VecDeque<Chunk>,
    /// Number of the oldest chunk still here.
    first: u64,
    /// Chunks that hold memory, the empty holes between them not counted.
    occupied: usize,
    spare: Vec<Vec<u8>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Log { chunks: VecDeque::new(), first: 0, occupied: 0, spare: Vec::new() }
    }

    /// Bytes of memory that the log occupies, spare chunks not counted.
    pub(crate) fn memory(&self) -> usize {
        self.occupied * CHUNK
    }

    /// Number of the oldest chunk that is still referred to, unless it is the one being written.
    pub(crate) fn oldest(&self) -> Option<u64> {
        (self.chunks.len() > 1).then_some(self.first)
    }

    /// Appends the parts as one record, which must not exceed [`MAX_RECORD`]. Nobody refers to it yet: call
    /// [`Log::retain`] for each reference that is kept, before anything else is appended.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Extent {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(len <= MAX_RECORD, "a record of {len} bytes must be shared, not logged");
        // An empty record too must stand within its chunk, not at its end.
        let fits = self.chunks.back().is_some_and(|chunk| chunk.bytes.len() + len.max(1) <= CHUNK);
        if !fits {
            self.open_chunk();
        }
        let number = self.first + self.chunks.len() as u64 - 1;
        let chunk = self.chunks.back_mut().expect("a chunk was just opened");
        let start = number * CHUNK as u64 + chunk.bytes.len() as u64;
        for part in parts {
            chunk.bytes.extend_from_slice(part);
        }
        Extent { start, len: len as u32 }
    }

    /// The bytes of an extent that is still referred to.
    #[inline]
    pub(crate) fn bytes(&self, extent: Extent) -> &[u8] {
        let chunk = &self.chunks[(extent.chunk() - self.first) as usize];
        let from = (extent.start % CHUNK as u64) as usize;
        &chunk.bytes[from..from + extent.len as usize]
    }

    /// Whether `next` continues `before` in the same chunk, so that one reference can stand for both.
    pub(crate) fn adjacent(before: Extent, next: Extent) -> bool {
        before.start + u64::from(before.len) == next.start && before.chunk() == next.chunk()
    }

    /// Counts `references` more extents that refer to the chunk of `extent`.
    pub(crate) fn retain(&mut self, extent: Extent, references: u32) {
        let index = (extent.chunk() - self.first) as usize;
        self.chunks[index].references += references;
    }

    /// Gives one reference back. A chunk without references is emptied and its memory used again.
    #[inline]
    pub(crate) fn release(&mut self, extent: Extent) {
        let index = (extent.chunk() - self.first) as usize;
        let last = index + 1 == self.chunks.len();
        let chunk = &mut self.chunks[index];
        debug_assert!(chunk.references > 0, "an extent was released twice");
        chunk.references -= 1;
        if chunk.references == 0 && !last {
            self.empty(index);
        }
    }

    /// Takes the memory of a chunk that nobody refers to any more.
    fn empty(&mut self, index: usize) {
        let mut bytes = std::mem::take(&mut self.chunks[index].bytes);
        self.occupied -= 1;
        if self.spare.len() < MAX_SPARE {
            bytes.clear();
            self.spare.push(bytes);
        }
        self.drop_leading_holes();
    }

    /// Starts again at the beginning of the chunk being written when nobody refers to it. Call it between
    /// rounds: it is what keeps a shard without laggards in one chunk.
    pub(crate) fn rewind(&mut self) {
        if let Some(chunk) = self.chunks.back_mut()
            && chunk.references == 0
        {
            chunk.bytes.clear();
        }
    }

    #[cold]
    fn open_chunk(&mut self) {
        // A chunk that was filled and never referred to would otherwise stay for ever.
        if let Some(last) = self.chunks.back_mut()
            && last.references == 0
        {
            last.bytes.clear();
            return;
        }
        let bytes = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK));
        self.chunks.push_back(Chunk { bytes, references: 0 });
        self.occupied += 1;
    }

    fn drop_leading_holes(&mut self) {
        while self.chunks.len() > 1 && self.chunks[0].references == 0 {
            // The front hole was emptied by `release`, or was never referred to and then is not a hole: only
            // the chunk being written may be without references, and it is the last.
            self.chunks.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
impl Log {
    /// Panics unless each chunk is referred to exactly so often.
    pub(crate) fn check_references(&self, expected: &std::collections::HashMap<u64, u32>) {
        for (index, chunk) in self.chunks.iter().enumerate() {
            let number = self.first + index as u64;
            assert_eq!(chunk.references, expected.get(&number).copied().unwrap_or(0), "chunk {number}");
        }
        let here = self.first..self.first + self.chunks.len() as u64;
        assert!(expected.keys().all(|number| here.contains(number)), "a reference to a retired chunk");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(log: &mut Log, byte: u8, len: usize) -> Extent {
        let extent = log.append(&[&vec![byte; len]]);
        log.retain(extent, 1);
        extent
    }

    #[test]
    fn a_record_never_straddles_two_chunks() {
        let mut log = Log::new();
        let extents: Vec<_> = (0..64u8).map(|i| record(&mut log, i, 5_000)).collect();
        for (i, extent) in extents.iter().enumerate() {
            assert_eq!(log.bytes(*extent), vec![i as u8; 5_000]);
        }
        assert!(log.memory() >= 64 * 5_000);
    }

    #[test]
    fn a_log_without_references_stays_in_one_chunk() {
        let mut log = Log::new();
        for _ in 0..1_000 {
            let extent = record(&mut log, 1, 1_000);
            log.release(extent);
            log.rewind();
        }
        assert_eq!(log.memory(), CHUNK);
        assert_eq!(log.oldest(), None);
    }

    #[test]
    fn one_reference_keeps_one_chunk_only() {
        let mut log = Log::new();
        let kept = record(&mut log, 7, 10);
        for _ in 0..1_000 {
            let extent = record(&mut log, 1, 1_000);
            log.release(extent);
            log.rewind();
        }
        assert_eq!(log.bytes(kept), [7; 10]);
        assert!(log.memory() <= 2 * CHUNK);
        let middle = record(&mut log, 9, MAX_RECORD);
        log.release(kept);
        assert_eq!(log.bytes(middle), [9; MAX_RECORD]);
        assert_eq!(log.memory(), CHUNK);
    }

    #[test]
    fn an_empty_record_behind_a_full_chunk_has_a_place() {
        let mut log = Log::new();
        let full: Vec<_> = (0..4).map(|_| record(&mut log, 1, MAX_RECORD)).collect();
        let empty = record(&mut log, 2, 0);
        assert_eq!(log.bytes(empty), []);
        full.into_iter().for_each(|extent| log.release(extent));
        log.release(empty);
        assert_eq!(log.memory(), CHUNK);
    }

    #[test]
    fn extents_merge_within_a_chunk_only() {
        let mut log = Log::new();
        let a = record(&mut log, 1, MAX_RECORD);
        let b = record(&mut log, 2, MAX_RECORD);
        assert!(Log::adjacent(a, b));
        record(&mut log, 3, MAX_RECORD);
        let d = record(&mut log, 4, MAX_RECORD);
        let e = record(&mut log, 5, 1);
        assert_eq!(d.start + u64::from(d.len), e.start, "the chunk was filled to its last byte");
        assert!(!Log::adjacent(d, e));
    }
}
