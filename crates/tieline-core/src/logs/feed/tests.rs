//! A feed against a log that grows, is trimmed, renewed, rolled back and dropped, while its words come late, twice, in any
//! order or not at all.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Note(u128);

impl Item for Note {
    fn id(&self) -> MessageId {
        MessageId(self.0)
    }

    fn bytes(&self) -> usize {
        100
    }
}

/// A log as a store keeps it.
#[derive(Default)]
struct Log {
    epoch: u64,
    first: u64,
    notes: Vec<u128>,
    made: u64,
}

impl Log {
    fn head(&self) -> Option<Head> {
        let last = self.first + self.notes.len() as u64;
        (self.epoch > 0).then(|| Head { epoch: self.epoch, first: self.first, last: last - 1 })
    }

    fn append(&mut self, note: u128) -> Position {
        if self.epoch == 0 {
            self.made += 1;
            (self.epoch, self.first) = (self.made, 1);
        }
        self.notes.push(note);
        Position { epoch: self.epoch, offset: self.first + self.notes.len() as u64 - 1 }
    }

    fn read(&self, after: Position, most: usize) -> FeedPage<Note> {
        let head = self.head();
        let start = match Head::start(head, Some(after)) {
            Ok(start) => start,
            Err(gap) => return FeedPage { head, gap: Some(gap), messages: Vec::new() },
        };
        let numbered =
            self.notes.iter().enumerate().map(|(index, id)| (self.first + index as u64, Note(*id)));
        let messages = numbered.filter(|(offset, _)| *offset >= start).take(most).collect();
        FeedPage { head, gap: None, messages }
    }

    fn renew(&mut self, epoch: u64) {
        if self.epoch == epoch {
            self.made += 1;
            self.epoch = self.made;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { heard: bool },
    Hear(usize),
    HearAgain(usize),
    Answer { fails: bool },
    Look,
    Trim(usize),
    RollBack(usize),
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<bool>().prop_map(|heard| Step::Append { heard }),
        6 => (0usize..8).prop_map(Step::Hear),
        2 => (0usize..8).prop_map(Step::HearAgain),
        8 => prop::bool::weighted(0.2).prop_map(|fails| Step::Answer { fails }),
        2 => Just(Step::Look),
    ]
}

fn rough_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => step(),
        1 => (0usize..6).prop_map(Step::Trim),
        1 => (1usize..4).prop_map(Step::RollBack),
        1 => Just(Step::Drop),
    ]
}

struct World {
    log: Log,
    feed: Feed<Note>,
    notes: u128,
    /// Stored, and on their way to the feed.
    on_way: Vec<(Position, Note)>,
    heard: Vec<(Position, Note)>,
    delivered: Vec<(Position, u128)>,
    lost: bool,
    /// What the store has answered, and the feed has not got.
    answer: Option<Told>,
}

enum Told {
    Head(Option<Head>),
    Page(FeedPage<Note>),
}

impl World {
    fn new() -> Self {
        World {
            log: Log::default(),
            feed: Feed::default(),
            notes: 0,
            on_way: Vec::new(),
            heard: Vec::new(),
            delivered: Vec::new(),
            lost: false,
            answer: None,
        }
    }

    fn deliver(&mut self) {
        while let Some((position, note)) = self.feed.next() {
            self.delivered.push((position, note.0));
        }
        self.lost |= self.feed.take_loss();
    }

    /// The store answers what it is asked, or an answer arrives.
    fn answer(&mut self, fails: bool) -> bool {
        match self.answer.take() {
            Some(_) if fails => self.feed.failed(),
            Some(Told::Head(head)) => self.feed.head(head),
            Some(Told::Page(page)) => self.feed.page(page),
            None => {
                let Some(question) = self.feed.question() else { return false };
                self.answer = Some(match question {
                    Question::Head => Told::Head(self.log.head()),
                    Question::Read(after) => Told::Page(self.log.read(after, MOST_RECENT)),
                    Question::Renew(epoch) => {
                        self.log.renew(epoch);
                        Told::Head(self.log.head())
                    }
                });
            }
        }
        self.deliver();
        true
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append { heard } => {
                self.notes += 1;
                let position = self.log.append(self.notes);
                if *heard {
                    self.on_way.push((position, Note(self.notes)));
                }
            }
            Step::Hear(index) if !self.on_way.is_empty() => {
                let (position, note) = self.on_way.remove(index % self.on_way.len());
                self.heard.push((position, note.clone()));
                self.feed.offer(position, note);
            }
            Step::HearAgain(index) if !self.heard.is_empty() => {
                let (position, note) = self.heard[index % self.heard.len()].clone();
                self.feed.offer(position, note);
            }
            Step::Hear(_) | Step::HearAgain(_) => {}
            Step::Answer { fails } => {
                self.answer(*fails);
            }
            Step::Look => self.feed.look(),
            Step::Trim(count) => {
                let count = (*count).min(self.log.notes.len());
                self.log.notes.drain(..count);
                self.log.first += count as u64;
            }
            Step::RollBack(count) => {
                // A store that lost its end was away, and what it told of that end is of no account.
                let keep = self.log.notes.len().saturating_sub(*count);
                self.log.notes.truncate(keep);
                self.on_way.clear();
                self.heard.clear();
                self.feed.doubt();
            }
            Step::Drop => self.log = Log { made: self.log.made, ..Log::default() },
        }
        self.deliver();
    }

    fn settle(&mut self) {
        // Once for what is on its way, and once for what that did not tell.
        for _ in 0..2 {
            self.feed.look();
            let mut questions = 0;
            while self.answer(false) {
                questions += 1;
                assert!(questions < 10_000, "it asks for ever");
            }
        }
    }
}

/// Within an epoch, offsets rise by one; a jump is allowed where a loss was told.
fn assert_order(delivered: &[(Position, u128)], lost: bool) {
    for pair in delivered.windows(2) {
        let [(one, _), (two, _)] = pair else { unreachable!() };
        if one.epoch == two.epoch {
            assert!(two.offset == one.offset + 1 || (lost && two.offset > one.offset), "{delivered:?}");
        }
    }
}

proptest! {
    #[test]
    fn everything_is_delivered_once_and_in_order(before in 0u64..5, steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for _ in 0..before {
            world.take(&Step::Append { heard: false });
        }
        world.settle();
        let begun = world.feed.at().unwrap();
        prop_assert_eq!(begun.offset, before);
        for step in &steps {
            world.take(step);
        }
        world.settle();
        prop_assert!(!world.lost);
        let wanted: Vec<u128> = (u128::from(before) + 1..=world.notes).collect();
        let got: Vec<u128> = world.delivered.iter().map(|(_, note)| *note).collect();
        prop_assert_eq!(got, wanted);
        assert_order(&world.delivered, false);
        if world.notes > 0 {
            let head = world.log.head().unwrap();
            prop_assert_eq!(world.feed.at(), Some(Position { epoch: head.epoch, offset: head.last }));
        }
    }

    #[test]
    fn whatever_becomes_of_the_log_its_end_is_delivered_and_losses_are_told(
        steps in prop::collection::vec(rough_step(), 0..150),
    ) {
        let mut world = World::new();
        world.settle();
        for step in &steps {
            world.take(step);
        }
        world.settle();
        assert_order(&world.delivered, world.lost);
        // Every message that the log still has was delivered.
        for note in &world.log.notes {
            prop_assert!(world.delivered.iter().any(|(_, delivered)| delivered == note), "{note} of {:?}", world.delivered);
        }
        let head = world.log.head();
        let end = head.map_or(NOTHING_YET, |head| Position { epoch: head.epoch, offset: head.last });
        prop_assert_eq!(world.feed.at(), Some(end));
    }
}

#[test]
fn a_log_that_was_renewed_goes_on_without_repetition() {
    let mut world = World::new();
    world.settle();
    for _ in 0..5 {
        world.take(&Step::Append { heard: true });
    }
    world.settle();
    let epoch = world.log.epoch;
    world.log.notes.truncate(3);
    world.feed.doubt();
    world.settle();
    assert_ne!(world.log.epoch, epoch, "it was renewed");
    world.take(&Step::Append { heard: false });
    world.settle();
    let offsets: Vec<u64> = world.delivered.iter().map(|(position, _)| position.offset).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5, 4]);
    assert_eq!(world.delivered.last().unwrap().0.epoch, world.log.epoch);
}

#[test]
fn what_was_delivered_last_is_remembered_and_bounded() {
    let mut world = World::new();
    world.settle();
    for _ in 0..MOST_RECENT + 10 {
        world.take(&Step::Append { heard: true });
        world.take(&Step::Hear(0));
    }
    let at = world.feed.at().unwrap();
    let since = |offset| Position { epoch: at.epoch, offset };
    let count = |offset| world.feed.recent_since(since(offset)).map(Iterator::count);
    assert_eq!(count(at.offset), Some(0));
    assert_eq!(count(at.offset - 3), Some(3));
    assert_eq!(count(10), Some(MOST_RECENT));
    assert_eq!(count(9), None);
    assert_eq!(count(at.offset + 1), None);
    assert!(world.feed.recent_since(Position { epoch: at.epoch + 1, offset: at.offset }).is_none());
}

#[test]
fn what_waits_is_bounded_and_read_later() {
    let mut world = World::new();
    world.settle();
    for number in 0..3 * MOST_AHEAD {
        world.take(&Step::Append { heard: number > 0 });
        world.take(&Step::Hear(0));
    }
    assert!(world.feed.ahead.len() <= MOST_AHEAD && world.delivered.is_empty());
    world.settle();
    assert_eq!(world.delivered.len(), 3 * MOST_AHEAD);
}
