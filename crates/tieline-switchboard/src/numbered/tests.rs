//! A window against a plain list of frames, with records of others between its own, and the books of a window.

use proptest::prelude::*;

use super::*;
use crate::log::CHUNK;

impl Window {
    /// Panics where the books do not balance. Returns the chunk of each reference to the log.
    pub(crate) fn check(&self, log: &Log) -> Vec<u64> {
        let (mut frames, mut weight, mut sent) = (0, 0, 0);
        for (index, entry) in self.entries.iter().enumerate() {
            assert!(entry.frames() > 0, "an entry of nothing");
            if let Entry::Log { run, .. } | Entry::Copied { run, .. } = entry {
                let records = entry.records(log);
                assert_eq!(records.len(), run.len as usize);
                assert_eq!(Run::measure(records, run.frames), *run, "a run is the sum of its records");
            }
            if index == self.cursor.entry {
                assert!(self.cursor.frames <= entry.frames());
                let before = Run::measure(entry.records(log), self.before_cursor(entry));
                assert_eq!(before.len, self.cursor.bytes, "the cursor is between two records");
                sent = frames + u64::from(self.cursor.frames);
            }
            frames += u64::from(entry.frames());
            weight += entry.weight();
        }
        assert!(self.cursor.entry < self.entries.len() || self.cursor == Cursor::default());
        assert_eq!((self.next - self.base, self.end - self.base), (sent, frames), "sent and all frames");
        assert!(self.next <= self.ever_sent && self.base <= self.ever_sent && self.ever_sent <= self.end);
        assert_eq!(self.held, weight, "held");
        let logged = self.old(u64::MAX).map(|(index, _)| &self.entries[index]);
        logged
            .map(|entry| if let Entry::Log { start, .. } = entry { start / CHUNK as u64 } else { 0 })
            .collect()
    }

    fn before_cursor(&self, entry: &Entry) -> u32 {
        if matches!(entry, Entry::Large(_)) { 0 } else { self.cursor.frames }
    }

    /// Bytes that were copied out of the log and are held.
    pub(crate) fn copied(&self) -> usize {
        let of = |entry: &Entry| if let Entry::Copied { records, .. } = entry { records.len() } else { 0 };
        self.entries.iter().map(of).sum()
    }
}

/// One thing that happens to a window.
#[derive(Clone, Debug)]
enum Step {
    /// Frames of this size side by side.
    Push {
        plain: usize,
        deflated: usize,
        times: usize,
    },
    PushLarge,
    /// A record of somebody else's, or of another format, comes between.
    Other(usize),
    Send(usize),
    /// So many of those that may be.
    Acknowledge(usize),
    Rewind,
    ForgetDeflated,
    /// The oldest chunk is retired.
    Retire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![Just(0_usize), 1..200_usize, 5_000..16_000_usize];
    let step = prop_oneof![
        6 => (size.clone(), 0..300_usize, 1..30_usize)
            .prop_map(|(plain, deflated, times)| Step::Push { plain, deflated, times }),
        1 => Just(Step::PushLarge),
        2 => size.prop_map(Step::Other),
        6 => (0..60_usize).prop_map(Step::Send),
        5 => (0..60_usize).prop_map(Step::Acknowledge),
        1 => Just(Step::Rewind),
        1 => Just(Step::ForgetDeflated),
        2 => Just(Step::Retire),
    ];
    prop::collection::vec(step, 1..80)
}

/// A frame as the model knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    plain: Vec<u8>,
    deflated: Vec<u8>,
    large: bool,
    /// Number of the chunk while it stands in the log.
    chunk: Option<u64>,
}

proptest! {
    #[test]
    fn a_window_is_a_list_of_frames(steps in steps(), first in prop_oneof![Just(0_u64), Just(7 << 32)]) {
        let mut log = Log::new();
        let mut window = Window::new(first);
        let mut model: VecDeque<Known> = VecDeque::new();
        let (mut base, mut sent, mut ever_sent, mut byte) = (first, 0_usize, first, 0_u8);
        for step in steps {
            match step {
                Step::Push { plain, deflated, times } => for _ in 0..times {
                    byte = byte.wrapping_add(1);
                    let deflated = deflated.min(plain.saturating_sub(1)).min(300);
                    let known = Known { plain: vec![byte; plain], deflated: vec![!byte; deflated], large: false, chunk: None };
                    let record = log.append(&[&Record::header(plain, deflated), &known.plain, &known.deflated]);
                    let reference = window.push(record, plain as u32);
                    log.retain(record, u32::from(reference));
                    model.push_back(Known { chunk: Some(record.chunk()), ..known });
                },
                Step::PushLarge => {
                    let known = Known { plain: vec![1; 20_000], deflated: vec![2; 50], large: true, chunk: None };
                    let deflated = Some(Arc::new(known.deflated.as_slice().into()));
                    window.push_large(LargeBody { plain: Arc::new(known.plain.as_slice().into()), deflated });
                    model.push_back(known);
                }
                Step::Other(len) => {
                    log.append(&[&vec![b'?'; len]]);
                }
                Step::Send(count) => {
                    let count = count.min(model.len() - sent);
                    window.mark_sent(&log, count as u32);
                    sent += count;
                    ever_sent = ever_sent.max(base + sent as u64);
                }
                Step::Acknowledge(count) => {
                    let count = count.min((ever_sent - base) as usize);
                    let copied = window.copied();
                    let done = window.acknowledge(&mut log, (base + count as u64).wrapping_sub(1));
                    prop_assert_eq!(done.copied, copied - window.copied());
                    prop_assert_eq!(done.again as usize, count.saturating_sub(sent));
                    model.drain(..count);
                    base += count as u64;
                    sent = sent.saturating_sub(count);
                }
                Step::Rewind => {
                    window.rewind();
                    sent = 0;
                }
                Step::ForgetDeflated => {
                    window.forget_deflated();
                    model.iter_mut().for_each(|known| known.deflated.clear());
                }
                Step::Retire => {
                    let Some(chunk) = log.oldest() else { continue };
                    let (copied, wanted) = (window.copied(), window.wanted(chunk));
                    window.copy_out(&mut log, chunk);
                    prop_assert_eq!(window.copied() - copied, wanted.unwrap_or(0));
                    prop_assert_ne!(log.oldest(), Some(chunk));
                    for known in &mut model {
                        if known.chunk.is_some_and(|of| of <= chunk) {
                            known.chunk = None;
                            known.deflated.clear();
                        }
                    }
                }
            }
            let mut references = std::collections::HashMap::new();
            window.check(&log).into_iter().for_each(|chunk| *references.entry(chunk).or_default() += 1);
            log.check_references(&references);
            let weights = model.iter().map(|known| NUMBERED_FRAME + known.plain.len());
            prop_assert_eq!(window.held(), weights.sum::<usize>());
            prop_assert_eq!((window.next_sequence(), window.unsent() as usize), (base + sent as u64, model.len() - sent));
            let unsent: Vec<_> = window.unsent_frames(&log).map(|frame| match frame {
                Frame::Small(record) => (record.plain.to_vec(), record.deflated.to_vec(), false),
                Frame::Large(body) => {
                    let deflated = body.deflated.as_ref().map_or(Vec::new(), |bytes| bytes.to_vec());
                    (body.plain.to_vec(), deflated, true)
                }
            }).collect();
            let expected: Vec<_> =
                model.iter().skip(sent).map(|k| (k.plain.clone(), k.deflated.clone(), k.large)).collect();
            prop_assert!(unsent == expected, "the frames to be sent differ");
        }
        window.clear(&mut log);
        log.check_references(&Default::default());
    }
}

#[test]
fn frames_side_by_side_are_one_entry() {
    let mut log = Log::new();
    let mut window = Window::new(1);
    for _ in 0..100 {
        let record = log.append(&[&Record::header(10, 0), &[0; 10]]);
        let reference = window.push(record, 10);
        log.retain(record, u32::from(reference));
    }
    assert_eq!((window.entries.len(), window.unsent(), window.held()), (1, 100, 100 * (NUMBERED_FRAME + 10)));
    window.mark_sent(&log, 60);
    window.acknowledge(&mut log, 30);
    assert_eq!((window.entries.len(), window.unsent(), window.check(&log)), (1, 40, vec![0]));
}

#[test]
fn what_was_compressed_for_another_format_is_not_joined_by_what_is_not() {
    let mut log = Log::new();
    let mut window = Window::new(1);
    for _ in 0..2 {
        let record = log.append(&[&Record::header(4, 2), b"long", b"xx"]);
        let reference = window.push(record, 4);
        log.retain(record, u32::from(reference));
        if window.unsent() == 1 {
            window.forget_deflated();
        }
    }
    let deflated = window.unsent_frames(&log).map(|frame| match frame {
        Frame::Small(record) => record.deflated.len(),
        Frame::Large(_) => 0,
    });
    assert_eq!(deflated.collect::<Vec<_>>(), [0, 2]);
}
