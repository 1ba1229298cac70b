//! The brain: sessions, local hub, router, tokens and limits. Names no vendor and no HTTP.
