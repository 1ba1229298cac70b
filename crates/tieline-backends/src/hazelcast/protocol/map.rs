//! Calls to a map whose keys and values are texts, and what a member answers to them. Any client reads those as its own texts.
//!
//! What is put here stays until it is removed, whatever the map's settings say of times, unless it is said when it ends: members count
//! that in whole seconds.

use super::answer::RESPONSE;
use super::request::{Call, NOWHERE};
use super::{Garbage, Message, data, flags, kind};

/// Whose locks a call is told to go by: nobody locks anything.
const THREAD: i64 = 1;

/// Something to be done with a map. Values that are to be there already are named as they were read.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum MapCall<'a> {
    /// Reads an entry: answers its value.
    Get(&'a str),
    /// Adds an entry: answers the value of the one that is there instead, if there is one.
    PutIfAbsent(&'a str, &'a str),
    /// Gives an entry another value, if it has this one: answers whether it had.
    ReplaceIfSame(&'a str, &'a [u8], &'a str),
    /// Removes an entry, if it has this value: answers whether it had.
    RemoveIfSame(&'a str, &'a [u8]),
    /// Removes an entry.
    Delete(&'a str),
    /// Adds an entry that ends after so many milliseconds, or replaces it.
    Set(&'a str, &'a str, u64),
    /// Has an entry end in so many milliseconds from now: answers whether it is there.
    SetTtl(&'a str, u64),
    /// Removes all entries whose value is, all of it, what this regular expression says.
    RemoveAll(&'a str),
    /// Subscribes to losses of parts of the map.
    Listen,
}

/// What is answered to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Reply {
    /// The value of an entry, as members keep it, if it is there.
    Value(Option<Vec<u8>>),
    /// Whether it was so.
    Is(bool),
    /// It was done.
    Done,
}

impl MapCall<'_> {
    /// Appends the call to the map of this name, whose entries are in so many partitions.
    ///
    /// # Errors
    /// [`Garbage`] when there is no partition at all.
    pub(in super::super) fn write(
        &self,
        out: &mut Vec<u8>,
        correlation: i64,
        map: &str,
        partitions: i32,
    ) -> Result<(), Garbage> {
        let partition = self.key().map_or(Ok(NOWHERE), |key| data::partition(key, partitions))?;
        let mut call = Call::begin(out, self.kind(), correlation, partition);
        match self {
            MapCall::SetTtl(_, ttl) => call.out.extend_from_slice(&ttl.to_le_bytes()),
            MapCall::RemoveAll(_) => {}
            // Not only of what this very member has.
            MapCall::Listen => call.out.push(0),
            _ => call.out.extend_from_slice(&THREAD.to_le_bytes()),
        }
        match self {
            // It does not end.
            MapCall::PutIfAbsent(..) => call.out.extend_from_slice(&0u64.to_le_bytes()),
            MapCall::Set(_, _, ttl) => call.out.extend_from_slice(&ttl.to_le_bytes()),
            _ => {}
        }
        call.text(map.as_bytes());
        if let Some(key) = self.key() {
            call.frame(0);
            data::push_text(call.out, key);
        }
        match self {
            MapCall::ReplaceIfSame(_, former, _) | MapCall::RemoveIfSame(_, former) => call.text(former),
            _ => {}
        }
        match self {
            MapCall::PutIfAbsent(_, value)
            | MapCall::ReplaceIfSame(_, _, value)
            | MapCall::Set(_, value, _) => {
                call.frame(0);
                data::push_text(call.out, value);
            }
            MapCall::RemoveAll(pattern) => {
                call.frame(0);
                data::push_pattern(call.out, pattern);
            }
            _ => {}
        }
        call.end();
        Ok(())
    }

    fn key(&self) -> Option<&str> {
        match self {
            MapCall::Get(key)
            | MapCall::PutIfAbsent(key, _)
            | MapCall::ReplaceIfSame(key, ..)
            | MapCall::RemoveIfSame(key, _)
            | MapCall::Delete(key)
            | MapCall::Set(key, ..)
            | MapCall::SetTtl(key, _) => Some(key),
            MapCall::RemoveAll(_) | MapCall::Listen => None,
        }
    }

    fn kind(&self) -> i32 {
        match self {
            MapCall::Get(_) => kind::GET,
            MapCall::PutIfAbsent(..) => kind::PUT_IF_ABSENT,
            MapCall::ReplaceIfSame(..) => kind::REPLACE_IF_SAME,
            MapCall::RemoveIfSame(..) => kind::REMOVE_IF_SAME,
            MapCall::Delete(_) => kind::DELETE,
            MapCall::Set(..) => kind::SET,
            MapCall::SetTtl(..) => kind::SET_TTL,
            MapCall::RemoveAll(_) => kind::REMOVE_ALL,
            MapCall::Listen => kind::LISTEN_LOST,
        }
    }
}

impl Message<'_> {
    /// What the response to a call to a map says.
    ///
    /// # Errors
    /// [`Garbage`] when it is not as such a response is.
    pub(in super::super) fn reply(&self) -> Result<Reply, Garbage> {
        match self.kind() - 1 {
            kind::GET | kind::PUT_IF_ABSENT => {
                let value = self.frames().next().ok_or(Garbage)?;
                Ok(Reply::Value((!value.is(flags::NULL)).then(|| value.payload.to_vec())))
            }
            kind::REPLACE_IF_SAME | kind::REMOVE_IF_SAME | kind::SET_TTL => {
                let is_so = self.first.get(RESPONSE).ok_or(Garbage)?;
                Ok(Reply::Is(*is_so != 0))
            }
            kind::DELETE | kind::SET | kind::REMOVE_ALL | kind::LISTEN_LOST => Ok(Reply::Done),
            _ => Err(Garbage),
        }
    }
}
