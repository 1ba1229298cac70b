//! RFC 6455 and RFC 7692 without I/O: handshake, frame codec, permessage-deflate; encode once, send to many.
