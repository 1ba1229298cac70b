//! MariaDB: a data folder of its own, run by the user `mysql`; the user `root` of the server has no password.

use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use super::{Kind, Source, account, package};

/// The server.
const PROGRAM: &str = "mariadbd";

pub(super) struct MariaDb;

impl Kind for MariaDb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_MYSQL"
    }

    fn source(&self) -> Source {
        Source::Package { name: "mariadb-server", is_there: || package::is_there(PROGRAM) }
    }

    fn account(&self) -> Option<&'static str> {
        Some("mysql")
    }

    fn preparation(&self, folder: &Path) -> Option<Command> {
        let mut command = account::command(self.account(), Path::new("mariadb-install-db"));
        command.arg("--no-defaults").arg(format!("--datadir={}", folder.join("data").display()));
        command.arg("--auth-root-authentication-method=normal");
        // A server that starts removes what it takes for its own left-overs, also those of others.
        command.env("TMPDIR", folder);
        Some(command)
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let data = folder.join("data");
        let mut command = account::command(self.account(), Path::new(PROGRAM));
        command.args(["--no-defaults", "--bind-address=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
        // Paths of sockets are short, and others than its folder's the server finds by itself.
        command.arg("--socket=server.sock").arg("--pid-file=server.pid").env("TMPDIR", folder);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        // It greets with the number of its protocol, or with an error.
        let greeting = || -> io::Result<[u8; 5]> {
            let mut greeting = [0; 5];
            super::connect(port)?.read_exact(&mut greeting)?;
            Ok(greeting)
        };
        greeting().is_ok_and(|greeting| greeting[4] == 10)
    }

    fn url(&self, port: u16) -> String {
        format!("mysql://root@127.0.0.1:{port}/test")
    }
}
