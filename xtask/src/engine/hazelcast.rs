//! Hazelcast: a member of the cluster `tieline`, by itself or beside another one, which keeps nothing on the disk.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::java::{self, Jars};
use super::{Kind, Source};

static JARS: Jars = Jars { profile: "hazelcast", source: None, finish: None };

/// What a member is a member of.
const CLUSTER: &str = "tieline";

/// The bytes of a frame before its payload.
const HEAD: usize = 6;

/// The mark of a message's last frame.
const LAST: u16 = 0x2000;

/// Longest wait for an answer about a member.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A member, and another one that it looks for.
pub struct Hazelcast {
    /// The other one's port on this machine.
    beside: Option<u16>,
}

/// A member that is alone.
pub(super) static ALONE: Hazelcast = Hazelcast { beside: None };

impl Hazelcast {
    /// A kind whose members join the cluster of the one at this address. It is never given back, as it is for tests.
    pub fn beside(url: &str) -> &'static dyn Kind {
        let port = place(url).rsplit(':').next().and_then(|port| port.parse().ok());
        Box::leak(Box::new(Hazelcast { beside: port }))
    }
}

/// What the member at `hazelcast://HOST:PORT?…` says of itself, as JSON: `timedMemberState` with the members, the clients that
/// are connected, and statistics by topic.
pub fn state(url: &str) -> io::Result<String> {
    const STATE: [u8; 4] = [0, 0x0b, 0x20, 0];
    let mut stream = TcpStream::connect(place(url))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(&greeting())?;
    answer(&mut stream)?;
    let mut call = Vec::new();
    frame(&mut call, 0xc000 | LAST, &[&STATE[..], &[2, 0, 0, 0, 0, 0, 0, 0], &[0xff; 4]].concat());
    stream.write_all(&call)?;
    let text = answer(&mut stream)?.pop().unwrap_or_default();
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The host and port of an address.
fn place(url: &str) -> &str {
    let place = url.strip_prefix("hazelcast://").unwrap_or(url);
    place.split('?').next().unwrap_or_default()
}

/// The payloads of the next message's frames.
fn answer(stream: &mut TcpStream) -> io::Result<Vec<Vec<u8>>> {
    let mut payloads = Vec::new();
    loop {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head)?;
        let [a, b, c, d, e, f] = head;
        let len =
            usize::try_from(i32::from_le_bytes([a, b, c, d])).ok().and_then(|len| len.checked_sub(HEAD));
        let mut payload = vec![0; len.ok_or(io::ErrorKind::InvalidData)?];
        stream.read_exact(&mut payload)?;
        payloads.push(payload);
        if u16::from_le_bytes([e, f]) & LAST != 0 {
            return Ok(payloads);
        }
    }
}

impl Kind for Hazelcast {
    fn name(&self) -> &'static str {
        "hazelcast"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_HAZELCAST"
    }

    fn source(&self) -> Source {
        Source::Jars(&JARS)
    }

    fn configure(&self, folder: &Path, port: u16) -> io::Result<()> {
        std::fs::write(folder.join("hazelcast.yaml"), settings(port, self.beside))
    }

    fn command(&self, folder: &Path, _port: u16) -> Command {
        let mut command = java::machine(256);
        command.arg(format!("-Dhazelcast.config={}", folder.join("hazelcast.yaml").display()));
        command.arg("-cp").arg(JARS.class_path(&[]));
        command.arg("com.hazelcast.core.server.HazelcastMemberStarter").current_dir(folder);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        let ask = || -> io::Result<Vec<Vec<u8>>> {
            let mut stream = super::connect(port)?;
            stream.write_all(&greeting())?;
            answer(&mut stream)
        };
        // The response to an authentication, and in it the status. A member that still starts answers with an error.
        let is_welcome = |first: &Vec<u8>| first.starts_with(&[1, 1, 0, 0]) && first.get(13) == Some(&0);
        ask().is_ok_and(|frames| frames.first().is_some_and(is_welcome))
    }

    fn url(&self, port: u16) -> String {
        format!("hazelcast://127.0.0.1:{port}?cluster={CLUSTER}")
    }
}

/// Appends a frame.
fn frame(out: &mut Vec<u8>, flags: u16, payload: &[u8]) {
    out.extend_from_slice(&((payload.len() + HEAD) as i32).to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(payload);
}

/// What a client says first: the preamble, and that it is called `keeper` and may ask for statistics, as Hazelcast's own console is.
fn greeting() -> Vec<u8> {
    // The call's number, its correlation, no partition, a client's id and the version of values.
    let mut call = vec![0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    call.extend_from_slice(&[0; 17]);
    call.push(1);
    let mut out = b"CP2".to_vec();
    frame(&mut out, 0xc000, &call);
    frame(&mut out, 0, CLUSTER.as_bytes());
    // No user and no password.
    frame(&mut out, 0x0400, b"");
    frame(&mut out, 0x0400, b"");
    for text in ["MCC", "5.5.0", "keeper"] {
        frame(&mut out, 0, text.as_bytes());
    }
    // A list of labels without any.
    frame(&mut out, 0x1000, b"");
    frame(&mut out, 0x0800 | LAST, b"");
    out
}

/// What a member reads as it starts. It finds out soon that another one is gone, and asks nobody on the internet for anything.
fn settings(port: u16, beside: Option<u16>) -> String {
    let members = [Some(port), beside].into_iter().flatten().map(|port| format!("\"127.0.0.1:{port}\""));
    let members = members.collect::<Vec<_>>().join(", ");
    format!(
        "\
hazelcast:
  cluster-name: {CLUSTER}
  properties:
    hazelcast.phone.home.enabled: false
    hazelcast.shutdownhook.enabled: true
    hazelcast.merge.first.run.delay.seconds: 10
    hazelcast.merge.next.run.delay.seconds: 5
    hazelcast.heartbeat.interval.seconds: 1
    hazelcast.max.no.heartbeat.seconds: 10
    hazelcast.operation.call.timeout.millis: 15000
    hazelcast.socket.bind.any: false
    hazelcast.logging.type: jdk
    hazelcast.partition.count: 271
  network:
    port: {{auto-increment: false, port: {port}}}
    interfaces: {{enabled: true, interfaces: [127.0.0.1]}}
    join:
      auto-detection: {{enabled: false}}
      multicast: {{enabled: false}}
      tcp-ip: {{enabled: true, member-list: [{members}]}}
"
    )
}
