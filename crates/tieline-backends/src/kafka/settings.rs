//! How a node uses a Kafka cluster as its broker, and what the client library is told of it.

use std::time::Duration;

use rdkafka::ClientConfig;

use super::KafkaAddress;

/// How long an answer of a server is waited for, before the connection is thought broken and made anew.
const ANSWER: Duration = Duration::from_secs(3);

/// What the library's own bound of its queue has above ours, in KiB: canaries and headers are not counted by us.
const SLACK: usize = 4096;

/// How a node uses a Kafka cluster.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// The name of tieline's cluster, which is in the names of the topics.
    pub cluster: String,
    /// Where the servers are.
    pub address: KafkaAddress,
    /// How often the node sends itself a canary through the servers.
    pub canary: Duration,
    /// So many canaries in a row that did not come back mean that the servers carry nothing.
    pub misses: u32,
    /// How long the start may take, from the names' resolution to the first canary. A node gives up after it, or 15 s later where it
    /// has had to make topics.
    pub connect: Duration,
    /// How long an envelope that was taken waits for servers that are away. Past it nobody knows what has become of it.
    pub keep: Duration,
    /// The most bytes queued towards the servers. Past it an envelope is refused.
    pub queue: usize,
}

impl KafkaSettings {
    /// The defaults.
    pub fn new(cluster: &str, address: KafkaAddress) -> Self {
        KafkaSettings {
            cluster: cluster.to_owned(),
            address,
            canary: Duration::from_secs(2),
            misses: 3,
            connect: Duration::from_millis(4_500),
            keep: Duration::from_secs(30),
            queue: 64 << 20,
        }
    }

    /// What every connection is told. Attempts to connect are at most 0.75 s apart, so that a server that is back is found soon.
    pub(super) fn client(&self, node: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        let address = &self.address;
        let answer = ANSWER.as_millis().to_string();
        config.set("bootstrap.servers", address.server()).set("client.id", format!("tieline-{node}"));
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "500");
        config.set("retry.backoff.ms", "50").set("retry.backoff.max.ms", "500");
        config.set("socket.timeout.ms", &answer).set("socket.connection.setup.timeout.ms", &answer);
        config.set("api.version.request.timeout.ms", &answer);
        config.set("socket.nagle.disable", "true").set("socket.keepalive.enable", "true");
        // Nobody has asked for numbers about this program.
        config.set("enable.metrics.push", "false");
        let protocol = match (&address.login, address.tls) {
            (None, false) => "plaintext",
            (None, true) => "ssl",
            (Some(_), false) => "sasl_plaintext",
            (Some(_), true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(login) = &address.login {
            config.set("sasl.mechanism", login.mechanism);
            config.set("sasl.username", &login.user).set("sasl.password", &login.password);
        }
        if let Some(ca) = &address.ca {
            config.set("ssl.ca.location", ca);
        }
        if let Some((certificate, key)) = &address.certificate {
            config.set("ssl.certificate.location", certificate).set("ssl.key.location", key);
        }
        config
    }

    /// What the producer is told: each message is in its partition in order, and once but for outages, or given up after
    /// [`KafkaSettings::keep`].
    pub(super) fn producer(&self, node: &str) -> ClientConfig {
        let mut config = self.client(node);
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
        config.set("message.timeout.ms", self.keep.as_millis().to_string());
        // The default of servers and topics is a little more.
        config.set("message.max.bytes", "1000000");
        config.set("queue.buffering.max.messages", "0");
        config.set("queue.buffering.max.kbytes", (self.queue / 1024 + SLACK).to_string());
        config
    }

    /// What the consumer is told: it reads where it is told to, and waits there when that is nowhere.
    pub(super) fn consumer(&self, node: &str) -> ClientConfig {
        let mut config = self.client(node);
        // The library wants a name. No group comes to be of it, because nothing is ever committed.
        config.set("group.id", "tieline");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error").set("allow.auto.create.topics", "false");
        // A question waits at the server until there is something; this is only how long a new one may wait behind it.
        config.set("fetch.min.bytes", "1").set("fetch.wait.max.ms", "250");
        config.set("fetch.error.backoff.ms", "50").set("fetch.queue.backoff.ms", "20");
        config.set("queued.max.messages.kbytes", "16384");
        config
    }
}
