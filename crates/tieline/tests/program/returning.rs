//! A thousand members of a group with a history that stop reading: they are closed, come back at once and say where they were, and
//! get everything, their inboxes too. Others are served meanwhile, pages are read once for many, and memory stays bounded.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::slow_readers::{narrow, peak, request};
use crate::support::metrics::{metrics, sample};
use crate::support::program::start;
use crate::support::socket::{Frame, Socket};

/// How many come back.
const MEMBERS: usize = 1000;

/// Threads that read for them.
const HANDS: usize = 8;

/// Most that the program may need more than before: the limit of what each member may have coming (an eighth of a MiB), and no more.
const MOST_GROWTH: u64 = 128 << 20;

/// Messages of a page: a quarter of what a connection may have coming.
const PAGE: usize = 8;

const RULES: &str = r#"
store = "memory:"

[[group]]
match = "room*"
history = { count = 100000, bytes = "128MiB" }

[inbox]
count = 1000
"#;

/// A connection whose kernel buffers are small.
fn connect(address: SocketAddr, user: &str) -> Socket {
    let (mut stream, request) = (narrow(address), request(user));
    stream.write_all(&request.to_bytes().unwrap()).unwrap();
    let mut socket = Socket::shake(stream, &request).unwrap();
    assert_eq!(socket.json()["event"], "connected");
    socket
}

/// What comes before the ack, and the ack.
fn ask(socket: &mut Socket, frame: &Value) -> (Vec<Value>, Value) {
    socket.send(&frame.to_string());
    let mut before = Vec::new();
    loop {
        let answer = socket.json();
        if answer["type"] == "ack" && answer["ackId"] == frame["ackId"] {
            assert_eq!(answer["success"], true, "{answer}");
            return (before, answer);
        }
        before.push(answer);
    }
}

fn publish(socket: &mut Socket, group: &str, ack_id: u64, data: &str) {
    let frame = json!({"type": "sendToGroup", "group": group, "noEcho": true, "dataType": "text", "data": data, "ackId": ack_id});
    ask(socket, &frame);
}

struct Member {
    socket: Socket,
    user: String,
    /// The last position that it has seen.
    seen: Value,
}

impl Member {
    fn enter(address: SocketAddr, number: usize) -> Member {
        let user = format!("member-{number}");
        let mut socket = connect(address, &user);
        let (_, ack) = ask(&mut socket, &json!({"type": "joinGroup", "group": "room", "ackId": 1}));
        Member { socket, user, seen: ack["position"].clone() }
    }

    /// Asks for everything that it has missed.
    fn come_back(&mut self, address: SocketAddr) {
        self.socket = Socket::open(address, request(&self.user)).unwrap();
        assert_eq!(self.socket.json()["event"], "connected");
        self.socket.send(&json!({"type": "hello", "ackId": 1}).to_string());
        let frame = json!({"type": "joinGroup", "group": "room", "since": self.seen, "ackId": 2});
        self.socket.send(&frame.to_string());
    }

    /// Reads that, and a live message behind it.
    fn read(&mut self, last: u64) {
        let mut next = self.seen["offset"].as_u64().unwrap() + 1;
        let (mut has_mail, mut is_in) = (false, false);
        while next <= last + 1 || !has_mail || !is_in {
            let frame = self.socket.json();
            match (frame["type"].as_str().unwrap(), frame["from"].as_str()) {
                ("message", Some("group")) => {
                    assert_eq!(frame["position"]["offset"], next, "{}", self.user);
                    next += 1;
                }
                ("message", Some("user")) => has_mail = frame["data"] == "mail",
                ("ack", _) => {
                    assert_eq!(frame["recovered"], true, "{frame}");
                    is_in |= frame["ackId"] == 2;
                }
                _ => panic!("{frame}"),
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_thousand_members_that_were_too_slow_come_back_at_once_and_miss_nothing() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4096)), hard).unwrap();
    let path = std::env::temp_dir().join(format!("tieline-returning-{}.toml", std::process::id()));
    std::fs::write(&path, RULES).unwrap();
    let limits = [("TIELINE_LIMITS_MESSAGE_RATE", "0"), ("TIELINE_LIMITS_SLOW_CONSUMER", "128KiB")];
    let config = path.to_str().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--shards", "2", "--config", config];
    let (mut child, address) = start(&arguments, &limits);
    std::fs::remove_file(&path).unwrap();
    let metric = |name: &str| sample(&metrics(address), name);

    let mut speaker = connect(address, "speaker");
    let mut members: Vec<Member> = (0..MEMBERS).map(|number| Member::enter(address, number)).collect();
    let (before, started) = (peak(child.id()), Instant::now());
    // Some have seen more than others when they stop reading.
    let text = "x".repeat(4 << 10);
    let mut sent = 0;
    while sent < 4 {
        sent += 1;
        publish(&mut speaker, "room", sent, &text);
    }
    for (number, member) in members.iter_mut().enumerate() {
        for _ in 0..number % 5 {
            member.seen = member.socket.json()["position"].clone();
        }
    }
    while metric("connections_ended_total{reason=\"slow\"}") < MEMBERS as f64 {
        assert!(sent < 2000, "after {sent} messages some are still there");
        for _ in 0..20 {
            sent += 1;
            publish(&mut speaker, "room", sent, &text);
        }
    }
    // They are told so by a code with which a client comes back.
    for member in members.iter_mut().step_by(MEMBERS / 4) {
        let end = loop {
            match member.socket.next() {
                Frame::Text(_) => {}
                end => break end,
            }
        };
        assert!(matches!(end, Frame::Close(4507, _)), "{end:?}");
    }
    let last = sent;
    for member in &members {
        let mail = json!({"type": "sendToUser", "user": member.user, "dataType": "text", "data": "mail", "ackId": 100_000 + sent});
        sent += 1;
        ask(&mut speaker, &mail);
    }

    let pages = metric("log_pages_total");
    let (slow, started) = (started.elapsed(), Instant::now());
    let is_over = AtomicBool::new(false);
    let turns = thread::scope(|scope| {
        // Somebody else's messages go on, kept and live ones.
        let talk = scope.spawn(|| {
            let (mut one, mut two) = (connect(address, "one"), connect(address, "two"));
            ask(&mut two, &json!({"type": "joinGroup", "group": "room-next-door", "ackId": 1}));
            ask(&mut two, &json!({"type": "joinGroup", "group": "lounge", "ackId": 2}));
            let mut turns = 0;
            while !is_over.load(Ordering::Relaxed) {
                turns += 1;
                for group in ["room-next-door", "lounge"] {
                    let ack_id = turns * 2 + u64::from(group == "lounge");
                    publish(&mut one, group, ack_id, &turns.to_string());
                    let heard = two.json();
                    assert_eq!((&heard["group"], &heard["data"]), (&json!(group), &json!(turns.to_string())));
                }
            }
            turns
        });
        let (all_back, is_said) = (Barrier::new(HANDS + 1), Barrier::new(HANDS + 1));
        let hands = |chunk: &mut [Member]| {
            chunk.iter_mut().for_each(|member| member.come_back(address));
            all_back.wait();
            is_said.wait();
            chunk.iter_mut().for_each(|member| member.read(last));
        };
        thread::scope(|scope| {
            let reading: Vec<_> =
                members.chunks_mut(MEMBERS / HANDS).map(|chunk| scope.spawn(|| hands(chunk))).collect();
            all_back.wait();
            publish(&mut speaker, "room", 1_000_000, "the last one");
            is_said.wait();
            reading.into_iter().for_each(|hand| hand.join().unwrap());
        });
        is_over.store(true, Ordering::Relaxed);
        talk.join().unwrap()
    });
    let pages = metric("log_pages_total") - pages;
    let grown = peak(child.id()).saturating_sub(before);
    println!(
        "{last} messages of 4 KiB to {MEMBERS} members, slow {slow:?}, back {:?}: {pages} pages, {turns} turns, {} KiB more",
        started.elapsed(),
        grown >> 10
    );
    // An inbox is one member's alone; the pages of the group are everybody's.
    let of_all = MEMBERS as f64 * last as f64 / PAGE as f64;
    let most = MEMBERS as f64 + of_all / 10.0;
    assert!(pages < most, "{pages} pages were read; {most} would be too many");
    assert!(turns > 5, "only {turns} turns");
    assert!(grown < MOST_GROWTH, "{} MiB more than before", grown >> 20);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
}
