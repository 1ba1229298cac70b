//! Development tasks as a library: what `cargo xtask` does, and what tests ask of it.
//!
//! Tests of other crates take [`Engine`] from here as a dev-dependency, so that a real server is started, killed and
//! removed by one piece of code. Nothing here is part of the product.

pub mod brokers;
pub mod chaos;
pub mod clock;
pub mod demo_ring;
pub mod docs;
pub mod engine;
mod left_out;
mod link;
mod node;
pub mod proxy;
pub mod tidy;
mod workspace;

pub use engine::Engine;
pub use left_out::left_out;
pub use workspace::root;
