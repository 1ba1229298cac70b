//! A shard under simulated sockets, a simulated clock and a program that only takes notes.
//!
//! `chaos` runs random interleavings against a model that predicts every byte count and every frame; the other
//! files state single rules, each so that it can fail.

mod chaos;
mod endings;
mod fairness;
mod heads;
mod limits;
mod net;
mod numbered;
mod program;
mod reserving;
mod transplant;
mod world;
