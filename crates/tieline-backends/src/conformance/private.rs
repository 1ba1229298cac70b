//! A server that a test has started for itself, as what the suites break.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::Engine;

use super::outage::Server;

impl Server for Engine {
    fn kill(&mut self) {
        Engine::kill(self).unwrap();
    }

    fn restart(&mut self) {
        Engine::restart(self).unwrap();
    }

    fn stand_still(&mut self) {
        signal(self, Signal::SIGSTOP);
    }

    fn go_on(&mut self) {
        signal(self, Signal::SIGCONT);
    }
}

/// Every process of it: a server may have several.
fn signal(engine: &Engine, signal: Signal) {
    for pid in engine.pids() {
        kill(Pid::from_raw(pid as i32), signal).unwrap();
    }
}
