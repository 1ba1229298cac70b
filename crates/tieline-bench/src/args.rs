//! The command line of `tieline bench`, and nothing else: what the options mean is with the loads.
//! Tested here: the definition itself, contradictions, defaults.

use crate::dialect::{Dialect, LEAST_PAYLOAD};
use crate::floor::Mode;
use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Options of `tieline bench`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What a run does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One publisher sends to one group of all other connections
    Fanout(Fanout),
    /// Members of many groups send to their groups
    Groups(Groups),
    /// Users send to each other
    Unicast(Unicast),
    /// The fan-out on the reliable protocol, with acknowledgements once a second
    Reliable(Fanout),
    /// Memory of the server per connection that has had traffic and is now quiet
    Idle(Idle),
    /// Processor time of the server per connection opened
    Connect(Connect),
    /// All of the above against a server started here, as a table in Markdown
    Suite(Suite),
    /// The reference that --floor compares with, as a process of its own
    #[command(hide = true)]
    FloorServer(FloorServer),
}

/// The names of all commands, by which a process finds out how it was called.
pub(crate) const COMMANDS: [&str; 8] =
    ["fanout", "groups", "unicast", "reliable", "idle", "connect", "suite", "floor-server"];

/// Where connections go and what they say.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Connecting {
    /// Where clients connect, such as ws://127.0.0.1:7800/client/hubs/bench
    pub(crate) url: String,
    /// Another node of the same cluster, where receivers connect: messages then cross from node to node
    #[arg(long, value_name = "URL")]
    pub(crate) other_url: Option<String>,
    /// Subprotocol of all connections [default: tieline.v1; for `reliable` the reliable one]
    #[arg(long, value_enum)]
    pub(crate) protocol: Option<Dialect>,
    /// Sign a token for each connection with this key instead of connecting anonymously
    #[arg(long, value_name = "KEY", env = "TIELINE_ACCESS_KEY", hide_env_values = true)]
    pub(crate) access_key: Option<String>,
}

/// How a run is measured and shown.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Measuring {
    /// Process of the server, for its processor time and memory; may be given several times
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// Alternate with a plain epoll server that writes frames of the same size, and report the ratio
    #[arg(long)]
    pub(crate) floor: bool,
    /// Runs of each with --floor [default: 7; with --rate 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), requires = "floor")]
    pub(crate) pairs: Option<u16>,
    /// Let the processes of --pid and the floor run on this CPU alone
    #[arg(long, value_name = "CPU")]
    pub(crate) pin_server: Option<usize>,
    /// Let the load generator run on this CPU alone
    #[arg(long, value_name = "CPU")]
    pub(crate) pin_client: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show progress on standard error even when it is no terminal
    #[arg(long)]
    pub(crate) progress: bool,
    /// Limit for opening the connections, and for each run
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = seconds)]
    pub(crate) time_limit: f64,
    /// End a run when nothing has arrived for so long though messages are outstanding
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) stall_limit: f64,
}

/// How long a run lasts.
#[derive(Clone, Copy, Debug, ClapArgs)]
#[command(group = ArgGroup::new("length").args(["seconds", "messages"]))]
pub(crate) struct Lasting {
    /// Length of each run
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Messages of each run, instead of its length
    #[arg(long, value_name = "N")]
    pub(crate) messages: Option<u64>,
    /// A run of this length comes first and is not counted
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// Bytes of each message's JSON data
    #[arg(long, value_name = "BYTES", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(LEAST_PAYLOAD as i64..=65_536))]
    pub(crate) payload: u32,
    /// Deliveries a second, whatever arrives, instead of a window: measures latency
    #[arg(long, value_name = "DELIVERIES", value_parser = rate)]
    pub(crate) rate: Option<f64>,
}

/// Options of `fanout` and `reliable`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) connecting: Connecting,
    /// Members of the group
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) subscribers: u32,
    /// Messages outstanding: the next is sent when one has reached everybody
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000), conflicts_with = "rate")]
    pub(crate) window: u16,
    #[command(flatten)]
    pub(crate) lasting: Lasting,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
}

/// Options of `groups`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Groups {
    #[command(flatten)]
    pub(crate) connecting: Connecting,
    /// Connections, each a user
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub(crate) users: u32,
    /// Groups; with more than users / size, users are in several
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) groups: u32,
    /// Members of each group; must divide the users
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub(crate) size: u32,
    /// Messages outstanding
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000), conflicts_with = "rate")]
    pub(crate) outstanding: u16,
    #[command(flatten)]
    pub(crate) lasting: Lasting,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
}

/// Options of `unicast`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Unicast {
    #[command(flatten)]
    pub(crate) connecting: Connecting,
    /// Connections, each a user
    // The ledger has a number for each pair of users, so this bounds it at 128 MiB.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4000))]
    pub(crate) users: u32,
    /// Messages outstanding
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000), conflicts_with = "rate")]
    pub(crate) outstanding: u16,
    #[command(flatten)]
    pub(crate) lasting: Lasting,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
}

/// Options of `idle`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) connecting: Connecting,
    /// Connections to open; a multiple of 10
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub(crate) connections: u32,
    /// Messages that each connection sends to the nine others of its group
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) each: u16,
    /// Quiet time before the memory is read
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) settle: f64,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
}

/// Options of `connect`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub(crate) connecting: Connecting,
    /// Connections to open in each run
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) measuring: Measuring,
}

/// Options of `suite`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Suite {
    /// Program and arguments of the server; `--listen ADDRESS` is appended [default: this program's `serve`]
    #[arg(long, value_name = "COMMAND")]
    pub(crate) server_cmd: Option<String>,
    /// Folder with socket.io's server.js and its installed packages, to put it beside the server
    #[arg(long, value_name = "FOLDER")]
    pub(crate) socketio: Option<PathBuf>,
    /// Length of each run
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Runs of each kind and server
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) pairs: u16,
    /// Let all servers run on this CPU alone
    #[arg(long, value_name = "CPU")]
    pub(crate) pin_server: Option<usize>,
    /// Let the load generator run on this CPU alone
    #[arg(long, value_name = "CPU")]
    pub(crate) pin_client: Option<usize>,
    /// Print the results as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show progress on standard error even when it is no terminal
    #[arg(long)]
    pub(crate) progress: bool,
}

/// Options of `floor-server`.
#[derive(Debug, ClapArgs)]
pub(crate) struct FloorServer {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Bytes of each frame sent, header included
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) frame_bytes: usize,
    /// When to write
    #[arg(long, value_enum, default_value_t = Mode::Gather)]
    pub(crate) mode: Mode,
    /// End when standard input does
    #[arg(long)]
    pub(crate) with_parent: bool,
}

/// A length of time in seconds: more than nothing, at most a day.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("it must be a number of seconds above 0 and at most 86400".to_owned()),
    }
}

/// A number per second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.01..=100_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("it must be a number of deliveries a second from 0.01 to 100000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("bench").chain(line.split(' '))).map(|cli| cli.args.command)
    }

    #[test]
    fn the_definition_holds_and_every_command_is_known_by_name() {
        Cli::command().debug_assert();
        let names: Vec<String> =
            Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert_eq!(names.len(), COMMANDS.len());
        assert!(names.iter().all(|name| COMMANDS.contains(&name.as_str())));
    }

    #[test]
    fn defaults_are_those_of_the_targets() {
        let Command::Fanout(fanout) = parse("fanout ws://h/").unwrap() else { panic!("not a fan-out") };
        assert_eq!((fanout.subscribers, fanout.window, fanout.lasting.payload), (1000, 16, 128));
        let Command::Groups(groups) = parse("groups ws://h/").unwrap() else { panic!("not groups") };
        assert_eq!((groups.users, groups.groups, groups.size, groups.outstanding), (1000, 20, 50, 16));
        let Command::Unicast(unicast) = parse("unicast ws://h/ --rate 1000").unwrap() else {
            panic!("not unicast")
        };
        assert_eq!((unicast.outstanding, unicast.lasting.rate), (64, Some(1000.0)));
    }

    #[test]
    fn contradictions_and_impossible_numbers_are_refused() {
        for line in [
            "fanout",
            "fanout ws://h/ --window 4 --rate 10",
            "fanout ws://h/ --seconds 1 --messages 5",
            "fanout ws://h/ --seconds 0",
            "fanout ws://h/ --seconds x",
            "fanout ws://h/ --payload 10",
            "fanout ws://h/ --pairs 3",
            "fanout ws://h/ --protocol smoke-signals",
            "unicast ws://h/ --users 1000000",
            "unicast ws://h/ --rate -1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
