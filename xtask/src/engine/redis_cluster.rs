//! Redis Cluster: three masters and a replica of each, which takes over a few seconds after its master's death. Nothing is kept but the
//! list of nodes. The masters are the first three processes, until one of them has died.

use std::path::Path;
use std::process::{Command, Stdio};

use super::redis::{self, Tls, ask};
use super::{Kind, Source};

/// Masters, and as many replicas.
const MASTERS: u16 = 3;

/// How far the nodes' ports among each other are from those for clients.
const BUS: u16 = 10;

/// Six servers that are one cluster.
pub struct RedisCluster {
    tls: Option<Tls>,
}

/// One without TLS.
pub(super) static PLAIN: RedisCluster = RedisCluster { tls: None };

impl RedisCluster {
    /// A kind whose servers speak TLS with each other, and with clients [`RedisCluster::TLS`] ports further. It is never given back, as it
    /// is for tests.
    pub fn with_tls(key: &str, certificate: &str) -> &'static dyn Kind {
        Box::leak(Box::new(RedisCluster { tls: Some(Tls::new(key, certificate)) }))
    }

    /// How far the ports for clients that speak TLS are from those of the others.
    pub const TLS: u16 = Tls::BESIDE;

    fn member(&self, folder: &Path, port: u16) -> Command {
        let mut command = Command::new(redis::PROGRAM);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
        command.args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
            "--cluster-enabled",
            "yes",
        ]);
        command.args(["--cluster-port", &(port + BUS).to_string(), "--cluster-node-timeout", "2000"]);
        command.args(["--cluster-config-file", &format!("nodes-{port}.conf")]);
        if let Some(tls) = &self.tls {
            command.args(tls.words(port)).args(["--tls-cluster", "yes"]);
        }
        command
    }

    fn ports(port: u16) -> std::ops::Range<u16> {
        port..port + 2 * MASTERS
    }
}

fn answers(port: u16, command: &str, start: &str) -> bool {
    ask(&format!("redis://127.0.0.1:{port}"), command).is_ok_and(|answer| answer.starts_with(start))
}

impl Kind for RedisCluster {
    fn name(&self) -> &'static str {
        "redis-cluster"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_REDIS_CLUSTER"
    }

    fn source(&self) -> Source {
        redis::PACKAGE
    }

    fn further_ports(&self) -> &'static [i32] {
        &[1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25]
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        self.member(folder, port)
    }

    fn companions(&self, folder: &Path, port: u16) -> Vec<Command> {
        Self::ports(port).skip(1).map(|port| self.member(folder, port)).collect()
    }

    fn assemble(&self, port: u16) -> bool {
        if !Self::ports(port).all(|port| answers(port, "PING", "+PONG")) {
            return false;
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(Self::ports(port).map(|port| format!("127.0.0.1:{port}")));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]).stdin(Stdio::null()).stdout(Stdio::null());
        create.status().is_ok_and(|status| status.success())
    }

    fn is_ready(&self, port: u16) -> bool {
        // `WAIT` counts the replicas that follow, and a replica answers it with an error.
        let follows = |port| !answers(port, "WAIT 0 1", ":0");
        Self::ports(port).all(|port| answers(port, "CLUSTER INFO", "cluster_state:ok") && follows(port))
    }

    fn url(&self, port: u16) -> String {
        format!("redis+cluster://127.0.0.1:{port},127.0.0.1:{}", port + 1)
    }
}
