//! [`Link`]: a client's connection of `tieline.v1`, which notices by itself when nobody answers any more.
//!
//! It is spoken by a public implementation of WebSocket, so that the program is not tested by its own code.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderValue, Uri};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

/// The hub of all messages.
const HUB: &str = "play";

/// How long connecting may take, up to `connected`, and writing a frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so much silence the client asks whether anybody is there, and after as much again it gives up.
const SILENCE: Duration = Duration::from_secs(3);

/// The connection is of no use any more.
#[derive(Debug)]
pub(crate) struct Lost;

/// An open connection.
pub(crate) struct Link {
    socket: WebSocketStream<TcpStream>,
    /// When it was last heard, or opened.
    heard: Instant,
    /// It was asked whether it is there, and has said nothing since.
    is_asked: bool,
}

impl Link {
    /// Connects as a user, and waits until the node says so.
    pub(crate) async fn open(node: SocketAddr, user: &str) -> Result<Link, Lost> {
        let (link, _) = Link::open_with(node, &format!("user={user}")).await?;
        Ok(link)
    }

    /// The same by any query; with it comes what the node says.
    pub(crate) async fn open_with(node: SocketAddr, query: &str) -> Result<(Link, Value), Lost> {
        timeout(PATIENCE, Link::shake(node, query)).await.unwrap_or(Err(Lost))
    }

    async fn shake(node: SocketAddr, query: &str) -> Result<(Link, Value), Lost> {
        let stream = TcpStream::connect(node).await.map_err(|_| Lost)?;
        stream.set_nodelay(true).map_err(|_| Lost)?;
        let address = format!("ws://{node}/client/hubs/{HUB}?{query}");
        let address = Uri::try_from(address).expect("an address and plain names are a URI");
        let request = ClientBuilder::from_uri(address)
            .add_header(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("tieline.v1"))
            .expect("the subprotocol is the client's to name");
        let (socket, _) = request.connect_on(stream).await.map_err(|_| Lost)?;
        let mut link = Link { socket, heard: Instant::now(), is_asked: false };
        match link.next().await {
            Ok(frame) if frame["event"] == "connected" => Ok((link, frame)),
            _ => Err(Lost),
        }
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, frame: &Value) -> Result<(), Lost> {
        let message = Message::text(frame.to_string());
        match timeout(PATIENCE, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost),
        }
    }

    /// The next frame. May be given up at any time without losing one.
    pub(crate) async fn next(&mut self) -> Result<Value, Lost> {
        loop {
            let Ok(came) = timeout_at(self.heard + SILENCE, self.socket.next()).await else {
                if self.is_asked {
                    return Err(Lost);
                }
                // The silence is counted anew, and a second one is the last.
                (self.is_asked, self.heard) = (true, Instant::now());
                self.send(&serde_json::json!({"type": "ping"})).await?;
                continue;
            };
            let message = came.ok_or(Lost)?.map_err(|_| Lost)?;
            (self.is_asked, self.heard) = (false, Instant::now());
            if message.is_close() {
                return Err(Lost);
            }
            let Some(text) = message.as_text() else { continue };
            match serde_json::from_str::<Value>(text) {
                Ok(frame) if frame["type"] == "pong" => {}
                Ok(frame) => return Ok(frame),
                // Told as what it is: the judge knows no such message.
                Err(_) => return Ok(Value::String(text.to_owned())),
            }
        }
    }
}
