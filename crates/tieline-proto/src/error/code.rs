//! [`ErrorCode`]: what an ack or an HTTP answer says went wrong.

use std::fmt;

use super::Reconnect;

/// Declares the enum and its columns from one table, so that no row can lack a column.
macro_rules! errors {
    ($($name:ident $status:literal $retry:expr, $text:literal;)*) => {
        /// An error by its name on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $text] $name,)*
        }

        impl ErrorCode {
            /// Every row, in the order of the table.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => stringify!($name),)* }
            }

            /// The status of an HTTP answer.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(ErrorCode::$name => $status,)* }
            }

            /// Whether sending the same request again can help.
            #[must_use]
            pub const fn retry(self) -> Reconnect {
                match self { $(ErrorCode::$name => $retry,)* }
            }

            /// What it means, in a sentence: the message where nothing more exact is known.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }
        }
    };
}

use Reconnect::{After, No, Yes};

errors! {
    InvalidRequest       400 No,        "The request cannot be understood; the message names the field and what was expected.";
    UnknownType          400 No,        "The protocol has no frame of this type.";
    InvalidHub           400 No,        "The hub name breaks its rule.";
    InvalidGroup         400 No,        "The group name breaks its rule: 1 to 1024 characters, not only blanks.";
    InvalidUser          400 No,        "The user id breaks its rule: 1 to 1024 characters.";
    InvalidData          400 No,        "The payload does not fit its declared type.";
    InvalidFilter        400 No,        "The filter cannot be read; the message names the place.";
    InvalidRole          400 No,        "The role is not one the server knows.";
    TooManyTargets       400 No,        "The request names more users, groups and connections than one request may.";
    Unauthorized         401 No,        "The token is missing, malformed, expired, signed with another key, or made for another hub.";
    Forbidden            403 No,        "The token's roles do not allow this.";
    RefusedByHandler     403 No,        "The application's event handler refuses this.";
    OriginRefused        403 No,        "The page's origin is not among those allowed to connect.";
    TooManyGroups        403 No,        "The connection, or its user, is in as many groups as it may be.";
    TooManyMembers       403 No,        "The group has as many stored members as it may have.";
    NotFound             404 No,        "There is no such connection, user, group or path.";
    NoHandler            404 No,        "Nobody is registered to answer this event.";
    StreamNotFound       404 No,        "There is no such stream on this connection; it ended, timed out, or never began.";
    MethodNotAllowed     405 No,        "The path exists, but not for this method.";
    RequestTimeout       408 Yes,       "The request was not complete in time.";
    IdleTimeout          408 Yes,       "The stream was silent for longer than it had promised.";
    Duplicate            409 No,        "This ackId or messageId was processed before; the first outcome stands. Counts as success.";
    HistoryGone          410 No,        "What follows this position cannot be had whole any more: a part of it is kept no longer, or the log is another one.";
    LengthRequired       411 No,        "The request needs a Content-Length.";
    MessageTooLarge      413 No,        "The message is larger than the server takes.";
    UriTooLong           414 No,        "The request's address is longer than the server takes.";
    UnsupportedMediaType 415 No,        "The Content-Type must be text/plain, application/json or application/octet-stream.";
    UserError            422 No,        "The sender of the stream ended it with an error of its own.";
    RateLimited          429 After(1),  "Too many requests or messages from this client.";
    TooManyConnections   429 After(5),  "The server, the hub, the user or the address has as many connections as it may have.";
    HeadersTooLarge      431 No,        "The request's headers are larger than the server takes.";
    InternalServerError  500 Yes,       "The server failed; its log says more.";
    NotImplemented       501 No,        "The server speaks this protocol but not this part of it.";
    ServiceUnavailable   503 After(1),  "The server is starting, draining, or cut off from what this request needs.";
    HandlerFailed        503 After(1),  "The application's event handler cannot be reached, did not answer in time, or failed.";
    StoreUnavailable     503 After(1),  "The store did not take what would have to be durable: it is not kept, and nobody got it.";
    StoreUnknown         503 After(1),  "The store does not say whether it has kept the message; said again with the same messageId it is kept once.";
    StoreMissing         501 No,        "The message would have to be durable, and no store that all nodes share is configured.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
