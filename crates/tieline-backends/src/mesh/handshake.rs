//! Who are you, and do you know the secret? Then: is this the link between the two of us?
//!
//! ```text
//! dialler                                      acceptor
//!    hello {version, cluster, node, address, nonce} →
//!    ← hello
//!    proof {proof, lost} →
//!    ← proof {proof, lost}
//!    ← or →  link {number}         by the node with the smaller incarnation
//! ```
//!
//! Each side refuses by a close code as soon as it knows enough; see [`Refusal`]. The link word is [`Peers::claim`]'s
//! decision. Tested by the mesh's tests, over sockets.
//!
//! [`Peers::claim`]: super::peers::Peers::claim

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tieline_proto::NodeId;
use tieline_websocket::{Event, Kind};

use super::Mesh;
use super::link::Link;
use super::peers::NotClaimed;
use super::proof::Side;
use super::refusal::Refusal;
use super::settings::check_address;
use super::wire::Wire;
use super::words::{Hello, OLDEST, VERSION, Word};

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// This node refuses.
    #[error("refused: {}", .0.text())]
    Refuse(Refusal),
    /// The peer does, by its close code, if that is one of ours.
    #[error("refused by the peer: {}", .0.map_or("it did not say why", Refusal::text))]
    Refused(Option<Refusal>),
    /// The network failed, or the peer went away.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A link that is claimed and not yet run.
pub(super) struct Shaken {
    /// The link.
    pub(super) link: Arc<Link>,
    /// The word the peer waits for, if this node is the one that chooses.
    pub(super) greeting: Option<Vec<u8>>,
}

/// Makes a link over an upgraded socket. `met` is set as soon as the other side has said who it is.
pub(super) async fn shake(
    mesh: &Mesh,
    wire: &mut Wire,
    side: Side,
    met: &mut Option<NodeId>,
) -> Result<Shaken, Failure> {
    let mine = mesh.hello()?;
    let mine_text = Word::Hello(mine.clone()).to_text();
    let (theirs, theirs_text) = match side {
        Side::Dialler => {
            wire.say(&mine_text).await?;
            hear_hello(mesh, wire).await?
        }
        Side::Acceptor => {
            let heard = hear_hello(mesh, wire).await?;
            wire.say(&mine_text).await?;
            heard
        }
    };
    *met = Some(theirs.node.clone());

    let (dialler, acceptor) = match side {
        Side::Dialler => (&mine_text, &theirs_text),
        Side::Acceptor => (&theirs_text, &mine_text),
    };
    let word = || {
        let lost = mesh.peers.lost(theirs.node.incarnation);
        Word::Proof { proof: mesh.prover.prove(side, dialler, acceptor), lost }.to_text()
    };
    if side == Side::Dialler {
        wire.say(&word()).await?;
    }
    let Word::Proof { proof, lost } = hear(wire).await?.0 else {
        return Err(Failure::Refuse(Refusal::NotAPeer));
    };
    let other = if side == Side::Dialler { Side::Acceptor } else { Side::Dialler };
    if !mesh.prover.holds(&proof, other, dialler, acceptor) {
        return Err(Failure::Refuse(Refusal::Secret));
    }
    if side == Side::Acceptor {
        wire.say(&word()).await?;
    }
    wire.inbox.trust();

    let chooses = mesh.node.incarnation < theirs.node.incarnation;
    let address = address_of(&theirs, wire.stream.peer_addr()?.ip());
    let number = if chooses {
        mesh.next_link_number()
    } else {
        match hear(wire).await?.0 {
            Word::Link { number } => number,
            _ => return Err(Failure::Refuse(Refusal::NotAPeer)),
        }
    };
    let link = Arc::new(Link::new(theirs.node, address, number, mesh.settings.queue));
    let replaces = if chooses { lost } else { u64::MAX };
    match mesh.peers.claim(&link, replaces).await {
        Ok(()) => {}
        Err(NotClaimed::Duplicate) => return Err(Failure::Refuse(Refusal::Duplicate)),
        Err(NotClaimed::Stopping) => return Err(Failure::Refuse(Refusal::Stopping)),
    }
    Ok(Shaken { link, greeting: chooses.then(|| Word::Link { number }.to_text()) })
}

/// The other side's first word, when there can be a link with it, and its bytes.
async fn hear_hello(mesh: &Mesh, wire: &mut Wire) -> Result<(Hello, Vec<u8>), Failure> {
    let (Word::Hello(hello), text) = hear(wire).await? else {
        return Err(Failure::Refuse(Refusal::NotAPeer));
    };
    let refusal = if hello.node.incarnation == mesh.node.incarnation {
        Refusal::Itself
    } else if !(OLDEST..=VERSION + 1).contains(&hello.version) {
        // The one after decides itself whether it still speaks this one.
        Refusal::Version
    } else if hello.cluster != mesh.settings.cluster {
        Refusal::Cluster
    } else if check_address(&hello.address).is_err() {
        Refusal::NotAPeer
    } else {
        return Ok((hello, text));
    };
    Err(Failure::Refuse(refusal))
}

/// The next word, and its bytes.
async fn hear(wire: &mut Wire) -> Result<(Word, Vec<u8>), Failure> {
    loop {
        match wire.inbox.next() {
            Ok(None) => {}
            Ok(Some(Event::Message { kind: Kind::Text, payload })) => {
                let word = Word::from_text(payload).ok_or(Failure::Refuse(Refusal::NotAPeer))?;
                return Ok((word, payload.to_vec()));
            }
            Ok(Some(Event::Close(frame))) => {
                return Err(Failure::Refused(frame.and_then(|frame| Refusal::from_code(frame.code))));
            }
            Ok(Some(_)) | Err(_) => return Err(Failure::Refuse(Refusal::NotAPeer)),
        }
        wire.read().await?;
    }
}

/// Where the peer is dialled: as it says, at the host it is seen under if it does not know that itself.
fn address_of(hello: &Hello, seen: IpAddr) -> String {
    match hello.address.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            std::net::SocketAddr::new(seen.to_canonical(), address.port()).to_string()
        }
        _ => hello.address.clone(),
    }
}
