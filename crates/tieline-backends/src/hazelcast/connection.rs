//! A connection to a member, from the name's resolution until it is authenticated, which is enough for a directory; and until it is
//! proved to carry: subscribed, and a canary has come back through each of the two topics that it hears. Not what is done with it
//! then: that is `session.rs`.
//!
//! Every attempt resolves the names anew, so a member that moved is found, and subscribes anew, because a member forgets its
//! clients' subscriptions with their connections. Tested by the broker's tests, against real members and strangers.

use tieline_core::broker::Inbound;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::address::{HazelcastAddress, Login};
use super::calls::Calls;
use super::protocol::{self, Answer, Greeter, Greeting};
use super::topics::{ALL, Place, Publisher};
use super::{Hazelcast, Trouble};
use crate::hosts::Host;
use crate::inbox::{Inbox, Writer};

/// The correlation of the first call on a connection, by which a client says who it is.
const FIRST: i64 = 1;

/// The correlation of the next one.
pub(super) const NEXT: i64 = FIRST + 1;

/// A connection whose member knows who the client is.
pub(super) struct Greeted {
    pub(super) inbox: Inbox,
    pub(super) write: Writer,
    /// How many partitions there are.
    pub(super) partitions: i32,
}

/// Connects to a member, and says who we are: a client of this name, with a number that no other connection has.
pub(super) async fn greet(
    member: &Host,
    address: &HazelcastAddress,
    name: &str,
    id: u128,
) -> Result<Greeted, Trouble> {
    let target = (member.name.as_str(), member.port);
    let stream = TcpStream::connect(target).await.map_err(Trouble::Connect)?;
    // Without it batches are only later, not wrong.
    drop(stream.set_nodelay(true));
    let (read, mut write) = stream.into_split();
    let login = address.login.as_ref().map(|Login { user, password }| (user.as_str(), password.as_str()));
    let greeter = Greeter { id, cluster: &address.cluster, login, name };
    let mut out = protocol::PREAMBLE.to_vec();
    protocol::authenticate(&mut out, FIRST, &greeter);
    write.write_all(&out).await.map_err(Trouble::Io)?;
    let mut inbox = Inbox::new(Box::new(read), Vec::new());
    loop {
        if let Some((message, len)) = protocol::read(inbox.bytes())? {
            if let Answer::Refused(refusal) = message.answer()? {
                return Err(refusal.into());
            }
            // A member that refuses leaves the connection open.
            let partitions = match message.greeting()? {
                Greeting::Welcome(partitions) => partitions,
                Greeting::WrongLogin => return Err(Trouble::Login { cluster: address.cluster.clone() }),
                Greeting::NotAllowed(reason) => {
                    let text = format!("it does not take this client, for its reason number {reason}");
                    return Err(Trouble::Refused(text));
                }
            };
            inbox.understood(len);
            return Ok(Greeted { inbox, write: Box::new(write), partitions });
        }
        if inbox.read().await.map_err(Trouble::Io)? == 0 {
            return Err(Trouble::Left);
        }
    }
}

/// A connection that carries.
pub struct Connection {
    pub(super) inbox: Inbox,
    pub(super) write: Writer,
    /// The partition of each topic.
    pub(super) partitions: Vec<i32>,
    /// The calls that are not answered yet.
    pub(super) calls: Calls,
    /// The number of the connection.
    pub(super) session: u32,
}

/// What is asked on a new connection, one after the other.
enum Step {
    /// What we hear.
    Listen,
    /// Whether what we say comes back.
    Canary,
}

impl Hazelcast {
    /// Connects to this member. What others publish meanwhile goes to `inbound`.
    pub(super) async fn dial_member(
        &self,
        member: &Host,
        inbound: &dyn Inbound,
    ) -> Result<Connection, Trouble> {
        let session = self.next_session();
        // No other connection of any node has it.
        let id = u128::from(self.node.0) << 64 | u128::from(session);
        let greeted = greet(member, &self.settings.address, &self.name, id).await?;
        let mut connection = Connection {
            inbox: greeted.inbox,
            write: greeted.write,
            partitions: self.names.partitions(greeted.partitions)?,
            calls: Calls::new(NEXT),
            session,
        };
        let mut out = Vec::new();
        for step in [Step::Listen, Step::Canary] {
            connection.ask(&step, self, &mut out);
            connection.write.write_all(&out).await.map_err(Trouble::Io)?;
            out.clear();
            connection.until_done(&step, self, inbound).await?;
        }
        Ok(connection)
    }
}

impl Connection {
    /// Who publishes on it.
    pub(super) fn publisher<'a>(&'a self, engine: &'a Hazelcast) -> Publisher<'a> {
        Publisher { names: &engine.names, partitions: &self.partitions, session: self.session }
    }

    fn ask(&mut self, step: &Step, engine: &Hazelcast, out: &mut Vec<u8>) {
        let places: [Place; 2] = [ALL, engine.names.own()];
        match step {
            Step::Listen => {
                for place in places {
                    protocol::listen(out, self.calls.begin(), engine.names.name(place));
                }
            }
            Step::Canary => {
                for place in places {
                    let correlation = self.calls.begin();
                    self.publisher(engine).canary(out, correlation, place);
                }
            }
        }
    }

    /// Reads until the calls of this step are answered, and the canaries are back.
    async fn until_done(
        &mut self,
        step: &Step,
        engine: &Hazelcast,
        inbound: &dyn Inbound,
    ) -> Result<(), Trouble> {
        let mut canaries = if matches!(step, Step::Canary) { 2 } else { 0 };
        loop {
            while let Some((message, len)) = protocol::read(self.inbox.bytes())? {
                match message.answer()? {
                    Answer::Published(item) => {
                        if engine.take(item, inbound) == Some(self.session) {
                            canaries -= 1;
                        }
                    }
                    Answer::Refused(refusal) => return Err(refusal.into()),
                    Answer::Done => self.calls.end(message.correlation())?,
                    Answer::Lost | Answer::Other => {}
                }
                self.inbox.understood(len);
            }
            if self.calls.is_empty() && canaries <= 0 {
                return Ok(());
            }
            if self.inbox.read().await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Left);
            }
        }
    }
}
