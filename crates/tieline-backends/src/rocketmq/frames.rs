//! RocketMQ's remoting protocol as bytes: requests out, answers in.
//!
//! ```text
//! length (u32)  kind and length of the header (u8, u24)  header (JSON)  body        big-endian; the length is of what follows it
//! ```
//!
//! A header has a code, a number (`opaque`) that the answer repeats, and fields, whose values are all texts. Answers may come in any
//! order, and the server may ask something by itself, which nobody has to answer. No I/O. Tested here by properties.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::signature::{Fields, Signer};

/// The most bytes of a frame that is read: what servers and other clients allow.
const MAX_FRAME: usize = 16 << 20;

/// Bytes in front of the header.
const LENGTHS: usize = 8;

/// The kind of a header that is JSON.
const JSON: u8 = 0;

/// The bit of `flag` that tells an answer from a request.
const IS_ANSWER: i32 = 1;

/// The version of the protocol that is spoken: that of RocketMQ 5.3.2, and all that is asked is older.
const VERSION: i32 = 477;

/// What came is no frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// What is asked of a server.
pub(super) struct Request<'a> {
    /// What for.
    pub(super) code: i32,
    pub(super) fields: Fields<'a>,
    pub(super) body: &'a [u8],
}

/// What a server answers, or asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Which request it answers; none for something that the server asks.
    pub(super) to: Option<i32>,
    /// How it went.
    pub(super) code: i32,
    /// The same in words, if something is wrong.
    pub(super) remark: String,
    pub(super) fields: HashMap<String, String>,
    /// The whole frame.
    frame: Vec<u8>,
    /// Where the body begins in it.
    body: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestHeader<'a> {
    code: i32,
    language: &'static str,
    version: i32,
    opaque: i32,
    flag: i32,
    ext_fields: &'a Fields<'a>,
    #[serde(rename = "serializeTypeCurrentRPC")]
    serialize: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerHeader {
    code: i32,
    opaque: i32,
    #[serde(default)]
    flag: i32,
    #[serde(default)]
    remark: Option<String>,
    #[serde(default)]
    ext_fields: Option<HashMap<String, String>>,
}

impl<'a> Request<'a> {
    /// Appends the request as a frame, signed if there is a signer.
    pub(super) fn write(mut self, out: &mut Vec<u8>, opaque: i32, signer: Option<&'a Signer>) {
        if let Some(signer) = signer {
            signer.sign(&mut self.fields, self.body);
        }
        let start = out.len();
        out.extend([0; LENGTHS]);
        let header = RequestHeader {
            code: self.code,
            language: "OTHER",
            version: VERSION,
            opaque,
            flag: 0,
            ext_fields: &self.fields,
            serialize: "JSON",
        };
        serde_json::to_writer(&mut *out, &header).expect("texts and numbers are written to memory");
        let header = (out.len() - start - LENGTHS) as u32;
        out.extend_from_slice(self.body);
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        out[start + 4..start + LENGTHS].copy_from_slice(&header.to_be_bytes());
    }
}

/// How many bytes of `bytes` are the first frame; none as long as it is not whole. What cannot become one is told at once.
pub(super) fn whole(bytes: &[u8]) -> Result<Option<usize>, Garbage> {
    let Some(length) = word(bytes, 0) else { return Ok(None) };
    if !(4..=MAX_FRAME - 4).contains(&length) {
        return Err(Garbage);
    }
    if let Some(header) = word(bytes, 4) {
        header_length(header, length)?;
    }
    Ok((bytes.len() >= length + 4).then_some(length + 4))
}

/// The length of a header in a frame of this length.
fn header_length(word: usize, length: usize) -> Result<usize, Garbage> {
    let [kind, high, middle, low] = (word as u32).to_be_bytes();
    let header = u32::from_be_bytes([0, high, middle, low]) as usize;
    if kind == JSON && header <= length - 4 { Ok(header) } else { Err(Garbage) }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*word) as usize)
}

impl Answer {
    /// Reads a frame that [`whole`] has found.
    pub(super) fn read(frame: Vec<u8>) -> Result<Answer, Garbage> {
        let (length, header) = (word(&frame, 0).ok_or(Garbage)?, word(&frame, 4).ok_or(Garbage)?);
        if length.checked_add(4) != Some(frame.len()) {
            return Err(Garbage);
        }
        let body = LENGTHS + header_length(header, length)?;
        let header: AnswerHeader = serde_json::from_slice(&frame[LENGTHS..body]).map_err(|_| Garbage)?;
        Ok(Answer {
            to: (header.flag & IS_ANSWER != 0).then_some(header.opaque),
            code: header.code,
            remark: header.remark.unwrap_or_default(),
            fields: header.ext_fields.unwrap_or_default(),
            frame,
            body,
        })
    }

    /// What is behind the header.
    pub(super) fn body(&self) -> &[u8] {
        &self.frame[self.body..]
    }

    /// A field that is a number.
    pub(super) fn number(&self, name: &str) -> Result<i64, Garbage> {
        self.fields.get(name).and_then(|text| text.parse().ok()).ok_or(Garbage)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn answer(header: &str, body: &[u8]) -> Vec<u8> {
        let length = (4 + header.len() + body.len()) as u32;
        let lengths = [length.to_be_bytes(), (header.len() as u32).to_be_bytes()].concat();
        [&lengths, header.as_bytes(), body].concat()
    }

    #[test]
    fn a_request_is_what_servers_read() {
        let mut out = b"before".to_vec();
        let fields = Fields::from([("topic", Cow::Borrowed("t\u{1}\"")), ("a", "1".into())]);
        Request { code: 105, fields, body: b"body" }.write(&mut out, 7, None);
        let header = concat!(
            r#"{"code":105,"language":"OTHER","version":477,"opaque":7,"flag":0,"#,
            r#""extFields":{"a":"1","topic":"t\u0001\""},"serializeTypeCurrentRPC":"JSON"}"#
        );
        assert_eq!(
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(&[b"before", &*answer(header, b"body")].concat())
        );
    }

    #[test]
    fn an_answer_of_a_real_server_is_read() {
        let header = concat!(
            r#"{"code":19,"extFields":{"suggestWhichBrokerId":"0","nextBeginOffset":"4"},"flag":1,"language":"JAVA","#,
            r#""opaque":5,"remark":"OFFSET_OVERFLOW_ONE","serializeTypeCurrentRPC":"JSON","version":513}"#
        );
        let frame = answer(header, b"body");
        let read = Answer::read(frame.clone()).unwrap();
        assert_eq!((read.to, read.code, read.remark.as_str()), (Some(5), 19, "OFFSET_OVERFLOW_ONE"));
        assert_eq!(
            (read.number("nextBeginOffset"), read.number("none"), read.body()),
            (Ok(4), Err(Garbage), &b"body"[..])
        );
        let asked = Answer::read(answer(r#"{"code":40,"flag":0,"opaque":5,"extFields":null}"#, b"")).unwrap();
        assert_eq!((asked.to, asked.code), (None, 40), "the server asks");
        assert_eq!(whole(&frame), Ok(Some(frame.len())));
        assert_eq!(whole(&[&frame[..], b"more"].concat()), Ok(Some(frame.len())));
    }

    #[test]
    fn strangers_are_known_by_their_first_bytes() {
        let huge = (MAX_FRAME as u32 - 3).to_be_bytes();
        let longer_header = [&16u32.to_be_bytes()[..], &13u32.to_be_bytes()].concat();
        let other_kind = [&16u32.to_be_bytes()[..], &[1, 0, 0, 1]].concat();
        let stranger: [&[u8]; 7] = [
            b"HTTP/1.1 400",
            &[0x15, 3, 1, 0],
            b"+OK\r\n",
            &[0, 0, 0, 3],
            &huge,
            &longer_header,
            &other_kind,
        ];
        for bytes in stranger {
            assert_eq!(whole(bytes), Err(Garbage), "{bytes:?}");
        }
        for header in ["", "{}", "[]", "{\"code\":1}", "{\"code\":\"x\",\"opaque\":1}", "\u{1}"] {
            assert_eq!(Answer::read(answer(header, b"")), Err(Garbage), "{header}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_is_found_when_its_last_byte_is_there(
            remark in ".{0,40}", body in prop::collection::vec(any::<u8>(), 0..300), opaque in any::<i32>(),
        ) {
            let header = serde_json::json!({"code": 0, "flag": 1, "opaque": opaque, "remark": remark}).to_string();
            let frame = answer(&header, &body);
            for end in 0..frame.len() {
                prop_assert_eq!(whole(&frame[..end]), Ok(None));
                prop_assert!(Answer::read(frame[..end].to_vec()).is_err());
            }
            let read = Answer::read(frame).unwrap();
            prop_assert_eq!((read.to, &read.remark, read.body()), (Some(opaque), &remark, &body[..]));
        }

        #[test]
        fn garbage_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0u32..200, header in 0u32..200) {
            drop(Answer::read(bytes.clone()));
            let framed = [&length.to_be_bytes()[..], &header.to_be_bytes(), &bytes].concat();
            if let Ok(Some(end)) = whole(&framed) {
                drop(Answer::read(framed[..end].to_vec()));
            }
        }

        #[test]
        fn what_is_written_is_a_frame(
            value in ".{0,40}", body in prop::collection::vec(any::<u8>(), 0..300), code in any::<i32>(), opaque in any::<i32>(),
        ) {
            let mut out = Vec::new();
            let fields = Fields::from([("field", Cow::Borrowed(value.as_str()))]);
            Request { code, fields, body: &body }.write(&mut out, opaque, None);
            prop_assert_eq!(whole(&out), Ok(Some(out.len())));
            let read = Answer::read(out).unwrap();
            prop_assert_eq!((read.code, &read.fields["field"], read.body()), (code, &value, &body[..]));
        }
    }
}
