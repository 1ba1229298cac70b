//! Messages as a broker takes and gives them: many in one body, each with its tag.
//!
//! A message that is sent has lengths, flags that are nothing here, its body and its properties, the tag among them. One that was
//! stored has places, times and addresses as well. No I/O. Tested here by properties.

use super::frames::Garbage;

/// The property that is the tag, up to its value.
const TAG: &[u8] = b"TAGS\x01";

/// Behind the value of a property.
const VALUE_END: u8 = 2;

/// Stored messages begin with one of two numbers behind their length: the topic's length is one byte, or two.
const SHORT_TOPIC: u32 = 0xdaa3_20a7;
const LONG_TOPIC: u32 = 0xdaa3_20ab;

/// Bits that say that an address is IPv6: the sender's and the server's.
const BORN_IN_IPV6: u32 = 1 << 4;
const STORED_IN_IPV6: u32 = 1 << 5;

/// What a message costs beside its body and its tag.
const OVERHEAD: usize = 22 + TAG.len() + 1;

/// How many bytes [`put`] appends.
pub(super) fn size(tag: &str, body: usize) -> usize {
    OVERHEAD + tag.len() + body
}

/// Appends a message, whose body is these pieces, to those that are sent together.
pub(super) fn put(out: &mut Vec<u8>, tag: &str, body: &[&[u8]]) {
    let length: usize = body.iter().map(|piece| piece.len()).sum();
    let start = out.len();
    for number in [size(tag, length), 0, 0, 0, length] {
        out.extend((number as u32).to_be_bytes());
    }
    for piece in body {
        out.extend_from_slice(piece);
    }
    out.extend(((TAG.len() + tag.len() + 1) as u16).to_be_bytes());
    out.extend_from_slice(TAG);
    out.extend_from_slice(tag.as_bytes());
    out.push(VALUE_END);
    debug_assert_eq!(out.len() - start, size(tag, length), "the size is what is written");
}

/// A message that a broker gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    /// Its place in the queue.
    pub(super) offset: i64,
    /// When the broker stored it, by its clock: milliseconds since 1970.
    pub(super) stored_at: i64,
    /// Its tag, empty if it has none.
    pub(super) tag: &'a [u8],
    pub(super) body: &'a [u8],
}

/// Takes the next message off `bytes`; none at their end.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<Stored<'a>>, Garbage> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut whole = Reader(bytes);
    let length = whole.u32()? as usize;
    // With its own four bytes.
    let mut message = Reader(whole.bytes(length.checked_sub(4).ok_or(Garbage)?)?);
    *bytes = whole.0;

    let kind = message.u32()?;
    // A checksum, which the connection has too; the queue; flags.
    message.bytes(12)?;
    let offset = message.i64()?;
    // The place in the log.
    message.bytes(8)?;
    let flags = message.u32()?;
    let address = |bit| if flags & bit == 0 { 8 } else { 20 };
    // When it was sent, and by whom.
    message.bytes(8 + address(BORN_IN_IPV6))?;
    let stored_at = message.i64()?;
    // By which server; how often it was given back, and a place, both of which are nothing here.
    message.bytes(address(STORED_IN_IPV6) + 12)?;
    let length = message.u32()? as usize;
    let body = message.bytes(length)?;
    let topic = match kind {
        SHORT_TOPIC => usize::from(message.u8()?),
        LONG_TOPIC => usize::from(message.u16()?),
        _ => return Err(Garbage),
    };
    message.bytes(topic)?;
    let length = usize::from(message.u16()?);
    let properties = message.bytes(length)?;
    let tag = properties.split(|byte| *byte == VALUE_END).find_map(|property| property.strip_prefix(TAG));
    Ok(Some(Stored { offset, stored_at, tag: tag.unwrap_or_default(), body }))
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Garbage> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Garbage)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        Ok(self.bytes(N)?.try_into().expect("so many were taken"))
    }

    fn u8(&mut self) -> Result<u8, Garbage> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Garbage> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Garbage> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, Garbage> {
        Ok(i64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// When the test's broker stores everything.
    pub(in super::super) const STORED_AT: i64 = 1_795_304_580_967;

    /// What a broker makes of it.
    pub(in super::super) fn stored(flags: u32, topic: &str, properties: &str, body: &[u8]) -> Vec<u8> {
        let address = |bit| vec![1; if flags & bit == 0 { 8 } else { 20 }];
        let mut message = Vec::new();
        let kind = if topic.len() < 128 { SHORT_TOPIC } else { LONG_TOPIC };
        message.extend(kind.to_be_bytes());
        message.extend([7; 12]);
        message.extend(42i64.to_be_bytes());
        message.extend([7; 8]);
        message.extend(flags.to_be_bytes());
        message.extend([7; 8]);
        message.extend(address(BORN_IN_IPV6));
        message.extend(STORED_AT.to_be_bytes());
        message.extend(address(STORED_IN_IPV6));
        message.extend([7; 12]);
        message.extend((body.len() as u32).to_be_bytes());
        message.extend(body);
        if kind == SHORT_TOPIC {
            message.push(topic.len() as u8);
        } else {
            message.extend((topic.len() as u16).to_be_bytes());
        }
        message.extend(topic.as_bytes());
        message.extend((properties.len() as u16).to_be_bytes());
        message.extend(properties.as_bytes());
        [&(message.len() as u32 + 4).to_be_bytes()[..], &message].concat()
    }

    #[test]
    fn a_message_of_a_real_server_is_read() {
        let text = b"\x00\x00\x00t\xda\xa3 \xa7F\xc5\xd8\xf5\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x01h\x00\x00\x00\x00\x00\x00\x01\xa2\x00x\x05\xc6\x7f\x00\x00\x01\x00\x00\xd7\x10\x00\x00\x01\xa2\x00x\x05\xcb\x7f\x00\x00\x01\x00\x00t\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05three\rtieline-a_20b\x00\x07TAGS\x01x\x02";
        let mut bytes = &text[..];
        let message = next(&mut bytes).unwrap().unwrap();
        assert_eq!(message, Stored { offset: 2, stored_at: 0x01a2_0078_05cb, tag: b"x", body: b"three" });
        assert_eq!(next(&mut bytes), Ok(None));
    }

    #[test]
    fn what_is_sent_is_what_servers_read() {
        let mut out = Vec::new();
        put(&mut out, "all", &[b"he", b"", b"ad"]);
        let text = b"\0\0\0\x23\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04head\0\x09TAGS\x01all\x02";
        assert_eq!(out, text);
    }

    proptest! {
        #[test]
        fn messages_come_one_after_the_other(
            messages in prop::collection::vec(
                ("[a-z]{0,3}", prop::collection::vec(any::<u8>(), 0..100), "[a-z]{1,200}", 0u32..4, any::<bool>()), 0..6),
        ) {
            let mut bytes = Vec::new();
            for (tag, body, topic, addresses, has_more) in &messages {
                let more = if *has_more { "XTAGS\u{1}no\u{2}UNIQ\u{1}1\u{2}" } else { "" };
                let properties = format!("{more}TAGS\u{1}{tag}\u{2}CLUSTER\u{1}c");
                bytes.extend(stored(addresses << 4, topic, &properties, body));
            }
            let mut rest = &bytes[..];
            for (tag, body, ..) in &messages {
                let message = next(&mut rest).unwrap().unwrap();
                let due = Stored { offset: 42, stored_at: STORED_AT, tag: tag.as_bytes(), body };
                prop_assert_eq!(message, due);
            }
            prop_assert_eq!(next(&mut rest), Ok(None));
        }

        #[test]
        fn what_is_cut_or_broken_is_garbage(
            body in prop::collection::vec(any::<u8>(), 0..50), cut in any::<prop::sample::Index>(),
            place in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let message = stored(0, "topic", "TAGS\u{1}all\u{2}", &body);
            prop_assert_eq!(next(&mut &message[..cut.index(message.len() - 1) + 1]), Err(Garbage));
            let mut broken = message.clone();
            broken[place.index(message.len())] = byte;
            let mut rest = &broken[..];
            while let Ok(Some(_)) = next(&mut rest) {}
        }
    }
}
