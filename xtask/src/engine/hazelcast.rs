//! Hazelcast: one member by itself, of the cluster `tieline`, which keeps nothing on the disk.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use super::java::{self, Jars};
use super::{Error, Kind};

const JARS: Jars = Jars { profile: "hazelcast", source: None };

/// What a member is a member of.
const CLUSTER: &str = "tieline";

/// The longest answer to an authentication that is read. That of a small cluster has about 1,700 bytes.
const ANSWER: usize = 64;

pub(super) struct Hazelcast;

impl Kind for Hazelcast {
    fn name(&self) -> &'static str {
        "hazelcast"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_HAZELCAST"
    }

    fn packages(&self) -> &'static [&'static str] {
        java::PACKAGES
    }

    fn program(&self) -> &'static str {
        "java"
    }

    fn has_packages(&self) -> bool {
        java::has_tools()
    }

    fn is_fetched(&self) -> bool {
        JARS.are_here()
    }

    fn fetch(&self) -> Result<(), Error> {
        JARS.fetch()
    }

    fn configure(&self, folder: &Path, port: u16) -> io::Result<()> {
        std::fs::write(folder.join("hazelcast.yaml"), settings(port))
    }

    fn command(&self, folder: &Path, _port: u16) -> Command {
        let mut command = java::machine(256);
        command.arg(format!("-Dhazelcast.config={}", folder.join("hazelcast.yaml").display()));
        command.arg("-cp").arg(JARS.class_path(&[]));
        command.arg("com.hazelcast.core.server.HazelcastMemberStarter").current_dir(folder);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        let ask = || -> io::Result<[u8; ANSWER]> {
            let mut stream = super::connect(port)?;
            stream.write_all(&greeting())?;
            let mut answer = [0; ANSWER];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        // The response to an authentication, behind the frame's six bytes, and in it the status. A member that still starts answers
        // with an error.
        ask().is_ok_and(|answer| answer[6..10] == [1, 1, 0, 0] && answer[19] == 0)
    }

    fn url(&self, port: u16) -> String {
        format!("hazelcast://127.0.0.1:{port}?cluster={CLUSTER}")
    }
}

/// What a client says first, as a client called `keeper` without a password.
fn greeting() -> Vec<u8> {
    fn frame(out: &mut Vec<u8>, flags: u16, payload: &[u8]) {
        out.extend_from_slice(&(payload.len() as i32 + 6).to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(payload);
    }
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
    for text in ["RST", "5.5.0", "keeper"] {
        frame(&mut out, 0, text.as_bytes());
    }
    // A list of labels without any.
    frame(&mut out, 0x1000, b"");
    frame(&mut out, 0x2800, b"");
    out
}

/// What a member reads as it starts. It finds out soon that another one is gone, and asks nobody on the internet for anything.
fn settings(port: u16) -> String {
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
      tcp-ip: {{enabled: true, member-list: [\"127.0.0.1:{port}\"]}}
"
    )
}
