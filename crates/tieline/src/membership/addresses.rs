//! Which addresses of this node others are told. An address that leads nowhere, or to whoever reads it, is not told to nodes of
//! other machines: their gateways would send clients to themselves. Tested by tables below.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tieline_core::registry::{Member, Registry};

use crate::config::Server;
use crate::registry::RegistryUrl;

/// Why an address is not told to others.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nobody knows where clients connect.
    #[error(
        "`--registry` tells others where clients reach this node, and `--listen {0}` stands for every address of the machine: give the right one by `--client-url`"
    )]
    NoClientUrl(SocketAddr),
    /// Nobody knows where nodes connect.
    #[error(
        "`--registry` tells other nodes where to connect, and `{0}` stands for every address of the machine: give the right one by `--peer-advertise HOST:PORT`"
    )]
    NoPeerAddress(String),
    /// The address stands for every address of the machine.
    #[error(
        "nobody can connect to `{0}`, which stands for every address of a machine: `--client-url` names one of them"
    )]
    Unspecified(String),
    /// Clients elsewhere would be sent to their own machine.
    #[error(
        "clients are told to connect to `{url}`, which leads to nobody but this machine, while {why}: give the right address by `--client-url`"
    )]
    LocalClients {
        /// Where clients are told to connect.
        url: String,
        /// What is elsewhere.
        why: String,
    },
    /// Nodes elsewhere would connect to themselves.
    #[error(
        "other nodes are told to connect to `{address}`, which leads to nobody but this machine, while {why}: give the right address by `--peer-advertise HOST:PORT`"
    )]
    LocalPeers {
        /// Where nodes are told to connect.
        address: String,
        /// What is elsewhere.
        why: String,
    },
}

/// What is known of whom this node is told to.
pub(super) struct Surroundings {
    /// What shows that somebody is on another machine; none where everybody may be on this one.
    elsewhere: Option<String>,
    /// Whether the registry tells anybody of this node.
    declares: bool,
}

impl Surroundings {
    /// Looks at the registry's own address, and at who is registered there already.
    pub(super) fn of(url: &RegistryUrl, registry: Option<&Arc<dyn Registry>>) -> Self {
        let server = url.server();
        let declares = server.is_some();
        let remote_server = server.filter(|(_, is_local)| !is_local);
        let elsewhere =
            remote_server.map(|(server, _)| format!("the registry at {server} is on another one"));
        let member = || {
            let view = registry?.view().borrow().clone();
            let other = view.members.iter().find(|member| is_elsewhere(member))?;
            Some(format!("node `{}` is reached at `{}`", other.id.name, other.registration.client_url))
        };
        Surroundings { elsewhere: elsewhere.or_else(member), declares }
    }

    /// Whether clients elsewhere can be told this address.
    pub(super) fn check_clients(&self, url: Option<&str>, listen: SocketAddr) -> Result<(), AddressError> {
        if !self.declares {
            return Ok(());
        }
        let url = url.ok_or(AddressError::NoClientUrl(listen))?;
        match (reach(host(url)), &self.elsewhere) {
            (Reach::Nobody, _) => Err(AddressError::Unspecified(url.to_owned())),
            (Reach::Machine, Some(why)) => {
                Err(AddressError::LocalClients { url: url.to_owned(), why: why.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The address that other nodes are told to connect to.
    pub(super) fn peer_url(&self, address: &str) -> Result<String, AddressError> {
        let url = peer_url(address);
        match (reach(host(&url)), &self.elsewhere) {
            _ if !self.declares => Ok(url),
            (Reach::Nobody, _) => Err(AddressError::NoPeerAddress(address.to_owned())),
            (Reach::Machine, Some(why)) => {
                Err(AddressError::LocalPeers { address: address.to_owned(), why: why.clone() })
            }
            _ => Ok(url),
        }
    }
}

/// Whether clients reach a member on another machine, as far as its address says.
pub(super) fn is_elsewhere(member: &Member) -> bool {
    let url = &member.registration.client_url;
    !url.is_empty() && reach(host(url)) == Reach::Others
}

/// Whether an address leads to nobody but the machine that it is used on.
pub(super) fn is_local(url: &str) -> bool {
    reach(host(url)) == Reach::Machine
}

/// How an address of other nodes is written in a registration.
pub(super) fn peer_url(address: &str) -> String {
    format!("mesh://{address}")
}

/// Whom an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Nobody: it stands for every address.
    Nobody,
    /// The machine that it is used on.
    Machine,
    /// A machine that others can mean, too.
    Others,
}

fn reach(host: &str) -> Reach {
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if address.is_unspecified() => Reach::Nobody,
        Ok(address) if address.is_loopback() => Reach::Machine,
        Ok(_) => Reach::Others,
        Err(_) if host.eq_ignore_ascii_case("localhost") => Reach::Machine,
        Err(_) => Reach::Others,
    }
}

/// The host of an address, without brackets.
fn host(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, authority)| authority);
    if let Some((inside, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside;
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// Where clients reach a node that listens for them on `clients`: as configured, or there. Nobody knows where that is when it
/// listens on all addresses of its machine.
pub fn client_url(server: &Server, clients: SocketAddr) -> Option<String> {
    let own = || (!clients.ip().is_unspecified()).then(|| format!("ws://{clients}"));
    server.client_url.clone().or_else(own)
}

/// Host and port by which this node is known to others than its clients.
pub fn authority(client_url: Option<&str>, clients: SocketAddr) -> String {
    let host = client_url.and_then(|url| url.split_once("://")).map(|(_, host)| host.to_owned());
    host.unwrap_or_else(|| clients.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 7800);

    fn beside(elsewhere: Option<&str>) -> Surroundings {
        Surroundings { elsewhere: elsewhere.map(str::to_owned), declares: true }
    }

    #[test]
    fn addresses_lead_to_nobody_to_one_machine_or_to_others() {
        for (url, wanted) in [
            ("ws://0.0.0.0:7800", Reach::Nobody),
            ("ws://[::]:7800", Reach::Nobody),
            ("mesh://[::ffff:0.0.0.0]:1", Reach::Nobody),
            ("ws://127.0.0.1:7800", Reach::Machine),
            ("ws://127.9.9.9", Reach::Machine),
            ("wss://[::1]:1", Reach::Machine),
            ("ws://LOCALHOST:1", Reach::Machine),
            ("mesh://10.0.0.1:7900", Reach::Others),
            ("wss://a.example.com", Reach::Others),
            ("ws://[2001:db8::1]:7800", Reach::Others),
        ] {
            assert_eq!(reach(host(url)), wanted, "{url}");
        }
    }

    #[test]
    fn an_address_of_this_machine_is_told_only_where_everybody_is_on_it() {
        let (here, there) = (beside(None), beside(Some("node `b` is elsewhere")));
        let local = Some("ws://127.0.0.1:7800");
        assert_eq!(here.check_clients(local, EVERYWHERE), Ok(()));
        assert_eq!(there.check_clients(Some("ws://10.0.0.1:7800"), EVERYWHERE), Ok(()));
        let error = there.check_clients(local, EVERYWHERE).unwrap_err().to_string();
        assert!(error.contains("--client-url") && error.contains("node `b` is elsewhere"), "{error}");
        assert_eq!(here.check_clients(None, EVERYWHERE), Err(AddressError::NoClientUrl(EVERYWHERE)));
        let unspecified = here.check_clients(Some("ws://0.0.0.0:1"), EVERYWHERE);
        assert_eq!(unspecified, Err(AddressError::Unspecified("ws://0.0.0.0:1".to_owned())));
        assert_eq!(here.peer_url("127.0.0.1:1"), Ok("mesh://127.0.0.1:1".to_owned()));
        assert!(matches!(there.peer_url("127.0.0.1:1"), Err(AddressError::LocalPeers { .. })));
        assert!(matches!(here.peer_url("0.0.0.0:1"), Err(AddressError::NoPeerAddress(_))));
        // Where nothing is declared, nothing can be wrong with it.
        let list = Surroundings { elsewhere: None, declares: false };
        assert_eq!(list.check_clients(None, EVERYWHERE), Ok(()));
        assert_eq!(list.peer_url("0.0.0.0:1"), Ok("mesh://0.0.0.0:1".to_owned()));
    }
}
