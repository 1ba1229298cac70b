//! The floor's answer to an upgrade, and the words of a server that refused one.
//! The client's request and the rules of the answer are the product's codec's. Tested here.

use tieline_websocket::{Upgrade, response_head};

/// Longest request head that the floor reads.
const LONGEST_HEAD: usize = 16 * 1024;
/// Header lines that it may have.
const HEADERS: usize = 64;
/// How much of a refusal's body is shown.
const SHOWN: usize = 300;

/// Reads an upgrade request: its target, the answer to send, and the bytes that its head took. `None`: incomplete.
pub(crate) fn serve(bytes: &[u8]) -> Option<Result<(String, String, usize), String>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return None,
        Ok(httparse::Status::Partial) => return Some(Err("the head is too long".to_owned())),
        Err(error) => return Some(Err(error.to_string())),
    };
    let pairs = request.headers.iter().map(|header| (header.name, header.value));
    let upgrade =
        Upgrade::from_request(request.method.unwrap_or_default(), request.version.unwrap_or_default(), pairs);
    Some(upgrade.map_err(|error| error.to_string()).map(|upgrade| {
        let answer = response_head(upgrade.accept_key(), None, None);
        (request.path.unwrap_or("/").to_owned(), answer, length)
    }))
}

/// What a refusal says: its reason phrase and the beginning of its body, as far as that has arrived.
pub(crate) fn refusal(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let phrase = head.lines().next().and_then(|line| line.splitn(3, ' ').nth(2)).unwrap_or_default();
    let body: String = body.chars().take(SHOWN).filter(|letter| !letter.is_control()).collect();
    format!("{phrase} {body}").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_websocket::ClientRequest;

    #[test]
    fn a_clients_request_is_answered_as_that_client_wants() {
        let client = ClientRequest::with_key("h:1", "/x?user=1", [3; 16]);
        let request = client.to_bytes().unwrap();
        assert_eq!(serve(&request[..request.len() - 1]), None);
        let (target, answer, length) = serve(&request).unwrap().unwrap();
        assert_eq!((target.as_str(), length), ("/x?user=1", request.len()));
        let (_, head) = client.parse_response(answer.as_bytes()).unwrap().unwrap();
        assert_eq!(head, answer.len());
    }

    #[test]
    fn what_is_no_upgrade_is_an_error() {
        assert!(serve(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().is_err());
        assert!(serve(b"\x16\x03\x01").unwrap().is_err());
        let endless = [&b"GET / HTTP/1.1\r\nA: "[..], &[b'x'; LONGEST_HEAD]].concat();
        assert!(serve(&endless).unwrap().is_err());
    }

    #[test]
    fn a_refusal_keeps_its_words() {
        let answer = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 13\r\n\r\ntoken expired\n";
        assert_eq!(refusal(answer), "Unauthorized token expired");
        assert_eq!(refusal(b"HTTP/1.1 503"), "");
    }
}
