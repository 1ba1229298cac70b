//! Processes that a run starts for itself: the floor, and the servers of the suite. Each ends with its owner.
//! Tested by `tests/command.rs`, which runs the whole program.

use crate::args::COMMANDS;
use crate::error::BenchError;
use crate::floor::Mode;
use crate::process;
use clap::ValueEnum;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Between two attempts to connect to it.
const RETRY: Duration = Duration::from_millis(20);

/// A server process that is killed when this is dropped.
pub(crate) struct Server {
    /// The process. The floor's standard input is held open in it, which keeps the floor alive.
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts the floor, by calling this program again.
    pub(crate) fn floor(frame_bytes: usize, mode: Mode, cpu: Option<usize>) -> Result<Self, BenchError> {
        let mode = mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let (program, prefix) = own_command()?;
        let mut command = Command::new(program);
        command
            .args(prefix)
            .args([
                "floor-server",
                "--with-parent",
                "--frame-bytes",
                &frame_bytes.to_string(),
                "--mode",
                &mode,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = spawn(&mut command, cpu)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().rsplit(' ').next().and_then(|address| address.parse().ok());
        match address {
            Some(address) => Ok(Self { child, address }),
            None => {
                stop(&mut child);
                Err(BenchError::arguments(format!(
                    "the floor server did not say where it listens, but {line:?}"
                )))
            }
        }
    }

    /// Starts `words`, a program and its arguments, with `--listen` and a free port, and waits until it accepts there.
    pub(crate) fn start(words: &[OsString], cpu: Option<usize>) -> Result<Self, BenchError> {
        let [program, arguments @ ..] = words else {
            return Err(BenchError::arguments("the server's command is empty"));
        };
        // The port is free when the server is told of it; nothing else on the machine is likely to take it meanwhile.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(program);
        command.args(arguments).arg("--listen").arg(address.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Self { child: spawn(&mut command, cpu)?, address };
        let started = Instant::now();
        loop {
            if let Some(status) = server.child.try_wait()? {
                let program = program.to_string_lossy();
                return Err(BenchError::arguments(format!(
                    "{program} ended with {status} before it listened"
                )));
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            if started.elapsed() > START_LIMIT {
                let what = format!("nothing listens at {address}");
                return Err(BenchError::TimedOut { what, after: START_LIMIT });
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Ends a child and collects it.
fn stop(child: &mut Child) {
    // Either fails only if the child has ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Spawns with the affinity already set, so that a server which counts its CPUs counts right.
fn spawn(command: &mut Command, cpu: Option<usize>) -> Result<Child, BenchError> {
    let own = process::affinity()?;
    if let Some(cpu) = cpu {
        process::pin_this_thread(cpu)?;
    }
    let child = command.spawn();
    process::restore(&own)?;
    child.map_err(|source| BenchError::Process {
        what: format!("cannot start {}", command.get_program().to_string_lossy()),
        source,
    })
}

/// This program, and the arguments that stand before the name of a command when it is called: `bench` in the product.
pub(crate) fn own_command() -> Result<(OsString, Vec<OsString>), BenchError> {
    let program = std::env::current_exe()
        .map_err(|source| BenchError::Process { what: "cannot find this program".to_owned(), source })?;
    let is_command = |argument: &OsString| COMMANDS.iter().any(|name| argument == name);
    let prefix = std::env::args_os().skip(1).take_while(|argument| !is_command(argument)).collect();
    Ok((program.into_os_string(), prefix))
}
