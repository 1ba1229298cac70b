//! What a client hears, held against what it may hear.

use tieline_core::Subprotocol;

use super::{Answer, Done, Ledger, Message, NEVER, Peer, Standing};
use crate::net::Heard;
use crate::wire::{Data, Frame, GROUPS, Target, USERS, Who, padding};

impl Ledger {
    /// A frame has come to its client.
    ///
    /// # Panics
    /// When it is not one that the client may get, or not now.
    pub(crate) fn heard(&mut self, who: Who, heard: &Heard) {
        self.pass();
        self.note(|| format!("{who} hears {heard:?}"));
        match heard {
            Heard::Ping => {}
            Heard::Close(code) => self.heard_close(who, *code),
            Heard::Text(text) => {
                let frame: Frame<'_> = serde_json::from_str(text)
                    .unwrap_or_else(|error| panic!("{error} in what connection {who} got: {text}"));
                self.heard_frame(who, &frame, text);
            }
        }
    }

    fn heard_close(&mut self, who: Who, code: Option<u16>) {
        let peer = &mut self.peers[who];
        assert!(!peer.has_heard_close, "connection {who} was closed twice");
        // One that recovers has another socket.
        peer.has_heard_close = true;
        let lag = if peer.is_reliable() { 1008 } else { 4507 };
        let expected = [peer.refused, peer.closes_with, peer.closed_itself];
        let is_right = code.is_some_and(|code| {
            expected.contains(&Some(code))
                || (self.stops && code == 1001)
                || (self.short_of_lag && code == lag && peer.refused.is_none())
        });
        assert!(is_right, "connection {who} was closed with {code:?}: {peer:?}");
    }

    fn heard_frame(&mut self, who: Who, frame: &Frame<'_>, text: &str) {
        let peer = &mut self.peers[who];
        assert!(peer.refused.is_none(), "refused, connection {who} got {text}");
        assert!(!peer.has_heard_close, "closed, connection {who} got {text}");
        let is_greeting = frame.event == Some("connected");
        assert_eq!(is_greeting, peer.expects_greeting, "connection {who} got {text}");
        match frame.kind {
            Some("system") if is_greeting => self.heard_greeting(who, frame),
            Some("system") => {
                let is_told = frame.event == Some("disconnected") && peer.closes_with.is_some();
                assert!(is_told, "connection {who} got {text}");
            }
            Some("pong") => {
                self.settle(who, text, |(_, answer)| *answer == Answer::Pong);
            }
            Some("ack") => self.heard_ack(who, frame, text),
            Some("message") => self.heard_message(who, frame, text),
            Some("error") => self.heard_error(who, frame, text),
            None if frame.error.is_some() => self.heard_error(who, frame, text),
            None => self.heard_message(who, frame, text),
            Some(_) => panic!("connection {who} got {text}"),
        }
    }

    fn heard_greeting(&mut self, who: Who, frame: &Frame<'_>) {
        let now = self.now;
        let peer = &mut self.peers[who];
        peer.expects_greeting = false;
        if let Some(group) = peer.guest.token_group {
            self.transcript.joined(who, &peer.guest, group, now);
        }
        assert_eq!(frame.connection_id, Some(peer.id.as_str()));
        assert_eq!(frame.user_id, peer.guest.user.map(|user| USERS[user]));
        assert_eq!(frame.reconnection_token.is_some(), peer.is_reliable());
        peer.token = frame.reconnection_token.map(str::to_owned);
        if peer.presence.sure == NEVER {
            peer.presence.sure = now;
            // It was read of together with the connection itself.
            peer.guest.token_group.into_iter().for_each(|group| peer.groups[group][0].sure = now);
        }
    }

    /// Takes an answer that was owed.
    fn settle(&mut self, who: Who, text: &str, is_it: impl Fn(&(Option<u64>, Answer)) -> bool) -> Answer {
        let peer = &mut self.peers[who];
        if let Some(at) = peer.owed.iter().position(&is_it) {
            return peer.owed.remove(at).1;
        }
        let at = peer.perhaps.iter().position(is_it);
        let at = at.unwrap_or_else(|| panic!("nobody owes connection {who} this: {text}\n{peer:?}"));
        peer.perhaps.remove(at).1
    }

    fn heard_error(&mut self, who: Who, frame: &Frame<'_>, text: &str) {
        let name = frame.error.as_ref().map(|error| error.name());
        let plain = self.peers[who].guest.dialect == Subprotocol::Plain;
        self.settle(who, text, |(ack_id, answer)| {
            (plain || ack_id.is_none()) && matches!(answer, Answer::Error(of) if Some(*of) == name)
        });
    }

    fn heard_ack(&mut self, who: Who, frame: &Frame<'_>, text: &str) {
        let success = frame.success.expect("an ack says whether");
        let name = frame.error.as_ref().map(|error| error.name());
        let answer = self.settle(who, text, |(ack_id, answer)| {
            let fits = match answer {
                Answer::Done(_) => success,
                Answer::Error(of) => !success && Some(*of) == name,
                Answer::Pong => false,
            };
            ack_id.is_some() && *ack_id == frame.ack_id && fits
        });
        let now = self.now;
        let peer = &mut self.peers[who];
        peer.unanswered.retain(|request| request.ack_id != frame.ack_id);
        let is_told =
            peer.guest.dialect == Subprotocol::Tieline && matches!(answer, Answer::Done(Done::Sent(_)));
        assert_eq!(text.contains("\"delivered\""), is_told, "connection {who} got {text}");
        match answer {
            Answer::Done(Done::Joined(group, time)) => {
                if peer.standing[group] == Standing::Out {
                    peer.standing[group] = Standing::In;
                }
                let span = &mut peer.groups[group][time];
                span.sure = span.sure.min(now);
                self.transcript.joined(who, &peer.guest, group, now);
            }
            Answer::Done(Done::Left(group)) => {
                if peer.standing[group] == Standing::In {
                    peer.standing[group] = Standing::Out;
                }
                self.transcript.left(who, &peer.guest, group, now);
            }
            Answer::Done(Done::Sent(number)) if is_told => {
                self.messages[number].told = Some((frame.delivered, frame.unknown));
                self.check_told_not_before(number, text);
            }
            _ => {}
        }
    }

    /// A `tieline.v1` ack says that the message was handed to its recipients: so it reached their shards before.
    fn check_told_not_before(&self, number: usize, text: &str) {
        let message = &self.messages[number];
        for who in (0..self.peers.len()).filter(|who| self.is_lone && self.has_to_get(message, *who)) {
            let peer = &self.peers[who];
            assert!(
                peer.has_ended || message.reached[peer.guest.place].is_some(),
                "told of before it reached connection {who}: {text}"
            );
        }
        let sender = message.sender;
        if self.has_to_get(message, sender) && !self.peers[sender].has_ended {
            assert!(message.got.contains(&sender), "its ack overtook the message to its own sender: {text}");
        }
    }

    fn heard_message(&mut self, who: Who, frame: &Frame<'_>, text: &str) {
        let plain = self.peers[who].guest.dialect == Subprotocol::Plain;
        let data = if plain { &frame.msg } else { &frame.data };
        let Data { n: number, pad } = data.as_ref().unwrap_or_else(|| panic!("no message: {text}"));
        if self.peers[who].is_reliable() && self.is_replayed(who, *number, frame, text) {
            return;
        }
        let message = &self.messages[*number];
        assert_eq!(*pad, padding(message.pad));
        assert!(self.may_get(message, who), "connection {who} must not get {text}: {message:?}");
        assert!(!message.got.contains(&who), "connection {who} got it twice: {text}");
        self.check_words(who, *number, frame, text);
        if let Target::Group(group) = message.target {
            let standing = self.peers[who].standing[group];
            assert_ne!(standing, Standing::Out, "connection {who} is out of the group: {text}");
            if self.peers[who].guest.dialect == Subprotocol::Tieline {
                self.transcript.heard(who, &self.peers[who].guest, *number, group, self.now);
            }
        }
        self.check_order(who, *number, text);
        if let (true, Some(reached)) = (self.is_lone, message.reached[self.peers[who].guest.place]) {
            self.peers[who].last_reached = reached;
        }
        self.messages[*number].got.push(who);
    }

    /// Notes a number of the reliable protocol. Returns whether the client has the message already.
    fn is_replayed(&mut self, who: Who, number: usize, frame: &Frame<'_>, text: &str) -> bool {
        let peer = &mut self.peers[who];
        let sequence = frame.sequence_id.expect("a message of the reliable protocol has a number");
        // What it has acknowledged meanwhile is left out, unless it was on its way already.
        let next = peer.next_number..=peer.next_number.max(peer.acknowledged + 1);
        assert!(next.contains(&sequence), "connection {who} got {text}, not one of {next:?}");
        peer.next_number = sequence + 1;
        match peer.numbered.get(sequence as usize - 1) {
            Some(known) => {
                assert_eq!(
                    *known, number,
                    "connection {who} got another message under an old number: {text}"
                );
                true
            }
            None => {
                assert_eq!(peer.numbered.len() as u64 + 1, sequence, "a number is missing: {text}");
                peer.numbered.push(number);
                false
            }
        }
    }

    fn check_order(&self, who: Who, number: usize, text: &str) {
        let message = &self.messages[number];
        let peer = &self.peers[who];
        if let (true, Some(reached)) = (self.is_lone, message.reached[peer.guest.place]) {
            assert!(reached > peer.last_reached, "connection {who} got it out of order: {text}");
        }
        let overtaken = self.messages.iter().filter(|other| {
            other.sender == message.sender
                && other.sent > message.sent
                && same_target(&other.target, &message.target)
        });
        for other in overtaken {
            assert!(!other.got.contains(&who), "connection {who} got it behind a later one: {text}");
        }
    }

    fn check_words(&self, who: Who, number: usize, frame: &Frame<'_>, text: &str) {
        let Message { target, sender, .. } = &self.messages[number];
        let from_user = self.peers[*sender].guest.user.map(|user| USERS[user]);
        let dialect = self.peers[who].guest.dialect;
        let (group, user) = match target {
            Target::Group(group) => (Some(GROUPS[*group]), None),
            Target::User(user) => (None, Some(USERS[*user])),
            _ => (None, None),
        };
        let from = match (dialect, group, user) {
            (Subprotocol::Plain, ..) => None,
            (_, Some(_), _) => Some("group"),
            (Subprotocol::Tieline, _, Some(_)) => Some("user"),
            _ => Some("server"),
        };
        let told_from = if dialect == Subprotocol::Plain { frame.sender } else { frame.from_user_id };
        let told_to = match dialect {
            Subprotocol::Plain => frame.receiver,
            Subprotocol::Tieline => frame.to_user_id,
            _ => user,
        };
        let told = (frame.from, frame.group, told_from, told_to);
        assert_eq!(told, (from, group, from_user, user), "connection {who} got {text}");
    }
}

fn same_target(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::Group(one), Target::Group(other)) | (Target::User(one), Target::User(other)) => one == other,
        (Target::All, Target::All) => true,
        _ => false,
    }
}

impl Peer {
    /// Whether the server still owes it an answer.
    pub(crate) fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }
}
