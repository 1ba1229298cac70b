//! Sends and events as lines for people.

use crate::history::{Event, History, Message, Outcome, Position, Send, What};

impl History {
    /// What a sender said, a line for each message.
    pub fn said(&self, sender: usize) -> impl Iterator<Item = String> {
        self.senders[sender].sends.iter().map(|send| send_in_words(send, self))
    }

    /// What happened to a receiver, a line for each event.
    pub fn heard(&self, receiver: usize) -> impl Iterator<Item = String> {
        self.receivers[receiver].events.iter().map(|event| event_in_words(event, self))
    }

    /// A message in words.
    pub fn words(&self, message: Message) -> String {
        let sender = self.senders.get(usize::from(message.sender));
        let sender = sender.map_or("a sender that there is not", |sender| &sender.name);
        format!("#{} of {sender} to {}", message.counter, self.target(message.target))
    }

    /// The name of a target.
    pub fn target(&self, target: u16) -> &str {
        self.targets.get(usize::from(target)).map_or("a target that there is not", |target| &target.name)
    }
}

fn seconds(at: u32) -> String {
    format!("{:>4}.{:03}", at / 1000, at % 1000)
}

fn at(position: Option<Position>) -> String {
    position.map(|position| format!(" at {position}")).unwrap_or_default()
}

pub(crate) fn send_in_words(send: &Send, history: &History) -> String {
    let outcome = match send.outcome {
        Outcome::Acked => "acknowledged",
        Outcome::Refused => "refused",
        Outcome::Unknown => "unknown",
    };
    let Send { target, counter, connection, .. } = send;
    let (time, target) = (seconds(send.at), history.target(*target));
    format!("{time} #{counter} to {target} on connection {connection}: {outcome}")
}

pub(crate) fn event_in_words(event: &Event, history: &History) -> String {
    let what = match &event.what {
        What::Opened => "opened".to_owned(),
        What::Asked { target, since: None } => format!("asks for {}", history.target(*target)),
        What::Asked { target, since: Some(since) } => {
            format!("asks for {} since {since}", history.target(*target))
        }
        What::Joined { target, recovered, position } => {
            let recovered = match recovered {
                None => String::new(),
                Some(Ok(())) => ", recovered".to_owned(),
                Some(Err(reason)) => format!(", not recovered: {reason}"),
            };
            format!("joined {}{}{recovered}", history.target(*target), at(*position))
        }
        What::Leaving(target) => format!("is leaving {}", history.target(*target)),
        What::Left(target) => format!("is not, or no more, in {}", history.target(*target)),
        What::Heard { by, message, position } => {
            let by = if *by == message.target { "" } else { " by another target" };
            format!("{}{}{by}", history.words(*message), at(*position))
        }
        What::Strange(text) => format!("strange: {text}"),
        What::Gap => "gap".to_owned(),
        What::Closed => "closed".to_owned(),
    };
    format!("{} connection {}: {what}", seconds(event.at), event.connection)
}
