//! [`Flow`]: what goes from one end to the other and back, without I/O: reads and writes are somebody else's.
//!
//! Each direction is by itself. While its target does not take what was read its source is not read. When its source ends,
//! the target is told so behind the last byte, and the other direction goes on. A source that fails is taken for one that
//! ended; a target that fails ends its direction at once, and the other one is read to its end, which then is near.

use std::io::{self, ErrorKind};

/// Reads of one direction in a row before others have their turn.
const READS_PER_TURN: u32 = 4;

/// The two ends of a pair, 0 and 1.
pub(super) trait Ends {
    fn read(&mut self, end: usize, buffer: &mut [u8]) -> io::Result<usize>;

    /// An end that does not take all asks to be told when it takes more.
    fn write(&mut self, end: usize, bytes: &[u8]) -> io::Result<usize>;

    /// Tells an end that nothing follows.
    fn finish(&mut self, end: usize);
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The source has ended; what is kept has yet to go, and then the word of the end.
    Ending,
    /// The target was told of the end, or is gone.
    Over,
}

/// What was read and not written, at most what was read at once.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    /// How many of them were written since.
    written: usize,
}

/// One direction: what its source says, for its target.
#[derive(Debug)]
struct Way {
    /// There only while the target does not take it.
    kept: Option<Box<Kept>>,
    stage: Stage,
    /// The source may have bytes. The kernel tells once, when new ones come.
    is_readable: bool,
    /// The kernel told that the source has ended: then it is read until that is found, and a short read says nothing.
    has_hung_up: bool,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Bytes that were read.
    pub(super) read: usize,
    /// Bytes that were written.
    pub(super) written: usize,
    /// There may be more to read, and it is the turn of others.
    pub(super) has_more: bool,
}

/// Both directions; each has the number of its source.
#[derive(Debug)]
pub(super) struct Flow {
    ways: [Way; 2],
}

impl Flow {
    /// With what was read of each end already.
    pub(super) fn new(early: [Vec<u8>; 2]) -> Self {
        let way = |bytes: Vec<u8>| {
            let kept = (!bytes.is_empty()).then(|| Box::new(Kept { bytes, written: 0 }));
            // What came before the socket was watched is not told.
            Way { kept, stage: Stage::Open, is_readable: true, has_hung_up: false }
        };
        Flow { ways: early.map(way) }
    }

    /// The kernel told that there is something to read of an end, or the end of it.
    pub(super) fn readable(&mut self, end: usize, has_hung_up: bool) {
        let way = &mut self.ways[end];
        way.is_readable = true;
        way.has_hung_up |= has_hung_up;
    }

    /// Both directions are over.
    pub(super) fn is_over(&self) -> bool {
        self.ways.iter().all(|way| way.stage == Stage::Over)
    }

    /// One of them is.
    pub(super) fn is_half_closed(&self) -> bool {
        self.ways.iter().any(|way| way.stage == Stage::Over)
    }

    /// Bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        let kept = self.ways.iter().filter_map(|way| way.kept.as_deref());
        kept.map(|kept| kept.bytes.len() - kept.written).sum()
    }

    /// Carries what an end says to the other, for one turn.
    pub(super) fn carry(&mut self, source: usize, ends: &mut impl Ends, buffer: &mut [u8]) -> Turn {
        let (way, target) = (&mut self.ways[source], 1 - source);
        let mut turn = Turn::default();
        for _ in 0..READS_PER_TURN {
            if let Some(kept) = &mut way.kept {
                let before = kept.written;
                let result = write(ends, target, &kept.bytes, &mut kept.written);
                turn.written += kept.written - before;
                match result {
                    Ok(()) if kept.written < kept.bytes.len() => return turn,
                    Ok(()) => way.kept = None,
                    Err(_) => return way.lose_target(turn),
                }
            }
            if way.stage == Stage::Ending {
                ends.finish(target);
                way.stage = Stage::Over;
            }
            if way.stage == Stage::Over || !way.is_readable {
                return turn;
            }
            match ends.read(source, buffer) {
                Ok(0) => way.stage = Stage::Ending,
                Ok(read) => {
                    turn.read += read;
                    // A short read says that the source was emptied.
                    way.is_readable = read == buffer.len() || way.has_hung_up;
                    let mut written = 0;
                    let result = write(ends, target, &buffer[..read], &mut written);
                    turn.written += written;
                    if result.is_err() {
                        return way.lose_target(turn);
                    }
                    if written < read {
                        let bytes = buffer[written..read].to_vec();
                        way.kept = Some(Box::new(Kept { bytes, written: 0 }));
                        return turn;
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => way.is_readable = false,
                    ErrorKind::Interrupted => {}
                    _ => way.stage = Stage::Ending,
                },
            }
        }
        turn.has_more = way.stage == Stage::Ending || (way.stage == Stage::Open && way.is_readable);
        turn
    }
}

impl Way {
    fn lose_target(&mut self, turn: Turn) -> Turn {
        self.stage = Stage::Over;
        self.kept = None;
        turn
    }
}

/// Writes until an end takes no more, and counts.
fn write(ends: &mut impl Ends, end: usize, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < bytes.len() {
        match ends.write(end, &bytes[*written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
