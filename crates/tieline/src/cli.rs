//! The command line. The flags of `serve` and `check-config` are made from the table of settings; the others are here.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use tieline_proto::role::Roles;
use tieline_proto::{GroupName, HubName, NodeName, UserId};

use crate::admission::is_origin;
use crate::config::{self, CONFIG_VARIABLE, ConfigErrors, Given, Row, rows};
use crate::dev::DevArgs;
use crate::gateway::GatewaySettings;
use crate::store_bench::StoreBenchArgs;

/// Joins WebSocket servers into one: a client of any node reaches every user, every group and everybody.
#[derive(Debug, Parser)]
#[command(name = "tieline", version, disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Serve(SettingArgs),
    /// Run an edge in front of nodes, which picks one for each connection
    Gateway(GatewayArgs),
    /// Run a whole cluster on this machine, to try things on
    Dev(DevArgs),
    /// Check a configuration and print what is in effect, without running a node
    CheckConfig(SettingArgs),
    /// Have a running node send its clients to the others, and end
    Drain(DrainArgs),
    /// Make a client's access token
    Token(TokenArgs),
    /// Answer each WebSocket message with itself, for conformance suites and load tools
    Echo(EchoArgs),
    /// Load a running server, or a store, and measure it
    Bench(BenchArgs),
}

/// What is measured: the loads of clients, which another crate knows that cannot reach into the server, and the store.
#[derive(Debug)]
pub enum BenchArgs {
    /// Load a server.
    Load(tieline_bench::Args),
    /// Load a store.
    Store(StoreBenchArgs),
}

/// The command that is beside the loads.
const STORE: &str = "store";

impl Args for BenchArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let about = "Append to a store, beside a plain loop of writing and flushing in the same folder";
        let store = StoreBenchArgs::augment_args(clap::Command::new(STORE)).about(about);
        tieline_bench::Args::augment_args(command).subcommand(store)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for BenchArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some((STORE, matches)) => StoreBenchArgs::from_arg_matches(matches).map(BenchArgs::Store),
            _ => tieline_bench::Args::from_arg_matches(matches).map(BenchArgs::Load),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flags that stand for settings, as they were typed.
#[derive(Clone, Debug, Default)]
pub struct SettingArgs {
    /// The configuration file, or its address on a server.
    pub config: Option<String>,
    /// What was typed for each setting, by its key.
    pub flags: Vec<(&'static str, Vec<String>)>,
}

impl SettingArgs {
    /// Everything that was given: the file, the environment of this process, and the flags.
    ///
    /// # Errors
    /// When `--config` is the address of nothing.
    pub fn given(&self) -> Result<Given, ConfigErrors> {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Given::new(self.config.as_deref(), variables.collect(), self.flags.clone())
    }
}

/// The settings that are flags: those above the first section of the file.
fn flag_rows() -> impl Iterator<Item = Row> {
    rows().into_iter().filter(|row| row.section.is_empty())
}

impl Args for SettingArgs {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        let config = Arg::new("config").long("config").value_name("FILE");
        let help = "File of settings, in TOML, or where it is on a Nacos server, `nacos://USER:PASSWORD@HOST/NAMESPACE?dataId=NAME`";
        command = command.arg(config.help(format!("{help} [env: {CONFIG_VARIABLE}]")));
        for row in flag_rows() {
            let action = match (row.is_switch, row.is_list) {
                (true, _) => ArgAction::SetTrue,
                (false, true) => ArgAction::Append,
                (false, false) => ArgAction::Set,
            };
            let default = match row.default.as_str() {
                "[]" | "false" | "(none)" => String::new(),
                default => format!(" [default: {}]", default.trim_matches('"')),
            };
            let text = row.text.trim_end_matches('.');
            let arg = Arg::new(row.name).long(row.flag()).action(action);
            let arg = arg.help(format!("{text} [env: {}]{default}", row.variable));
            command = command.arg(if row.is_switch { arg } else { arg.value_name(value_name(row.name)) });
        }
        command.after_help("Every other setting is in the file, or in a variable: see docs/configuration.md.")
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = SettingArgs::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<String>("config").cloned();
        for row in flag_rows() {
            let typed: Vec<String> = if row.is_switch {
                matches.get_flag(row.name).then(|| "true".to_owned()).into_iter().collect()
            } else {
                matches.get_many::<String>(row.name).into_iter().flatten().cloned().collect()
            };
            if !typed.is_empty() {
                self.flags.push((row.name, typed));
            }
        }
        Ok(())
    }
}

/// What stands for a flag's value in the help.
fn value_name(name: &str) -> &'static str {
    match name {
        "listen" | "admin_listen" | "peer_listen" => "ADDR",
        "broker" => "URL",
        "access_key" => "KEY",
        "access_key_file" => "FILE",
        "allow_origin" => "ORIGIN",
        "demo" => "WHO",
        "shards" => "N",
        _ => "NAME",
    }
}

/// Flags of `tieline token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Key to sign with, one of the server's
    #[arg(long, value_name = "KEY", env = "TIELINE_ACCESS_KEY", hide_env_values = true, value_parser = first_key)]
    pub access_key: String,
    /// Hub that the token opens
    #[arg(long, value_name = "HUB", default_value = "default")]
    pub hub: HubName,
    /// User that the connection will be of; without one it is of nobody
    #[arg(long, value_name = "USER")]
    pub user: Option<UserId>,
    /// Role, such as `webpubsub.sendToGroup` or `webpubsub.joinLeaveGroup.room`; may be repeated
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub role: Vec<String>,
    /// Group that is joined at once; may be repeated
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<GroupName>,
    /// What others see of the connection where it is told who is present, as JSON: `{"name":"Alice"}`
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub presence: Option<serde_json::Value>,
    /// How long the token lives, such as `30m`, `1h` or `7d`
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = config::parse_duration)]
    pub expires: Duration,
    /// Server's address, such as `http://127.0.0.1:7800`: print the whole address to connect to
    #[arg(long, value_name = "URL")]
    pub url: Option<ServerUrl>,
}

/// Flags of `tieline drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Name of the node
    #[arg(long, value_name = "NAME")]
    pub node: NodeName,
    /// Address of any node of the cluster, where the API answers
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7800")]
    pub url: ServerUrl,
    /// Key to sign with, one of the server's; a server of this machine without a key needs none
    #[arg(long, value_name = "KEY", env = "TIELINE_ACCESS_KEY", hide_env_values = true, value_parser = first_key)]
    pub access_key: Option<String>,
    /// Return as soon as the node has been told
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for the node to be gone
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = config::parse_duration)]
    pub timeout: Duration,
}

/// A server's address: `http://` or `https://`, host and port, no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(pub String);

impl FromStr for ServerUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_end_matches('/');
        let url = match text.strip_prefix("ws") {
            Some(rest) => format!("http{rest}"),
            None => text.to_owned(),
        };
        let is_lower = url.starts_with("http://") || url.starts_with("https://");
        if is_lower && is_origin(&url) {
            Ok(ServerUrl(url))
        } else {
            Err("expected http://HOST:PORT, without a path")
        }
    }
}

/// The server's variable may hold several keys; the first one signs.
fn first_key(text: &str) -> Result<String, &'static str> {
    let key = text.split(',').map(str::trim).find(|key| !key.is_empty());
    key.map(str::to_owned).ok_or("the key is empty")
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))
}

/// A role that the server does not know would be ignored in silence; here it is more likely a slip.
fn role(text: &str) -> Result<String, String> {
    if Roles::nothing().add(text) {
        return Ok(text.to_owned());
    }
    let known = tieline_proto::role::Permission::ALL.map(|permission| permission.role()).join(", ");
    Err(format!("known are {known}, each also with a dot and a target behind it"))
}

/// Flags of `tieline gateway`.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// Where the gateway learns of the nodes: `http://HOST:PORT,…`, some of them that are asked; `static://NAME=ws://HOST:PORT[;weight=N],…`; or the registry of the nodes, such as `redis://HOST`
    #[arg(long, value_name = "URL", env = "TIELINE_GATEWAY_REGISTRY", hide_env_values = true)]
    pub registry: String,
    /// Name of the nodes' cluster in that registry
    #[arg(long, value_name = "NAME", default_value = "tieline", env = "TIELINE_GATEWAY_CLUSTER")]
    pub cluster: String,
    /// Key to ask nodes with, one of theirs; a node of this machine without a key needs none
    #[arg(long, value_name = "KEY", env = "TIELINE_ACCESS_KEY", hide_env_values = true, value_parser = first_key)]
    pub access_key: Option<String>,
    /// How it works.
    #[command(flatten)]
    pub settings: GatewaySettings,
    /// Check everything, print what is in effect, and run nothing
    #[arg(long)]
    pub check: bool,
}

/// Flags of `tieline echo`.
#[derive(Debug, Args)]
pub struct EchoArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7801")]
    pub listen: SocketAddr,
    /// Agree to permessage-deflate
    #[arg(long)]
    pub deflate: bool,
    /// Largest message that is taken
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub max_message: usize,
}
