//! The proof that a node knows the cluster's secret: an HMAC-SHA256 over what both sides said.
//!
//! It covers a label of the prover's role and both hellos, byte for byte as they were on the wire. With them it covers both
//! nonces, both node ids, the cluster, the versions and the addresses: a proof fits this link and this role alone, and
//! cannot be played back or reflected. The secret itself never travels. What follows the handshake is neither encrypted
//! nor signed: between machines that is the network's task.
//!
//! Tested here by changing each part.

use aws_lc_rs::hmac;

use super::settings::Secret;

/// Whose proof it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The node that connected.
    Dialler,
    /// The node that was connected to.
    Acceptor,
}

impl Side {
    const fn label(self) -> &'static [u8] {
        match self {
            Side::Dialler => b"tieline.peer.v1 dialler",
            Side::Acceptor => b"tieline.peer.v1 acceptor",
        }
    }
}

/// Makes and checks proofs.
pub(super) struct Prover(hmac::Key);

impl Prover {
    /// Without a secret the proofs still hold the hellos together, but anybody can make them.
    pub(super) fn new(secret: Option<&Secret>) -> Self {
        Prover(hmac::Key::new(hmac::HMAC_SHA256, secret.map_or(b"no secret".as_slice(), Secret::bytes)))
    }

    /// The proof of `side`.
    pub(super) fn prove(&self, side: Side, dialler: &[u8], acceptor: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.0, &transcript(side, dialler, acceptor));
        tag.as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }

    /// Whether this is the proof of `side`; the time it takes does not tell how much of it is right.
    pub(super) fn holds(&self, proof: &[u8], side: Side, dialler: &[u8], acceptor: &[u8]) -> bool {
        hmac::verify(&self.0, &transcript(side, dialler, acceptor), proof).is_ok()
    }
}

/// The parts, each behind its length, so that no two lists of parts give the same bytes.
fn transcript(side: Side, dialler: &[u8], acceptor: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(dialler.len() + acceptor.len() + 64);
    for part in [side.label(), dialler, acceptor] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prover(secret: &str) -> Prover {
        Prover::new(Some(&Secret::new(secret).unwrap()))
    }

    #[test]
    fn a_proof_fits_its_secret_role_and_hellos_alone() {
        let proof = prover("s").prove(Side::Dialler, b"one", b"two");
        assert!(prover("s").holds(&proof, Side::Dialler, b"one", b"two"));
        assert!(!prover("t").holds(&proof, Side::Dialler, b"one", b"two"));
        assert!(!Prover::new(None).holds(&proof, Side::Dialler, b"one", b"two"));
        assert!(!prover("s").holds(&proof, Side::Acceptor, b"one", b"two"), "reflected");
        assert!(!prover("s").holds(&proof, Side::Dialler, b"two", b"one"));
        assert!(!prover("s").holds(&proof, Side::Dialler, b"onet", b"wo"), "parts moved");
        assert!(!prover("s").holds(&proof[..31], Side::Dialler, b"one", b"two"));
        assert!(!prover("s").holds(&[], Side::Dialler, b"one", b"two"));
        for bit in 0..256 {
            let mut spoiled = proof;
            spoiled[bit / 8] ^= 1 << (bit % 8);
            assert!(!prover("s").holds(&spoiled, Side::Dialler, b"one", b"two"), "bit {bit}");
        }
    }
}
