//! Pairs of sockets: what goes over them by properties, with ends that take and give as they like, and over real sockets.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::flow::{Ends, Flow};
use super::{Pair, PipeSettings, Pipes, PipesHandle};

const PATIENCE: Duration = Duration::from_secs(20);

/// What an end does next when it is asked.
#[derive(Clone, Debug)]
enum Step {
    /// Gives, or takes, at most so many bytes.
    Some(usize),
    Block,
    Interrupt,
}

/// An end of a pair that is made up.
#[derive(Debug, Default)]
struct End {
    says: Vec<u8>,
    said: usize,
    gives: VecDeque<Step>,
    takes: VecDeque<Step>,
    heard: Vec<u8>,
    is_finished: bool,
    /// So many bytes are taken, and then it is gone.
    breaks_after: Option<usize>,
}

impl End {
    fn is_broken(&self) -> bool {
        self.breaks_after.is_some_and(|limit| self.heard.len() >= limit)
    }
}

struct Made([End; 2]);

fn step(steps: &mut VecDeque<Step>) -> io::Result<usize> {
    match steps.pop_front() {
        Some(Step::Some(count)) => Ok(count),
        Some(Step::Block) => Err(ErrorKind::WouldBlock.into()),
        Some(Step::Interrupt) => Err(ErrorKind::Interrupted.into()),
        None => Ok(usize::MAX),
    }
}

impl Ends for Made {
    fn read(&mut self, end: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let end = &mut self.0[end];
        if end.is_broken() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let count = step(&mut end.gives)?.min(buffer.len()).min(end.says.len() - end.said);
        buffer[..count].copy_from_slice(&end.says[end.said..end.said + count]);
        end.said += count;
        Ok(count)
    }

    fn write(&mut self, end: usize, bytes: &[u8]) -> io::Result<usize> {
        let end = &mut self.0[end];
        assert!(!end.is_finished, "a word behind the end");
        if end.is_broken() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let left = end.breaks_after.map_or(usize::MAX, |limit| limit - end.heard.len());
        let count = step(&mut end.takes)?.min(bytes.len()).min(left);
        end.heard.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn finish(&mut self, end: usize) {
        assert!(!self.0[end].is_finished, "the end is told once");
        self.0[end].is_finished = true;
    }
}

fn steps() -> impl Strategy<Value = VecDeque<Step>> {
    let step = prop_oneof![4 => (1..40_usize).prop_map(Step::Some), 2 => Just(Step::Block), 1 => Just(Step::Interrupt)];
    proptest::collection::vec(step, 0..40).prop_map(VecDeque::from)
}

fn end() -> impl Strategy<Value = End> {
    (proptest::collection::vec(any::<u8>(), 0..600), steps(), steps()).prop_map(|(says, gives, takes)| End {
        says,
        gives,
        takes,
        ..End::default()
    })
}

/// Carries until nothing moves any more, as a lane would that hears of every readiness.
fn carry_on(flow: &mut Flow, ends: &mut Made, order: &[bool], buffer: usize) {
    let mut buffer = vec![0; buffer];
    for turn in 0..2_000 {
        if flow.is_over() {
            return;
        }
        let source = usize::from(order[turn % order.len()] ^ (turn / order.len() % 2 == 1));
        flow.readable(source, false);
        flow.carry(source, ends, &mut buffer);
        assert!(flow.kept() <= 2 * buffer.len().max(64), "more is kept than was read at once");
    }
    panic!("it does not end: {flow:?} {:?}", ends.0);
}

proptest! {
    #[test]
    fn each_end_hears_all_that_the_other_says_and_then_the_end(
        ends in (end(), end()),
        early in (proptest::collection::vec(any::<u8>(), 0..60), proptest::collection::vec(any::<u8>(), 0..60)),
        order in proptest::collection::vec(any::<bool>(), 1..20),
        buffer in 1..64_usize,
    ) {
        let mut made = Made([ends.0, ends.1]);
        let early = [early.0, early.1];
        let mut flow = Flow::new(early.clone());
        carry_on(&mut flow, &mut made, &order, buffer);
        for (source, target) in [(0, 1), (1, 0)] {
            let said = [&early[source][..], &made.0[source].says].concat();
            prop_assert_eq!(&made.0[target].heard, &said);
            prop_assert!(made.0[target].is_finished);
        }
        prop_assert_eq!(flow.kept(), 0);
    }

    #[test]
    fn who_is_gone_ends_the_pair_and_the_other_hears_what_was_said_before(
        ends in (end(), end()),
        limit in 0..600_usize,
        order in proptest::collection::vec(any::<bool>(), 1..20),
        buffer in 1..64_usize,
    ) {
        let mut made = Made([ends.0, End { breaks_after: Some(limit), ..ends.1 }]);
        let mut flow = Flow::new([Vec::new(), Vec::new()]);
        carry_on(&mut flow, &mut made, &order, buffer);
        let [first, second] = &made.0;
        prop_assert_eq!(&first.heard, &second.says[..second.said]);
        prop_assert!(first.is_finished);
        prop_assert_eq!(&second.heard[..], &first.says[..second.heard.len()]);
        prop_assert_eq!(flow.kept(), 0);
    }
}

#[test]
fn a_source_is_not_read_while_its_target_takes_nothing() {
    let source = End { says: vec![7; 1000], ..End::default() };
    let target = End { takes: vec![Step::Block; 50].into(), ..End::default() };
    let (mut ends, mut flow) = (Made([source, target]), Flow::new([Vec::new(), Vec::new()]));
    for _ in 0..50 {
        flow.readable(0, false);
        flow.carry(0, &mut ends, &mut [0; 100]);
        assert_eq!((ends.0[0].said, flow.kept()), (100, 100));
    }
    assert!(!flow.is_half_closed());
}

/// Two connected sockets: the one that a client holds, and the one that a server accepted.
fn socket() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.set_write_timeout(Some(PATIENCE)).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    (far, near)
}

/// Joins a client with a server; what is left of the guard says whether the pair is open.
fn join(pipes: &PipesHandle<Arc<()>>, early: [&[u8]; 2]) -> ([TcpStream; 2], Arc<()>) {
    let ((client, one), (server, other)) = (socket(), socket());
    let guard = Arc::new(());
    let early = early.map(<[u8]>::to_vec);
    pipes.join(Pair { ends: [one, other], early, guard: Arc::clone(&guard) }).unwrap();
    ([client, server], guard)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn start(settings: PipeSettings) -> Pipes<Arc<()>> {
    Pipes::start(2, settings).unwrap()
}

#[test]
fn words_go_both_ways_behind_what_was_read_before() {
    let pipes = start(PipeSettings::default());
    let ([mut client, mut server], guard) =
        join(pipes.handle(), [b"early of the client", b"early of the server"]);
    client.write_all(b", and more").unwrap();
    server.write_all(b", and else").unwrap();
    assert_eq!(read_exactly(&mut server, 29), b"early of the client, and more");
    assert_eq!(read_exactly(&mut client, 29), b"early of the server, and else");
    assert_eq!(pipes.handle().counters().pairs, 1);
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    drop(server);
    eventually("the guard is dropped", || Arc::strong_count(&guard) == 1);
    eventually("no pair is counted", || pipes.handle().counters().pairs == 0);
    assert_eq!(pipes.handle().counters().bytes, [10, 10]);
    pipes.stop(PATIENCE).unwrap();
}

#[test]
fn who_has_finished_still_hears_the_answer() {
    let pipes = start(PipeSettings::default());
    let ([mut client, mut server], guard) = join(pipes.handle(), [b"", b""]);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut question = Vec::new();
    server.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    server.write_all(b"answer").unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    eventually("the pair is closed", || Arc::strong_count(&guard) == 1);
    pipes.stop(PATIENCE).unwrap();
}

/// Many mebibytes both ways at once, and neither end reads before it has written: more than sockets hold.
#[test]
fn much_goes_both_ways_past_ends_that_are_slow_to_read() {
    const MUCH: usize = 24 << 20;
    let pipes = start(PipeSettings::default());
    let (ends, guard) = join(pipes.handle(), [b"", b""]);
    let content =
        |seed: usize| (0..MUCH).map(move |at| (at.wrapping_mul(seed) >> 7) as u8).collect::<Vec<u8>>();
    let [client, server] = ends;
    let talks = [(client, 31, 17), (server, 17, 31)].map(|(mut stream, own, other)| {
        thread::spawn(move || {
            let mut reader = stream.try_clone().unwrap();
            let (ready, is_full) = std::sync::mpsc::channel();
            let reading = thread::spawn(move || {
                is_full.recv().unwrap();
                read_exactly(&mut reader, MUCH)
            });
            let bytes = content(own);
            stream.write_all(&bytes[..1 << 20]).unwrap();
            ready.send(()).unwrap();
            stream.write_all(&bytes[1 << 20..]).unwrap();
            assert!(reading.join().unwrap() == content(other), "it arrived otherwise than it was sent");
        })
    });
    for talk in talks {
        talk.join().unwrap();
    }
    eventually("the pair is closed", || Arc::strong_count(&guard) == 1);
    let counters = pipes.handle().counters();
    assert_eq!((counters.bytes, counters.kept), ([MUCH as u64; 2], 0));
    pipes.stop(PATIENCE).unwrap();
}

#[test]
fn an_end_that_reads_nothing_holds_its_sender_back() {
    let pipes = start(PipeSettings::default());
    let ([mut client, server], guard) = join(pipes.handle(), [b"", b""]);
    client.set_nonblocking(true).unwrap();
    // Until a whole second long the kernel takes nothing.
    let (mut sent, mut last) = (0_usize, Instant::now());
    while last.elapsed() < Duration::from_secs(1) {
        match client.write(&[1; 16 << 10]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(_) => thread::park_timeout(Duration::from_millis(5)),
        }
    }
    let counters = pipes.handle().counters();
    assert!(counters.kept > 0 && counters.kept <= 64 << 10, "{counters:?}");
    assert!(counters.bytes[0] < sent as u64, "the sender's own kernel holds the rest");
    // What nobody hears any more is let go.
    drop((client, server));
    eventually("the pair is closed", || Arc::strong_count(&guard) == 1);
    eventually("nothing is kept", || pipes.handle().counters().kept == 0);
    pipes.stop(PATIENCE).unwrap();
}

#[test]
fn silence_ends_a_pair_and_words_keep_it() {
    let idle = Duration::from_secs(2);
    let pipes = start(PipeSettings { idle, ..PipeSettings::default() });
    let (silent, silent_guard) = join(pipes.handle(), [b"", b""]);
    let ([mut client, mut server], guard) = join(pipes.handle(), [b"", b""]);
    let began = Instant::now();
    while Arc::strong_count(&silent_guard) > 1 {
        assert!(began.elapsed() < PATIENCE, "never closed");
        client.write_all(b"x").unwrap();
        read_exactly(&mut server, 1);
    }
    assert!(began.elapsed() >= idle);
    assert_eq!((Arc::strong_count(&guard), pipes.handle().counters().silent), (2, 1));
    let [mut client, _] = silent;
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    pipes.stop(Duration::ZERO).unwrap();
}

#[test]
fn who_ends_and_is_not_answered_ends_the_pair_sooner() {
    let half_closed = Duration::from_secs(1);
    let pipes = start(PipeSettings { half_closed, ..PipeSettings::default() });
    let ([client, _server], guard) = join(pipes.handle(), [b"", b""]);
    client.shutdown(Shutdown::Write).unwrap();
    eventually("the pair is closed", || Arc::strong_count(&guard) == 1);
    assert_eq!(pipes.handle().counters().silent, 1);
    pipes.stop(PATIENCE).unwrap();
}

#[test]
fn stopping_waits_as_long_as_it_may_and_closes_the_rest() {
    let pipes = start(PipeSettings::default());
    let handle = pipes.handle().clone();
    let ([mut client, _server], guard) = join(&handle, [b"", b""]);
    let began = Instant::now();
    pipes.stop(Duration::from_millis(300)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(5));
    assert_eq!((Arc::strong_count(&guard), handle.counters().pairs), (1, 0));
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    let ((_far, one), (_other_far, other)) = (socket(), socket());
    let late = Pair { ends: [one, other], early: [Vec::new(), Vec::new()], guard: Arc::clone(&guard) };
    assert!(handle.join(late).is_err(), "nobody is there any more");
    assert_eq!(Arc::strong_count(&guard), 1);
}

#[test]
fn an_idle_pair_costs_little() {
    let size = super::lane::size_of_pair::<Arc<()>>();
    assert!(size <= 96, "{size} bytes");
}
