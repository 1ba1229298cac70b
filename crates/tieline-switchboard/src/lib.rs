//! The hot path: shards that own their sockets, one log of frames each, with exact limits and fair flushing.
