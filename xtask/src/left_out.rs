//! What could not be tested here, told where people see it: no test is left out in silence.

use std::fs::File;
use std::io::{Write, stderr};

/// Says that a test does not run, and why, past the capture of a test's output; `make test` repeats it at its end
/// (`tests/left-out.sh`, whose list this adds to).
pub fn left_out(test: &str, reason: &str) {
    let line = format!("{test}: {reason}\n");
    let list = crate::root().join("target/left-out.txt");
    let added = File::options().create(true).append(true).open(list);
    let told = added.and_then(|mut list| list.write_all(line.as_bytes()));
    // The list is only there for the end; whoever runs a test by itself sees this.
    drop(stderr().write_all(format!("LEFT OUT: {line}").as_bytes()));
    drop(told);
}
