//! [`CloseCode`]: why the server closes a WebSocket, and what the client should do then.

use std::fmt;

use super::Reconnect;

/// Declares the enum and its columns from one table, so that no row can lack a column.
macro_rules! closes {
    ($($name:ident $code:literal $reconnect:expr, $recoverable:ident, $text:literal;)*) => {
        /// A WebSocket close code that the server sends. Below 4000 as RFC 6455 and IANA have them, from 4000
        /// on ours, where the last three digits are those of the HTTP status that says nearly the same.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum CloseCode {
            $(#[doc = $text] $name = $code,)*
        }

        impl CloseCode {
            /// Every row, in the order of the table.
            pub const ALL: &[CloseCode] = &[$(CloseCode::$name,)*];

            /// The name in logs, metrics and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(CloseCode::$name => stringify!($name),)* }
            }

            /// Whether the client should connect again.
            #[must_use]
            pub const fn reconnect(self) -> Reconnect {
                match self { $(CloseCode::$name => $reconnect,)* }
            }

            /// Whether the server keeps the connection's state, so that a client of the reliable protocol may
            /// recover it.
            #[must_use]
            pub const fn is_recoverable(self) -> bool {
                match self { $(CloseCode::$name => recoverable!($recoverable),)* }
            }

            /// What it means, in a sentence: the close frame's reason where nothing more exact is known. At
            /// most 123 bytes.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(CloseCode::$name => $text,)* }
            }
        }
    };
}

/// Reads the table's third column.
macro_rules! recoverable {
    (kept) => {
        true
    };
    (gone) => {
        false
    };
}

use Reconnect::{After, No, Yes};

closes! {
    Normal          1000 No,        gone, "The connection has served its purpose.";
    GoingAway       1001 Yes,       kept, "The server stops; other nodes serve on.";
    ProtocolError   1002 Yes,       gone, "The client broke the WebSocket protocol.";
    UnsupportedData 1003 No,        gone, "The client sent a kind of message that the subprotocol does not have.";
    InvalidPayload  1007 Yes,       gone, "A text message was not UTF-8, or a compressed one could not be inflated.";
    PolicyViolation 1008 No,        gone, "The connection was closed for good, or cannot be recovered.";
    MessageTooBig   1009 Yes,       gone, "A message was larger than the server takes.";
    InternalError   1011 Yes,       gone, "The server failed; its log says more.";
    ServiceRestart  1012 After(1),  kept, "The server restarts.";
    TryAgainLater   1013 After(5),  kept, "The server is overloaded.";
    TooManyErrors   4400 No,        gone, "The client sent too many malformed frames.";
    TokenExpired    4401 Yes,       gone, "The token expired and was not renewed; connect with a new one.";
    Removed         4403 No,        gone, "The application closed the connection.";
    Idle            4408 Yes,       gone, "The client answered no ping, or sent nothing for too long.";
    Displaced       4409 No,        gone, "The user connected elsewhere, and only one connection is allowed.";
    RateLimited     4429 After(5),  gone, "The client sent faster than it may for too long.";
    Draining        4503 Yes,       kept, "This node sends its clients elsewhere; connect again to reach another.";
    SlowConsumer    4507 Yes,       gone, "The client read too slowly and its outbox was full.";
}

impl CloseCode {
    /// The number in the close frame.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The code to send on the reliable protocol, whose clients recover after every code but 1008: a close
    /// for good is 1008.
    #[must_use]
    pub const fn on_reliable(self) -> CloseCode {
        if self.is_recoverable() { self } else { CloseCode::PolicyViolation }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.name())
    }
}
