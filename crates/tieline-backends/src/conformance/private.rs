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

fn signal(engine: &Engine, signal: Signal) {
    let pid = engine.pid().expect("it runs");
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}
