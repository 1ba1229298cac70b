//! [`Link`]: the way to the server, by the library `nacos-sdk`, with a limit on each call and in our words.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nacos_sdk::api::error::Error;
use nacos_sdk::api::naming::{
    NamingChangeEvent, NamingEventListener, NamingService, NamingServiceBuilder, ServiceInstance,
};
use nacos_sdk::api::plugin::AuthPlugin;
use nacos_sdk::api::props::ClientProps;
use tieline_core::registry::Registration;
use tieline_proto::NodeId;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::http;
use super::login::Credentials;
use super::{NacosAddress, NacosError};

/// Under which name an instance among the members has its words.
const WORDS: &str = "tieline";

/// Under which name an instance that is offered says whose it is.
const NODE: &str = "tieline.node";

/// The most bytes of words: the server allows 1024 for all metadata.
const MAX_WORDS: usize = 1000;

/// The pause between two attempts to take a node out.
const LEAVE_EVERY: Duration = Duration::from_secs(1);

/// Why the server was of no use.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It did not answer in time.
    #[error("it does not answer")]
    Silent,
    /// It knows other users, or another password.
    #[error("it does not know this user and password")]
    Password,
    /// It answered with something else than a list.
    #[error("it shows no list: it wants a user and a password, or does not let this user read")]
    NoList,
    /// It refused, or the library failed.
    #[error("{0}")]
    Refused(String),
    /// Nobody could connect to the node.
    #[error("the node's clients have no address that could be registered (`client-url`)")]
    NoAddress,
    /// The node says more of itself than the server takes.
    #[error("the node's words have more than {MAX_WORDS} bytes")]
    TooLong,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            // An answer that refuses has no list in it, which is what the library says of it.
            Error::Serialization(_) => Trouble::NoList,
            error => Trouble::Refused(error.to_string()),
        }
    }
}

/// What the server shows.
pub(super) struct Shown {
    /// The words of each member.
    pub(super) members: Vec<String>,
    /// The nodes that clients may be sent to.
    pub(super) offered: HashSet<String>,
}

/// The way to the server.
pub(super) struct Link {
    naming: NamingService,
    /// Who logs in, where somebody does.
    credentials: Option<Arc<Credentials>>,
    servers: Vec<String>,
    group: String,
    /// The service for everybody, and the one for the members.
    services: [String; 2],
    limit: Duration,
    ear: Arc<Ear>,
    /// Where this node is offered, and where it is a member.
    own: [Option<ServiceInstance>; 2],
    /// Whether the server was told of the offer, and has not forgotten it.
    is_offered: bool,
    _folder: PrivateFolder,
}

/// The service for everybody.
const OFFERS: usize = 0;

/// The service for the members.
const MEMBERS: usize = 1;

/// Hears that something has changed.
struct Ear(Arc<Notify>);

impl NamingEventListener for Ear {
    fn event(&self, _event: Arc<NamingChangeEvent>) {
        self.0.notify_one();
    }
}

impl Link {
    /// Connects, and asks that `told` be told of changes.
    pub(super) async fn open(
        address: &NacosAddress,
        limit: Duration,
        told: &Arc<Notify>,
    ) -> Result<Self, NacosError> {
        // The library would try the others as well, and wait ever longer between two attempts.
        let servers = http::living(&address.servers).await;
        if servers.is_empty() {
            return Err(NacosError::Server { servers: address.servers(), trouble: Trouble::Silent });
        }
        let folder = PrivateFolder::make()?;
        let settings = ClientProps::new()
            .server_addr(servers.join(","))
            .namespace(&address.namespace)
            .app_name("tieline")
            // What is in the environment is meant for other programs, and the lists are judged by us.
            .env_first(false)
            .naming_push_empty_protection(false)
            .cache_dir(&folder.0);
        let mut builder = NamingServiceBuilder::new(settings);
        let credentials = address.login.clone().map(Credentials::new);
        if let Some(credentials) = &credentials {
            builder = builder.with_auth_plugin(Arc::clone(credentials) as Arc<dyn AuthPlugin>);
        }
        let naming = match timeout(limit, builder.build()).await {
            Ok(Ok(naming)) => Ok(naming),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Trouble::Silent),
        };
        let naming = naming.map_err(|trouble| NacosError::Server { servers: address.servers(), trouble })?;
        let link = Link {
            naming,
            credentials,
            servers,
            group: address.group.clone(),
            services: [address.service.clone(), format!("{}.members", address.service)],
            limit,
            ear: Arc::new(Ear(Arc::clone(told))),
            own: [None, None],
            is_offered: false,
            _folder: folder,
        };
        for service in &link.services {
            let ear = Arc::clone(&link.ear) as Arc<dyn NamingEventListener>;
            let asked = link.naming.subscribe(service.clone(), link.group(), Vec::new(), ear);
            // The library asks again until it is done; whether the server is there, the first look tells.
            drop(timeout(limit, asked).await);
        }
        Ok(link)
    }

    fn group(&self) -> Option<String> {
        Some(self.group.clone())
    }

    /// Asks who is there. Members are asked for first: who is among them has been offered before.
    pub(super) async fn look(&self) -> Result<Shown, Trouble> {
        let members = match (self.list(MEMBERS).await, &self.credentials) {
            (Err(Trouble::NoList), Some(credentials)) => {
                // A server that was started anew may have forgotten what it gave.
                credentials.renew(&self.servers).await;
                if credentials.is_refused() {
                    return Err(Trouble::Password);
                }
                self.list(MEMBERS).await?
            }
            (members, _) => members?,
        };
        let offered = self.list(OFFERS).await?;
        let words = |mut instance: ServiceInstance| instance.metadata.remove(WORDS).unwrap_or_default();
        let node = |mut instance: ServiceInstance| instance.metadata.remove(NODE);
        let is_open = |instance: &ServiceInstance| instance.enabled && instance.weight > 0.0;
        Ok(Shown {
            members: members.into_iter().map(words).collect(),
            offered: offered.into_iter().filter(is_open).filter_map(node).collect(),
        })
    }

    async fn list(&self, which: usize) -> Result<Vec<ServiceInstance>, Trouble> {
        let service = self.services[which].clone();
        let asked = self.naming.get_all_instances(service, self.group(), Vec::new(), false);
        Ok(timeout(self.limit, asked).await.map_err(|_| Trouble::Silent)??)
    }

    /// Offers the node to everybody.
    pub(super) async fn offer(&mut self, me: &NodeId, registration: &Registration) -> Result<(), Trouble> {
        let is_secure =
            registration.client_url.starts_with("wss") || registration.client_url.starts_with("https");
        let metadata = [
            (NODE, me.to_string()),
            ("version", registration.version.clone()),
            // By this, other makes know that TLS is spoken.
            ("secure", is_secure.to_string()),
        ];
        let instance = instance(registration, metadata)?;
        let is_same = self.own[OFFERS].as_ref().is_some_and(|own| own.is_same_instance(&instance));
        if !(self.is_offered && is_same) {
            self.register(OFFERS, instance).await?;
            self.is_offered = true;
        }
        Ok(())
    }

    /// Offers the node no more.
    pub(super) async fn take_back(&mut self) -> Result<(), Trouble> {
        let Some(own) = self.own[OFFERS].clone() else { return Ok(()) };
        let service = self.services[OFFERS].clone();
        let asked = self.naming.deregister_instance(service, self.group(), own);
        timeout(self.limit, asked).await.map_err(|_| Trouble::Silent)??;
        self.own[OFFERS] = None;
        Ok(())
    }

    /// Has the node among the members, with these words.
    pub(super) async fn join(&mut self, registration: &Registration, words: String) -> Result<(), Trouble> {
        if words.len() > MAX_WORDS {
            return Err(Trouble::TooLong);
        }
        self.register(MEMBERS, instance(registration, [(WORDS, words)])?).await
    }

    async fn register(&mut self, which: usize, instance: ServiceInstance) -> Result<(), Trouble> {
        // The library remembers it from now on, whatever becomes of the call.
        self.own[which] = Some(instance.clone());
        let service = self.services[which].clone();
        let asked = self.naming.register_instance(service, self.group(), instance);
        Ok(timeout(self.limit, asked).await.map_err(|_| Trouble::Silent)??)
    }

    /// The server does not show the node: it has to be told all anew.
    pub(super) fn forgotten(&mut self) {
        self.is_offered = false;
    }

    /// Takes the node out, and ends what the library does. While the server is away the library waits to register the node
    /// again, so this goes on until it is back, but not for ever.
    pub(super) async fn close(mut self, attempts: u32) {
        for attempt in 1..=attempts {
            match timeout(self.limit, self.leave()).await {
                Ok(Ok(())) => break,
                Ok(Err(trouble)) => tracing::debug!(%trouble, "Nacos does not let this node leave."),
                Err(_) => tracing::debug!("Nacos does not answer a node that leaves."),
            }
            if attempt < attempts {
                sleep(LEAVE_EVERY).await;
            }
        }
    }

    async fn leave(&mut self) -> Result<(), Error> {
        for which in [OFFERS, MEMBERS] {
            let service = self.services[which].clone();
            if let Some(own) = self.own[which].clone() {
                self.naming.deregister_instance(service.clone(), self.group(), own).await?;
                self.own[which] = None;
            }
            let ear = Arc::clone(&self.ear) as Arc<dyn NamingEventListener>;
            self.naming.unsubscribe(service, self.group(), Vec::new(), ear).await?;
        }
        Ok(())
    }
}

/// An instance where the node's clients connect.
fn instance<const N: usize>(
    registration: &Registration,
    metadata: [(&str, String); N],
) -> Result<ServiceInstance, Trouble> {
    let (ip, port) = place(&registration.client_url).ok_or(Trouble::NoAddress)?;
    Ok(ServiceInstance {
        ip,
        port: port.into(),
        weight: registration.weight.into(),
        metadata: metadata.map(|(name, value)| (name.to_owned(), value)).into(),
        ..ServiceInstance::default()
    })
}

/// Host and port of a URL that has nothing behind them.
fn place(url: &str) -> Option<(String, u16)> {
    let (scheme, authority) = url.split_once("://")?;
    let port = if ["wss", "https"].contains(&scheme) { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, number)) if !number.ends_with(']') => (host, number.parse().ok()?),
        _ => (authority, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// A folder that goes with its owner. The library writes what it has been told into files, for starts without a server, which are
/// not wanted here; and nobody else is to read them.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn make() -> Result<Self, NacosError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let random = getrandom::u32().unwrap_or_default();
        let name = format!("tieline-nacos-{}-{number}-{random:08x}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => Ok(PrivateFolder(folder)),
            Err(source) => Err(NacosError::Folder { folder, source }),
        }
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "{} stays behind.", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_url_is_where_its_clients_connect() {
        let place = |url| place(url).map(|(host, port)| format!("{host} {port}"));
        for (url, expected) in [
            ("ws://a.example.com:7800", Some("a.example.com 7800")),
            ("ws://10.0.0.1", Some("10.0.0.1 80")),
            ("wss://a", Some("a 443")),
            ("https://[::1]:8443", Some("::1 8443")),
            ("wss://[::1]", Some("::1 443")),
            ("", None),
            ("ws://", None),
            ("ws://:1", None),
            ("ws://a:99999", None),
        ] {
            assert_eq!(place(url).as_deref(), expected, "{url}");
        }
    }
}
