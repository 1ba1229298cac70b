//! The tieline server as a program: configuration, the HTTP edge, and the commands.
//!
//! What it is: the one crate that sees all others, and joins them. What it is not: nothing here knows a frame of the wire or
//! holds a connection; the edge hands each socket to the switchboard, and `tieline-core` decides what its messages mean. A
//! library beside the program, so that tests start a whole server in their own process.

pub mod admission;
mod api;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod dev;
pub mod directory;
pub mod drain;
pub mod echo;
pub mod gateway;
pub mod http;
pub mod log;
pub mod membership;
pub mod metrics;
pub mod mint;
pub mod rebalance;
pub mod registry;
pub mod reload;
pub mod rest;
pub mod routes;
pub mod serve;
pub mod stop;
pub mod store;
pub mod store_bench;
pub mod upstream;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;

use tieline_core::token::TokenError;

use cli::{BenchArgs, Cli, Command, GatewayArgs, SettingArgs};
use config::{Checked, ConfigErrors};
use reload::Reload;
use stop::Signals;

/// Why a command ended in failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration has mistakes.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The shards could not be started, or one of them failed.
    #[error(transparent)]
    Switchboard(#[from] tieline_switchboard::Error),
    /// The node could not be started.
    #[error(transparent)]
    Start(#[from] tieline_core::StartError),
    /// A token could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A load run failed.
    #[error(transparent)]
    Bench(#[from] tieline_bench::BenchError),
    /// A store could not be measured.
    #[error(transparent)]
    StoreBench(#[from] store_bench::StoreBenchError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::StoreOpenError),
    /// The node could not become a member of its cluster.
    #[error(transparent)]
    Membership(#[from] membership::MembershipError),
    /// The node had to give way to another.
    #[error(transparent)]
    Expelled(#[from] membership::Expelled),
    /// The gateway cannot learn of the nodes.
    #[error(transparent)]
    Gateway(#[from] gateway::GatewayError),
    /// The application's endpoints cannot be reached safely.
    #[error(transparent)]
    Upstream(#[from] upstream::ClientError),
    /// A node could not be emptied.
    #[error(transparent)]
    Drain(#[from] drain::order::DrainError),
    /// The system does not hand out its signals.
    #[error("signals cannot be waited for: {0}")]
    Signals(#[source] io::Error),
    /// The runtime could not be started, or cannot watch a listener.
    #[error("the runtime fails: {0}")]
    Runtime(#[source] io::Error),
    /// What the nodes of `dev` are to keep messages in is no store.
    #[error("--store: {0}")]
    DevStore(#[source] store::StoreUrlError),
    /// There is no place for what the nodes of `dev` keep.
    #[error("a folder for the store cannot be made: {0}")]
    Folder(#[source] io::Error),
    /// Nobody reads what is printed.
    #[error("the standard output cannot be written to: {0}")]
    Output(#[source] io::Error),
}

impl Failure {
    fn bind(address: SocketAddr, source: io::Error) -> Self {
        Failure::Bind { address, source }
    }

    /// What the program's caller is told: 2 for mistakes in what it was asked, 1 for all else.
    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Config(_) | Failure::DevStore(_) => ExitCode::from(2),
            Failure::Gateway(error) if error.is_mistake() => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// The whole program.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Gateway(args) => gateway(args),
        Command::Dev(args) => dev(&args),
        Command::CheckConfig(args) => check_config(&args),
        Command::Drain(args) => run_async(async {
            let say = |line: &str| eprintln!("{line}");
            drain::order::order(&args, say).await.map_err(Failure::from)
        }),
        Command::Token(args) => {
            mint::mint(&args).map_err(Failure::from).and_then(|text| print(&format!("{text}\n")))
        }
        Command::Echo(args) => {
            log::start(&config::Log::default());
            run_async(echo::run(&args))
        }
        Command::Bench(BenchArgs::Load(args)) => tieline_bench::run(args).map_err(Failure::from),
        Command::Bench(BenchArgs::Store(args)) => store_bench::run(&args)
            .map_err(Failure::from)
            .and_then(|report| print(&if args.json { report.to_json() } else { report.to_string() })),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                eprintln!("error: {line}");
            }
            failure.exit_code()
        }
    }
}

fn serve(args: &SettingArgs) -> Result<(), Failure> {
    let given = args.given()?;
    run_async(async {
        let signals = Signals::new().map_err(Failure::Signals)?;
        let hangups = stop::hangups().map_err(Failure::Signals)?;
        let (settings, reload) = Reload::begin(given, hangups).await?;
        log::start(&settings.log);
        reload.tell();
        let (stop, hurry) = signals.split();
        serve::serve(settings, Some(reload), serve::Addresses::announce, stop, hurry).await
    })
}

fn gateway(args: GatewayArgs) -> Result<(), Failure> {
    let GatewayArgs { registry, cluster, access_key, settings, check } = args;
    let source = gateway::source(&registry)?;
    if check {
        return print(&format!("registry = {source}\ncluster = {cluster}\n{}", settings.show()));
    }
    log::start(&config::Log { filter: settings.log.clone(), ..config::Log::default() });
    run_async(async {
        let signals = Signals::new().map_err(Failure::Signals)?;
        // It follows the nodes as long as it is there.
        let registry = gateway::open(source, &cluster, access_key).await?;
        gateway::serve(settings, registry.view(), gateway::GatewayAddresses::announce, signals.stop()).await
    })
}

fn dev(args: &dev::DevArgs) -> Result<(), Failure> {
    log::start(&config::Log { filter: "warn".to_owned(), ..config::Log::default() });
    run_async(async {
        let signals = Signals::new().map_err(Failure::Signals)?;
        let ready = |nodes: &[_]| io::stdout().write_all(dev::describe(nodes).as_bytes());
        dev::run(args, ready, signals.stop()).await
    })
}

fn check_config(args: &SettingArgs) -> Result<(), Failure> {
    let given = args.given()?;
    run_async(async {
        let Checked { settings, layers, .. } = given.load().await?;
        print(&settings.show(&layers))
    })
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Output)
}

fn run_async(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    let result = runtime.block_on(command);
    // Sockets in the middle of a request had their grace already.
    runtime.shutdown_background();
    result
}
