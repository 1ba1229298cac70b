//! [`Front`]: a gateway in the process of the test.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use clap::Parser;
use tieline::Failure;
use tieline::gateway::{self, GatewayAddresses, GatewaySettings};
use tieline_core::registry::{Member, NodeState, Registration, SharedView, View};
use tieline_core::ring::{Ring, RingHash};
use tieline_proto::{Incarnation, NodeId, NodeName};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

use crate::support::http::call;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: GatewaySettings,
}

/// A node as the registry shows it: its name, where it is, and whether it takes clients.
pub(super) type Shown<'a> = (&'a str, SocketAddr, bool);

/// A running gateway. Dropped, it is stopped as by a signal, and must end well.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    view: watch::Sender<SharedView>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

fn view(nodes: &[Shown<'_>]) -> SharedView {
    let member = |(name, address, takes): &Shown<'_>| Member {
        id: NodeId { name: NodeName::new(name).unwrap(), incarnation: Incarnation(0) },
        registration: Registration {
            client_url: format!("ws://{address}"),
            state: if *takes { NodeState::Up } else { NodeState::Draining },
            ..Registration::default()
        },
        is_enabled: true,
    };
    Arc::new(View { members: nodes.iter().map(member).collect(), ..View::default() })
}

/// A user whom the ring of these nodes gives to one of them.
pub(super) fn user_of(owner: &str, nodes: &[&str]) -> String {
    let ring = Ring::new(RingHash::Tieline, nodes.iter().map(|name| (*name, 1)));
    let mut users = (0..).map(|number| format!("user-{number}"));
    users.find(|user| ring.owner(user) == Some(owner)).unwrap()
}

impl Front {
    /// Starts a gateway in front of these nodes, with more flags. It gives up on silent nodes after 300 ms, and stops at once.
    pub(super) fn start(flags: &[&str], nodes: &[Shown<'_>]) -> Front {
        let usual = ["gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--threads", "2"];
        let quick = ["--answer-timeout", "300ms", "--check-every", "100ms", "--grace", "0s"];
        // Of a flag that is there twice the later one counts.
        let command = <Flags as clap::CommandFactory>::command().args_override_self(true);
        let matches = command.get_matches_from([&usual[..], &quick, flags].concat());
        let settings = <GatewaySettings as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        let (sender, receiver) = watch::channel(view(nodes));
        let (ready, addresses) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(
                gateway::serve(
                    settings,
                    receiver,
                    move |addresses| {
                        ready.send(addresses).unwrap();
                        Ok(())
                    },
                    async { drop(stopped.await) },
                ),
            )
        });
        let GatewayAddresses { clients, admin } = addresses.recv().expect("the gateway started");
        Front {
            address: clients,
            admin: admin.unwrap(),
            view: sender,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The registry shows these from now on.
    pub(super) fn show(&self, nodes: &[Shown<'_>]) {
        self.view.send_replace(view(nodes));
    }

    /// The value of a metric without its prefix.
    pub(super) fn metric(&self, name: &str) -> u64 {
        let metrics = call(self.admin, "GET", "/metrics", "", "").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("tieline_gateway_{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().unwrap()
    }

    /// Begins to stop, and gives the thread that waits for the end.
    pub(super) fn begin_stop(&mut self) -> JoinHandle<Result<(), Failure>> {
        let _ = self.stop.take().expect("it is stopped once").send(());
        self.thread.take().expect("it is stopped once")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if self.stop.is_some() && !thread::panicking() {
            self.begin_stop().join().expect("the gateway does not panic").expect("the gateway ends well");
        }
    }
}
