//! PostgreSQL: a cluster of its own, run by the user `postgres`, because the server refuses to be run by root.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kind, Source, account};

/// Where Debian puts each version's programs; they are not on the search path.
const VERSIONS: &str = "/usr/lib/postgresql";

pub(super) struct Postgres;

/// The folder with the programs of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).ok()?;
    let folders = versions.filter_map(Result::ok).map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("postgres").is_file()).max()
}

fn program(name: &str) -> PathBuf {
    programs().unwrap_or_default().join(name)
}

impl Kind for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_POSTGRES"
    }

    fn source(&self) -> Source {
        Source::Package { name: "postgresql", is_there: || programs().is_some() }
    }

    fn account(&self) -> Option<&'static str> {
        Some("postgres")
    }

    fn preparation(&self, folder: &Path) -> Option<Command> {
        let mut command = account::command(self.account(), &program("initdb"));
        command.arg("-D").arg(folder.join("data"));
        command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        Some(command)
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = account::command(self.account(), &program("postgres"));
        let data = folder.join("data");
        command.arg("-D").arg(data).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        // It is spoken to by TCP alone: paths of sockets are short.
        command.args(["-c", "unix_socket_directories="]);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        // It asks for a session, and gets leave to authenticate, or an error while the server starts.
        let begin = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let ask = || -> io::Result<u8> {
            let mut stream = super::connect(port)?;
            stream.write_all(&(begin.len() as u32 + 4).to_be_bytes())?;
            stream.write_all(begin)?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            Ok(answer[0])
        };
        ask().is_ok_and(|answer| answer == b'R')
    }

    fn url(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }
}
