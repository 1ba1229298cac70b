//! Where the program's own log goes: the standard error, so that the standard output has the addresses and nothing else.
//!
//! What clients send reaches a line only through `Debug`, which escapes it, and cut to a bounded length; tokens never.

use std::io::stderr;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Whether a text can choose lines of the log.
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// Starts the log. A second call changes nothing: the first one's choice stands, as when tests start several nodes.
pub fn start(settings: &Log) {
    let filter = EnvFilter::new(&settings.filter);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let _ = match settings.format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
