//! [`Clock`]: a wall clock of a process's own, which a test sets forward and back while the process runs; time that only passes
//! (monotonic clocks, timers) is not touched. It is Debian's libfaketime, put in front of the system's library. Tested by the
//! clusters that wear one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::engine::package;

/// Debian's package.
const PACKAGE: &str = "libfaketime";

/// Where it puts its library, below the folder of the machine's architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A clock. Dropped, it is right again, and its file is gone.
pub struct Clock {
    preload: PathBuf,
    /// Says by how much the clock is wrong; the library reads it whenever the time is asked for.
    file: PathBuf,
}

impl Clock {
    /// Makes a clock that is right, `name` being unique among those of this process; gets the package where it is missing and
    /// that is possible.
    ///
    /// # Errors
    /// Why there is none here.
    pub fn new(name: &str) -> Result<Clock, String> {
        package::install_once(PACKAGE, || library().is_some())?;
        let preload = library().ok_or("the package has no library for this machine")?;
        let file = std::env::temp_dir().join(format!("tieline-clock-{}-{name}", std::process::id()));
        let clock = Clock { preload, file };
        clock.set(0).map_err(|error| format!("the clock cannot be set: {error}"))?;
        Ok(clock)
    }

    /// Has the process that the command starts go by this clock.
    pub fn wear(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.preload).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// Sets the clock so many seconds forward, or back, from what is right.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set(&self, seconds: i32) -> std::io::Result<()> {
        // Another file in its place: nobody reads half of it.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n"))?;
        fs::rename(&next, &self.file)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    folders.map(|folder| folder.path().join(LIBRARY)).find(|library| library.is_file())
}
