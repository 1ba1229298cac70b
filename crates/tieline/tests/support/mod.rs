//! What the tests of this crate share: how to speak to a server, hiding nothing, and how to start the program.
//!
//! Each of the two test programs, `cluster` and `program`, has this as a module of its own.

#![allow(dead_code, reason = "each of the test programs uses a part")]

pub(crate) mod endpoint;
pub(crate) mod http;
pub(crate) mod metrics;
pub(crate) mod program;
pub(crate) mod proxy_protocol;
pub(crate) mod socket;

use std::time::Duration;

/// How long anything is waited for that has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
