//! Redis: one process, an append-only file that is flushed before each answer, nothing else on disk.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Kind, Source, package};

/// Longest wait for the answer to a command of a test.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The server, and what brings it.
pub(super) const PROGRAM: &str = "redis-server";
pub(super) const PACKAGE: Source = Source::Package { name: PROGRAM, is_there: || package::is_there(PROGRAM) };

pub(super) struct Redis;

/// TLS that several servers speak with each other and with clients, on ports beside the plain ones.
pub(super) struct Tls {
    /// The file of the key.
    key: String,
    /// That of its certificate, which all of them show and trust.
    certificate: String,
}

impl Tls {
    /// How far those ports are from the plain ones.
    pub(super) const BESIDE: u16 = 20;

    pub(super) fn new(key: &str, certificate: &str) -> Self {
        Tls { key: key.to_owned(), certificate: certificate.to_owned() }
    }

    /// What a server with this plain port is told: names of settings, and values.
    pub(super) fn settings(&self, port: u16) -> [(&'static str, String); 6] {
        [
            ("tls-port", (port + Self::BESIDE).to_string()),
            ("tls-key-file", self.key.clone()),
            ("tls-cert-file", self.certificate.clone()),
            ("tls-ca-cert-file", self.certificate.clone()),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    }

    /// The same on a server's command line.
    pub(super) fn words(&self, port: u16) -> Vec<String> {
        self.settings(port).into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }
}

/// Sends one inline command to the server at `redis://HOST:PORT` and returns the first line of the answer; for a bulk string
/// that is there, its first line.
pub fn ask(url: &str, command: &str) -> io::Result<String> {
    let server = url.strip_prefix("redis://").ok_or(io::ErrorKind::InvalidInput)?;
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    (&stream).write_all(format!("{command}\r\n").as_bytes())?;
    let mut lines = BufReader::new(stream).lines();
    let mut next = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let first = next()?;
    if first.starts_with('$') && first != "$-1" { next() } else { Ok(first) }
}

/// Whether a master listens on this port, by its own word. What a master answers has three parts.
pub(super) fn is_master(port: u16) -> bool {
    ask(&format!("redis://127.0.0.1:{port}"), "ROLE").is_ok_and(|answer| answer == "*3")
}

impl Kind for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_REDIS"
    }

    fn source(&self) -> Source {
        PACKAGE
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"]);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        // A loading server answers at once, with an error.
        let ping = || -> io::Result<[u8; 5]> {
            let mut stream = super::connect(port)?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        ping().is_ok_and(|answer| &answer == b"+PONG")
    }

    fn url(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}")
    }
}
