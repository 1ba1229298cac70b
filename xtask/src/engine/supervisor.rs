//! Engines that stay up between commands: `up`, `down`, `kill` and `status`.
//!
//! `up` leaves a process behind that owns the engine as a test would, and answers one question per connection on a
//! Unix socket in the engine's folder. When that process dies, so does the server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Builder, Engine, Error, Kind, READY_WITHIN};

/// Pause between two looks whether a new supervisor answers.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Longest wait for an answer. A kill answers only when the server is up again.
const ANSWER_WITHIN: Duration = Duration::from_secs(READY_WITHIN.as_secs() + 10);

/// Starts the engine unless it is up, and returns its address.
pub fn up(kind: &'static dyn Kind) -> Result<String, Error> {
    if let Ok(url) = std::env::var(kind.variable()) {
        return Ok(url);
    }
    let lock = lock(kind)?;
    if let Some(answer) = ask(kind, "url")? {
        return Ok(answer);
    }
    // Installed here rather than by the supervisor, so that its messages are seen.
    super::package::install(kind)?;
    let log = super::folder().join(format!("{}.supervisor.log", kind.name()));
    let output = fs::File::create(&log).map_err(|e| Error::io(format!("create {}", log.display()), e))?;
    let program = std::env::current_exe().map_err(|e| Error::io("find this program", e))?;
    let mut child = Command::new(program)
        .args(["engines", "supervise", kind.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .process_group(0)
        .spawn()
        .map_err(|e| Error::io("start the supervisor", e))?;
    let deadline = Instant::now() + ANSWER_WITHIN;
    let url = loop {
        if let Some(url) = ask(kind, "url")? {
            break url;
        }
        let ended = child.try_wait().map_err(|e| Error::io("ask for the supervisor", e))?.is_some();
        if ended || Instant::now() > deadline {
            let text = fs::read_to_string(&log).unwrap_or_default();
            return Err(Error::Supervisor(format!("{} could not be started: {}", kind.name(), text.trim())));
        }
        thread::sleep(LOOK_EVERY);
    };
    drop(lock);
    Ok(url)
}

/// Stops the engine and removes all that it left. An engine that is down already is no error.
pub fn down(kind: &'static dyn Kind) -> Result<(), Error> {
    let _lock = lock(kind)?;
    ask(kind, "down")?;
    for path in [folder(kind), super::folder().join(format!("{}.supervisor.log", kind.name()))] {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {}", path.display()), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Kills the server with SIGKILL and starts it again on the same port and data.
pub fn kill(kind: &'static dyn Kind) -> Result<String, Error> {
    let _lock = lock(kind)?;
    match ask(kind, "kill")? {
        Some(answer) => Ok(answer),
        None => Err(Error::Supervisor(format!("{} is not up", kind.name()))),
    }
}

/// One line for people: the address and the process, or that there is none.
pub fn status(kind: &'static dyn Kind) -> Result<String, Error> {
    Ok(match ask(kind, "status")? {
        Some(answer) => format!("{}: up, {answer}", kind.name()),
        None => format!("{}: down", kind.name()),
    })
}

/// Owns the engine until somebody says `down`. This is what the process left behind by [`up`] runs.
pub fn supervise(kind: &'static dyn Kind) -> Result<(), Error> {
    let mut engine = Builder { kind }.start_in(&folder(kind))?;
    let path = socket(kind);
    let listener =
        UnixListener::bind(&path).map_err(|e| Error::io(format!("listen on {}", path.display()), e))?;
    for stream in listener.incoming() {
        let mut stream = stream.map_err(|e| Error::io("accept a question", e))?;
        let mut question = String::new();
        // Whoever asks nothing, or does not wait for the answer, harms only himself.
        if BufReader::new(&stream).read_line(&mut question).is_err() {
            continue;
        }
        if question.trim() == "down" {
            drop(engine);
            drop(stream.write_all(b"ok down\n"));
            return Ok(());
        }
        let answer = match answer(&mut engine, question.trim()) {
            Ok(text) => format!("ok {text}\n"),
            Err(error) => format!("error {}\n", error.to_string().replace('\n', "; ")),
        };
        drop(stream.write_all(answer.as_bytes()));
    }
    Ok(())
}

fn answer(engine: &mut Engine, question: &str) -> Result<String, Error> {
    match question {
        "url" => Ok(engine.url().into()),
        "status" => Ok(match engine.pid() {
            Some(pid) => format!("{}, process {pid}", engine.url()),
            None => format!("{}, but the server is not running", engine.url()),
        }),
        "kill" => {
            engine.restart()?;
            Ok(engine.url().into())
        }
        _ => Err(Error::Supervisor(format!("`{question}` is no question"))),
    }
}

fn folder(kind: &dyn Kind) -> PathBuf {
    super::folder().join(kind.name())
}

fn socket(kind: &dyn Kind) -> PathBuf {
    folder(kind).join("supervisor.sock")
}

/// One command at a time for one kind.
fn lock(kind: &dyn Kind) -> Result<fs::File, Error> {
    let folder = super::folder();
    fs::create_dir_all(&folder).map_err(|e| Error::io(format!("create {}", folder.display()), e))?;
    let file = fs::File::create(folder.join(format!("{}.lock", kind.name())))
        .map_err(|e| Error::io("create the engine's lock", e))?;
    file.lock().map_err(|e| Error::io("lock the engine", e))?;
    Ok(file)
}

/// The supervisor's answer; none when there is no supervisor.
fn ask(kind: &dyn Kind, question: &str) -> Result<Option<String>, Error> {
    let Ok(mut stream) = UnixStream::connect(socket(kind)) else { return Ok(None) };
    let exchange = |stream: &mut UnixStream| -> std::io::Result<String> {
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(format!("{question}\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    let line = exchange(&mut stream).map_err(|e| Error::io("talk to the supervisor", e))?;
    match line.trim_end().split_once(' ') {
        Some(("ok", answer)) => Ok(Some(answer.into())),
        Some((_, reason)) => Err(Error::Supervisor(reason.into())),
        None => Err(Error::Supervisor(format!("{}'s supervisor ended without an answer", kind.name()))),
    }
}
