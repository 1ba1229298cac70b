//! How the program ends: the signals that ask for it, and the way from there.

use std::io;
use std::process;

use tieline_proto::CloseCode;
use tieline_switchboard::{Application, Switchboard};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::Failure;

/// What a shell reports of a program that SIGINT ended; one signal too many ends this one so.
const INTERRUPTED: i32 = 130;

/// The signals that end the program: SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// The signal by which somebody asks for the configuration to be read again, SIGHUP, taken over from the system, whose default
/// would end the program.
///
/// # Errors
/// When the system refuses.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

impl Signals {
    /// Takes the signals over from the system, whose default would end the program at once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Two futures: the first is ready at the first signal, the second at the second one, by which somebody asks for more haste. A
    /// signal that neither waits for ends the program at once.
    pub fn split(mut self) -> (impl Future<Output = ()>, impl Future<Output = ()>) {
        let (count, counted) = watch::channel(0);
        tokio::spawn(async move {
            for number in 1.. {
                self.next().await;
                if number > 1 && count.receiver_count() == 0 {
                    process::exit(INTERRUPTED);
                }
                tracing::info!("{}", if number == 1 { "Stopping." } else { "Stopping at once." });
                count.send_replace(number);
            }
        });
        let wait = |mut counted: watch::Receiver<u32>, number| async move {
            // The task that counts never ends.
            let _ = counted.wait_for(|count| *count >= number).await;
        };
        (wait(counted.clone(), 1), wait(counted, 2))
    }

    /// The first of these alone: the second signal ends the program at once.
    pub fn stop(self) -> impl Future<Output = ()> {
        self.split().0
    }
}

/// Closes all connections of a switchboard and joins its threads.
///
/// # Errors
/// When a shard had failed.
pub async fn switchboard<A: Application>(switchboard: Switchboard<A>) -> Result<(), Failure> {
    let stop = move || switchboard.stop(CloseCode::GoingAway.code(), CloseCode::GoingAway.text());
    match tokio::task::spawn_blocking(stop).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::Switchboard(tieline_switchboard::Error::Panicked)),
    }
}
