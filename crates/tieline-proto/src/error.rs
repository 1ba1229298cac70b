//! The one table of errors and close codes, and the document printed from it.
//!
//! Whatever goes wrong on a wire goes by a row of this table: clients learn from it whether to come back,
//! operators what to look for. `docs/errors.md` is [`markdown`]'s text; a test compares them
//! (`TIELINE_WRITE_DOCS=1 cargo test -p tieline-proto` writes it).

mod close;
mod code;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write};

pub use close::CloseCode;
pub use code::ErrorCode;

/// Whether trying once more can help: to send the request again, or to connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// At once, with the usual backoff if that fails.
    Yes,
    /// Not before something changed: the request, the token, or a person's mind.
    No,
    /// Not sooner than this many seconds, and with some jitter.
    After(u32),
}

impl fmt::Display for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reconnect::Yes => f.write_str("yes"),
            Reconnect::No => f.write_str("no"),
            Reconnect::After(seconds) => write!(f, "after {seconds} s"),
        }
    }
}

/// The text of `docs/errors.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for code in ErrorCode::ALL {
        let row = (code.name(), code.http_status(), code.retry(), code.text());
        writeln!(text, "| `{}` | {} | {} | {} |", row.0, row.1, row.2, row.3)
            .expect("a string takes all text");
    }
    text.push_str(MIDDLE);
    for code in CloseCode::ALL {
        let row = (code.code(), code.name(), code.reconnect(), code.on_reliable().code(), code.text());
        writeln!(text, "| {} | `{}` | {} | {} | {} |", row.0, row.1, row.2, row.3, row.4)
            .expect("a string takes all text");
    }
    text
}

/// What stands above the table of errors.
const HEAD: &str = "\
# Errors and close codes

<!-- Printed from the table in crates/tieline-proto/src/error; do not edit by hand. -->

Every error has a name.
A WebSocket client finds it in `error.name` of an `ack`, an `invokeResponse` or an `error` frame, together with a message that says which field was wrong.
An HTTP client finds it in `code` of the body and in the header `x-ms-error-code`.
\"Again\" says whether sending the same once more can help.

## Errors

| name | HTTP status | again | meaning |
|---|---|---|---|
";

/// What stands between the tables.
const MIDDLE: &str = "
A malformed frame is answered with an error and the connection lives on; many of them close it with 4400.

## Close codes

\"Reconnect\" is for clients of `tieline.v1`, `json.webpubsub.azure.v1` and plain JSON.
A client of `json.reliable.webpubsub.azure.v1` recovers its connection after every code but 1008, so on that protocol a close for good is always 1008: the fourth column says which code it sees.

| code | name | reconnect | on the reliable protocol | meaning |
|---|---|---|---|---|
";
