//! A child process that never outlives its owner.
//!
//! The kernel kills it when its parent dies (`setpriv --pdeathsig`). That signal follows the *thread* that started it,
//! and tests run on threads that end early, so each child has a thread that starts it, waits for it and ends after it.
//! Being its parent, that thread also reaps it: a zombie would look alive to everybody who asks by process id.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Error;

/// How often the thread looks whether the child has ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long those that a killed server has started may take to end.
const FAMILY_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A running child. Dropped, it is killed with SIGKILL and waited for, and so are those that it has started: a server's
/// workers outlive it otherwise, and hold its data.
pub(crate) struct Child {
    id: u32,
    /// Dropped to ask for the kill.
    stop: Option<Sender<()>>,
    ended: Receiver<ExitStatus>,
    exit: Option<ExitStatus>,
    keeper: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts `command` with its output appended to `log`.
    pub(crate) fn spawn(command: Command, log: &Path) -> Result<Self, Error> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|e| Error::io(format!("open {}", log.display()), e))?;
        let errors = output.try_clone().map_err(|e| Error::io("share the log", e))?;
        let what = format!("start {}", command.get_program().display());
        let mut command = bound_to_parent(&command);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);

        let (stop, stopped) = channel::<()>();
        let (end, ended) = channel();
        let (begin, begun) = channel();
        let keeper = thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    return {
                        let _ = begin.send(Err(error));
                    };
                }
            };
            let _ = begin.send(Ok(child.id()));
            let exit = loop {
                if let Ok(Some(status)) = child.try_wait() {
                    break Ok(status);
                }
                if stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected) {
                    break child.kill().and_then(|()| child.wait());
                }
            };
            if let Ok(status) = exit {
                let _ = end.send(status);
            }
        });
        let id = begun.recv().expect("the thread answers before it ends").map_err(|e| Error::io(what, e))?;
        Ok(Self { id, stop: Some(stop), ended, exit: None, keeper: Some(keeper) })
    }

    /// The process id; it stays valid until the child is dropped or has ended.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// How the child ended, if it has.
    pub(crate) fn exit(&mut self) -> Result<Option<ExitStatus>, Error> {
        if let Ok(status) = self.ended.try_recv() {
            self.exit = Some(status);
        }
        Ok(self.exit)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let workers: Vec<u32> = family(self.id).into_iter().filter(|id| *id != self.id).collect();
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            keeper.join().expect("the child's thread does not panic");
        }
        let deadline = Instant::now() + FAMILY_ENDS_WITHIN;
        while Instant::now() < deadline {
            let left: Vec<String> = workers.iter().filter(|id| runs(**id)).map(u32::to_string).collect();
            if left.is_empty() {
                break;
            }
            let _ = Command::new("kill").arg("-KILL").args(left).stderr(Stdio::null()).status();
            thread::sleep(LOOK_EVERY / 5);
        }
    }
}

/// Sends processes a signal. One that a server has started may have ended meanwhile.
pub(crate) fn signal(ids: &[u32], signal: Signal) -> Result<(), Error> {
    for id in ids {
        match kill(Pid::from_raw(*id as i32), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(Error::io("send a signal", error.into())),
        }
    }
    Ok(())
}

/// State and parent of a process, from what the kernel says behind its name.
fn state(id: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// Whether the process is more than a zombie that nobody has asked for.
fn runs(id: u32) -> bool {
    state(id).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// The process and all whose parent it is.
pub(super) fn family(id: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let children = ids.filter(|child| state(*child).is_some_and(|(_, parent)| parent == id));
    std::iter::once(id).chain(children).collect()
}

/// The same command, killed by the kernel when the thread that starts it is gone.
fn bound_to_parent(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}
