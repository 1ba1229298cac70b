//! [`Lane`]: a connection to one master of a Redis Cluster, subscribed to those of the node's channels that this one holds. One
//! that holds none of them is only published to, and its answers are the sign that it is there.

use std::sync::Arc;

use tieline_core::broker::{Inbound, To};

use super::super::Trouble;
use super::super::channels::Channels;
use super::super::connection::Dialler;
use super::super::link::Link;
use super::super::resp::{self, Answer, Said};
use crate::hosts::Host;
use crate::inbox::Inbox;
use crate::medium::stream::{self, Heard, Signs, Speech, Stream};
use crate::medium::{Pace, Queue};

/// Which of the node's channels a master holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Duty {
    /// What goes to all.
    pub(super) all: bool,
    /// What goes to this node.
    pub(super) own: bool,
}

/// A connection that carries.
pub(super) struct Lane {
    pub(super) host: Host,
    pub(super) duty: Duty,
    stream: Stream,
}

impl Lane {
    /// Connects, and subscribes to what the master holds; then a canary must come back.
    pub(super) async fn open(
        dialler: Arc<Dialler>,
        host: Host,
        duty: Duty,
        channels: &Channels,
        inbound: &dyn Inbound,
    ) -> Result<Lane, Trouble> {
        let (mut link, greetings) = Link::connect(&dialler).await?;
        link.send().await?;
        let greeting = link.answers(greetings, |answers| match answers.first() {
            Some(Answer::Refused(reason)) => Err(dialler.refused(reason)),
            _ => Ok(()),
        });
        greeting.await??;
        let mut stream = link.into_stream();
        if duty != Duty::default() {
            let subscribed = (duty.all, duty.own);
            stream = dialler.subscribe(stream, Vec::new(), subscribed, channels, inbound).await?;
        }
        Ok(Lane { host, duty, stream })
    }

    /// Runs it to its end, and says what ended it.
    pub(super) async fn run(
        self,
        pace: &Pace,
        queue: &Arc<Queue<Signs>>,
        channels: &Arc<Channels>,
        inbound: &dyn Inbound,
    ) -> Trouble {
        let Lane { duty, stream, .. } = self;
        let mouth = Mouth { channels: Arc::clone(channels), duty };
        let hear = |inbox: &mut Inbox| {
            if duty == Duty::default() { hear_answers(inbox) } else { channels.hear(inbox, inbound, None) }
        };
        stream::run(pace, stream, queue, mouth, hear).await
    }
}

/// What is said over a lane.
struct Mouth {
    channels: Arc<Channels>,
    duty: Duty,
}

impl Speech for Mouth {
    fn canary(&self, out: &mut Vec<u8>) {
        if self.duty == Duty::default() {
            resp::command(out, &[b"PING"]);
        } else {
            self.channels.canary_on(self.duty.own, out);
        }
    }

    fn publish(&self, out: &mut Vec<u8>, to: To, envelope: &[u8]) {
        self.channels.publish(out, to, envelope);
    }

    /// Redis asks nothing.
    fn answer(&self, _: &mut Vec<u8>) {}
}

/// Of a server that is only published to, any answer shows that it is there.
fn hear_answers(inbox: &mut Inbox) -> Result<Heard, Trouble> {
    let mut heard = Heard::default();
    while let Some((said, len)) = resp::read(inbox.bytes())? {
        match said {
            Said::Refused(reason) => return Err(Trouble::refused(reason, None)),
            _ => heard.canary = true,
        }
        inbox.understood(len);
    }
    Ok(heard)
}
