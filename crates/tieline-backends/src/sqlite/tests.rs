//! The suites of all stores on a file, and what only a file can suffer.
