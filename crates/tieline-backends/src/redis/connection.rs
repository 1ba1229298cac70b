//! A connection to the server. For the broker from the name's resolution until it is proved to carry: authenticated, subscribed,
//! and a canary has come back through it. Not what is done with it then: that is `session.rs`. The store takes the
//! connection and greets by itself.
//!
//! Every attempt resolves the name anew, so a server that moved is found. Tested by the broker's tests, against a real server
//! with and without password and TLS, and against strangers.

use std::io;
use std::sync::Arc;

use tieline_core::broker::Inbound;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::channels::{Came, Channels};
use super::resp::{self, Answer, Garbage, Said};
use super::settings::RedisAddress;
use super::{RedisError, Trouble};

/// The least room for one read.
const READ: usize = 64 * 1024;

/// Room that is kept while nothing waits in it.
const KEPT: usize = 256 * 1024;

/// The way from the server, with what was read and not understood yet.
pub(super) struct Inbox {
    read: Box<dyn AsyncRead + Send + Unpin>,
    bytes: Vec<u8>,
    /// Where what is not understood starts.
    start: usize,
}

impl Inbox {
    /// The next thing the server said, of what was read; `None` when there is no whole one.
    pub(super) fn next(&mut self) -> Result<Option<Said<'_>>, Garbage> {
        match resp::read(&self.bytes[self.start..])? {
            Some((said, len)) => {
                self.start += len;
                Ok(Some(said))
            }
            None => Ok(None),
        }
    }

    /// The next answers of what was read, so many; `None` as long as they are not all there.
    pub(super) fn answers(&mut self, count: usize) -> Result<Option<Vec<Answer<'_>>>, Garbage> {
        let mut answers = Vec::with_capacity(count);
        let mut end = self.start;
        for _ in 0..count {
            let Some((answer, len)) = resp::answer(&self.bytes[end..])? else { return Ok(None) };
            answers.push(answer);
            end += len;
        }
        self.start = end;
        Ok(Some(answers))
    }

    /// Reads on, and says how much came: zero at the end. What was read is kept when this is not waited for to the end.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.start = 0;
        }
        if self.bytes.capacity() - self.bytes.len() < READ {
            // Only the beginning of something that is not whole is moved, and room doubles, so long messages cost no more.
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.reserve(READ);
        }
        self.read.read_buf(&mut self.bytes).await
    }
}

/// A connection that carries.
pub struct Connection {
    pub(super) inbox: Inbox,
    pub(super) write: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Who connects, and how.
pub(super) struct Dialler {
    address: RedisAddress,
    /// With `rediss://`.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// What the server's list of connections calls this one.
    name: String,
}

impl Dialler {
    /// Reads the system's certificates, if TLS is wanted.
    pub(super) fn new(address: RedisAddress, name: String) -> Result<Self, RedisError> {
        let tls = if address.tls { Some(tls(&address)?) } else { None };
        Ok(Dialler { address, tls, name })
    }

    /// Connects, and says nothing yet.
    pub(super) async fn connect(&self) -> Result<Connection, Trouble> {
        let target = (self.address.host.as_str(), self.address.port);
        let stream = TcpStream::connect(target).await.map_err(Trouble::Connect)?;
        // Without it batches are only later, not wrong.
        drop(stream.set_nodelay(true));
        let (read, write): (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) =
            match &self.tls {
                None => {
                    let (read, write) = stream.into_split();
                    (Box::new(read), Box::new(write))
                }
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream).await.map_err(Trouble::Tls)?;
                    let (read, write) = tokio::io::split(stream);
                    (Box::new(read), Box::new(write))
                }
            };
        Ok(Connection { inbox: Inbox { read, bytes: Vec::new(), start: 0 }, write })
    }

    /// Connects, authenticates, subscribes, and waits for a canary. What others publish meanwhile goes to `inbound`.
    pub(super) async fn dial(
        &self,
        channels: &Channels,
        inbound: &dyn Inbound,
    ) -> Result<Connection, Trouble> {
        let Connection { mut inbox, mut write } = self.connect().await?;
        let mut greeting = Vec::new();
        self.hello(&mut greeting);
        channels.subscribe(&mut greeting);
        channels.canary(&mut greeting);
        write.write_all(&greeting).await.map_err(Trouble::Io)?;
        write.flush().await.map_err(Trouble::Io)?;
        loop {
            while let Some(said) = inbox.next()? {
                match said {
                    Said::Message { channel, payload } => match channels.sort(channel, payload) {
                        Came::Canary => return Ok(Connection { inbox, write }),
                        Came::Envelope(envelope) => inbound.envelope(envelope),
                        Came::Echo | Came::Foreign => {}
                    },
                    Said::Refused(reason) => {
                        return Err(self.refused(reason));
                    }
                    Said::Subscribed | Said::Other => {}
                }
            }
            if inbox.read().await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Left);
            }
        }
    }

    /// The commands that every beginning begins with. They go out with those that follow: the server answers them in order,
    /// and the first refusal tells what is wrong. How many answers there will be.
    pub(super) fn hello(&self, out: &mut Vec<u8>) -> usize {
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(login) = &self.address.login {
            hello.extend([b"AUTH", login.user.as_bytes(), login.password.as_bytes()]);
        }
        hello.extend([b"SETNAME", self.name.as_bytes()]);
        resp::command(out, &hello);
        if self.address.database == 0 {
            return 1;
        }
        resp::command(out, &[b"SELECT", self.address.database.to_string().as_bytes()]);
        2
    }

    /// A refusal in words that may be shown.
    pub(super) fn refused(&self, reason: &[u8]) -> Trouble {
        Trouble::refused(reason, self.address.login.as_ref())
    }
}

/// TLS with the certificates that the system trusts.
fn tls(address: &RedisAddress) -> Result<(TlsConnector, ServerName<'static>), RedisError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(RedisError::Roots);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RedisError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name =
        ServerName::try_from(address.host.clone()).map_err(|error| RedisError::Tls(error.to_string()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
