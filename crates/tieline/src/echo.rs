//! `tieline echo`: answers each message with itself, through the same connection code that `serve` uses. Conformance suites and
//! load tools run against it.
//!
//! All that is echo is here: an application of the switchboard and an endpoint of the edge. Tested by `tests/echo.rs` and by
//! Autobahn's suite.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tieline_proto::CloseCode;
use tieline_switchboard::{Application, Cause, Format, Placement, Settings, Shard, Slot, Switchboard, Weigh};
use tieline_websocket::{DeflatePolicy, Kind, Limits};

use crate::Failure;
use crate::cli::EchoArgs;
use crate::config;
use crate::http::{self, Asked, Edge, EdgeSettings, Endpoint, HttpTally, Refusal, Verdict, Welcome};
use crate::stop::Signals;

/// Size of the fragments that the largest message may be cut into, in bytes.
const SMALLEST_FRAGMENT: usize = 64;

/// Answers each message with itself. It keeps nothing.
#[derive(Debug)]
pub struct EchoApplication;

/// Nobody asks an echo for anything.
#[derive(Debug)]
pub enum NoCommand {}

impl Weigh for NoCommand {
    fn weight(&self) -> usize {
        match *self {}
    }
}

impl Application for EchoApplication {
    type Session = ();
    type Arrival = ();
    type Command = NoCommand;

    fn arrive(&mut self, _: &mut Shard<Self>, (): ()) -> Placement<()> {
        Placement::Open(())
    }

    fn opened(&mut self, _: &mut Shard<Self>, _: Slot) {}

    fn resumed(&mut self, _: &mut Shard<Self>, _: Slot) {}

    fn message(&mut self, shard: &mut Shard<Self>, slot: Slot, kind: Kind, payload: &[u8]) {
        shard.send(slot, kind, |frame| frame.extend_from_slice(payload));
    }

    fn cut(&mut self, _: &mut Shard<Self>, _: Slot, _: &Cause) -> bool {
        false
    }

    fn closed(&mut self, _: &mut Shard<Self>, _: Slot, (): (), _: &Cause) {}

    fn command(&mut self, _: &mut Shard<Self>, command: NoCommand) {
        match command {}
    }

    fn tick(&mut self, _: &mut Shard<Self>) {}

    fn close_frame(&self, (): &(), cause: &Cause) -> (u16, &'static str) {
        let code = match cause {
            Cause::Protocol(1007) => CloseCode::InvalidPayload,
            Cause::Protocol(1009) => CloseCode::MessageTooBig,
            Cause::Protocol(_) => CloseCode::ProtocolError,
            Cause::Lag => CloseCode::SlowConsumer,
            Cause::Memory => CloseCode::TryAgainLater,
            Cause::Idle | Cause::Silent => CloseCode::Idle,
            Cause::Peer(_) | Cause::Cut | Cause::Expired | Cause::Application(_) | Cause::Stopped => {
                CloseCode::Normal
            }
        };
        (code.code(), code.text())
    }
}

/// Takes everybody, on any path.
#[derive(Debug)]
pub struct EchoEndpoint;

impl Endpoint for EchoEndpoint {
    type Application = EchoApplication;

    fn owns(&self, _: &str) -> bool {
        true
    }

    fn receive(&self, _: &Asked<'_>) -> Result<Verdict<()>, Refusal> {
        Ok(Verdict::Granted(Welcome { protocol: None, shard: None, format: Format::plain(0), arrival: () }))
    }
}

/// How an echo is set up.
#[derive(Clone, Debug)]
pub struct EchoSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it agrees to permessage-deflate.
    pub deflate: bool,
    /// The largest message it takes, in bytes.
    pub max_message: usize,
}

impl EchoSettings {
    fn switchboard(&self) -> Settings {
        let defaults = Settings::default();
        // Conformance suites cut their largest messages into the smallest frames.
        let fragments = u32::try_from(self.max_message / SMALLEST_FRAGMENT).unwrap_or(u32::MAX);
        let max_fragments = fragments.max(defaults.inbound.max_fragments);
        Settings {
            inbound: Limits { max_frame: self.max_message, max_message: self.max_message, max_fragments },
            // A client may send a few of the largest messages before it reads the first one's echo.
            max_lag: defaults.max_lag.max(self.max_message.saturating_mul(4)),
            ..defaults
        }
    }

    fn edge(&self) -> EdgeSettings {
        let defaults = EdgeSettings::of(&config::Settings::default());
        EdgeSettings { deflate: self.deflate.then(DeflatePolicy::default), ..defaults }
    }
}

/// Runs the echo until a signal stops it. `ready` is told the address that was bound.
///
/// # Errors
/// When the address cannot be bound or the shards cannot be started.
pub async fn serve(
    settings: EchoSettings,
    ready: impl FnOnce(SocketAddr) -> io::Result<()>,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let backlog = config::Limits::default().backlog;
    let listener =
        http::bind(settings.listen, backlog).map_err(|error| Failure::bind(settings.listen, error))?;
    let address = listener.local_addr().map_err(|error| Failure::bind(settings.listen, error))?;
    let shards = std::thread::available_parallelism().map_or(1, usize::from);
    let switchboard = Switchboard::start(shards, settings.switchboard(), |_, _| EchoApplication)?;
    let handle = switchboard.handle().clone();
    let tally = Arc::new(HttpTally::default());
    let edge = Edge::new(EchoEndpoint, Router::new(), handle, address, settings.edge(), tally);
    ready(address).map_err(Failure::Output)?;
    let served = edge.serve(listener, stop).await;
    crate::stop::switchboard(switchboard).await?;
    served.map_err(Failure::Runtime)
}

/// `tieline echo`.
///
/// # Errors
/// As [`serve`].
pub async fn run(args: &EchoArgs) -> Result<(), Failure> {
    let settings = EchoSettings { listen: args.listen, deflate: args.deflate, max_message: args.max_message };
    let signals = Signals::new().map_err(Failure::Signals)?;
    serve(settings, announce, signals.stop()).await
}

/// Tells whoever started the program where it listens.
///
/// # Errors
/// When the standard output is closed.
pub fn announce(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    out.flush()
}
