//! Many messages at random targets across three nodes, against a model that knows who has to get each.
//!
//! [`assert_every_message`] is for clients of any dialect, connected in any way; here all speak `tieline.v1`, whose acks tell most.

use std::collections::{BTreeSet, HashMap};
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::client::{to_group, to_user};
use crate::dialects::{Dialect, Heard, Speaker};
use crate::processes::TestCluster;
use crate::support::PATIENCE;
use tieline_judge::Dice;

const MESSAGES: usize = 2000;
/// Sends of one client that wait for their ack at once. With all of them at once a busy machine may need the second after which
/// an ack says `null`.
const WINDOW: usize = 16;
const HUBS: [&str; 2] = ["left", "right"];
/// Each six connections of a hub are of four users: two users have connections on two nodes.
const USERS: [&str; 4] = ["anna", "ben", "cleo", "dora"];
const GROUPS: [&str; 3] = ["red", "green", "blue"];
/// Has no connection in any hub, though each is named like someone somewhere else.
const NOBODY: [&str; 3] = ["red", "left", "anna "];

/// What the model knows of a connection.
struct Member {
    hub: usize,
    user: &'static str,
    groups: BTreeSet<&'static str>,
    dialect: Dialect,
    /// Plain clients are not told.
    id: Option<String>,
}

/// A message and what has to become of it.
struct Sent {
    sender: usize,
    frame: Value,
    /// Sender and target, within which order is promised.
    series: String,
    recipients: BTreeSet<usize>,
    unknown: u64,
}

impl Sent {
    /// Of whom only a plain client's node says that he is nowhere.
    fn is_to_nobody(&self) -> bool {
        self.unknown > 0
    }
}

/// What a client got.
#[derive(Default)]
struct Got {
    /// Numbers of messages in the order they came.
    messages: Vec<usize>,
    /// By ack number.
    acks: HashMap<u64, Value>,
    not_found: usize,
}

/// Some of the items, at random.
fn some<T: Clone>(dice: &mut Dice, of: &[T], one_in: usize) -> Vec<T> {
    of.iter().filter(|_| dice.below(one_in) == 0).cloned().collect()
}

/// Whether one of these ids is the connection's.
fn is_among(member: &Member, ids: &[&str]) -> bool {
    member.id.as_deref().is_some_and(|id| ids.contains(&id))
}

/// The message of a number, from a random sender to a random target.
fn draw(dice: &mut Dice, members: &[Member], number: usize) -> Sent {
    let sender = dice.below(members.len());
    let hub = members[sender].hub;
    let here = |test: &dyn Fn(usize, &Member) -> bool| -> BTreeSet<usize> {
        let of_hub = members.iter().enumerate().filter(|(_, member)| member.hub == hub);
        of_hub.filter(|(index, member)| test(*index, member)).map(|(index, _)| index).collect()
    };
    // The other dialects know but a part of these.
    let kind = match members[sender].dialect {
        Dialect::Tieline => dice.below(5),
        Dialect::Azure | Dialect::Reliable => 2,
        Dialect::Plain => dice.below(3),
    };
    let is_tieline = members[sender].dialect == Dialect::Tieline;
    let (mut frame, recipients, unknown) = match kind {
        0 => {
            let user = USERS[dice.below(USERS.len())];
            let is_echoed = members[sender].dialect != Dialect::Plain;
            (
                to_user(user, 0),
                here(&|index, member| member.user == user && (is_echoed || index != sender)),
                0,
            )
        }
        1 => (to_user(NOBODY[dice.below(NOBODY.len())], 0), BTreeSet::new(), 1),
        2 => {
            let group = GROUPS[dice.below(GROUPS.len())];
            let no_echo = members[sender].dialect == Dialect::Plain || dice.below(2) == 0;
            let users = if is_tieline { some(dice, &USERS, 2) } else { Vec::new() };
            let mut frame = to_group(group, 0);
            frame["noEcho"] = no_echo.into();
            if !users.is_empty() {
                frame["users"] = json!(users);
            }
            let gets = |index: usize, member: &Member| {
                member.groups.contains(group)
                    && !(no_echo && index == sender)
                    && (users.is_empty() || users.contains(&member.user))
            };
            (frame, here(&gets), 0)
        }
        3 => (json!({"type": "sendToAll", "dataType": "json"}), here(&|_, _| true), 0),
        _ => {
            let (users, groups) = (some(dice, &USERS, 3), some(dice, &GROUPS, 3));
            let nobody = some(dice, &NOBODY, 4);
            let ids: Vec<_> = members.iter().filter_map(|member| member.id.as_deref()).collect();
            let (connections, mut excluded) = (some(dice, &ids, 6), some(dice, &ids, 8));
            // Who is named and excluded as well is a question of its own.
            excluded.retain(|id| !connections.contains(id));
            let gets = |_: usize, member: &Member| {
                (users.contains(&member.user)
                    || groups.iter().any(|group| member.groups.contains(group))
                    || is_among(member, &connections))
                    && !is_among(member, &excluded)
            };
            let recipients = here(&gets);
            let strange =
                members.iter().filter(|member| member.hub != hub && is_among(member, &connections)).count();
            let unknown = nobody.len() + strange;
            let users: Vec<_> = users.iter().chain(&nobody).collect();
            if users.is_empty() && groups.is_empty() && connections.is_empty() {
                (json!({"type": "sendToAll", "dataType": "json"}), here(&|_, _| true), 0)
            } else {
                let to = json!({"users": users, "groups": groups, "connections": connections, "excluded": excluded});
                (json!({"type": "send", "dataType": "json", "to": to}), recipients, unknown as u64)
            }
        }
    };
    let data = if members[sender].dialect == Dialect::Plain {
        let target =
            if frame["user"].is_null() { ("group", &frame["group"]) } else { ("receiver", &frame["user"]) };
        frame = json!({target.0: target.1});
        "msg"
    } else {
        "data"
    };
    frame[data] = Value::Null;
    let series = format!("{sender} {frame}");
    frame[data] = number.into();
    Sent { sender, frame, series, recipients, unknown }
}

impl Got {
    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Message(number) => self.messages.push(number),
            Heard::Ack(number, ack) => {
                let before = self.acks.insert(number, ack);
                assert!(before.is_none(), "acknowledged twice: {before:?}");
            }
            Heard::NotFound => self.not_found += 1,
            other => panic!("{other:?}"),
        }
    }
}

/// Clients on three nodes, six of each dialect: `connect` takes the number of a client, its dialect, hub and user.
pub(crate) fn assert_every_message(
    dialects: &[Dialect],
    connect: impl Fn(usize, Dialect, &str, &str) -> Speaker,
) {
    let mut dice = Dice::new(1);
    let (mut members, mut clients): (Vec<Member>, Vec<Speaker>) = (Vec::new(), Vec::new());
    for index in 0..6 * dialects.len() {
        let (hub, user) = (index / 3 % 2, USERS[(index / 6 * 3 + index % 3) % USERS.len()]);
        let mut client = connect(index, dialects[index / 6], HUBS[hub], user);
        let groups: BTreeSet<_> = some(&mut dice, &GROUPS, 2).into_iter().collect();
        groups.iter().for_each(|group| client.join(group));
        members.push(Member { hub, user, groups, dialect: client.dialect, id: client.id.clone() });
        clients.push(client);
    }
    let sent: Vec<_> = (0..MESSAGES).map(|number| draw(&mut dice, &members, number)).collect();
    let all_heard = Barrier::new(clients.len());
    let run = |index: usize, mut client: Speaker| {
        let own: Vec<_> = sent.iter().filter(|sent| sent.sender == index).collect();
        let nobodies = match client.dialect {
            Dialect::Plain => own.iter().filter(|sent| sent.is_to_nobody()).count(),
            _ => 0,
        };
        let due = sent.iter().filter(|sent| sent.recipients.contains(&index)).count();
        let own_acks = if client.dialect == Dialect::Plain { 0 } else { own.len() };
        let mut got = Got::default();
        let (mut acks, mut unsent) = (Vec::new(), own.iter());
        loop {
            while acks.len() - got.acks.len() < WINDOW
                && let Some(sent) = unsent.next()
            {
                acks.extend(client.send(sent.frame.clone()));
            }
            if got.messages.len() >= due && got.acks.len() == own_acks && got.not_found >= nobodies {
                break;
            }
            match client.next_within(PATIENCE) {
                Some(frame) => got.take(frame),
                // What is missing is told below, when everybody has stopped to wait.
                None => break,
            }
        }
        // Whatever any node was to hand out has been handed out when every ack of `tieline.v1` is there.
        all_heard.wait();
        client.send_fence();
        loop {
            match client.next_within(PATIENCE) {
                Some(Heard::Fence) => break,
                Some(heard) => got.take(heard),
                None => panic!("the node does not answer client {index} any more"),
            }
        }
        assert_eq!(got.not_found, nobodies, "errors of client {index}");
        for (sent, number) in own.iter().zip(acks) {
            let ack = got.acks.get(&number).unwrap_or_else(|| panic!("no ack for {}", sent.frame));
            assert_eq!(ack["success"], true, "{ack} for {}", sent.frame);
            if client.dialect == Dialect::Tieline {
                let became = (Some(sent.recipients.len() as u64), Some(sent.unknown));
                let said = (ack["delivered"].as_u64(), ack["unknown"].as_u64());
                assert_eq!(said, became, "{ack} for {}", sent.frame);
            }
        }
        got.messages
    };
    let got: Vec<_> = thread::scope(|scope| {
        let run = &run;
        let start = |(index, client)| scope.spawn(move || run(index, client));
        let threads: Vec<_> = clients.into_iter().enumerate().map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("the client's thread asserts nothing false"))
            .collect()
    });
    for (index, got) in got.iter().enumerate() {
        let mut numbers = got.clone();
        numbers.sort_unstable();
        let due: Vec<_> = (0..MESSAGES).filter(|number| sent[*number].recipients.contains(&index)).collect();
        let missing: Vec<_> = due
            .iter()
            .filter(|number| !numbers.contains(number))
            .map(|number| &sent[*number].series)
            .collect();
        assert_eq!(numbers, due, "what client {index} has got; it misses {missing:?}");
        let mut last: HashMap<&str, usize> = HashMap::new();
        for number in got {
            let before = last.insert(&sent[*number].series, *number);
            assert!(before < Some(*number), "{before:?} before {number} at client {index}");
        }
    }
    assert!(sent.iter().map(|sent| sent.recipients.len()).sum::<usize>() > MESSAGES, "the dice are loaded");
}

#[test]
fn every_message_reaches_exactly_its_audience_once_and_in_order() {
    let cluster = TestCluster::start(3);
    assert_every_message(&[Dialect::Tieline; 2], |index, dialect, hub, user| {
        Speaker::connect(cluster.nodes[index % 3].address, dialect, hub, user)
    });
}
