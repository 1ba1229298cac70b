//! Clusters whose users belong where the ring has them, with a gateway and a registry: a node that comes gets its users from the
//! others, and nobody else moves; and nodes that disagree about where users belong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tieline_core::ring::{Ring, RingHash};
use tieline_websocket::ClientRequest;
use xtask::Engine;

use crate::client::{Client, to_group, to_user};
use crate::dialects::{Dialect, Heard, Speaker};
use crate::gateway::{OPEN, arguments, home};
use crate::processes::{Process, SECRET, any, eventually};
use crate::support::PATIENCE;
use crate::support::http::call;
use crate::support::program::tieline;
use crate::support::socket::{Frame, Socket};

/// Clients of `tieline.v1`, and as many beside that are sent in other ways.
const USERS: usize = 36;

/// For so long nobody is told anything where nobody is to go: longer than a ring needs to settle.
const QUIET: Duration = Duration::from_secs(6);

/// A cluster by a Redis server as its registry, and a gateway that looks there too.
struct World {
    registry: Engine,
    cluster: String,
    folder: PathBuf,
    flags: Vec<&'static str>,
    nodes: Vec<Process>,
    gateway: Option<Process>,
}

impl World {
    fn start(test: &str, count: usize, flags: &[&'static str]) -> World {
        let name = format!("{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(format!("tieline-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let registry = Engine::redis().start().unwrap();
        let mut world = World {
            registry,
            cluster: name,
            folder,
            flags: flags.to_vec(),
            nodes: Vec::new(),
            gateway: None,
        };
        (0..count).for_each(|_| world.add());
        let (url, cluster) = (world.registry.url().to_owned(), world.cluster.clone());
        let mut command = tieline(&arguments(&url));
        command.args(["--cluster", &cluster]);
        let gateway = Process::spawn("gateway", command);
        eventually("the gateway knows the nodes", || {
            gateway.metric("tieline_gateway_nodes{state=\"well\"}") == count as u64
        });
        world.gateway = Some(gateway);
        world
    }

    fn command(&self, name: &str) -> std::process::Command {
        let store = format!("sqlite://{}", self.folder.join("s.db").display());
        let config = self.folder.join("tieline.toml");
        let rules = format!("store = {store:?}\n[[group]]\nmatch = \"kept\"\nhistory = {{}}\n");
        std::fs::write(&config, rules).unwrap();
        let mut command = tieline(&["serve", "--node", name, "--shards", "2", "--listen", "127.0.0.1:0"]);
        command.args(["--cluster", &self.cluster, "--registry", self.registry.url(), "--config"]).arg(config);
        command.args(["--broker", "mesh:", "--peer-listen", "127.0.0.1:0"]).args(OPEN).args(&self.flags);
        command.env("TIELINE_LIMITS_MESSAGE_RATE", "0");
        command
    }

    fn add(&mut self) {
        let name = format!("n{}", self.nodes.len());
        self.nodes.push(Process::spawn(&name, self.command(&name)));
        let count = self.nodes.len();
        for node in &self.nodes {
            eventually("each reaches all", || node.reaches().len() == count);
        }
    }

    /// Waits until each node takes the ring of all of them for what it is, and what follows for a change.
    fn wait_until_settled(&mut self) {
        let line = format!("The ring is settled. nodes={}", self.nodes.len());
        self.nodes.iter_mut().for_each(|node| node.wait_for_log(&line));
    }

    fn gateway(&self) -> &Process {
        self.gateway.as_ref().unwrap()
    }

    /// How each node calls itself in the ids of its connections.
    fn homes(&self) -> Vec<String> {
        self.nodes.iter().map(|node| home(&node.connect("probes", "probe"))).collect()
    }

    fn sum(&self, metric: &str) -> u64 {
        self.nodes.iter().map(|node| node.metric(metric)).sum()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.gateway = None;
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn ring(count: usize) -> Ring {
    let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
    Ring::new(RingHash::Tieline, names.iter().map(|name| (&**name, 1)))
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

/// What one client has heard.
#[derive(Default)]
struct History {
    /// The numbers of live messages to its user, and of kept ones.
    live: Vec<u64>,
    kept: Vec<u64>,
    /// Where its connections were, one after the other.
    homes: Vec<String>,
    /// The last place that it has of the log.
    position: Option<Value>,
}

impl History {
    fn join(&mut self, client: &mut Client) {
        self.homes.push(home(client));
        let mut join = json!({"type": "joinGroup", "group": "kept"});
        if let Some(position) = &self.position {
            join["since"] = position.clone();
        }
        client.send_acked(join);
    }

    /// Reads until both kinds of messages have ended, and goes where it is told.
    fn follow(mut self, mut client: Client, user: &str, gateway: std::net::SocketAddr) -> History {
        let (mut next, mut ends) = (None::<Client>, BTreeSet::new());
        while ends.len() < 2 {
            let Some(frame) = client.next_within(PATIENCE) else { panic!("{user} hears nothing any more") };
            let is_kept = frame["group"] == "kept";
            match (frame["type"].as_str(), frame["event"].as_str()) {
                (Some("message"), _) => {
                    if is_kept {
                        self.position = Some(frame["position"].clone());
                    }
                    let of = if is_kept { &mut self.kept } else { &mut self.live };
                    match frame["data"].as_u64() {
                        Some(number) => of.push(number),
                        None => drop(ends.insert(is_kept)),
                    }
                }
                (Some("ack"), _) => assert_eq!(frame["success"], true, "{frame}"),
                (_, Some("reconnect")) => {
                    let query = format!("user={user}&replaces={}", client.id);
                    next = Some(Client::enter(gateway, "h", &query).unwrap());
                }
                (_, Some("disconnected")) => {}
                (Some("close"), _) => {
                    assert_eq!(frame["code"], 1000, "it has another connection");
                    client = next.take().expect("it was told before");
                    self.join(&mut client);
                }
                _ => panic!("{frame}"),
            }
        }
        // On two connections at once it may have got one twice.
        for of in [&mut self.live, &mut self.kept] {
            of.sort_unstable();
            of.dedup();
        }
        self
    }
}

#[test]
fn a_node_that_comes_gets_its_users_from_the_others_and_nobody_else_moves() {
    let mut world = World::start("rebalance", 3, &["--placement", "ring", "--rebalance-rate", "100"]);
    let (before, after) = (ring(3), ring(4));
    world.wait_until_settled();
    let gateway = world.gateway().address;
    let clients: Vec<(History, Client)> = (0..USERS)
        .map(|number| {
            let (mut client, mut history) =
                (Client::connect(gateway, "h", &user(number)), History::default());
            history.join(&mut client);
            assert_eq!(client.next()["success"], true);
            (history, client)
        })
        .collect();
    // Two that are not told: users of their own who belong to the fourth node.
    let goes = |number: &usize| after.owner(&user(*number)) == Some("n3");
    let mut own = (1000..).filter(goes).map(user);
    let (reliable, plain) = (own.next().unwrap(), own.next().unwrap());
    let mut recovers = Speaker::connect(gateway, Dialect::Reliable, "h", &reliable);
    let azure = || {
        let path = format!("/client/hubs/h?user={plain}");
        let request = ClientRequest::new(&gateway.to_string(), &path).unwrap();
        Socket::open(gateway, request.protocol("json.webpubsub.azure.v1")).unwrap()
    };
    let mut returns = azure();
    // Who writes is at home with the first node, and has nobody to follow. Somebody without a user stays wherever it is.
    let writes = (2000..).map(user).find(|user| after.owner(user) == Some("n0")).unwrap();
    let mut sender = world.nodes[0].connect("h", &writes);
    let mut nobody = Client::enter(gateway, "h", "x=y").unwrap();
    // This one is not where the ring has it; its owner stays the same, and so does it.
    let stray = (3000..).map(user).find(|user| after.owner(user) == Some("n1")).unwrap();
    let mut strays = world.nodes[0].connect("h", &stray);

    let stop = AtomicBool::new(false);
    let (sent, histories) = thread::scope(|scope| {
        let readers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, (history, client))| {
                scope.spawn(move || history.follow(client, &user(number), gateway))
            })
            .collect();
        let stop = &stop;
        let writer = scope.spawn(move || {
            let mut say = |data: Value| {
                let ack = sender.ask(to_group("kept", data.clone()));
                assert_eq!(ack["success"], true, "{ack}");
                for number in 0..USERS {
                    let ack = sender.ask(to_user(&user(number), data.clone()));
                    assert_eq!((&ack["success"], &ack["unknown"]), (&json!(true), &json!(0)), "{ack}");
                }
            };
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                say(sent.into());
                sent += 1;
            }
            say("end".into());
            sent
        });
        world.add();
        let moved = || world.sum("tieline_rebalance_moved_total");
        let expected = (0..USERS).filter(|number| goes(number)).count() as u64 + 2;
        // These two find out by the end of their sockets.
        assert!(matches!(recovers.next_within(PATIENCE * 2), Some(Heard::End)));
        recovers = recovers.recover_by(gateway, &format!("/client/hubs/h?user={reliable}&")).unwrap();
        let mut told = returns.next();
        while let Frame::Text(_) = told {
            told = returns.next();
        }
        assert!(matches!(told, Frame::Close(4503, _)), "it may come again: {told:?}");
        let returned = azure();
        eventually("all have been told", || moved() == expected);
        eventually("all have come", || world.nodes[3].metric("tieline_connections") == expected);
        stop.store(true, Ordering::Relaxed);
        let sent: u64 = writer.join().unwrap();
        let histories: Vec<History> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert_eq!((moved(), world.sum("tieline_rebalance_planned_total")), (expected, expected));
        drop(returned);
        (sent, histories)
    });
    let homes = world.homes();
    let home_of = |owner: Option<&str>| homes[owner.unwrap()[1..].parse::<usize>().unwrap()].clone();
    let mut users_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, history) in histories.iter().enumerate() {
        let (was, is) = (before.owner(&user(number)), after.owner(&user(number)));
        let path = if was == is { vec![home_of(was)] } else { vec![home_of(was), homes[3].clone()] };
        assert_eq!(history.homes, path, "{}", user(number));
        assert_eq!(history.live, (0..sent).collect::<Vec<_>>(), "{}", user(number));
        assert_eq!(history.kept, (0..sent).collect::<Vec<_>>(), "{}", user(number));
        *users_of.entry(is.unwrap()).or_default() += 1;
    }
    assert_eq!(users_of.len(), 4, "{users_of:?}");
    for quiet in [&mut nobody, &mut strays] {
        quiet.expect_nothing();
    }
}

#[test]
fn where_nobody_is_to_be_moved_only_new_connections_follow_the_ring() {
    let mut world = World::start("never", 1, &["--placement", "ring", "--rebalance", "never"]);
    let after = ring(2);
    let mut of_new = (0..).map(user).filter(|user| after.owner(user) == Some("n1"));
    let (old, new) = (of_new.next().unwrap(), of_new.next().unwrap());
    let mut stays = world.gateway().connect("h", &old);
    assert_eq!(stays.next_within(QUIET), None, "by now the first ring is settled");
    world.add();
    let homes = world.homes();
    eventually("the gateway knows of it", || home(&world.gateway().connect("h", &new)) == homes[1]);
    assert_eq!(stays.next_within(QUIET), None);
    assert_eq!(world.sum("tieline_rebalance_plans_total"), 0);
    stays.expect_nothing();
}

/// The one that came later is turned away, and the other goes on.
#[test]
fn a_node_that_disagrees_about_where_users_belong_is_refused() {
    let start = |name: &str, seeds: &[std::net::SocketAddr], placement: &str| {
        Process::start(
            name,
            any(),
            any(),
            seeds,
            &["--cluster-secret", SECRET, "--placement", placement],
            &[],
        )
    };
    // Over links, by what they say to each other.
    let first = start("a", &[], "ring");
    let seeds = [first.peers];
    let mut client = first.connect("h", "anna");
    for placement in ["ring:md5", "none"] {
        let mut other = start("b", &seeds, placement);
        other.wait_for_log("all nodes of a cluster must have the same");
        assert_eq!(other.exit_code(), Some(1), "{placement}");
        client.expect_nothing();
    }
    let same = start("c", &seeds, "ring:tieline");
    eventually("it is one of them", || same.reaches() == ["a", "c"]);
    drop((same, first));

    // By a registry, before it listens.
    let mut world = World::start("disagree", 1, &["--placement", "ring:fnv"]);
    let key = format!("tieline:{}:nodes", world.cluster);
    eventually("it is registered", || {
        xtask::engine::redis::ask(world.registry.url(), &format!("EXISTS {key}")).unwrap() == ":1"
    });
    world.flags = vec!["--placement", "ring"];
    let refused = world.command("other").output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{told}");
    assert!(told.contains("\"ring:fnv\"") && told.contains("\"ring\""), "{told}");
    // A gateway of another ring says so.
    let mut command = tieline(&arguments(world.registry.url()));
    command.args(["--cluster", &world.cluster]);
    let mut gateway = Process::spawn("gateway", command);
    gateway.wait_for_log("--ring-hash");
    assert_eq!(call(gateway.address, "GET", "/readyz", "", "").status, 200);
}
