//! [`Calls`]: the calls that a member still owes an answer, in the order they were written. Without I/O and without a clock: time
//! is counted in beats. Tested here.
//!
//! Bounded in number and bytes: past [`MAX_CALLS`] or [`MAX_BYTES`] the writer waits for answers, so what a slow member has not
//! taken waits in the broker's queue, which has a limit of its own.

use std::collections::VecDeque;

use super::protocol::Garbage;

/// The most calls that were written and not answered. Enough for a member at full speed: measured, 64 are.
const MAX_CALLS: usize = 256;

/// The most bytes of them, but for one alone, which may be longer.
const MAX_BYTES: usize = 4 << 20;

/// The calls that are not answered.
pub(super) struct Calls {
    /// The correlation of the first.
    first: i64,
    /// Bytes and beat of each; none where the answer came before that of an older one.
    open: VecDeque<Option<(usize, u32)>>,
    bytes: usize,
    /// The beats so far.
    beat: u32,
}

impl Calls {
    /// None yet; the next call gets this correlation.
    pub(super) fn new(first: i64) -> Self {
        Calls { first, open: VecDeque::new(), bytes: 0, beat: 0 }
    }

    /// Whether another call may be written. Those that only ask for signs of life need not ask.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < MAX_CALLS && self.bytes < MAX_BYTES
    }

    /// Whether all are answered.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The correlation of a call that is written now.
    pub(super) fn begin(&mut self) -> i64 {
        self.open.push_back(Some((0, self.beat)));
        self.first + self.open.len() as i64 - 1
    }

    /// The call that began last, and is not sent yet, has so many bytes.
    pub(super) fn weigh(&mut self, bytes: usize) {
        if let Some(Some((weight, _))) = self.open.back_mut() {
            *weight += bytes;
            self.bytes += bytes;
        }
    }

    /// A call was answered.
    ///
    /// # Errors
    /// [`Garbage`] when no call of this correlation waits for an answer.
    pub(super) fn end(&mut self, correlation: i64) -> Result<(), Garbage> {
        let at = correlation.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let open = at.and_then(|at| self.open.get_mut(at)).and_then(Option::take);
        let (bytes, _) = open.ok_or(Garbage)?;
        self.bytes -= bytes;
        while let Some(None) = self.open.front() {
            self.open.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    /// Another beat has passed; for how many the oldest call waits.
    pub(super) fn beat(&mut self) -> u32 {
        self.beat += 1;
        let oldest = self.open.front().copied().flatten();
        oldest.map_or(0, |(_, since)| self.beat - since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_any_order_and_once() {
        let mut calls = Calls::new(4);
        assert_eq!([calls.begin(), calls.begin(), calls.begin()], [4, 5, 6]);
        for bad in [i64::MIN, -1, 3, 7, i64::MAX] {
            assert_eq!(calls.end(bad), Err(Garbage), "{bad}");
        }
        assert_eq!([calls.end(5), calls.end(5)], [Ok(()), Err(Garbage)]);
        assert_eq!([calls.end(4), calls.end(4)], [Ok(()), Err(Garbage)]);
        assert!(!calls.is_empty());
        assert_eq!((calls.end(6), calls.is_empty(), calls.begin()), (Ok(()), true, 7));
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let mut calls = Calls::new(0);
        for _ in 0..MAX_CALLS {
            assert!(calls.has_room());
            calls.begin();
        }
        assert!(!calls.has_room());
        // Those that are answered behind an open one count until that is answered.
        calls.end(1).unwrap();
        assert!(!calls.has_room());
        calls.end(0).unwrap();
        assert!(calls.has_room());
        calls.begin();
        calls.weigh(MAX_BYTES - 1);
        assert!(calls.has_room());
        calls.weigh(1);
        assert!(!calls.has_room());
        calls.end(MAX_CALLS as i64).unwrap();
        assert!(calls.has_room());
    }

    #[test]
    fn the_oldest_call_tells_for_how_long_it_waits() {
        let mut calls = Calls::new(0);
        assert_eq!(calls.beat(), 0);
        let oldest = calls.begin();
        assert_eq!(calls.beat(), 1);
        calls.begin();
        assert_eq!(calls.beat(), 2);
        calls.end(oldest).unwrap();
        assert_eq!(calls.beat(), 2, "the second one, which was written a beat later");
    }
}
