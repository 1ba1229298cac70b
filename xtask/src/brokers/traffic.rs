//! What one message is on its way between nodes: how many envelopes, and how many bytes, by routing and size of the cluster.
//!
//! Clusters of real nodes are started on each broker. The first node has a sender, the second one a user, and the second and
//! third one a member each of a group. Each kind of message is sent some hundred times, evenly, within each of some beats of the
//! nodes; what the same cluster counts in as many beats without messages is taken off. Many nodes say much to each other anyway, and
//! do so a little sooner or later: the more beats, the less that matters. Envelopes come from the nodes' own metrics; bytes from the
//! kernel, by `ss` of iproute2, which knows of each socket what was sent and received: those of all nodes but for their clients'.
//!
//! Tested here as far as it reads anything; the rest by whoever makes the table.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep_until};

use super::Error;
use super::options::Options;
use super::pair::Pair;
use crate::link::{Link, Lost};
use crate::node;

/// A beat of the nodes: whatever they say to each other anyway is said once in it, but for signs of life to a server.
const BEAT: Duration = Duration::from_secs(5);

/// Messages in a beat, and the pause between two of them, so that none is joined with another on its way.
const MESSAGES: u32 = 250;
const PACE: Duration = Duration::from_millis(12);

/// How much two windows without messages may differ, of what was sent in one, and the most such windows.
const ALIKE: f64 = 0.02;
const MOST_WINDOWS: usize = 30;

/// What is in a message: 128 bytes of JSON, with the frame's words beside it.
const TEXT: usize = 126;

/// What all nodes of a cluster have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    /// Envelopes handed to the broker, and those that arrived.
    sent: f64,
    arrived: f64,
    /// Bytes written to other nodes or the broker's server, and read from there.
    written: f64,
    read: f64,
}

impl Counts {
    fn since(self, before: Counts) -> Counts {
        Counts {
            sent: self.sent - before.sent,
            arrived: self.arrived - before.arrived,
            written: self.written - before.written,
            read: self.read - before.read,
        }
    }
}

/// Counts, and prints a table as it comes.
pub(super) fn run(options: &Options, sizes: &[usize], folder: &Path) -> Result<(), Error> {
    println!(
        "| broker | nodes | routing | message | envelopes sent, arrived | bytes from nodes, to nodes | with an ack: envelopes sent, arrived | bytes from nodes, to nodes |\n\
         |---|---|---|---|---|---|---|---|"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for name in &options.names {
        for size in sizes {
            for routing in ["directed", "broadcast"] {
                let folder = folder.join(format!("{name}-{size}-{routing}"));
                let words = ["--routing", routing];
                let nodes = Pair::nodes(&options.binary, name, *size, &words, &folder)?;
                let counted = runtime.block_on(count(&nodes, options.beats))?;
                for (what, [plain, acked]) in counted {
                    let envelopes = |counts: Counts| format!("{:.1}, {:.1}", counts.sent, counts.arrived);
                    let bytes = |counts: Counts| format!("{:.0}, {:.0}", counts.written, counts.read);
                    println!(
                        "| {name} | {size} | {routing} | {what} | {} | {} | {} | {} |",
                        envelopes(plain),
                        bytes(plain),
                        envelopes(acked),
                        bytes(acked)
                    );
                }
            }
        }
    }
    Ok(())
}

/// What one message of each kind is in this cluster, sent in so many beats: without an ack, and with one.
async fn count(nodes: &Pair, beats: u32) -> Result<Vec<(&'static str, [Counts; 2])>, Error> {
    let addresses = nodes.addresses();
    let open = async |at: usize, user: &str| {
        let link = Link::open(addresses[at], user).await;
        link.map_err(|Lost| Error::Count("a client cannot connect".to_owned()))
    };
    let mut sender = open(0, "sender").await?;
    let mut clients = vec![open(1, "user").await?];
    for at in [1, 2] {
        let mut member = open(at, &format!("member{at}")).await?;
        say(&mut member, &json!({"type": "joinGroup", "group": "group", "ackId": 1}), true).await?;
        clients.push(member);
    }
    let clients: Vec<_> = clients.into_iter().map(|client| tokio::spawn(listen(client))).collect();
    let (calm, messages) = (calm(nodes, beats).await?, beats * MESSAGES);
    let text = "x".repeat(TEXT);
    let kinds = [
        ("to a user", json!({"type": "sendToUser", "user": "user"})),
        ("to a group on two others", json!({"type": "sendToGroup", "group": "group"})),
        ("to everybody", json!({"type": "sendToAll"})),
    ];
    let mut counted = Vec::new();
    let mut ack = 1;
    for (what, mut frame) in kinds {
        frame["dataType"] = "text".into();
        frame["data"] = text.as_str().into();
        let mut both = [Counts::default(); 2];
        for (is_acked, total) in [false, true].into_iter().zip(&mut both) {
            let (before, begun) = (counts(nodes)?, Instant::now());
            let mut turns = interval(PACE);
            for _ in 0..messages {
                turns.tick().await;
                if is_acked {
                    ack += 1;
                    frame["ackId"] = ack.into();
                }
                say(&mut sender, &frame, is_acked).await?;
            }
            rest(begun, beats).await;
            let all = counts(nodes)?.since(before).since(calm);
            let each = |count: f64| count / f64::from(messages);
            *total = Counts {
                sent: each(all.sent),
                arrived: each(all.arrived),
                written: each(all.written),
                read: each(all.read),
            };
        }
        counted.push((what, both));
    }
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(counted)
}

/// What nodes say to each other anyway, once all that joining has set off is over: two windows are alike.
async fn calm(nodes: &Pair, beats: u32) -> Result<Counts, Error> {
    let mut last = Counts { sent: f64::INFINITY, ..Counts::default() };
    for _ in 0..MOST_WINDOWS {
        let before = counts(nodes)?;
        rest(Instant::now(), beats).await;
        let now = counts(nodes)?.since(before);
        if (now.sent - last.sent).abs() <= ALIKE * now.sent + 1.0 {
            return Ok(now);
        }
        last = now;
    }
    Err(Error::Count("the nodes do not come to rest".to_owned()))
}

/// Waits until a window of so many beats that began then is over.
async fn rest(begun: Instant, beats: u32) {
    sleep_until(begun + beats * BEAT).await;
}

/// Sends a frame, and waits for its ack where there is to be one.
async fn say(link: &mut Link, frame: &Value, is_acked: bool) -> Result<(), Error> {
    let lost = |Lost| Error::Count("a client lost its connection".to_owned());
    link.send(frame).await.map_err(lost)?;
    if !is_acked {
        return Ok(());
    }
    loop {
        let answer = link.next().await.map_err(lost)?;
        if answer["type"] == "ack" && answer["ackId"] == frame["ackId"] {
            let refused = || Error::Count(format!("a message is refused: {answer}"));
            return if answer["success"] == true { Ok(()) } else { Err(refused()) };
        }
    }
}

/// Reads whatever comes, so that nobody waits for this client.
async fn listen(mut link: Link) {
    while link.next().await.is_ok() {}
}

/// What all nodes have counted so far.
fn counts(nodes: &Pair) -> Result<Counts, Error> {
    let addresses = nodes.addresses();
    let mut counts = Counts::default();
    for address in &addresses {
        let metrics = node::text(*address, "/metrics");
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.parse::<f64>().ok())
                .ok_or_else(|| Error::Count(format!("a node does not tell {name}")))
        };
        counts.sent += value("tieline_envelopes_sent_total")?;
        counts.arrived += value("tieline_envelopes_received_total")?;
    }
    let output = Command::new("ss").args(["-tinpOH", "state", "established"]).output();
    let output = output.map_err(|error| Error::Count(format!("`ss` of iproute2 is needed: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let pids = nodes.pids().into_iter().collect();
    (counts.written, counts.read) = bytes(&text, &pids, &addresses);
    Ok(counts)
}

/// Bytes that processes have written and read by the sockets that `ss` has listed, but for those of their own clients.
fn bytes(listed: &str, pids: &HashSet<u32>, listen: &[SocketAddr]) -> (f64, f64) {
    let (mut written, mut read) = (0.0, 0.0);
    for line in listed.lines() {
        let pid = line.split_once("pid=").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        let own: Option<SocketAddr> = line.split_whitespace().nth(2).and_then(|own| own.parse().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) || own.is_none_or(|own| listen.contains(&own)) {
            continue;
        }
        let number = |label: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(label));
            word.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0)
        };
        written += number("bytes_sent:");
        read += number("bytes_received:");
    }
    (written, read)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_those_of_the_nodes_and_not_of_their_clients() {
        let listed = "\
0 0 127.0.0.1:5000 127.0.0.1:6379 users:((\"tieline\",pid=7,fd=9)) bbr rto:204 bytes_sent:100 bytes_acked:101 bytes_received:20 segs_out:1
0 0 127.0.0.1:7800 127.0.0.1:5001 users:((\"tieline\",pid=7,fd=10)) bbr bytes_sent:1000 bytes_received:2000
0 0 127.0.0.1:5002 127.0.0.1:6379 users:((\"tieline\",pid=8,fd=9)) bbr bytes_received:3
0 0 127.0.0.1:6379 127.0.0.1:5002 users:((\"redis-server\",pid=9,fd=9)) bbr bytes_sent:3
0 0 127.0.0.1:6379 127.0.0.1:5002
";
        let listen = ["127.0.0.1:7800".parse().unwrap()];
        assert_eq!(bytes(listed, &[7, 8].into(), &listen), (100.0, 23.0));
        assert_eq!(bytes(listed, &[1].into(), &listen), (0.0, 0.0));
    }
}
