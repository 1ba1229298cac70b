//! Bodies of the REST API, in and out. Paths, queries and headers are the HTTP server's.
//!
//! Bodies that Azure's libraries send (`:addToGroups`) and read (errors, pages, tokens) have Azure's shape;
//! those under `/api/v1` are ours. What comes in is bounded and checked here and answered with a row of the
//! error table. Tested in `rest/tests.rs` by bodies as text.

mod answer;
mod body;
mod history;
#[cfg(test)]
mod tests;

pub use answer::{
    ConnectionItem, ConnectionsPage, ErrorBody, InnerError, NodeItem, NodeState, NodesPage, TokenAnswer,
};
pub use body::{BodyError, GroupsBody, SendBody};
pub use history::{HistoryItem, HistoryPage};
