//! The programs that the server runs for the store, each beside this file. Tested by the store's suites.

use std::sync::LazyLock;

use super::super::link::Script;

/// Changes.
pub(super) static APPLY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("apply.lua")));
/// A part of a log.
pub(super) static PAGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("page.lua")));
/// A part of the records.
pub(super) static LIST: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("list.lua")));
