//! WebSocket without I/O: the opening handshake and the frames of RFC 6455, and permessage-deflate of RFC 7692.
//!
//! This crate turns bytes into events and messages into bytes. It opens no socket, starts no thread, and knows no
//! runtime; it is for programs that own their sockets, and above all for servers that hold very many connections:
//!
//! - An idle connection costs the 24 bytes of its [`Decoder`]. What decoders need while they work, they [share](Shared).
//! - A whole message is unmasked where it lies and handed out as a slice of the input: no copy, no allocation.
//! - A message is encoded **once** and the same bytes are sent to many; [`server_header`] frames a payload that is
//!   shared, and [`stored_block`] joins a prefix of one recipient with a body that was compressed once for all.
//! - What a peer sends is bounded: frames, messages, fragments and inflated sizes have [`Limits`], and memory grows with
//!   the bytes that arrive, never with a length that was declared.
//!
//! It is strict with what it receives: masks, reserved bits and opcodes, control frames, shortest lengths, close codes,
//! and UTF-8, which is checked as it arrives.
//!
//! # A server
//!
//! ```
//! use tieline_websocket::{
//!     Decoder, DeflatePolicy, Event, Limits, Opcode, Role, Shared, Upgrade, encode, encode_close, encode_masked,
//!     response_head,
//! };
//!
//! // The request comes from whatever parses HTTP.
//! let headers = [
//!     ("Upgrade", "websocket"),
//!     ("Connection", "Upgrade"),
//!     ("Sec-WebSocket-Version", "13"),
//!     ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
//!     ("Sec-WebSocket-Protocol", "chat"),
//! ];
//! let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
//! let upgrade = Upgrade::from_request("GET", 1, headers)?;
//! let protocol = upgrade.protocols().find(|name| *name == "chat");
//! let deflate = upgrade.negotiate_deflate(&DeflatePolicy::default());
//! let answer = response_head(upgrade.accept_key(), protocol, deflate.as_ref());
//! assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
//!
//! // One per thread, and one per connection.
//! let mut shared = Shared::new(Limits::default());
//! let mut decoder = Decoder::new(Role::Server, deflate.map(|params| params.inflate_mode(Role::Server)));
//!
//! // What a read from the socket gave: here two frames of a client.
//! let mut read = Vec::new();
//! encode_masked(&mut read, Opcode::Text, b"hello", [1, 2, 3, 4]);
//! encode_masked(&mut read, Opcode::Ping, b"?", [5, 6, 7, 8]);
//!
//! let mut write = Vec::new();
//! let mut input = &mut read[..];
//! loop {
//!     match decoder.decode(&mut input, &mut shared) {
//!         Ok(None) => break, // read more
//!         Ok(Some(Event::Message { kind, payload })) => encode(&mut write, kind.into(), payload),
//!         Ok(Some(Event::Ping(payload))) => encode(&mut write, Opcode::Pong, payload),
//!         Ok(Some(Event::Pong(_))) => {}
//!         Ok(Some(Event::Close(frame))) => {
//!             encode_close(&mut write, frame.map(|frame| frame.code), "");
//!             break; // write, then close
//!         }
//!         Err(error) => {
//!             encode_close(&mut write, Some(error.close_code()), &error.to_string());
//!             break;
//!         }
//!     }
//! }
//! assert_eq!(write, b"\x81\x05hello\x8a\x01?");
//! # Ok::<(), tieline_websocket::HandshakeError>(())
//! ```
//!
//! # A client
//!
//! [`ClientRequest`] makes the request and checks the answer, [`Masks`] gives the random masks, and a [`Decoder`] for
//! [`Role::Client`] does the rest. Without the feature `client` (on by default) the two are left out, and with them the
//! dependencies `getrandom` and `httparse`.
//!
//! # Compression
//!
//! Every parameter of permessage-deflate is supported, except that zlib cannot *compress* with a window of 2^8 bytes: a
//! server declines such an offer, a client refuses such an answer. A [`Deflater`] and a [`Decoder`] for each direction come
//! from the [`DeflateParams`] that were agreed on.

// The links to the client's half lead nowhere without it.
#![cfg_attr(not(feature = "client"), allow(rustdoc::broken_intra_doc_links))]

pub mod close;
pub mod decoder;
pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod mask;

pub use close::{CloseFrame, encode_close, encode_close_masked, is_valid_close_code};
pub use decoder::{DecodeError, Decoder, Event, InflateMode, Limits, Role, Shared};
pub use deflate::{Deflater, Inflater, stored_block};
pub use frame::{
    FrameHeader, HeaderBytes, Kind, Opcode, client_header, encode, encode_frame, encode_masked, server_header,
};
pub use handshake::{AcceptKey, DeflateParams, DeflatePolicy, HandshakeError, Upgrade, response_head};
#[cfg(feature = "client")]
pub use handshake::{ClientAgreement, ClientRequest, DeflateOffer};
#[cfg(feature = "client")]
pub use mask::Masks;
pub use mask::apply_mask;

/// The example of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
