//! A connection to the server. For the broker from the name's resolution until it is proved to carry: authenticated, subscribed,
//! and a canary has come back through it. Not what is done with it then: that is `medium/stream.rs`. The store takes the
//! connection and greets by itself.
//!
//! Every attempt resolves the name anew, so a server that moved is found. Tested by the broker's tests, against a real server
//! with and without password and TLS, and against strangers.

use std::io;

use tieline_core::broker::Inbound;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::channels::Channels;
use super::resp;
use super::settings::{Login, RedisAddress};
use super::{RedisError, Trouble};
use crate::hosts::Host;
use crate::inbox::Inbox;
use crate::medium::stream::Stream;
use crate::tls::{self, Tls, TlsError};

/// Who connects, and how.
pub(super) struct Dialler {
    address: RedisAddress,
    /// With `rediss://`.
    tls: Option<(Tls, ServerName<'static>)>,
    /// What the server's list of connections calls this one.
    name: String,
}

impl Dialler {
    /// Reads the system's certificates, if TLS is wanted.
    pub(super) fn new(address: RedisAddress, name: String) -> Result<Self, RedisError> {
        let tls = if address.tls { Some((Tls::new()?, Tls::name(&address.host)?)) } else { None };
        Ok(Dialler { address, tls, name })
    }

    /// Connects, and says nothing yet.
    pub(super) async fn connect(&self) -> Result<Stream, Trouble> {
        let target = (self.address.host.as_str(), self.address.port);
        let stream = TcpStream::connect(target).await.map_err(Trouble::Connect)?;
        // Without it batches are only later, not wrong.
        drop(stream.set_nodelay(true));
        let (read, write) = match &self.tls {
            None => tls::plain(stream),
            Some((tls, name)) => tls.over(stream, name.clone()).await.map_err(Trouble::Tls)?,
        };
        Ok(Stream { inbox: Inbox::new(read, Vec::new()), write })
    }

    /// The same for another server.
    pub(super) fn to(&self, host: &Host) -> Result<Dialler, Trouble> {
        let unfit = |error: TlsError| Trouble::Tls(io::Error::other(error));
        let name = |(tls, _): &(Tls, _)| Ok((tls.clone(), Tls::name(&host.name)?));
        let tls = self.tls.as_ref().map(name).transpose().map_err(unfit)?;
        let Host { name, port } = host.clone();
        let address = RedisAddress { host: name, port, ..self.address.clone() };
        Ok(Dialler { address, tls, name: self.name.clone() })
    }

    /// The same for servers that know somebody else, or nobody.
    pub(super) fn with_login(&self, login: Option<Login>) -> Dialler {
        let address = RedisAddress { login, ..self.address.clone() };
        Dialler { address, tls: self.tls.clone(), name: self.name.clone() }
    }

    /// Connects, authenticates, subscribes, and waits for a canary. What others publish meanwhile goes to `inbound`.
    pub(super) async fn dial(&self, channels: &Channels, inbound: &dyn Inbound) -> Result<Stream, Trouble> {
        let mut greeting = Vec::new();
        self.hello(&mut greeting);
        self.subscribe(self.connect().await?, greeting, (true, true), channels, inbound).await
    }

    /// Says the greeting, subscribes to what goes to all, or to this node, or both, sends a canary, and waits for that.
    pub(super) async fn subscribe(
        &self,
        mut stream: Stream,
        mut greeting: Vec<u8>,
        (all, own): (bool, bool),
        channels: &Channels,
        inbound: &dyn Inbound,
    ) -> Result<Stream, Trouble> {
        channels.subscribe_to(all, own, &mut greeting);
        channels.canary_on(own, &mut greeting);
        stream.write.write_all(&greeting).await.map_err(Trouble::Io)?;
        stream.write.flush().await.map_err(Trouble::Io)?;
        let login = self.address.login.as_ref();
        while !channels.hear(&mut stream.inbox, inbound, login)?.canary {
            if stream.inbox.read().await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Left);
            }
        }
        Ok(stream)
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
