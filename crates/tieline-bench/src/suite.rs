//! All loads against a server that is started here, in turns with the floor, and against socket.io when it is there.
//!
//! Each server is a fresh process for the row of idle memory and for that of tokens, and one process for all the rest.
//! A row that fails is shown as failed, the others go on, and the program then ends non-zero. The numbers are the
//! loads' own: nothing is measured here. Tested by `tests/command.rs` as far as starting servers; the table has tests of
//! its own.

mod table;

use crate::args::{Connect, Connecting, Fanout, Groups, Idle, Lasting, Measuring, Suite, Unicast};
use crate::child::{Server, own_command};
use crate::dialect::Dialect;
use crate::error::BenchError;
use crate::idle::IdleReport;
use crate::progress::Progress;
use crate::report::Report;
use crate::scenario::{self, Scenario};
use crate::{connect, idle};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;

/// Limit of opening and of each run, in seconds.
const TIME_LIMIT: f64 = 120.0;
/// Limit of standing still, in seconds.
const STALL_LIMIT: f64 = 10.0;
/// The key that the row of tokens signs with.
const ACCESS_KEY: &str = "the key of a benchmark, which guards nothing";
/// Pairs of the rows that measure latency.
const LATENCY_PAIRS: u16 = 5;
/// Connections of the row of idle memory.
const IDLE_CONNECTIONS: u32 = 10_000;
/// Connections opened at once by the row of tokens.
const CONNECTIONS: u32 = 1000;

/// One row of the table.
struct Row {
    /// What is measured, as the table says it.
    name: &'static str,
    /// The measure of the report that the table shows, and its target as a ratio to the floor or an absolute number.
    shows: &'static [(&'static str, Target)],
    /// How it is measured.
    load: Load,
}

/// What is promised of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
enum Target {
    /// At most so many times the floor.
    Floor(f64),
    /// At most so much.
    Most(f64),
    /// Shown, with nothing promised.
    None,
}

/// The load of a row.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    /// A fan-out with so many messages outstanding.
    Fanout(u16),
    /// The same on the reliable protocol.
    Reliable(u16),
    /// A fan-out at so many deliveries a second.
    FanoutRate(f64),
    /// Twenty groups of fifty.
    Groups,
    /// Users to users with 64 outstanding.
    Unicast,
    /// Users to users at so many a second.
    UnicastRate(f64),
    /// Quiet connections.
    Idle,
    /// Connections with tokens.
    Connect,
}

/// The measure of processor time.
const CPU: &str = "server CPU, µs";

/// All rows, with the targets of the project's performance document.
const ROWS: [Row; 9] = [
    Row {
        name: "fan-out 1:1000, 1 outstanding, µs per delivery",
        shows: &[(CPU, Target::Floor(1.15))],
        load: Load::Fanout(1),
    },
    Row {
        name: "fan-out 1:1000, 16 outstanding, µs per delivery",
        shows: &[(CPU, Target::Floor(1.3))],
        load: Load::Fanout(16),
    },
    Row {
        name: "1,000 users in 20 groups of 50, 16 outstanding, µs per delivery",
        shows: &[(CPU, Target::Floor(1.5))],
        load: Load::Groups,
    },
    Row {
        name: "unicast, 64 outstanding, µs per delivery",
        shows: &[(CPU, Target::Floor(1.25))],
        load: Load::Unicast,
    },
    Row {
        name: "reliable fan-out 1:1000, 16 outstanding, µs per delivery",
        shows: &[(CPU, Target::Floor(1.6))],
        load: Load::Reliable(16),
    },
    Row {
        name: "unicast at 1,000/s, µs",
        shows: &[("p50, µs", Target::Floor(1.3)), ("p99, µs", Target::Floor(1.3))],
        load: Load::UnicastRate(1000.0),
    },
    Row {
        name: "fan-out at 100,000 deliveries/s, µs",
        shows: &[("p50, µs", Target::None), ("p99, µs", Target::Floor(1.3))],
        load: Load::FanoutRate(100_000.0),
    },
    Row { name: "idle memory, bytes per connection", shows: &[("", Target::Most(1000.0))], load: Load::Idle },
    Row {
        name: "connect, upgrade and token, µs per connection",
        shows: &[(CPU, Target::Most(40.0))],
        load: Load::Connect,
    },
];

/// What a load gave.
#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Outcome {
    /// Runs.
    Runs(Report),
    /// Memory.
    Memory(IdleReport),
    /// Why there is nothing else.
    Failed {
        /// The error, in words.
        failed: String,
    },
    /// The server has no such thing.
    Absent,
}

/// All that one server gave.
#[derive(Serialize)]
struct Results {
    /// Its name.
    server: &'static str,
    /// One outcome for each of [`ROWS`], in their order.
    rows: Vec<Outcome>,
}

/// A server under test.
struct Contender {
    /// Its name in the table.
    name: &'static str,
    /// Program and arguments.
    command: Vec<OsString>,
    /// What it speaks, but for the row of the reliable protocol.
    dialect: Dialect,
    /// The path of its client URL.
    path: &'static str,
}

/// Runs everything and prints the table.
pub(crate) fn run(options: &Suite) -> Result<(), BenchError> {
    let files = scenario::prepare(&options.measuring(&[], options.pairs))?;
    let mut progress = Progress::new(options.progress);
    let mut contenders = vec![Contender {
        name: "tieline",
        command: options.server_command()?,
        dialect: Dialect::Tieline,
        path: "/client/hubs/bench",
    }];
    if let Some(folder) = &options.socketio {
        let command = vec!["node".into(), folder.join("server.js").into_os_string()];
        contenders.push(Contender {
            name: "socket.io",
            command,
            dialect: Dialect::SocketIo,
            path: "/socket.io/",
        });
    }
    let results: Vec<Results> = contenders
        .iter()
        .map(|contender| {
            let rows = contender.run_all(options, files, &mut progress).unwrap_or_else(|error| {
                let failed = Outcome::Failed { failed: error.to_string() };
                vec![failed; ROWS.len()]
            });
            Results { server: contender.name, rows }
        })
        .collect();
    progress.clear();
    let mut out = std::io::stdout();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &results).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", table::Table { results: &results })?;
    }
    let outcomes = results.iter().flat_map(|results| &results.rows);
    let failed = outcomes.filter(|outcome| matches!(outcome, Outcome::Failed { .. })).count();
    match failed {
        0 => Ok(()),
        failed => Err(BenchError::arguments(format!("{failed} rows failed; the table says why"))),
    }
}

impl Suite {
    /// The server's program and arguments.
    fn server_command(&self) -> Result<Vec<OsString>, BenchError> {
        Ok(match &self.server_cmd {
            Some(line) => line.split_whitespace().map(OsString::from).collect(),
            None => vec![own_command()?.0, "serve".into()],
        })
    }

    /// How each load is measured.
    fn measuring(&self, processes: &[u32], pairs: u16) -> Measuring {
        Measuring {
            pid: processes.to_vec(),
            floor: true,
            pairs: Some(pairs),
            pin_server: self.pin_server,
            pin_client: self.pin_client,
            json: self.json,
            progress: self.progress,
            time_limit: TIME_LIMIT,
            stall_limit: STALL_LIMIT,
        }
    }

    /// How long each run lasts.
    fn lasting(&self, rate: Option<f64>) -> Lasting {
        Lasting { seconds: self.seconds, messages: None, warm_up: self.seconds / 2.0, payload: 128, rate }
    }
}

impl Contender {
    /// All rows against this server.
    fn run_all(
        &self,
        options: &Suite,
        files: u64,
        progress: &mut Progress,
    ) -> Result<Vec<Outcome>, BenchError> {
        let server = Server::start(&self.command, options.pin_server)?;
        let mut outcomes = Vec::with_capacity(ROWS.len());
        for row in &ROWS {
            let outcome = match row.load {
                Load::Reliable(_) if self.dialect != Dialect::Tieline => Ok(Outcome::Absent),
                Load::Idle => Server::start(&self.command, options.pin_server)
                    .and_then(|server| self.run(row.load, &server, options, files, progress)),
                Load::Connect => Server::start(&self.command_with_key(), options.pin_server)
                    .and_then(|server| self.run(row.load, &server, options, files, progress)),
                load => self.run(load, &server, options, files, progress),
            };
            outcomes.push(outcome.unwrap_or_else(|error| Outcome::Failed { failed: error.to_string() }));
        }
        Ok(outcomes)
    }

    /// One load against a server of this kind.
    fn run(
        &self,
        load: Load,
        server: &Server,
        options: &Suite,
        files: u64,
        progress: &mut Progress,
    ) -> Result<Outcome, BenchError> {
        let connecting = Connecting {
            other_url: None,
            url: format!("ws://{}{}", server.address, self.path),
            protocol: match load {
                Load::Reliable(_) => Some(Dialect::Reliable),
                _ => Some(self.dialect),
            },
            access_key: (load == Load::Connect && self.has_keys()).then(|| ACCESS_KEY.to_owned()),
        };
        let service = scenario::service(&connecting, self.dialect)?;
        let pairs = match load {
            Load::FanoutRate(_) | Load::UnicastRate(_) => options.pairs.min(LATENCY_PAIRS),
            _ => options.pairs,
        };
        let measuring = options.measuring(&[server.id()], pairs);
        let fanout = |window, rate| {
            let (connecting, measuring) = (connecting.clone(), measuring.clone());
            let lasting = options.lasting(rate);
            Scenario::fanout(&Fanout { connecting, subscribers: 1000, window, lasting, measuring })
        };
        let unicast = |rate| {
            let (connecting, measuring) = (connecting.clone(), measuring.clone());
            let lasting = options.lasting(rate);
            Scenario::unicast(&Unicast { connecting, users: 1000, outstanding: 64, lasting, measuring })
        };
        let scenario = match load {
            Load::Fanout(window) | Load::Reliable(window) => fanout(window, None),
            Load::FanoutRate(rate) => fanout(1, Some(rate)),
            Load::Unicast => unicast(None),
            Load::UnicastRate(rate) => unicast(Some(rate)),
            Load::Groups => Scenario::groups(&Groups {
                connecting: connecting.clone(),
                users: 1000,
                groups: 20,
                size: 50,
                outstanding: 16,
                lasting: options.lasting(None),
                measuring: measuring.clone(),
            }),
            Load::Idle => {
                let options = Idle {
                    connecting,
                    connections: IDLE_CONNECTIONS,
                    each: 3,
                    settle: options.seconds,
                    measuring,
                };
                return idle::run(&options, service, files, progress).map(Outcome::Memory);
            }
            Load::Connect => {
                let options = Connect { connecting, count: CONNECTIONS, measuring };
                return connect::run(&options, service, files, progress).map(Outcome::Runs);
            }
        };
        scenario.run(service, &measuring, progress).map(Outcome::Runs)
    }

    /// Whether this server takes access keys.
    fn has_keys(&self) -> bool {
        self.dialect == Dialect::Tieline
    }

    /// The command of a server that wants tokens, if this one can.
    fn command_with_key(&self) -> Vec<OsString> {
        let mut command = self.command.clone();
        if self.has_keys() {
            command.extend(["--access-key".into(), ACCESS_KEY.into()]);
        }
        command
    }
}
