//! Plain HTTP: requests as bytes, answers as they came.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head without its first line, in lower case.
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    /// An answer without its body.
    fn of_head(head: &str) -> Answer {
        let (first, headers) = head.split_once("\r\n").expect("a head has lines");
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.expect("an answer has a status");
        Answer { status, headers: headers.to_lowercase(), body: String::new() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The body, which must be JSON and say so.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error, which body and header must agree on.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        let code = body["code"].as_str().expect("an error has a code").to_owned();
        assert_eq!(self.header("x-ms-error-code"), Some(&*code.to_lowercase()));
        assert!(!body["message"].as_str().unwrap().is_empty());
        code
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes and reads until the server closes; what came may be nothing.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The server may have refused and closed before it read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("the server neither answers nor closes: {error}"),
    }
}

/// Sends a request and reads one answer, up to the end of the stream.
pub(crate) fn exchange_one(address: SocketAddr, request: &str) -> Answer {
    let answer = String::from_utf8(exchange(address, request.as_bytes())).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("the server answers");
    Answer { body: body.to_owned(), ..Answer::of_head(head) }
}

/// Sends a request on a socket of its own and reads the answer. The headers come each with its line end; the length of the
/// body is announced.
pub(crate) fn call(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}");
    exchange_one(address, &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
}

/// The same with a body of JSON.
pub(crate) fn post_json(address: SocketAddr, target: &str, body: &str) -> Answer {
    call(address, "POST", target, "Content-Type: application/json\r\n", body)
}

/// Sends a request and reads one answer by the length it announces, on a socket that may stay open.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    let _ = stream.write_all(request.as_bytes());
    read_answer(&mut stream, Vec::new())
}

/// GET of a path with a proper Host and these headers, each with its line end.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n"))
}

/// Reads the rest of an answer that begins with these bytes.
pub(crate) fn read_answer(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Answer {
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let read = read_some(stream, &mut bytes).expect("the server says something");
        assert!(read, "the server closed within a head: {:?}", String::from_utf8_lossy(&bytes));
    };
    let mut answer = Answer::of_head(std::str::from_utf8(&bytes[..head_end]).unwrap());
    let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head_end + length {
        let read = read_some(stream, &mut bytes).expect("the server says something");
        assert!(read, "the server closed within a body");
    }
    answer.body = String::from_utf8(bytes[head_end..head_end + length].to_vec()).unwrap();
    answer
}

/// Reads what there is; false at the end of the stream, `None` when nothing came in time.
pub(crate) fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<bool> {
    let mut chunk = [0; 16 << 10];
    match stream.read(&mut chunk) {
        Ok(read) => {
            bytes.extend_from_slice(&chunk[..read]);
            Some(read > 0)
        }
        Err(error) => match error.kind() {
            ErrorKind::ConnectionReset => Some(false),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => None,
            _ => panic!("the server cannot be read from: {error}"),
        },
    }
}
