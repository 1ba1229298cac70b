//! RabbitMQ: one server without plugins, with its own name service (`epmd`), which it finds its own command line tools by.
//!
//! `localhost` is resolved to 127.0.0.1; nothing of it listens anywhere else.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use super::{Engine, Kind, Source};

/// Where Debian has the programs that do not change the user first.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// The server among them, and the package that brings them.
const PROGRAM: &str = "rabbitmq-server";

/// Starts the name service, and then the server in place of the shell. The name service would serve whoever asks long after us:
/// so it is killed when the server, whose child it is, dies.
const START: &str = "setpriv --pdeathsig KILL epmd -address 127.0.0.1 -port \"$ERL_EPMD_PORT\" & exec \"$0\"";

/// Where its name service listens, and where its tools reach it, counted from its port.
const FURTHER: [i32; 2] = [1, 2];

/// The folder of settings that a test adds.
const FURTHER_SETTINGS: &str = "conf.d";

pub(super) struct RabbitMq;

/// Gives a server that was started here a file of settings beside its own, which it reads when it is started again.
///
/// # Errors
/// When the file cannot be written; also for a server that was not started here.
pub fn configure(engine: &Engine, settings: &str) -> io::Result<()> {
    let own = engine.own.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    fs::write(own.folder.join(FURTHER_SETTINGS).join("90-test.conf"), settings)
}

/// What an operator does: runs `rabbitmqctl` with these words for a server that was started here, and gives what it prints.
///
/// # Errors
/// When it fails, with what it said; also for a server that was not started here.
pub fn control(engine: &Engine, words: &[&str]) -> io::Result<String> {
    let own = engine.own.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    let mut command = Command::new(Path::new(PROGRAMS).join("rabbitmqctl"));
    command.envs(environment(&own.folder, own.port)).arg("-q").args(words);
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What server and tools must agree on.
fn environment(folder: &Path, port: u16) -> Vec<(&'static str, OsString)> {
    let within = |name: &str| folder.join(name).into_os_string();
    vec![
        ("HOME", folder.into()),
        ("ERL_EPMD_PORT", (port + 1).to_string().into()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_NODENAME", "tieline@localhost".into()),
        ("RABBITMQ_DIST_PORT", (port + 2).to_string().into()),
        ("RABBITMQ_MNESIA_BASE", within("mnesia")),
        ("RABBITMQ_LOG_BASE", within("log")),
        ("RABBITMQ_CONFIG_FILE", within("rabbitmq.conf")),
        ("RABBITMQ_CONFIG_FILES", within(FURTHER_SETTINGS)),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", within("enabled_plugins")),
        // The process that is started is the server then, not a script that waits for it.
        ("RUNNING_UNDER_SYSTEMD", "true".into()),
        // Its threads sleep where there is nothing to do, instead of looking for work.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}".into(),
        ),
    ]
}

impl Kind for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_RABBITMQ"
    }

    fn source(&self) -> Source {
        // The one on the search path is a script that root alone can use, in folders that need not be there.
        Source::Package { name: PROGRAM, is_there: || Path::new(PROGRAMS).join(PROGRAM).is_file() }
    }

    fn further_ports(&self) -> &'static [i32] {
        &FURTHER
    }

    fn configure(&self, folder: &Path, port: u16) -> io::Result<()> {
        fs::create_dir_all(folder.join(FURTHER_SETTINGS))?;
        let settings = format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.file = false\nlog.console = true\n");
        fs::write(folder.join("rabbitmq.conf"), settings)?;
        fs::write(folder.join("enabled_plugins"), "[].\n")
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", START]).arg(Path::new(PROGRAMS).join(PROGRAM));
        command.envs(environment(folder, port)).current_dir(folder);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        // It says who it is, and nothing more without an answer.
        let greet = || -> io::Result<u8> {
            let mut stream = super::connect(port)?;
            stream.write_all(b"AMQP\x00\x00\x09\x01")?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            Ok(answer[0])
        };
        greet().is_ok_and(|kind| kind == 1)
    }

    fn url(&self, port: u16) -> String {
        format!("amqp://127.0.0.1:{port}")
    }
}
