//! A connection to a member, from the name's resolution until it is proved to carry: authenticated, subscribed, and a canary has
//! come back through each of the two topics that it hears. Not what is done with it then: that is `session.rs`.
//!
//! Every attempt resolves the names anew, so a member that moved is found, and subscribes anew, because a member forgets its
//! clients' subscriptions with their connections. Tested by the broker's tests, against real members and strangers.

use tieline_core::broker::Inbound;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::address::Login;
use super::calls::Calls;
use super::protocol::{self, Answer, Greeter, Greeting, Message};
use super::topics::{ALL, Place, Publisher};
use super::{Hazelcast, Trouble};
use crate::hosts::Host;
use crate::inbox::{Inbox, Writer};

/// The correlation of the first call on a connection.
const FIRST: i64 = 1;

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
    /// Who we are.
    Authenticate,
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
        let target = (member.name.as_str(), member.port);
        let stream = TcpStream::connect(target).await.map_err(Trouble::Connect)?;
        // Without it batches are only later, not wrong.
        drop(stream.set_nodelay(true));
        let (read, write) = stream.into_split();
        let mut connection = Connection {
            inbox: Inbox::new(Box::new(read), Vec::new()),
            write: Box::new(write),
            partitions: Vec::new(),
            calls: Calls::new(FIRST),
            session: self.next_session(),
        };
        let mut out = protocol::PREAMBLE.to_vec();
        for step in [Step::Authenticate, Step::Listen, Step::Canary] {
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
            Step::Authenticate => {
                let login = engine.settings.address.login.as_ref();
                let greeter = Greeter {
                    // No other connection of any node has it.
                    id: u128::from(engine.node.0) << 64 | u128::from(self.session),
                    cluster: &engine.settings.address.cluster,
                    login: login.map(|Login { user, password }| (user.as_str(), password.as_str())),
                    name: &engine.name,
                };
                protocol::authenticate(out, self.calls.begin(), &greeter);
            }
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
                    Answer::Done => {
                        self.calls.end(message.correlation())?;
                        if let Step::Authenticate = step {
                            self.partitions = welcomed(&message, engine)?;
                        }
                    }
                    Answer::Other => {}
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

/// What the response to an authentication is worth: the partition of each topic. A member that refuses leaves the connection open.
fn welcomed(message: &Message<'_>, engine: &Hazelcast) -> Result<Vec<i32>, Trouble> {
    match message.greeting()? {
        Greeting::Welcome(count) => Ok(engine.names.partitions(count)?),
        Greeting::WrongLogin => Err(Trouble::Login { cluster: engine.settings.address.cluster.clone() }),
        Greeting::NotAllowed(reason) => {
            Err(Trouble::Refused(format!("it does not take this client, for its reason number {reason}")))
        }
    }
}
