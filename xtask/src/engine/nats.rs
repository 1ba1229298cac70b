//! NATS: one process, nothing on disk but its configuration and its log. It answers questions by HTTP on the port behind its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Kind, Source, package};

/// The server, and the package that brings it.
const PROGRAM: &str = "nats-server";

/// Where its monitoring is, counted from its port.
const MONITORING: u16 = 1;

/// Longest wait for the answer to a question of a test.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A NATS server, with these lines in its configuration beside the address.
pub struct Nats {
    lines: String,
}

/// As it comes.
pub(super) static PLAIN: Nats = Nats { lines: String::new() };

impl Nats {
    /// A kind whose configuration has these lines. It is never given back, as it is for tests.
    pub fn with(lines: String) -> &'static dyn Kind {
        Box::leak(Box::new(Nats { lines }))
    }
}

/// What the server at `nats://HOST:PORT` answers to `GET path` on its monitoring port, without the head.
pub fn ask(url: &str, path: &str) -> io::Result<String> {
    let server = url.strip_prefix("nats://").and_then(|server| server.parse().ok());
    let mut server: SocketAddr = server.ok_or(io::ErrorKind::InvalidInput)?;
    server.set_port(server.port() + MONITORING);
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(body.to_owned())
}

impl Kind for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_NATS"
    }

    fn source(&self) -> Source {
        Source::Package { name: PROGRAM, is_there: || package::is_there(PROGRAM) }
    }

    fn further_ports(&self) -> &'static [i32] {
        &[MONITORING as i32]
    }

    fn configure(&self, folder: &Path, _port: u16) -> io::Result<()> {
        fs::write(folder.join("nats.conf"), &self.lines)
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = Command::new(PROGRAM);
        let monitoring = (port + MONITORING).to_string();
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--http_port", &monitoring]);
        command.arg("--config").arg(folder.join("nats.conf")).current_dir(folder);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        // It says what it is before anything else, also where it wants TLS afterwards.
        let greeting = || -> io::Result<[u8; 5]> {
            let mut stream = super::connect(port)?;
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting)?;
            Ok(greeting)
        };
        greeting().is_ok_and(|greeting| &greeting == b"INFO ")
    }

    fn url(&self, port: u16) -> String {
        format!("nats://127.0.0.1:{port}")
    }
}
