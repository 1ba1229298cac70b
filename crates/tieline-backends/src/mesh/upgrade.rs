//! The HTTP part of a link: the request of the node that dials, and the answer of the one that is dialled.
//!
//! Tested by the mesh's tests with good and bad requests on raw sockets.

use tieline_websocket::{ClientRequest, Upgrade, response_head};
use tokio::io::AsyncWriteExt;

use super::handshake::Failure;
use super::refusal::Refusal;
use super::wire::{MAX_STRANGER, Wire};

/// Where peers are upgraded.
pub(super) const PATH: &str = "/peer";

/// What they speak.
pub(super) const PROTOCOL: &str = "tieline.peer.v1";

/// The most headers of a request.
const MAX_HEADERS: usize = 32;

/// Asks for the upgrade.
pub(super) async fn ask(wire: &mut Wire, host: &str) -> Result<(), Failure> {
    let request =
        ClientRequest::new(host, PATH).map_err(|_| Failure::Refuse(Refusal::NotAPeer))?.protocol(PROTOCOL);
    let head = request.to_bytes().map_err(|_| Failure::Refuse(Refusal::NotAPeer))?;
    wire.stream.write_all(&head).await?;
    loop {
        match request.parse_response(wire.inbox.raw()) {
            Ok(Some((agreement, len))) => {
                wire.inbox.skip(len);
                wire.upgraded = true;
                let speaks = agreement.protocol.as_deref() == Some(PROTOCOL);
                return if speaks { Ok(()) } else { Err(Failure::Refuse(Refusal::NotAPeer)) };
            }
            Ok(None) if wire.inbox.raw().len() <= MAX_STRANGER => wire.read().await?,
            _ => return Err(Failure::Refuse(Refusal::NotAPeer)),
        }
    }
}

/// Answers the request. Whoever upgrades without speaking our subprotocol is told so by a close code.
pub(super) async fn answer(wire: &mut Wire) -> Result<(), Failure> {
    let (head, outcome) = loop {
        if let Some(done) = answer_to(wire.inbox.raw()) {
            break done;
        }
        wire.read().await?;
    };
    wire.stream.write_all(head.as_bytes()).await?;
    let len = outcome?;
    wire.inbox.skip(len);
    wire.upgraded = true;
    if head.contains(PROTOCOL) { Ok(()) } else { Err(Failure::Refuse(Refusal::NotAPeer)) }
}

/// The answer to the request at the start of `bytes`, and how long that was; `None` while it is incomplete.
fn answer_to(bytes: &[u8]) -> Option<(String, Result<usize, Failure>)> {
    let refused = |status: &str| {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        Some((head, Err(Failure::Refuse(Refusal::NotAPeer))))
    };
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_STRANGER => return None,
        Ok(httparse::Status::Partial) => return refused("431 Request Header Fields Too Large"),
        Err(_) => return refused("400 Bad Request"),
    };
    if request.path != Some(PATH) {
        return refused("404 Not Found");
    }
    let method = request.method.unwrap_or_default();
    let minor = request.version.unwrap_or_default();
    let headers = request.headers.iter().map(|header| (header.name, header.value));
    match Upgrade::from_request(method, minor, headers) {
        Ok(upgrade) => {
            let protocol = upgrade.protocols().find(|name| *name == PROTOCOL);
            Some((response_head(upgrade.accept_key(), protocol, None), Ok(len)))
        }
        Err(error) => refused(&format!("{} {error}", error.status())),
    }
}
