//! The progress line on standard error: one line, overwritten, at most five times a second.
//! It is silent unless standard error is a terminal or it was asked for. Tested here through a buffer.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Least time between two updates.
const INTERVAL: Duration = Duration::from_millis(200);

/// The progress line.
pub(crate) struct Progress {
    /// Where it is written; nowhere when it is off.
    out: Option<Box<dyn Write>>,
    /// When it was last written.
    last: Option<Instant>,
    /// Stands before each text: what is being run.
    label: String,
}

impl Progress {
    /// On standard error, if that is a terminal or `forced`.
    pub(crate) fn new(forced: bool) -> Self {
        let stderr = io::stderr();
        let on = forced || stderr.is_terminal();
        Self { out: on.then(|| Box::new(stderr) as Box<dyn Write>), last: None, label: String::new() }
    }

    /// Names what is being run from now on.
    pub(crate) fn label(&mut self, label: impl Into<String>) {
        self.label = label.into();
        self.last = None;
    }

    /// Shows `text` if it is time to; else `text` is not even made.
    pub(crate) fn show(&mut self, text: impl FnOnce() -> String) {
        let Some(out) = &mut self.out else { return };
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < INTERVAL) {
            return;
        }
        self.last = Some(now);
        // A progress line that cannot be written is no reason to stop measuring.
        let _ = write!(out, "\r\x1b[K{}: {}", self.label, text()).and_then(|()| out.flush());
    }

    /// Removes the line, so that the result stands alone.
    pub(crate) fn clear(&mut self) {
        if let Some(out) = self.out.as_mut().filter(|_| self.last.take().is_some()) {
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A buffer that can still be read while the progress line owns it.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn texts_in_quick_succession_are_not_made() {
        let shared = Shared::default();
        let mut progress = Progress { out: Some(Box::new(shared.clone())), last: None, label: String::new() };
        progress.label("fanout");
        progress.show(|| "one".to_owned());
        progress.show(|| panic!("too soon"));
        progress.clear();
        progress.clear();
        assert_eq!(shared.0.lock().unwrap().as_slice(), b"\r\x1b[Kfanout: one\r\x1b[K");
        Progress { out: None, last: None, label: String::new() }.show(|| panic!("it is off"));
    }
}
