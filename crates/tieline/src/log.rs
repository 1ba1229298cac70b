//! Where the program's own log goes: the standard error, so that the standard output has the addresses and nothing else.
//!
//! What clients send reaches a line only through `Debug`, which escapes it, and cut to a bounded length; tokens never.

use std::io::stderr;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use crate::config::{Log, LogFormat};

/// Whether a text can choose lines of the log.
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// Chooses other lines.
type Choose = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Set by the call that has started the log.
static CHOOSE: OnceLock<Choose> = OnceLock::new();

/// Starts the log. A second call changes nothing: the first one's choice stands, as when tests start several nodes.
pub fn start(settings: &Log) {
    let lines =
        tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&settings.filter)).with_writer(stderr);
    let started = match settings.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(false).with_filter_reloading();
            let choose = choose_by(lines.reload_handle());
            lines.try_init().map(|()| choose)
        }
        LogFormat::Json => {
            let lines = lines.json().with_filter_reloading();
            let choose = choose_by(lines.reload_handle());
            lines.try_init().map(|()| choose)
        }
    };
    if let Ok(choose) = started {
        CHOOSE.set(choose).ok().expect("a log is started once");
    }
}

fn choose_by<S: 'static>(handle: Handle<EnvFilter, S>) -> Choose {
    Box::new(move |filter| handle.reload(filter).expect("the log lives as long as the program"))
}

/// Writes other lines from now on.
pub fn set_filter(filter: &str) {
    if let Some(choose) = CHOOSE.get() {
        choose(EnvFilter::new(filter));
    }
}
