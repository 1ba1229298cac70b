//! A thousand clients that never read: they are let go one by one, the memory of the program stays where its limits say, and a
//! client that reads misses nothing.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket as Raw, Type};
use tieline_websocket::ClientRequest;

use crate::support::PATIENCE;
use crate::support::metrics::{metrics, sample};
use crate::support::program::start;
use crate::support::socket::Socket;

/// How many never read.
const READERS: usize = 1000;

/// What the log and the copies for laggards may take together, on both shards, with room for what a thousand connections and the
/// allocator take beside: an outbox for each of them without a limit would be many times as much.
const MOST_GROWTH: u64 = 48 << 20;

pub(crate) fn request(user: &str) -> ClientRequest {
    let path = format!("/client/hubs/h?user={user}");
    ClientRequest::new("localhost", &path).unwrap().protocol("tieline.v1")
}

/// A connection whose kernel buffers are small, so that it is the server that has to hold what is not read.
pub(crate) fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Raw::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn open(address: SocketAddr) -> TcpStream {
    let mut stream = narrow(address);
    let bytes = request("deaf").to_bytes().unwrap();
    std::io::Write::write_all(&mut stream, &bytes).unwrap();
    // The answer begins; nothing more is ever read.
    stream.read_exact(&mut [0; 12]).unwrap();
    stream
}

/// The most memory that the process has had, in bytes.
pub(crate) fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
#[cfg(target_os = "linux")]
fn memory_stays_flat_with_a_thousand_readers_that_never_read() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4096)), hard).unwrap();
    let limits = [
        ("TIELINE_LIMITS_CONNECTIONS_PER_USER", "0"),
        ("TIELINE_LIMITS_MESSAGE_RATE", "0"),
        ("TIELINE_LIMITS_SLOW_CONSUMER", "1MiB"),
        ("TIELINE_LIMITS_LAG_MEMORY", "8MiB"),
        ("TIELINE_LIMITS_LOG_MEMORY", "4MiB"),
    ];
    let (mut child, address) = start(&["serve", "--listen", "127.0.0.1:0", "--shards", "2"], &limits);
    let mut speaker = Socket::open(address, request("speaker")).unwrap();
    assert_eq!(speaker.json()["event"], "connected");
    let mut reader = Socket::open(address, request("reader")).unwrap();
    assert_eq!(reader.json()["event"], "connected");
    let deaf: Vec<TcpStream> = (0..READERS).map(|_| open(address)).collect();
    let before = peak(child.id());

    let text = "x".repeat(16 << 10);
    let mut sent = 0;
    let ended = || {
        let text = metrics(address);
        let ended = |reason| sample(&text, &format!("connections_ended_total{{reason=\"{reason}\"}}"));
        ended("slow") + ended("memory")
    };
    while ended() < READERS as f64 {
        assert!(sent < 10_000, "after {sent} messages some are still there");
        for _ in 0..20 {
            sent += 1;
            speaker.send(&format!(
                r#"{{"type":"sendToAll","noEcho":true,"dataType":"text","data":"{sent} {text}"}}"#
            ));
            // The next one is sent when this one has arrived: the reader is no laggard.
            let message = reader.json();
            let (number, rest) = message["data"].as_str().unwrap().split_once(' ').unwrap();
            assert_eq!((number.parse(), rest.len()), (Ok(sent), text.len()));
        }
    }
    let grown = peak(child.id()).saturating_sub(before);
    println!("{sent} messages of 16 KiB to {READERS} deaf clients: {} KiB more", grown >> 10);
    assert!(grown < MOST_GROWTH, "{} MiB more than before", grown >> 20);
    drop(deaf);
    speaker.send(r#"{"type":"sendToUser","user":"reader","dataType":"text","data":"still here","ackId":1}"#);
    assert_eq!(speaker.json()["delivered"], 1);
    assert_eq!(reader.json()["data"], "still here");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
}
