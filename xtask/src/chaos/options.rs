//! [`Options`]: what is asked for on the command line.

use std::path::PathBuf;

/// How `cargo xtask chaos` is called.
pub const USAGE: &str = "\
usage: cargo xtask chaos --broker BROKER --store sqlite|memory|postgres|mysql|redis [--seed N] [--seconds S]
           [--nodes 3] [--senders 6] [--receivers 8] [--rate 200] [--live-only] [--calm] [--binary PATH]
  --broker     mesh, redis, nats, rabbitmq, hazelcast, rocketmq, kafka, redis-cluster or sentinel; of the last two one
               master at a time is broken, and of the last three no links to them
  --seed       chooses the messages, the connections and what is broken when (1)
  --seconds    for how long things are broken (30); healing and judging take about 20 more
  --rate       messages a second, of all senders together
  --live-only  live groups alone, without a store
  --calm       break nothing
  --binary     the program under test; without it, this workspace's is built, without optimisation";

/// What carries messages between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broker {
    Mesh,
    /// A server, by the name that the keeper of engines has for it.
    Server(&'static str),
}

/// The servers that carry messages.
const SERVERS: &[&str] =
    &["redis", "nats", "rabbitmq", "hazelcast", "rocketmq", "kafka", "redis-cluster", "sentinel"];

/// Those of them that are several servers and tell clients where each is. No proxy can stand before one, because clients would go
/// around it.
const SEVERAL: &[&str] = &["redis-cluster", "sentinel"];

impl Broker {
    /// Whether it is several servers, of which one at a time is broken, and no links to them.
    pub(super) fn is_several(self) -> bool {
        matches!(self, Broker::Server(name) if SEVERAL.contains(&name))
    }

    /// Whether a proxy can stand before it. Kafka's server tells its clients where it is too, although it is one.
    pub(super) fn takes_proxies(self) -> bool {
        !self.is_several() && self != Broker::Server("kafka")
    }
}

/// What keeps messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// None: only live groups are tried.
    Absent,
    /// Within a node's process, so there is one node. What it kept is lost when it is killed, and clients are told so.
    Memory,
    /// One file that all nodes share.
    Sqlite,
    /// A server, by the name that the keeper of engines has for it.
    Server(String),
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) seed: u64,
    pub(super) seconds: u32,
    pub(super) broker: Broker,
    pub(super) store: Store,
    /// Nodes at the start.
    pub(super) nodes: usize,
    pub(super) senders: usize,
    pub(super) receivers: usize,
    /// Messages a second.
    pub(super) rate: usize,
    /// Nothing is broken.
    pub(super) is_calm: bool,
    /// None: built first.
    pub(super) binary: Option<PathBuf>,
}

impl Options {
    /// Reads the words behind `chaos`; the error says what is wrong with them.
    pub(super) fn parse(words: &[&str]) -> Result<Options, String> {
        let mut options = Options {
            seed: 1,
            seconds: 30,
            broker: Broker::Mesh,
            store: Store::Absent,
            nodes: 3,
            senders: 6,
            receivers: 8,
            rate: 200,
            is_calm: false,
            binary: None,
        };
        let (mut broker, mut store, mut is_live_only) = (None, None, false);
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if word == "--live-only" {
                is_live_only = true;
                continue;
            }
            if word == "--calm" {
                options.is_calm = true;
                continue;
            }
            let value =
                words.next().ok_or_else(|| format!("`{word}` needs a value, or is unknown\n{USAGE}"))?;
            match word {
                "--seed" => options.seed = number(word, value, 0, u64::MAX)?,
                "--seconds" => options.seconds = number(word, value, 1, 3600)? as u32,
                "--nodes" => options.nodes = number(word, value, 1, 9)? as usize,
                "--senders" => options.senders = number(word, value, 1, 100)? as usize,
                "--receivers" => options.receivers = number(word, value, 1, 100)? as usize,
                "--rate" => options.rate = number(word, value, 1, 2000)? as usize,
                "--binary" => options.binary = Some(value.into()),
                "--broker" => broker = Some(value),
                "--store" => store = Some(value),
                _ => return Err(format!("`{word}` is unknown\n{USAGE}")),
            }
        }
        options.broker = match broker {
            Some("mesh") => Broker::Mesh,
            broker => match SERVERS.iter().find(|name| broker == Some(**name)) {
                Some(name) => Broker::Server(name),
                None => return Err(format!("--broker is mesh or one of {}\n{USAGE}", SERVERS.join(", "))),
            },
        };
        options.store = match (store, is_live_only) {
            (None, true) => Store::Absent,
            (Some("memory"), false) if options.nodes == 1 => Store::Memory,
            (Some("memory"), false) => return Err("a store in memory is one node's alone: --nodes 1".into()),
            (Some("sqlite"), false) => Store::Sqlite,
            // The keeper's mysql is MariaDB.
            (Some("mysql"), false) => Store::Server("mariadb".into()),
            (Some(name @ ("postgres" | "redis")), false) => Store::Server(name.into()),
            _ => return Err(format!("either --store or --live-only is given\n{USAGE}")),
        };
        Ok(options)
    }

    /// The command that runs it again.
    pub(super) fn again(&self) -> String {
        let broker = match self.broker {
            Broker::Mesh => "mesh",
            Broker::Server(name) => name,
        };
        let store = match &self.store {
            Store::Absent => "--live-only".to_owned(),
            Store::Memory => "--store memory".to_owned(),
            Store::Sqlite => "--store sqlite".to_owned(),
            Store::Server(name) if name == "mariadb" => "--store mysql".to_owned(),
            Store::Server(name) => format!("--store {name}"),
        };
        let Options { seed, seconds, nodes, senders, receivers, rate, .. } = self;
        let calm = if self.is_calm { " --calm" } else { "" };
        format!(
            "cargo xtask chaos --seed {seed} --seconds {seconds} --broker {broker} {store} --nodes {nodes} \
             --senders {senders} --receivers {receivers} --rate {rate}{calm}"
        )
    }
}

fn number(word: &str, value: &str, from: u64, to: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (from..=to).contains(number));
    number.ok_or_else(|| format!("`{word} {value}`: a number from {from} to {to} is expected"))
}

#[cfg(test)]
mod tests {
    use super::{Broker, Options, SERVERS, SEVERAL, Store};

    #[test]
    fn the_command_that_is_printed_asks_for_the_same_run() {
        for line in [
            "--broker mesh --store sqlite --seed 7 --seconds 5 --nodes 4",
            "--broker redis --live-only --rate 50 --senders 2 --receivers 3",
            "--broker redis --store mysql --calm",
            "--broker rabbitmq --live-only --seed 3",
            "--broker redis-cluster --store sqlite",
            "--broker mesh --store memory --nodes 1",
        ] {
            let options = Options::parse(&line.split(' ').collect::<Vec<_>>()).unwrap();
            let again = options.again();
            let words: Vec<_> = again.strip_prefix("cargo xtask chaos ").unwrap().split(' ').collect();
            assert_eq!(Options::parse(&words).unwrap(), options);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |line: &str| Options::parse(&line.split(' ').collect::<Vec<_>>()).unwrap_err();
        assert!(refused("--broker mesh").contains("--store"));
        assert!(refused("--broker mesh --store sqlite --live-only").contains("--live-only"));
        assert!(refused("--broker mesh --store memory").contains("--nodes 1"));
        assert!(refused("--broker pigeons --store sqlite").contains("mesh or one of redis"));
        assert!(refused("--broker mesh --store sqlite --seconds none").contains("from 1 to 3600"));
        assert!(refused("--broker mesh --store sqlite --sed 1").contains("--sed"));
    }

    #[test]
    fn names_of_engines_are_those_of_the_keeper() {
        let options = Options::parse(&["--broker", "mesh", "--store", "redis"]).unwrap();
        assert_eq!((options.broker, options.store), (Broker::Mesh, Store::Server("redis".into())));
        assert!(SERVERS.iter().all(|name| crate::engine::kind(name).is_ok()));
        assert!(SEVERAL.iter().all(|name| SERVERS.contains(name)));
    }
}
