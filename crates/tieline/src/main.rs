//! The tieline binary.
fn main() {}
