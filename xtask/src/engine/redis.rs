//! Redis: one process, an append-only file, nothing else on disk.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Kind;

/// Longest wait for a connection and for the answer to PING; a loading server answers at once, with an error.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Redis;

impl Kind for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_REDIS"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["redis-server"]
    }

    fn program(&self) -> &'static str {
        "redis-server"
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = Command::new(self.program());
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
        command.args(["--save", "", "--appendonly", "yes", "--daemonize", "no"]);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ping = || -> std::io::Result<[u8; 5]> {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
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
