//! [`GatewaySettings`]: what a gateway is told by its operator, in flags or `TIELINE_GATEWAY_…` variables.

use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use clap::Args;
use tieline_core::ring::RingHash;

use super::forwarding::Network;
use super::policy::Policy;
use super::prefix::{self, Prefix};
use crate::admission::is_loopback;
use crate::config::parse_duration;

/// The shortest duration that makes sense anywhere here.
const SHORTEST: Duration = Duration::from_millis(100);

/// How a gateway is set up.
#[derive(Clone, Debug, Args)]
pub struct GatewaySettings {
    /// Address on which clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7880", env = "TIELINE_GATEWAY_LISTEN")]
    pub listen: SocketAddr,
    /// Address for operators, where `/healthz`, `/readyz` and `/metrics` are
    #[arg(long, value_name = "ADDR", env = "TIELINE_GATEWAY_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
    /// Which node a new connection goes to: ring, least-connections, two-choices, round-robin or source-ip
    #[arg(long, value_name = "POLICY", default_value = "ring", env = "TIELINE_GATEWAY_POLICY")]
    pub policy: Policy,
    /// How the ring hashes, the same on all gateways and nodes: tieline, md5 or fnv
    #[arg(long, value_name = "HASH", default_value = "tieline", env = "TIELINE_GATEWAY_RING_HASH")]
    pub ring_hash: RingHash,
    /// On the ring, give no node more than so many times its share of all connections, such as 1.25
    #[arg(long, value_name = "FACTOR", env = "TIELINE_GATEWAY_BOUND", value_parser = bound)]
    pub bound: Option<f64>,
    /// Take this off the front of every path, such as /websocket; a path without it is not found
    #[arg(long, value_name = "PATH", default_value = "", env = "TIELINE_GATEWAY_STRIP_PREFIX", value_parser = prefix::parse)]
    pub strip_prefix: String,
    /// Put this in front of every path, after that
    #[arg(long, value_name = "PATH", default_value = "", env = "TIELINE_GATEWAY_ADD_PREFIX", value_parser = prefix::parse)]
    pub add_prefix: String,
    /// Path whose next segment is the user, where no token says who that is; may be repeated
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/client/",
        env = "TIELINE_GATEWAY_USER_PATH",
        value_delimiter = ','
    )]
    pub user_path: Vec<String>,
    /// Parameter that is the user, where neither token nor path say who that is; may be repeated
    #[arg(
        long,
        value_name = "NAME",
        default_value = "user",
        env = "TIELINE_GATEWAY_USER_PARAMETER",
        value_delimiter = ','
    )]
    pub user_parameter: Vec<String>,
    /// Address or network, such as 10.0.0.0/8, of proxies whose X-Forwarded headers are extended and not replaced; may be repeated
    #[arg(long, value_name = "NETWORK", env = "TIELINE_GATEWAY_TRUSTED_PROXY", value_delimiter = ',')]
    pub trusted_proxy: Vec<Network>,
    /// Every connection begins with a header of the PROXY protocol, version 2
    #[arg(long, env = "TIELINE_GATEWAY_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,
    /// Where clients from elsewhere reach the gateway, bring them also to nodes that want no token of them
    #[arg(long, env = "TIELINE_GATEWAY_ALLOW_ANONYMOUS")]
    pub allow_anonymous: bool,
    /// Connections that may be open at once
    #[arg(long, value_name = "N", default_value = "500000", env = "TIELINE_GATEWAY_CONNECTIONS")]
    pub connections: NonZero<usize>,
    /// Connections a second that one address may open on the average; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 50, env = "TIELINE_GATEWAY_CONNECT_RATE")]
    pub connect_rate: u32,
    /// Connections that one address may open at once
    #[arg(long, value_name = "N", default_value = "500", env = "TIELINE_GATEWAY_CONNECT_BURST")]
    pub connect_burst: NonZero<u32>,
    /// Nodes that are tried for one request
    #[arg(long, value_name = "N", default_value = "3", env = "TIELINE_GATEWAY_TRIES")]
    pub tries: NonZero<usize>,
    /// How long connecting to a node may take
    #[arg(long, value_name = "DURATION", default_value = "1s", env = "TIELINE_GATEWAY_CONNECT_TIMEOUT", value_parser = duration)]
    pub connect_timeout: Duration,
    /// How long a node may take to answer a request for a WebSocket; its application has 5 s to decide on it
    #[arg(long, value_name = "DURATION", default_value = "6s", env = "TIELINE_GATEWAY_ANSWER_TIMEOUT", value_parser = duration)]
    pub answer_timeout: Duration,
    /// How often each node is asked whether it is ready
    #[arg(long, value_name = "DURATION", default_value = "2s", env = "TIELINE_GATEWAY_CHECK_EVERY", value_parser = duration)]
    pub check_every: Duration,
    /// Close a WebSocket over which nothing went for so long; nodes send pings every 25 s
    #[arg(long, value_name = "DURATION", default_value = "2m", env = "TIELINE_GATEWAY_IDLE", value_parser = duration)]
    pub idle: Duration,
    /// How long open WebSockets have to end by themselves when the gateway stops
    #[arg(long, value_name = "DURATION", default_value = "10s", env = "TIELINE_GATEWAY_GRACE", value_parser = parse_duration)]
    pub grace: Duration,
    /// Threads that carry WebSockets; 0 for one for each processor
    #[arg(long, value_name = "N", default_value_t = 0, env = "TIELINE_GATEWAY_THREADS")]
    pub threads: usize,
    /// Lines of the log: a level, or a list such as info,tieline=debug
    #[arg(long, value_name = "FILTER", default_value = "info", env = "TIELINE_GATEWAY_LOG", value_parser = filter)]
    pub log: String,
}

impl GatewaySettings {
    /// What is taken off paths, and put there.
    pub(super) fn prefix(&self) -> Prefix {
        Prefix::new(self.strip_prefix.clone(), self.add_prefix.clone())
    }

    /// Whether whoever comes from elsewhere may be brought only to nodes that want a token. So it is where the listener is not this
    /// machine's alone, or a balancer stands in front of it, unless the operator said otherwise in words.
    pub(super) fn is_guarded(&self) -> bool {
        !self.allow_anonymous && self.is_exposed()
    }

    /// Whether clients from elsewhere reach it.
    pub(super) fn is_exposed(&self) -> bool {
        self.proxy_protocol || !is_loopback(self.listen.ip())
    }

    /// Everything that is in effect, a line for each.
    pub fn show(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &dyn Display| {
            writeln!(text, "{name} = {value}").expect("a string takes all text");
        };
        let none = || "(none)".to_owned();
        line("listen", &self.listen);
        line("admin-listen", &self.admin_listen.map_or_else(none, |address| address.to_string()));
        line("policy", &self.policy);
        line("ring-hash", &self.ring_hash);
        line("bound", &self.bound.map_or_else(none, |bound| bound.to_string()));
        line("strip-prefix", &self.strip_prefix);
        line("add-prefix", &self.add_prefix);
        line("user-path", &self.user_path.join(","));
        line("user-parameter", &self.user_parameter.join(","));
        let trusted: Vec<_> = self.trusted_proxy.iter().map(Network::to_string).collect();
        line("trusted-proxy", &trusted.join(","));
        line("proxy-protocol", &self.proxy_protocol);
        line("allow-anonymous", &self.allow_anonymous);
        line("connections", &self.connections);
        line("connect-rate", &self.connect_rate);
        line("connect-burst", &self.connect_burst);
        line("tries", &self.tries);
        for (name, duration) in [
            ("connect-timeout", self.connect_timeout),
            ("answer-timeout", self.answer_timeout),
            ("check-every", self.check_every),
            ("idle", self.idle),
            ("grace", self.grace),
        ] {
            line(name, &format!("{}ms", duration.as_millis()));
        }
        line("threads", &self.threads);
        line("log", &self.log);
        text
    }
}

fn bound(text: &str) -> Result<f64, &'static str> {
    let bound = text.parse().ok().filter(|bound: &f64| (1.0..=100.0).contains(bound));
    bound.ok_or("expected a number from 1 to 100, such as 1.25")
}

fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        duration if duration >= SHORTEST => Ok(duration),
        _ => Err("expected 100ms at least".to_owned()),
    }
}

fn filter(text: &str) -> Result<String, &'static str> {
    let is_filter = crate::log::is_filter(text);
    is_filter.then(|| text.to_owned()).ok_or("expected a level, or a list such as info,tieline=debug")
}
