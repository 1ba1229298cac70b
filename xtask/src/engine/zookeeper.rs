//! ZooKeeper: one server by itself, which writes its log before it answers.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use super::java::{self, Jars};
use super::{Kind, Source};

static JARS: Jars = Jars { profile: "zookeeper", source: None, finish: None };

pub(super) struct ZooKeeper;

impl Kind for ZooKeeper {
    fn name(&self) -> &'static str {
        "zookeeper"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_ZOOKEEPER"
    }

    fn source(&self) -> Source {
        Source::Jars(&JARS)
    }

    fn configure(&self, folder: &Path, port: u16) -> io::Result<()> {
        // Ticks are the unit of everything: sessions last 2 to 20 of them.
        let settings = format!(
            "tickTime=1000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n",
            folder.join("data").display()
        );
        std::fs::write(folder.join("zoo.cfg"), settings)
    }

    fn command(&self, folder: &Path, _port: u16) -> Command {
        let mut command = java::machine(128);
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.arg("-cp").arg(JARS.class_path(&[]));
        command.arg("org.apache.zookeeper.server.ZooKeeperServerMain").arg(folder.join("zoo.cfg"));
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        let ask = || -> io::Result<String> {
            let mut stream = super::connect(port)?;
            stream.write_all(b"srvr")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        // A server that is not serving yet says so, in a sentence.
        ask().is_ok_and(|answer| answer.contains("Mode: standalone"))
    }

    fn url(&self, port: u16) -> String {
        format!("zookeeper://127.0.0.1:{port}")
    }
}
