//! Conversations over TCP with another implementation (tokio-websockets), as its server and as its client. It knows no
//! compression: that is compared with a reference in `properties.rs`.

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use tieline_websocket::{
    ClientRequest, Decoder, DeflateOffer, DeflatePolicy, Event, Limits, Masks, Opcode, Role, Shared, Upgrade,
    encode, encode_close, encode_close_masked, encode_masked, response_head,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_websockets::{ClientBuilder, CloseCode, Config, Message, ServerBuilder};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Around every border of the length's three forms.
const SIZES: [usize; 9] = [0, 1, 124, 125, 126, 127, 65_535, 65_536, 300_000];

fn content(size: usize) -> String {
    "ein Wörtchen, 漢字, 𝄞. "
        .chars()
        .cycle()
        .scan(0, |len, c| {
            *len += c.len_utf8();
            (*len <= size).then_some(c)
        })
        .collect()
}

/// Our server: echoes messages and answers pings until the close frame, which it echoes too.
async fn serve(mut stream: TcpStream) -> Outcome<Option<(u16, String)>> {
    let mut read = vec![0; 4096];
    let mut used = 0;
    let head_len = loop {
        used += stream.read(&mut read[used..]).await?;
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(len) = request.parse(&read[..used])? {
            let headers = request.headers.iter().map(|header| (header.name, header.value));
            let upgrade = Upgrade::from_request("GET", request.version.expect("a complete head"), headers)?;
            let deflate = upgrade.negotiate_deflate(&DeflatePolicy::default());
            assert_eq!(deflate, None, "the peer offers none");
            let head = response_head(upgrade.accept_key(), upgrade.protocols().next(), None);
            stream.write_all(head.as_bytes()).await?;
            break len;
        }
    };
    let mut shared = Shared::new(Limits::default());
    let mut decoder = Decoder::new(Role::Server, None);
    let mut start = head_len;
    let mut out = Vec::new();
    loop {
        let mut input = &mut read[start..used];
        while let Some(event) = decoder.decode(&mut input, &mut shared)? {
            match event {
                Event::Message { kind, payload } => encode(&mut out, kind.into(), payload),
                Event::Ping(payload) => encode(&mut out, Opcode::Pong, payload),
                Event::Pong(_) => {}
                Event::Close(frame) => {
                    encode_close(
                        &mut out,
                        frame.map(|frame| frame.code),
                        frame.map_or("", |frame| frame.reason),
                    );
                    stream.write_all(&out).await?;
                    return Ok(frame.map(|frame| (frame.code, frame.reason.to_owned())));
                }
            }
        }
        stream.write_all(&out).await?;
        out.clear();
        (start, used) = (0, stream.read(&mut read).await?);
        assert!(used > 0, "the peer went without a close frame");
    }
}

#[tokio::test]
async fn their_client_talks_to_our_server() -> Outcome<()> {
    // The second and third cut their messages into fragments.
    for frame_size in [1 << 20, 1000, 7] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("ws://{}/chat", listener.local_addr()?).parse()?;
        let server = tokio::spawn(async move { serve(listener.accept().await?.0).await });

        let builder = ClientBuilder::from_uri(uri).config(Config::default().frame_size(frame_size));
        let (mut client, _) = builder.connect().await?;
        let largest = frame_size.saturating_mul(1000);
        for size in SIZES.into_iter().filter(|size| *size <= largest) {
            let text = content(size);
            client.send(Message::text(text.clone())).await?;
            let echo = client.next().await.ok_or("closed")??;
            assert_eq!(echo.as_text(), Some(&text[..]));
            client.send(Message::binary(vec![size as u8; size])).await?;
            let echo = client.next().await.ok_or("closed")??;
            assert!(echo.is_binary());
            assert_eq!(&echo.as_payload()[..], vec![size as u8; size]);
        }
        client.send(Message::ping("there?")).await?;
        let pong = client.next().await.ok_or("closed")??;
        assert!(pong.is_pong() && &pong.as_payload()[..] == b"there?");
        client.send(Message::close(Some(CloseCode::GOING_AWAY), "enough, 𝄞")).await?;
        let close = client.next().await.ok_or("closed")??;
        assert_eq!(close.as_close(), Some((CloseCode::GOING_AWAY, "enough, 𝄞")));
        assert_eq!(server.await??, Some((1001, "enough, 𝄞".to_owned())));
    }
    Ok(())
}

#[tokio::test]
async fn our_client_talks_to_their_server() -> Outcome<()> {
    for frame_size in [1 << 20, 500] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await?;
            let builder = ServerBuilder::new().config(Config::default().frame_size(frame_size));
            let (_, mut server) = builder.accept(stream).await?;
            let mut close = None;
            while let Some(message) = server.next().await {
                let message = message?;
                close = message.as_close().map(|(code, reason)| (u16::from(code), reason.to_owned()));
                if message.is_text() || message.is_binary() {
                    server.send(message).await?;
                }
            }
            Outcome::Ok(close)
        });

        let mut stream = TcpStream::connect(address).await?;
        let request = ClientRequest::new(&address.to_string(), "/")?.deflate(DeflateOffer::default());
        stream.write_all(&request.to_bytes()?).await?;
        let mut read = Vec::new();
        let (agreement, head_len) = loop {
            assert!(stream.read_buf(&mut read).await? > 0);
            if let Some(done) = request.parse_response(&read)? {
                break done;
            }
        };
        assert_eq!(agreement.deflate, None, "the peer declines");
        assert_eq!(head_len, read.len(), "the peer has nothing to say by itself");

        let mut shared = Shared::new(Limits::default());
        let mut decoder = Decoder::new(Role::Client, None);
        let mut masks = Masks::new();
        let mut read = vec![0; 8192];
        let messages = SIZES.map(|size| (Opcode::Text, content(size).into_bytes()));
        let messages = messages.into_iter().chain(SIZES.map(|size| (Opcode::Binary, vec![3; size])));
        for (opcode, payload) in messages.filter(|(_, payload)| payload.len() <= frame_size * 1000) {
            let mut out = Vec::new();
            encode_masked(&mut out, opcode, &payload, masks.next_mask()?);
            stream.write_all(&out).await?;
            let mut echoed = false;
            while !echoed {
                let len = stream.read(&mut read).await?;
                assert!(len > 0, "the peer closed");
                let mut input = &mut read[..len];
                while let Some(event) = decoder.decode(&mut input, &mut shared)? {
                    let Event::Message { kind, payload: echo } = event else { panic!("{event:?}") };
                    assert!(Opcode::from(kind) == opcode && echo == payload, "not an echo");
                    echoed = true;
                }
            }
            assert!(decoder.is_idle());
        }

        let mut out = Vec::new();
        encode_close_masked(&mut out, Some(4001), "done", masks.next_mask()?);
        stream.write_all(&out).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
        let mut input = &mut rest[..];
        let Some(Event::Close(Some(frame))) = decoder.decode(&mut input, &mut shared)? else {
            panic!("no close frame")
        };
        // It echoes the code alone.
        assert_eq!((frame.code, frame.reason), (4001, ""));
        assert_eq!(server.await??, Some((4001, "done".to_owned())));
    }
    Ok(())
}
