//! The load tool: talks like a client, cannot reach into the server.
