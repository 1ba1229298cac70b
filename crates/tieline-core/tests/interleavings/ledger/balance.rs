//! The end of a run: everything is delivered that will be, and the books have to balance.

use super::{Ledger, Message, Peer};
use crate::wire::{Target, Who};

impl Ledger {
    /// Everybody has read everything.
    ///
    /// # Panics
    /// When somebody did not get what it had to, or was told what is not so.
    pub(crate) fn balance(&self) {
        for (who, peer) in self.peers.iter().enumerate() {
            assert!(peer.is_gone() || !peer.is_owed(), "connection {who} waits for an answer: {peer:?}");
        }
        for (number, message) in self.messages.iter().enumerate() {
            if message.sent.is_none() {
                continue;
            }
            for (who, peer) in self.peers.iter().enumerate() {
                let missed = !message.got.contains(&who) && self.has_to_get(message, who);
                assert!(
                    !missed || self.is_excused(message, peer),
                    "connection {who} missed message {number}: {message:?} {peer:?}"
                );
            }
            if let Some((delivered, unknown)) = message.told {
                self.check_told(number, message, delivered, unknown);
            }
        }
        self.transcript.check();
    }

    /// One that ended misses what comes after its last message, but nothing between.
    fn is_excused(&self, message: &Message, peer: &Peer) -> bool {
        let reached = message.reached[peer.guest.place].unwrap_or(u64::MAX);
        peer.is_gone() && (!self.is_lone || reached > peer.last_reached)
    }

    fn check_told(&self, number: usize, message: &Message, delivered: Option<u64>, unknown: Option<u64>) {
        let got = message.got.len() as u64;
        let may_have = |who: &Who| {
            self.peers[*who].is_gone() && !message.got.contains(who) && self.may_get(message, *who)
        };
        let ended = (0..self.peers.len()).filter(may_have).count() as u64;
        let delivered = delivered.unwrap_or_else(|| panic!("nobody knows what became of {number}"));
        assert!(
            (got..=got + ended).contains(&delivered),
            "{got} (and {ended} that ended) got message {number}, and its ack says {delivered}: {message:?}"
        );
        // Who is closed for its lag ends in the middle of a step, which is not seen here.
        if self.is_lone && !self.short_of_lag {
            assert_eq!(unknown, Some(self.unknown(message)), "of message {number}: {message:?}");
        }
    }

    /// Named users that were nowhere when it was sent, and connections that were not there when it came.
    fn unknown(&self, message: &Message) -> u64 {
        let Target::Many { connections, .. } = &message.target else { return message.absent };
        let hub = self.peers[message.sender].guest.hub;
        let is_unknown = |who: &&Who| {
            let peer = &self.peers[**who];
            let reached = message.reached[peer.guest.place].unwrap_or(u64::MAX);
            peer.guest.hub != hub || peer.presence.asked > reached || peer.presence.out <= reached
        };
        message.absent + connections.iter().filter(is_unknown).count() as u64
    }
}
