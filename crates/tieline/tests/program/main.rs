//! The program as its users meet it: whole servers on free ports of this machine, and real sockets.
//!
//! Most servers run in the process of the test; `command.rs` starts the program itself. Nothing sleeps: whatever takes time is
//! waited for by reading from a socket, whose time limit is the test's patience.

// Marked as tests for the lints' sake: what a test may unwrap, its tools may too.
#[cfg(test)]
mod bad_frames;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bad_peers;
#[cfg(test)]
mod command;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod echo;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod member;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod origins;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod returning;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod server;
#[cfg(test)]
mod slow_readers;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod upstream;
