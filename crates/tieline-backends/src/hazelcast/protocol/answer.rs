//! What a message from a member says.

use super::frame::Frame;
use super::{Garbage, Message, data, flags, kind};

/// Where the fixed parameters of a response begin.
pub(super) const RESPONSE: usize = 13;

/// The code of an error by which a member that starts, or stops, says that it does nothing now.
const NOT_ACTIVE: i32 = 19;

/// A message's meaning.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Answer<'a> {
    /// Something was published to the topic that was subscribed to by the call of this message's correlation: the array of
    /// bytes, or `None` where it is a value of another type.
    Published(Option<&'a [u8]>),
    /// The call was done.
    Done,
    /// The call was not done.
    Refused(Refusal<'a>),
    /// A part of the map that was subscribed to is lost.
    Lost,
    /// An event of a kind that nobody asked for.
    Other,
}

/// Why a call was not done.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Refusal<'a> {
    /// The error's number.
    code: i32,
    /// The name of its class in the member.
    class: &'a [u8],
    /// What the member says of it.
    message: &'a [u8],
}

impl Refusal<'_> {
    /// Whether the member starts or stops, which says nothing of the call.
    pub(in super::super) fn is_passing(&self) -> bool {
        self.code == NOT_ACTIVE
    }

    /// What the member says: the name of the error without its package, and the sentence.
    pub(in super::super) fn text(&self) -> String {
        let class = String::from_utf8_lossy(self.class);
        let class = class.rsplit('.').next().unwrap_or_default();
        let message = String::from_utf8_lossy(self.message);
        if message.is_empty() { class.to_owned() } else { format!("{class}: {message}") }
    }
}

/// What a member says to who a client is.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Greeting {
    /// It may go on. There are so many partitions.
    Welcome(i32),
    /// The name of the cluster, the user or the password is not right: members do not say which.
    WrongLogin,
    /// This member does not talk to this client, for the reason of this number.
    NotAllowed(u8),
}

impl<'a> Message<'a> {
    /// What it says.
    ///
    /// # Errors
    /// [`Garbage`] when it is not as such a message is.
    pub(in super::super) fn answer(&self) -> Result<Answer<'a>, Garbage> {
        match (self.kind(), self.is_event) {
            (kind::PUBLISHED, true) => {
                let item = self.frames().next().ok_or(Garbage)?;
                Ok(Answer::Published(data::read_bytes(item.payload)))
            }
            (kind::LOST, true) => Ok(Answer::Lost),
            (_, true) => Ok(Answer::Other),
            (kind::ERROR, false) => self.refusal().map(Answer::Refused).ok_or(Garbage),
            (_, false) => Ok(Answer::Done),
        }
    }

    /// What the response to an authentication says.
    ///
    /// # Errors
    /// [`Garbage`] when it is not as such a response is.
    pub(in super::super) fn greeting(&self) -> Result<Greeting, Garbage> {
        if self.kind() != kind::AUTHENTICATION + 1 || self.is_event {
            return Err(Garbage);
        }
        // The status, the member's id of 17 bytes, the format of values, and the count of partitions.
        let fixed = self.first.get(RESPONSE..RESPONSE + 23).ok_or(Garbage)?;
        match fixed[0] {
            0 => {
                let count = fixed[19..].first_chunk().ok_or(Garbage)?;
                Ok(Greeting::Welcome(i32::from_le_bytes(*count)))
            }
            1 => Ok(Greeting::WrongLogin),
            reason => Ok(Greeting::NotAllowed(reason)),
        }
    }

    /// An error is a list of what caused what. The first is what happened: a frame of its number, its class and its sentence.
    fn refusal(&self) -> Option<Refusal<'a>> {
        let mut frames = self.frames();
        let open = |frame: Frame<'_>| frame.is(flags::OPEN).then_some(());
        open(frames.next()?)?;
        open(frames.next()?)?;
        let code = i32::from_le_bytes(*frames.next()?.payload.first_chunk()?);
        let class = frames.next()?.payload;
        let message = frames.next()?.payload;
        Some(Refusal { code, class, message })
    }
}
