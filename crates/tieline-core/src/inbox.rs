//! [`Inbox`]: a connection's place in its user's inbox, which is read like other logs ([`Reading`]), and may be asked for by its
//! client. Tested on real sockets in `tests/sessions/inboxes.rs`.

use std::ops::{Deref, DerefMut};

use tieline_proto::Position;

use crate::logs::Reader;
use crate::reading::Reading;
use crate::subprotocol::Subprotocol;

/// A connection's place in its user's inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    reading: Reading,
    /// Whether its client has asked for it: then it is told of every failure, and given nothing by itself.
    pub(crate) has_asked: bool,
    /// Whether it is given what comes.
    pub(crate) is_open: bool,
    /// Whether the device of the reader is that of the token, and not for the client to choose.
    pub(crate) is_bound: bool,
}

impl Inbox {
    /// A connection's place that is not known yet, or, where the client is to say it, is behind `at` unless it does.
    pub(crate) fn new(reader: Reader, at: Position, subprotocol: Subprotocol) -> Self {
        let is_bound = reader.device.is_some();
        let reading = Reading::new(reader, at, subprotocol);
        Inbox { reading, has_asked: false, is_open: false, is_bound }
    }

    /// Whether it is for its client to ask for the inbox.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.is_said()
    }
}

impl Deref for Inbox {
    type Target = Reading;

    fn deref(&self) -> &Reading {
        &self.reading
    }
}

impl DerefMut for Inbox {
    fn deref_mut(&mut self) -> &mut Reading {
        &mut self.reading
    }
}
