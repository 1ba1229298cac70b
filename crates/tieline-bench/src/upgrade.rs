//! The opening handshake: the client's request and the check of the answer, and the floor's answer.
//! Only what a load run needs: no extensions, no redirects. Tested here with the standard's example.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Longest answer or request head that is read.
pub(crate) const LONGEST_HEAD: usize = 16 * 1024;
/// Header lines that a head may have.
const HEADERS: usize = 64;
/// What the standard appends to the key before hashing.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What came of reading the answer's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// More bytes are needed.
    Incomplete,
    /// 101 and all that belongs to it; frames begin after this many bytes.
    Upgraded(usize),
    /// Another status.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason phrase and the beginning of the body.
        reason: String,
    },
    /// 101 without what belongs to it, or no HTTP at all.
    Wrong(&'static str),
}

/// The `Sec-WebSocket-Key` of connection `number`: any 16 bytes serve, and these need no generator.
pub(crate) fn key(number: usize) -> String {
    let mut nonce = *b"tieline-bench-00";
    nonce[8..].copy_from_slice(&(number as u64).to_be_bytes());
    STANDARD.encode(nonce)
}

/// The `Sec-WebSocket-Accept` that belongs to `key`.
pub(crate) fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The request's bytes.
pub(crate) fn request(target: &str, authority: &str, key: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let subprotocol =
        subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{subprotocol}\r\n"
    )
    .into_bytes()
}

/// Reads the answer to a request that was sent with `key` and `subprotocol`.
pub(crate) fn answer(bytes: &[u8], key: &str, subprotocol: Option<&str>) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Answer::Incomplete,
        Ok(httparse::Status::Partial) => return Answer::Wrong("the answer's head is too long"),
        Err(_) => return Answer::Wrong("the answer is not HTTP"),
    };
    let status = response.code.unwrap_or_default();
    if status != 101 {
        let body = String::from_utf8_lossy(&bytes[length..bytes.len().min(length + 300)]).into_owned();
        let reason = format!("{} {}", response.reason.unwrap_or_default(), body.trim());
        return Answer::Refused { status, reason: reason.trim().to_owned() };
    }
    let value = |name: &str| {
        response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    if value("Sec-WebSocket-Accept") != Some(accept(key).as_bytes()) {
        return Answer::Wrong("Sec-WebSocket-Accept does not belong to the key");
    }
    if value("Sec-WebSocket-Protocol") != subprotocol.map(str::as_bytes) {
        return Answer::Wrong("the subprotocol is not the one asked for");
    }
    Answer::Upgraded(length)
}

/// The server's side for the floor: the request's target and the answer to send. `None`: incomplete.
/// `Some(Err)`: not an upgrade.
pub(crate) fn serve(bytes: &[u8]) -> Option<Result<(String, String), &'static str>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return None,
        _ => return Some(Err("not a readable HTTP request")),
    }
    let key = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Sec-WebSocket-Key"));
    let Some(key) = key.and_then(|header| std::str::from_utf8(header.value).ok()) else {
        return Some(Err("not a WebSocket upgrade"));
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept(key)
    );
    Some(Ok((request.path.unwrap_or("/").to_owned(), answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_key_gives_the_standards_accept() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn request_and_answer_fit_together() {
        let request = request("/x?user=1", "h:1", &key(3), None);
        assert_eq!(serve(&request[..request.len() - 1]), None);
        let (target, reply) = serve(&request).unwrap().unwrap();
        assert_eq!(target, "/x?user=1");
        let mut bytes = reply.into_bytes();
        let length = bytes.len();
        bytes.extend_from_slice(&[0x81, 1, b'a']);
        assert_eq!(answer(&bytes, &key(3), None), Answer::Upgraded(length));
        assert_eq!(answer(&bytes[..length - 1], &key(3), None), Answer::Incomplete);
        assert!(matches!(answer(&bytes, &key(4), None), Answer::Wrong(reason) if reason.contains("Accept")));
        assert!(
            matches!(answer(&bytes, &key(3), Some("v1")), Answer::Wrong(reason) if reason.contains("subprotocol"))
        );
    }

    #[test]
    fn a_refusal_keeps_its_status_and_words() {
        let bytes = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 13\r\n\r\ntoken expired";
        let expected = Answer::Refused { status: 401, reason: "Unauthorized token expired".to_owned() };
        assert_eq!(answer(bytes, &key(0), None), expected);
        assert!(matches!(answer(b"SSH-2.0-x\r\n\r\n", &key(0), None), Answer::Wrong(_)));
    }
}
