//! A connection to a server, from the name's resolution until it is proved to carry: authenticated, subscribed, and a canary has come
//! back through it. Not what is done with it then: that is `medium/stream.rs`.
//!
//! Every attempt resolves names anew, and reads files of keys anew: both may change while a node runs. Tested by the broker's
//! tests, against real servers with all ways to authenticate, with and without TLS, and against strangers.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;
use tieline_core::broker::Inbound;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Trouble;
use super::key::Key;
use super::protocol::{self, Garbage, Info, Said};
use super::settings::{Login, NatsAddress};
use super::subjects::{Ear, Mouth, Subjects};
use crate::hosts::Host;
use crate::inbox::Inbox;
use crate::medium::stream::Stream;
use crate::tls::{self, Tls};

/// The most bytes of a file of keys.
const MAX_FILE: u64 = 64 * 1024;

/// A connection that carries.
pub struct Connection {
    pub(super) stream: Stream,
    /// What hears the others.
    pub(super) ear: Ear,
    /// What is said to them.
    pub(super) mouth: Mouth,
}

/// Who connects, and how.
pub(super) struct Dialler {
    address: NatsAddress,
    subjects: Arc<Subjects>,
    /// What the server's list of connections calls this one.
    name: String,
    /// How long an attempt with one of the servers may take.
    share: Duration,
    /// Which server is tried first: the one that worked last.
    first: AtomicUsize,
    /// The system's certificates, once a server wanted TLS.
    tls: OnceLock<Tls>,
}

impl Dialler {
    /// `connect` is how long an attempt with all servers may take.
    pub(super) fn new(address: NatsAddress, subjects: Subjects, name: String, connect: Duration) -> Self {
        // Less than its part, so that what is said of the last one is still heard.
        let share = connect.mul_f64(0.9) / address.hosts.len() as u32;
        let subjects = Arc::new(subjects);
        Dialler { address, subjects, name, share, first: AtomicUsize::new(0), tls: OnceLock::new() }
    }

    /// Messages that no node has published, through all connections.
    pub(super) fn foreign(&self) -> u64 {
        self.subjects.foreign()
    }

    pub(super) fn address(&self) -> &NatsAddress {
        &self.address
    }

    /// Tries the servers in turn. What others publish meanwhile goes to `inbound`.
    pub(super) async fn dial(&self, inbound: &dyn Inbound) -> Result<Connection, Trouble> {
        let hosts = &self.address.hosts;
        let first = self.first.load(Ordering::Relaxed);
        let mut trouble = None;
        for at in (first..first + hosts.len()).map(|at| at % hosts.len()) {
            let dialled = timeout(self.share, self.dial_one(&hosts[at], inbound)).await;
            match dialled.unwrap_or(Err(Trouble::Silent)) {
                Ok(connection) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(connection);
                }
                // Of several the one is told that was answered: nobody being there is what a list is for.
                Err(Trouble::Connect(error)) => {
                    trouble.get_or_insert(Trouble::Connect(error));
                }
                Err(other) => trouble = Some(other),
            }
        }
        Err(trouble.unwrap_or(Trouble::Silent))
    }

    async fn dial_one(&self, host: &Host, inbound: &dyn Inbound) -> Result<Connection, Trouble> {
        let stream = TcpStream::connect((host.name.as_str(), host.port)).await.map_err(Trouble::Connect)?;
        // Without it batches are only later, not wrong.
        drop(stream.set_nodelay(true));
        let (mut info, mut stream) = self.greet(stream, host).await?;
        let mut greeting = self.connect(&info)?;
        self.subjects.subscribe(&mut greeting);
        self.subjects.canary(&mut greeting);
        stream.write.write_all(&greeting).await.map_err(Trouble::Io)?;
        stream.write.flush().await.map_err(Trouble::Io)?;
        let mut ear = Ear::new(&self.subjects);
        loop {
            // Who this is may change what the server takes, so what it says last counts.
            let heard = ear.hear(&mut stream.inbox, inbound, &self.address.login, |news| info = news)?;
            if heard.question {
                stream.write.write_all(protocol::PONG).await.map_err(Trouble::Io)?;
                stream.write.flush().await.map_err(Trouble::Io)?;
            }
            if heard.canary {
                let mouth = Mouth::new(Arc::clone(&self.subjects), info.max_payload)?;
                return Ok(Connection { stream, ear, mouth });
            }
            if stream.inbox.read().await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Left);
            }
        }
    }

    /// Hears what the server is, and goes over to TLS where one of both wants it.
    async fn greet(&self, mut stream: TcpStream, host: &Host) -> Result<(Info, Stream), Trouble> {
        let mut bytes = Vec::new();
        let (info, len) = loop {
            if stream.read_buf(&mut bytes).await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Left);
            }
            match protocol::read(&bytes)? {
                Some((Said::Info(json), len)) => break (Info::read(json)?, len),
                Some((Said::Refused(reason), _)) => {
                    return Err(Trouble::refused(reason, &self.address.login));
                }
                Some(_) => return Err(Garbage.into()),
                None => {}
            }
        };
        bytes.drain(..len);
        let (read, write) = if info.tls_required || self.address.tls {
            if !info.tls_required && !info.tls_available {
                return Err(Trouble::Plain);
            }
            if !bytes.is_empty() {
                // Somebody else could have said it before anybody was proved to be there.
                return Err(Trouble::Garbage);
            }
            let tls = match self.tls.get() {
                Some(tls) => tls,
                None => {
                    let tls = Tls::new()?;
                    self.tls.get_or_init(|| tls)
                }
            };
            tls.over(stream, Tls::name(&host.name)?).await.map_err(Trouble::Tls)?
        } else {
            tls::plain(stream)
        };
        Ok((info, Stream { inbox: Inbox::new(read, bytes), write }))
    }

    /// The command that says who this is.
    fn connect(&self, info: &Info) -> Result<Vec<u8>, Trouble> {
        let mut options = json!({
            "verbose": false,
            "pedantic": false,
            "tls_required": info.tls_required || self.address.tls,
            "name": self.name,
            "lang": "tieline",
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": 1,
            // A canary is an echo.
            "echo": true,
            "headers": false,
        });
        let nonce = info.nonce.as_deref().unwrap_or_default();
        match &self.address.login {
            Login::Nobody => {}
            Login::User { user, password } => {
                options["user"] = user.as_str().into();
                options["pass"] = password.as_str().into();
            }
            Login::Token(token) => options["auth_token"] = token.as_str().into(),
            Login::Seed(file) => {
                let key = Key::in_file(&text_of(file)?)
                    .map_err(|reason| Trouble::Key { file: file.clone(), reason })?;
                options["nkey"] = key.public().into();
                options["sig"] = key.sign(nonce).into();
            }
            Login::Credentials(file) => {
                let text = text_of(file)?;
                let (token, key) = Key::in_credentials(&text)
                    .map_err(|reason| Trouble::Key { file: file.clone(), reason })?;
                options["jwt"] = token.into();
                options["sig"] = key.sign(nonce).into();
            }
        }
        Ok(format!("CONNECT {options}\r\n").into_bytes())
    }
}

/// A small file, read at once: it holds up nobody for long.
fn text_of(file: &Path) -> Result<String, Trouble> {
    let read = || {
        if fs::metadata(file)?.len() > MAX_FILE {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        fs::read_to_string(file)
    };
    read().map_err(|error| Trouble::File { file: file.to_owned(), error })
}
