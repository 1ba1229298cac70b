//! The gateway in front of nodes: real ones, and made-up ones that answer as a test wants.

mod clients;
mod failing;
mod fake;
mod front;
mod heads;
mod requests;
mod websockets;
