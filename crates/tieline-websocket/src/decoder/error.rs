//! What a peer can do wrong after the handshake, and the close code that tells it so.

use thiserror::Error;

/// Why the bytes of a peer are not acceptable. The connection is to be closed with [`DecodeError::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// RSV2 or RSV3 is set, or RSV1 where no compressed message can start or none was negotiated.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// An opcode without a meaning.
    #[error("opcode {0:#x} is reserved")]
    ReservedOpcode(u8),
    /// A control frame that is not the whole of its message.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame with more than 125 bytes of payload.
    #[error("a control frame is longer than 125 bytes")]
    LongControl,
    /// A length that takes more bytes than it needs.
    #[error("the length is not encoded in its shortest form")]
    LengthNotMinimal,
    /// A length of 2^63 or more.
    #[error("the most significant bit of the length is set")]
    LengthTopBit,
    /// A client's frame without a mask.
    #[error("the frame of a client is not masked")]
    NotMasked,
    /// A server's frame with a mask.
    #[error("the frame of a server is masked")]
    Masked,
    /// A continuation where no message has started.
    #[error("a continuation frame continues nothing")]
    NothingToContinue,
    /// A new message before the last fragment of the one before.
    #[error("a new message starts inside a fragmented one")]
    Interrupted,
    /// A close frame whose payload is one byte.
    #[error("the payload of a close frame is one byte")]
    HalfCloseCode,
    /// A close code that is reserved or unknown.
    #[error("close code {0} must not be sent")]
    CloseCode(u16),
    /// Text, or the reason of a close frame, is not UTF-8.
    #[error("text is not valid UTF-8")]
    Utf8,
    /// A compressed message that is corrupt or cut.
    #[error("a compressed message is corrupt")]
    Deflate,
    /// A frame above [`Limits::max_frame`](super::Limits::max_frame).
    #[error("a frame is larger than the limit")]
    FrameTooLarge,
    /// A message above [`Limits::max_message`](super::Limits::max_message), before or after inflating.
    #[error("a message is larger than the limit")]
    MessageTooLarge,
    /// A message of more than [`Limits::max_fragments`](super::Limits::max_fragments) frames.
    #[error("a message has more fragments than the limit")]
    TooManyFragments,
}

impl DecodeError {
    /// The code for the close frame (RFC 6455, 7.4.1): 1002 protocol error, 1007 not the data it claims to be,
    /// or 1009 too big.
    pub const fn close_code(&self) -> u16 {
        match self {
            Self::Utf8 | Self::Deflate => 1007,
            Self::FrameTooLarge | Self::MessageTooLarge | Self::TooManyFragments => 1009,
            _ => 1002,
        }
    }
}
