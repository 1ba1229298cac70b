//! The table of settings: each with its sentence, type, default, unit and, where not every value of the type will do, its rule.
//! Flags, variables, the document and this program's defaults all come from here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tieline_core::PerUser;
use tieline_core::registry::MAX_WEIGHT;
use tieline_core::ring::Placement;
use tieline_proto::NodeName;

use super::error::{ConfigError, Origin};
use super::keeping::{History, Members, SlowConsumer};
use super::kind::{Demo, Kind, LogFormat, Masked, Rebalance, Routing, Size};
use super::layers::{Layers, Written};
use super::row::Row;
use super::tables::tables;
use crate::broker::BrokerUrl;
use crate::directory::DirectoryUrl;
use crate::registry::RegistryUrl;
use crate::store::StoreUrl;

/// Declares one section. A setting with the word `live` behind its unit is one that a running node changes.
macro_rules! section {
    (
        $(#[$doc:meta])* $section:ident $name:literal
        $($(#[doc = $text:literal])+ $field:ident: $type:ty = $default:expr, $unit:literal $($live:ident)? $(, $rule:literal $holds:expr)?;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $section {
            $($(#[doc = $text])+ pub $field: $type,)*
        }

        impl Default for $section {
            fn default() -> Self {
                $section { $($field: $default,)* }
            }
        }

        impl $section {
            pub(super) fn rows() -> Vec<Row> {
                let defaults = $section::default();
                vec![$(Row {
                    section: $name,
                    name: stringify!($field),
                    key: key($name, stringify!($field)),
                    repeats: false,
                    variable: variable($name, stringify!($field)),
                    text: concat!($($text),+).trim().to_owned(),
                    unit: $unit,
                    takes: rule!(<$type as Kind>::TAKES $(, $rule)?),
                    default: defaults.$field.write(),
                    is_list: <$type as Kind>::IS_LIST,
                    is_switch: <$type as Kind>::IS_SWITCH,
                    is_live: is_live!($($live)?),
                },)*]
            }

            /// The settings that have another value in `other`.
            pub(super) fn changes(&self, other: &Self) -> Vec<Change> {
                let mut changes = Vec::new();
                $(if self.$field != other.$field {
                    changes.push(Change {
                        key: key($name, stringify!($field)),
                        is_live: is_live!($($live)?),
                    });
                })*
                changes
            }

            pub(super) fn read(layers: &Layers, errors: &mut Vec<ConfigError>) -> Self {
                let defaults = $section::default();
                $section {
                    $($field: {
                        let takes = rule!(<$type as Kind>::TAKES $(, $rule)?);
                        let holds: fn(&$type) -> bool = rule!(|_| true $(, $holds)?);
                        read(layers, errors, key($name, stringify!($field)), takes, holds, defaults.$field)
                    },)*
                }
            }

            pub(super) fn show(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), self.$field.write()),)*]
            }
        }
    };
}

/// The first of two that is there, the later one before the earlier.
macro_rules! rule {
    ($otherwise:expr) => {
        $otherwise
    };
    ($otherwise:expr, $rule:expr) => {
        $rule
    };
}

pub(super) use rule;

/// Whether the word stands there.
macro_rules! is_live {
    () => {
        false
    };
    (live) => {
        true
    };
}

/// A setting that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path in the file.
    pub key: String,
    /// Whether a running node changes it.
    pub is_live: bool,
}

fn key(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

fn variable(section: &str, name: &str) -> String {
    format!("TIELINE_{}", key(section, name).replace('.', "_").to_uppercase())
}

fn read<T: Kind>(
    layers: &Layers,
    errors: &mut Vec<ConfigError>,
    key: String,
    takes: &str,
    holds: fn(&T) -> bool,
    default: T,
) -> T {
    let Some((origin, written)) = layers.get(&key) else { return default };
    check(origin, written, &key, takes, holds).unwrap_or_else(|error| {
        errors.push(error);
        default
    })
}

/// Reads a value that was written.
pub(super) fn check<T: Kind>(
    origin: &Origin,
    written: &Written,
    key: &str,
    takes: &str,
    holds: fn(&T) -> bool,
) -> Result<T, ConfigError> {
    if let Some(value) = T::read(written).filter(holds) {
        return Ok(value);
    }
    let found = match written {
        Written::Loose(text) | Written::Text(text) => Some(T::repeat(text)),
        Written::Integer(integer) => Some(integer.to_string()),
        Written::Boolean(boolean) => Some(boolean.to_string()),
        Written::List(_) => Some(if T::IS_LIST { "such a list" } else { "a list" }.to_owned()),
        Written::Table(_) => Some(T::TABLE.to_owned()),
        Written::Other(name) => Some((*name).to_owned()),
    };
    let found = found.filter(|_| !T::IS_SECRET);
    Err(ConfigError::Value { origin: origin.clone(), key: key.to_owned(), expected: takes.to_owned(), found })
}

section! {
    /// Who the node is and whom it listens to.
    Server ""
    /// Address on which clients connect and the HTTP API is called.
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7800)), "address";
    /// Whether every connection to `listen` begins with a header of the PROXY protocol, version 2, by which a load balancer says for whom it connects: one without it is closed, and nobody counts as local any more.
    proxy_protocol: bool = false, "switch";
    /// Address for operators: `/healthz`, `/readyz` and `/metrics` are served there, and `/metrics` then nowhere else.
    admin_listen: Option<SocketAddr> = None, "address";
    /// Address on which other nodes connect to this one, where the broker joins nodes directly.
    peer_listen: Option<SocketAddr> = None, "address";
    /// `host:port` under which the other nodes reach this one, where `peer_listen` is not that.
    peer_advertise: Option<String> = None, "address";
    /// Secret that the nodes of a cluster prove to each other that they know, never sent; without one only nodes of this machine are joined.
    cluster_secret: Option<Masked> = None, "secret";
    /// Address under which clients reach this node, such as `wss://a.example.com`: `/api/v1/nodes` of every node tells it, and pages of that origin count as the cluster's own. Without one it is `listen`, unless that is every address of the machine.
    client_url: Option<String> = None, "address", "an address such as \"wss://a.example.com\", without a path" |url| is_client_url(url);
    /// Name of the cluster: nodes of equal names form one, and everything they declare at a broker begins with it.
    cluster: String = "tieline".to_owned(), "name",
        "a name of 1 to 64 ASCII letters, digits and _ -" |name| is_cluster_name(name);
    /// Stable name of this node within its cluster; without one it is the host's name and the port.
    node: Option<NodeName> = None, "name";
    /// What carries messages between nodes: `memory:` joins nobody, the node is alone; `mesh://HOST:PORT,…` joins nodes directly, given the peer addresses of some; `redis://[[USER]:PASSWORD@]HOST[:PORT]` joins them by a Redis server, `rediss://…` with TLS, `redis+cluster://HOST,…` by a Redis Cluster, `redis+sentinel://HOST,…/MASTER` by a master with sentinels; and where they are built in, servers of other kinds, such as `nats://HOST` and `amqp://HOST`.
    broker: BrokerUrl = BrokerUrl::Memory, "address";
    /// Which nodes live, for whoever places connections, and for a mesh that looks for its nodes: `heartbeat`, what they say over the broker; `static://NAME=ws://HOST:PORT,…`, a list; `redis://[[USER]:PASSWORD@]HOST[:PORT]`, a Redis server, `rediss://…` with TLS; or where they are built in `zookeeper://HOST,…/PATH` and `nacos://USER:PASSWORD@HOST/NAMESPACE`.
    registry: RegistryUrl = RegistryUrl::Heartbeat, "address";
    /// What says which nodes hold a user: `replicated`, every node knows all; `redis://[[USER]:PASSWORD@]HOST[:PORT]`, a table on a Redis server, `rediss://…` with TLS; where it is built in `hazelcast://HOST,…`, a map of a Hazelcast cluster; `ring`, for clusters whose gateways place users by the ring: users are there, and nodes tell of those who are not. All nodes of a cluster have the same.
    directory: DirectoryUrl = DirectoryUrl::Replicated, "directory";
    /// How many shares of the clients this node is to have: one of weight 2 gets twice what one of weight 1 gets.
    weight: u32 = 1, "shares" live, "a whole number from 1 to 100" |weight| (1..=MAX_WEIGHT).contains(weight);
    /// Where connections of users belong: `none`, wherever they are; or `ring`, with the owner of their user on the ring, to which they are sent when the nodes change; `ring:md5` and `ring:fnv` with another hash. All nodes of a cluster have the same, and one that differs ends.
    placement: Placement = Placement::None, "placement";
    /// Whether connections whose owner on the ring has changed are sent there: `gradually`, a few at a time; or `never`, so that only new ones go there.
    rebalance: Rebalance = Rebalance::Gradually, "rule";
    /// How many of a hundred of this node's connections are sent to their new owners in a second.
    rebalance_rate: u32 = 5, "percent per second", "a whole number from 1 to 100" |rate| (1..=100).contains(rate);
    /// What keeps durable messages: `sqlite:///path/to/file.db`, a file that all nodes of this machine may share; `redis://…`, or where they are built in `postgres://…` and `mysql://…`, a server; or `memory:`, which nothing outlives. All nodes of a cluster have the same.
    store: Option<StoreUrl> = None, "address";
    /// How messages go to other nodes: `directed` to those that hold recipients, `broadcast` to all of them, which sort out.
    routing: Routing = Routing::Directed, "routing";
    /// Keys that access tokens are signed with; several while they are being changed, the first one signs.
    access_key: Vec<Masked> = Vec::new(), "secrets" live;
    /// Files with such keys, one a line.
    access_key_file: Vec<PathBuf> = Vec::new(), "file names" live;
    /// Whether everybody may connect without a token, as any user and with every role.
    allow_anonymous: bool = false, "switch" live;
    /// Origins of web pages, beside the server's own, that browsers may connect from, such as `https://app.example.com`; `*` for all.
    allow_origin: Vec<String> = Vec::new(), "origins" live,
        "a list of origins such as \"https://app.example.com\", or \"*\"" |origins| are_origins(origins);
    /// Who is shown the demo page at `/`: `local` for browsers of this machine, `all` for everybody, `off` for nobody. What one can do with it is what the server lets any client do.
    demo: Demo = Demo::Local, "who";
    /// Threads that hold connections; 0 for one per processor.
    shards: usize = 0, "threads", "a number of threads up to 255, or 0 for one per processor" |shards| *shards <= 255;
}

section! {
    /// How much of anything there may be.
    Limits "limits"
    /// Largest message a client may send, also after it was inflated.
    max_message: Size = Size(1 << 20), "bytes", "a size from \"1KiB\" to \"1GiB\"" |size| within(size, 1 << 10, 1 << 30);
    /// Largest frame a client may send.
    max_frame: Size = Size(1 << 20), "bytes", "a size from \"1KiB\" to \"1GiB\"" |size| within(size, 1 << 10, 1 << 30);
    /// Frames that one message may be cut into.
    max_fragments: u32 = 4096, "frames", "a whole number from 1" |count| *count > 0;
    /// Largest head of an HTTP request: its first line and its headers.
    max_header: Size = Size(16 << 10), "bytes", "a size from \"8KiB\" to \"1MiB\"" |size| within(size, 8 << 10, 1 << 20);
    /// Connections that may be open at once.
    connections: usize = 1_000_000, "connections", "a whole number from 1" |count| *count > 0;
    /// Sockets that may be in their handshake, or speak HTTP, at once; more wait to be accepted.
    handshakes: usize = 4096, "sockets", "a whole number from 1" |count| *count > 0;
    /// Connections that one user may have on this node; 0 for any number.
    connections_per_user: usize = 100, "connections" live;
    /// Connections a second that one address may open on the average; 0 for any number. An IPv6 network of 64 bits counts as one address, and this machine itself, where load balancers are, is not limited.
    connect_rate: u32 = 50, "connections per second" live;
    /// Connections that one address may open at once.
    connect_burst: u32 = 500, "connections" live, "a whole number from 1" |count| *count > 0;
    /// Groups that one connection may be in.
    groups_per_connection: usize = 1000, "groups" live;
    /// Messages a second that one connection may send on the average; 0 for any number.
    message_rate: u32 = 1000, "messages per second" live;
    /// Messages that one connection may send at once.
    message_burst: u32 = 2000, "messages" live, "a whole number from 1" |count| *count > 0;
    /// Malformed or refused frames in a row after which a connection is closed.
    faults: u8 = 20, "frames" live, "a whole number from 1 to 255" |count| *count > 0;
    /// How far a client may lag behind in reading before it is closed: bytes that it has coming.
    slow_consumer: Size = Size(4 << 20), "bytes", "a size from \"16KiB\" to \"1GiB\"" |size| within(size, 16 << 10, 1 << 30);
    /// Memory of one shard for what all its lagging clients have coming, beside the log.
    lag_memory: Size = Size(128 << 20), "bytes", "a size from \"1MiB\"" |size| size.0 >= 1 << 20;
    /// Memory of one shard for the log of what its clients have coming.
    log_memory: Size = Size(16 << 20), "bytes", "a size from \"1MiB\"" |size| size.0 >= 1 << 20;
    /// What may wait for one shard before those that send to it are held up.
    mailbox: Size = Size(16 << 20), "bytes", "a size from \"1MiB\"" |size| size.0 >= 1 << 20;
    /// Connections that the system may keep waiting to be accepted.
    backlog: u32 = 4096, "connections", "a whole number from 1 to 65535" |count| (1..=65535).contains(count);
}

section! {
    /// How long anything may take.
    Times "times"
    /// How long a client may take for a request's head, the handshake of a WebSocket among them, and be silent between two requests.
    handshake: Duration = Duration::from_secs(10), "duration", "a duration from \"100ms\" to \"10m\"" |time| (100..=600_000).contains(&time.as_millis());
    /// How often a connection is pinged.
    ping_interval: Duration = Duration::from_secs(25), "duration", "a duration from \"1s\" to \"1h\"" |time| (1..=3600).contains(&time.as_secs());
    /// Pings in a row that may stay without any byte in return.
    ping_misses: u8 = 2, "pings", "a whole number from 1 to 255" |count| *count > 0;
    /// How long a connection may send no message of its own before it is closed.
    idle: Option<Duration> = None, "duration", "a duration from \"1s\", or \"never\"" |time| time.is_none_or(|time| time.as_secs() >= 1);
    /// How long a client may take to answer a close frame.
    close: Duration = Duration::from_secs(5), "duration", "a duration from \"1s\" to \"1m\"" |time| (1..=60).contains(&time.as_secs());
    /// How long a client of `tieline.v1` may take to ask for its user's inbox by `hello`; after that, what came since it connected is given to it anyway.
    hello: Duration = Duration::from_secs(10), "duration" live, "a duration from \"1s\" to \"1m\"" |time| (1..=60).contains(&time.as_secs());
    /// How long a node that is stopped, or emptied, may take to send its clients to other nodes. The first half is for telling them, a few at a time; 0 closes all at once.
    drain: Duration = Duration::from_secs(25), "duration" live, "a duration up to \"1h\"" |time| time.as_secs() <= 3600;
    /// How long a connection of the reliable protocol can be recovered after it was cut.
    recovery: Duration = Duration::from_secs(60), "duration", "a duration from \"1s\" to \"1h\"" |time| (1..=3600).contains(&time.as_secs());
    /// How long a user whose last connection is gone counts as present, where it is told who is: who comes back meanwhile was never away.
    presence_grace: Duration = Duration::from_secs(10), "duration", "a duration of at most \"1h\"" |time| time.as_secs() <= 3600;
}

section! {
    /// What is kept of the messages to each user.
    Inbox "inbox"
    /// Messages to each user that are kept, for connections that come later or come back; 0 keeps none.
    count: usize = 0, "messages";
    /// How long they are kept.
    age: Duration = Duration::from_secs(24 * 3600), "duration", "a duration from \"1s\"" |time| time.as_secs() >= 1;
    /// Bytes of each user's messages that are kept.
    bytes: Size = Size(16 << 20), "bytes", "a size from \"1KiB\"" |size| size.0 >= 1 << 10;
}

tables! {
    /// What holds for the hubs of a pattern.
    pub HubTable "hub"
    /// The hubs it is for: a name, in which `*` stands for any text. The first table that fits counts.
    r#match: String, "pattern", "a pattern that is not empty" |pattern| !pattern.is_empty();
    /// How many connections a user may have in such a hub, in the whole cluster: `many`, `one`, where a newer takes the place of an older one, which is closed with 4409; or `one-per-device`, where those that name no device count as one.
    connections_per_user: PerUser = PerUser::Many, "rule";
    /// Whether it is told who is connected to such a hub. Every node of the cluster keeps some 500 bytes for each user then.
    presence: bool = false, "switch";
}

tables! {
    /// What holds for the groups of a pattern.
    pub GroupTable "group"
    /// The groups it is for: a name, in which `*` stands for any text. The first table that fits counts.
    r#match: String, "pattern", "a pattern that is not empty" |pattern| !pattern.is_empty();
    /// How much is kept of the messages to such a group, so that those who come back miss nothing: `{ count = 1000, age = "24h", bytes = "16MiB" }`, of which each may be left out.
    history: Option<History> = None, "table";
    /// What becomes of a member that lags too far behind: `close` it, so that it comes back; or `drop` messages for it, which a group with a history does not.
    slow_consumer: SlowConsumer = SlowConsumer::Close, "rule";
    /// Who is a member: `connected`, each connection that joined, for as long as it lives; or `stored`, each user who joined, on- or offline, until the user leaves, which needs a history. Who is offline gets on return what came meanwhile.
    members: Members = Members::Connected, "rule";
    /// Whether it is told who is in such a group. Every node of the cluster keeps some 500 bytes for each user of each of them then.
    presence: bool = false, "switch";
}

section! {
    /// Compression of messages.
    Deflate "deflate"
    /// Whether permessage-deflate is agreed to when a client offers it: fewer bytes for several times the processor time.
    enabled: bool = false, "switch";
    /// Largest window that messages to clients are compressed with, as a power of two.
    window: u8 = 15, "bits", "a number of bits from 9 to 15" |bits| (9..=15).contains(bits);
}

section! {
    /// The program's own log, which goes to the standard error.
    Log "log"
    /// Which lines are written: `error`, `warn`, `info`, `debug` or `trace`, also for parts of the program, as in `info,tieline_core=debug`.
    filter: String = "info".to_owned(), "level" live, "a level, or a list such as \"info,tieline_core=debug\"" |filter| crate::log::is_filter(filter);
    /// How they are written: `text` for people, `json` for programs.
    format: LogFormat = LogFormat::Text, "format";
}

fn within(size: &Size, least: usize, most: usize) -> bool {
    (least..=most).contains(&size.0)
}

fn is_cluster_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_client_url(url: &Option<String>) -> bool {
    url.as_deref().is_none_or(crate::admission::is_client_url)
}

fn are_origins(origins: &[String]) -> bool {
    origins.iter().all(|origin| origin == "*" || origin == "null" || crate::admission::is_origin(origin))
}
