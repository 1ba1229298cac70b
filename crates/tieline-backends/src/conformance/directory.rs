//! What every directory must do, over any broker: whoever is told that the others know of its claim is found by them, claims have
//! one order everywhere, a release takes back its own claim alone, and a dead node holds nobody.
//!
//! A directory may not know who holds a user, and then says who may: it is right when the truth is covered, and nobody is named who
//! holds nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tieline_core::directory::{Beside, Claimed};
use tieline_core::ring::{Ring, RingHash};
use tieline_proto::{HubName, Incarnation, UserId};
use tokio::time::timeout;

use super::dice::Dice;
use super::outage::Server;
use super::seat::{LONG, SHORT, Seat, eventually, leave_all, sit_at, sit_together_with, sit_with};
use super::{Fabric, PATIENCE};

pub use super::seat::{Directories, DirectoryEngine, Opened, Replicated, Ringed};

/// What a broker has to do for directories, shown with the one that is there if nothing else is chosen. Each part joins nodes of its own
/// to the fabric that `new` makes.
pub async fn suite<F: Fabric>(new: impl Fn() -> F) {
    over_any_broker(&Replicated, &new).await;
}

/// The whole suite, for any directories.
pub async fn suite_of<F: Fabric>(directories: &dyn Directories, new: impl Fn() -> F) {
    over_any_broker(directories, &new).await;
    who_has_just_come_is_waited_for(&new(), directories).await;
    for seed in 0..3 {
        who_is_told_is_found(&new(), directories, seed).await;
        nobody_is_lost_while_members_come_and_go(&new(), directories, seed).await;
    }
}

async fn over_any_broker<F: Fabric>(directories: &dyn Directories, new: &impl Fn() -> F) {
    a_claim_is_known_until_it_is_released(&new(), directories).await;
    claims_of_many_have_one_order(&new(), directories).await;
    a_release_names_its_claim(&new(), directories).await;
    a_dead_node_holds_nobody(&new(), directories).await;
    who_comes_late_knows_all(&new(), directories).await;
    who_leaves_as_soon_as_it_has_come_is_gone(&new(), directories).await;
}

fn hub() -> HubName {
    HubName::new("hub").expect("names of tests keep the rule")
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("user {number}")).expect("names of tests keep the rule")
}

fn claim(seat: &Seat, number: usize) -> Claimed {
    seat.directory().claim(&hub(), &user(number))
}

/// Waits as a login does. Returns whether the others were told: on a busy machine the time may be up first, which is counted.
async fn are_told(seat: &Seat) -> bool {
    let unread = || seat.cluster().counters().unread.load(Ordering::Relaxed);
    let before = unread();
    seat.cluster().all_read().await;
    unread() == before
}

fn release(seat: &Seat, number: usize, claim: u64) {
    seat.directory().release(&hub(), &user(number), claim);
}

/// The nodes that a seat knows to hold a user, newest first.
fn holders(seat: &Seat, number: usize) -> Vec<Incarnation> {
    seat.directory().find(&hub(), &user(number)).holders.iter().map(|holder| holder.node).collect()
}

/// Whether a seat knows that these hold a user, newest first, and nobody else: those that may are no mistake.
fn is_held_by(seat: &Seat, number: usize, wanted: &[Incarnation]) -> bool {
    let found = seat.directory().find(&hub(), &user(number));
    let known: Vec<Incarnation> = found.holders.iter().map(|holder| holder.node).collect();
    match found.beside {
        Beside::Nobody => known == wanted,
        Beside::One(node) => known == wanted || [known, vec![node]].concat() == wanted,
        Beside::Anybody => false,
    }
}

/// Waits until all of them know these holders of a user, newest first.
async fn until_held(seats: &[Seat], number: usize, wanted: &[Incarnation]) {
    for seat in seats {
        let wish = format!("user {number} to be held by {wanted:?} at {}", seat.id);
        eventually(&wish, || is_held_by(seat, number, wanted)).await;
    }
}

/// Whether a message to a user, sent at a seat now, goes to a node.
fn covers(seat: &Seat, number: usize, node: Incarnation) -> bool {
    let found = seat.directory().find(&hub(), &user(number));
    let is_found = found.holders.iter().any(|holder| holder.node == node)
        || found.beside == Beside::Anybody
        || found.beside == Beside::One(node);
    // Only who is known there can be sent to.
    let peers = seat.cluster().peers();
    peers.iter().any(|peer| peer.id.incarnation == node && (is_found || peer.is_apart))
}

/// From the claim on the node itself, and soon all others, know it; after the release nobody does. Hubs do not touch.
pub async fn a_claim_is_known_until_it_is_released(fabric: &dyn Fabric, directories: &dyn Directories) {
    let seats = sit_together_with(fabric, directories, &["a", "b", "c"], LONG).await;
    let Claimed { number, .. } = claim(&seats[0], 0);
    assert_eq!(holders(&seats[0], 0), [seats[0].incarnation()]);
    assert!(
        seats[0].directory().is_claimed(&hub(), &user(0))
            && !seats[1].directory().is_claimed(&hub(), &user(0))
    );
    until_held(&seats, 0, &[seats[0].incarnation()]).await;
    let other = HubName::new("other").expect("names of tests keep the rule");
    assert!(seats[1].directory().find(&other, &user(0)).holders.is_empty());
    release(&seats[0], 0, number);
    until_held(&seats, 0, &[]).await;
    leave_all(seats).await;
}

/// Whatever the nodes knew of each other when they claimed, in the end all have the same order.
pub async fn claims_of_many_have_one_order(fabric: &dyn Fabric, directories: &dyn Directories) {
    const USERS: usize = 200;
    let seats = sit_together_with(fabric, directories, &["a", "b", "c"], LONG).await;
    for number in 0..USERS {
        for turn in 0..seats.len() {
            claim(&seats[(number + turn) % seats.len()], number);
        }
    }
    for number in 0..USERS {
        eventually("one order everywhere", || {
            let first = seats[0].directory().find(&hub(), &user(number)).holders;
            let is_whole = first.len() == seats.len();
            is_whole && seats.iter().all(|seat| seat.directory().find(&hub(), &user(number)).holders == first)
        })
        .await;
    }
    // One that knows of all others is the newest everywhere.
    claim(&seats[1], 0);
    eventually("the newest claim to be first", || {
        seats.iter().all(|seat| holders(seat, 0).first() == Some(&seats[1].incarnation()))
    })
    .await;
    leave_all(seats).await;
}

/// An older connection's end does not end the claim of a newer one, here or elsewhere.
pub async fn a_release_names_its_claim(fabric: &dyn Fabric, directories: &dyn Directories) {
    let seats = sit_together_with(fabric, directories, &["a", "b"], LONG).await;
    let [a, b] = [seats[0].incarnation(), seats[1].incarnation()];
    let first = claim(&seats[0], 0).number;
    until_held(&seats, 0, &[a]).await;
    let second = claim(&seats[1], 0).number;
    until_held(&seats, 0, &[b, a]).await;
    let third = claim(&seats[0], 0).number;
    until_held(&seats, 0, &[a, b]).await;
    assert!(first < second && second < third);
    release(&seats[0], 0, first);
    release(&seats[1], 0, third);
    release(&seats[1], 0, second);
    until_held(&seats, 0, &[a]).await;
    release(&seats[0], 0, third);
    until_held(&seats, 0, &[]).await;
    leave_all(seats).await;
}

/// What a dead node claimed is gone with its lease; what others claim to the same users is not.
pub async fn a_dead_node_holds_nobody(fabric: &dyn Fabric, directories: &dyn Directories) {
    let mut seats = sit_together_with(fabric, directories, &["a", "b", "c"], SHORT).await;
    let dead = seats.pop().expect("three sat down");
    claim(&dead, 0);
    claim(&dead, 1);
    until_held(&seats, 0, &[dead.incarnation()]).await;
    claim(&seats[0], 1);
    eventually("both to be known", || seats.iter().all(|seat| holders(seat, 1).len() == 2)).await;
    dead.die().await;
    until_held(&seats, 0, &[]).await;
    until_held(&seats, 1, &[seats[0].incarnation()]).await;
    leave_all(seats).await;
}

/// Who comes late reads what was claimed before.
pub async fn who_comes_late_knows_all(fabric: &dyn Fabric, directories: &dyn Directories) {
    let mut seats = sit_together_with(fabric, directories, &["a", "b"], LONG).await;
    for number in 0..100 {
        claim(&seats[number % 2], number);
    }
    seats.push(sit_with(fabric, directories, "late", LONG).await);
    for number in 0..100 {
        until_held(&seats, number, &[seats[number % 2].incarnation()]).await;
    }
    leave_all(seats).await;
}

/// A node may be stopped at any moment of its start: the others never believe in it for a lease.
pub async fn who_leaves_as_soon_as_it_has_come_is_gone(fabric: &dyn Fabric, directories: &dyn Directories) {
    let first = sit_with(fabric, directories, "first", LONG).await;
    for number in 0..50 {
        let comer = sit_with(fabric, directories, &format!("comer-{number}"), LONG).await;
        // Sooner or later within its first words.
        for _ in 0..number {
            tokio::task::yield_now().await;
        }
        comer.leave().await;
    }
    let wish = "the first to be alone";
    eventually(wish, || first.cluster().peers().is_empty()).await;
    first.leave().await;
}

/// A node that has just come may not know yet of another that knows of it already. Who is claimed by that one then is told once both know of
/// each other, and found.
pub async fn who_has_just_come_is_waited_for(fabric: &dyn Fabric, directories: &dyn Directories) {
    const COMERS: usize = 8;
    let mut seats = vec![sit_with(fabric, directories, "first", LONG).await];
    for number in 0..COMERS {
        let comer = sit_with(fabric, directories, &format!("comer-{number}"), LONG).await;
        let first = &seats[0];
        let is_seen = || first.cluster().peers().iter().any(|peer| peer.id == comer.id && peer.is_reached());
        eventually("the first to see who has come", is_seen).await;
        claim(first, number);
        let are_told = are_told(first).await;
        let is_found = covers(&comer, number, first.incarnation());
        assert!(is_found || !are_told, "{} does not send to the first", comer.id);
        seats.push(comer);
    }
    leave_all(seats).await;
}

/// Claims and releases in any order: once a node has waited for the others, each of them sends to it whom it claims, and goes on doing
/// so; in the end all know the same.
pub async fn who_is_told_is_found(fabric: &dyn Fabric, directories: &dyn Directories, seed: u64) {
    const USERS: u64 = 5;
    let seats = sit_together_with(fabric, directories, &["a", "b", "c"], LONG).await;
    let mut dice = Dice(seed);
    let mut live: Vec<(usize, usize, u64)> = Vec::new();
    for turn in 0..200 {
        let at = dice.below(seats.len() as u64) as usize;
        let number = dice.below(USERS) as usize;
        // What others remember must not be believed for longer than it is true.
        seats.iter().for_each(|seat| drop(holders(seat, number)));
        if dice.below(2) == 0 && !live.is_empty() {
            let (at, number, claim) = live.swap_remove(dice.below(live.len() as u64) as usize);
            release(&seats[at], number, claim);
            continue;
        }
        live.push((at, number, claim(&seats[at], number).number));
        let are_told = are_told(&seats[at]).await;
        for seat in seats.iter().filter(|seat| seat.id != seats[at].id) {
            assert!(
                covers(seat, number, seats[at].incarnation()) || !are_told,
                "seed {seed}, turn {turn}: {} does not send to {} whom it claims",
                seat.id,
                seats[at].id
            );
        }
    }
    until_true(&seats, &live).await;
    leave_all(seats).await;
}

/// Waits until all seats know exactly the holders that these claims make.
async fn until_true(seats: &[Seat], live: &[(usize, usize, u64)]) {
    for number in 0..=live.iter().map(|(_, number, _)| *number).max().unwrap_or(0) {
        let mut wanted: Vec<Incarnation> = live
            .iter()
            .filter(|(_, of, _)| *of == number)
            .filter_map(|(at, ..)| seats.get(*at))
            .map(Seat::incarnation)
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let is_true = |seat: &Seat| {
            let mut known = holders(seat, number);
            known.sort_unstable();
            is_held_by(seat, number, &holders(seat, number)) && known == wanted
                || wanted.len() == 1 && is_held_by(seat, number, &wanted)
        };
        eventually("everybody to know the truth", || seats.iter().all(is_true)).await;
    }
}

/// Nodes come and go while users are claimed: at no moment does a node that all see fail to send to another that holds a user.
pub async fn nobody_is_lost_while_members_come_and_go(
    fabric: &dyn Fabric,
    directories: &dyn Directories,
    seed: u64,
) {
    const USERS: usize = 30;
    let mut seats = sit_together_with(fabric, directories, &["a", "b"], LONG).await;
    let stay = seats.len();
    for number in 0..USERS {
        claim(&seats[number % stay], number);
    }
    let lost = |seats: &[Seat]| {
        (0..USERS).find(|number| {
            let holder = seats[number % stay].incarnation();
            let mut others = seats[..stay].iter().filter(|seat| seat.incarnation() != holder);
            others.any(|seat| !covers(seat, *number, holder))
        })
    };
    for seat in &seats {
        let telling = async { while !are_told(seat).await {} };
        timeout(PATIENCE, telling).await.expect("the others are told at last");
    }
    let mut dice = Dice(seed);
    let check = |seats: &[Seat]| assert_eq!(lost(seats), None, "seed {seed}: somebody has lost this user");
    for turn in 0..4 {
        if dice.below(2) == 0 || seats.len() == stay {
            seats.push(sit_with(fabric, directories, &format!("guest-{turn}"), LONG).await);
        } else {
            seats.swap_remove(stay).leave().await;
        }
        let count = seats.len() - 1;
        eventually("all to send to each other, and to nobody else", || {
            check(&seats);
            seats.iter().all(|seat| seat.cluster().peers().len() == count)
        })
        .await;
        check(&seats);
    }
    let live: Vec<(usize, usize, u64)> = (0..USERS).map(|number| (number % stay, number, 0)).collect();
    until_true(&seats, &live).await;
    leave_all(seats).await;
}

/// The table of the directories is lost while its server goes on: each node puts there what it had, and who comes afterwards, and has heard
/// nothing of it from anybody, finds all.
pub async fn a_lost_table_is_made_anew<F: Fabric>(
    fabric: &F,
    directories: &dyn Directories,
    lose: impl AsyncFnOnce(),
) {
    const USERS: usize = 100;
    let mut seats = sit_together_with(fabric, directories, &["a", "b", "c"], LONG).await;
    let mut live: Vec<(usize, usize, u64)> = Vec::new();
    for number in 0..USERS {
        let at = number % seats.len();
        live.push((at, number, claim(&seats[at], number).number));
    }
    until_true(&seats, &live).await;
    lose().await;
    let late = sit_with(fabric, directories, "late", LONG).await;
    for (at, number, _) in &live {
        let wish = format!("user {number} to be found by who came late");
        eventually(&wish, || is_held_by(&late, *number, &[seats[*at].incarnation()])).await;
    }
    seats.push(late);
    live.push((3, 0, claim(&seats[3], 0).number));
    until_true(&seats, &live).await;
    leave_all(seats).await;
}

/// The server of the directories is killed and comes back, and stands still: meanwhile whoever claims is found as well, and afterwards
/// all know the same. The broker of the fabric is another one.
pub async fn outlives_its_server(
    fabric: &dyn Fabric,
    directories: &dyn Directories,
    server: &mut dyn Server,
) {
    let seats = sit_together_with(fabric, directories, &["a", "b", "c"], LONG).await;
    let is_up = |wanted: bool| {
        let seats = &seats;
        async move {
            let is_so = |seat: &Seat| seat.cluster().asked().is_some_and(|asked| asked.is_up() == wanted);
            eventually("the directory to notice", || seats.iter().all(is_so)).await;
        }
    };
    let mut live = Vec::new();
    let mut number = 0;
    let mut claim_all = async |live: &mut Vec<(usize, usize, u64)>| {
        for at in 0..seats.len() {
            for of in [number, 0] {
                live.push((at, of, claim(&seats[at], of).number));
                let are_told = are_told(&seats[at]).await;
                for seat in seats.iter().filter(|seat| seat.id != seats[at].id) {
                    let is_found = covers(seat, of, seats[at].incarnation());
                    assert!(is_found || !are_told, "{} and user {of}", seat.id);
                }
            }
            number += 1;
        }
    };
    claim_all(&mut live).await;
    for is_killed in [true, false] {
        if is_killed {
            server.kill()
        } else {
            server.stand_still()
        }
        claim_all(&mut live).await;
        is_up(false).await;
        claim_all(&mut live).await;
        let (at, of, number) = live.swap_remove(0);
        release(&seats[at], of, number);
        if is_killed {
            server.restart()
        } else {
            server.go_on()
        }
        claim_all(&mut live).await;
        is_up(true).await;
        claim_all(&mut live).await;
        until_true(&seats, &live).await;
        // Nothing is stated to all any more.
        until_quiet(&seats).await;
    }
    leave_all(seats).await;
}

/// Waits until no user is stated to all nodes: the table has them.
async fn until_quiet(seats: &[Seat]) {
    for seat in seats {
        eventually("all to be settled", || seat.cluster().stated_users() == 0).await;
    }
}

/// What logins cost a cluster, as it was counted.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes that the process has grown by for each user and node.
    pub bytes: f64,
    /// Envelopes that arrived for each login, of logins that wait for each other.
    pub envelopes_alone: f64,
    /// The same, of logins that come all at once.
    pub envelopes_at_once: f64,
    /// Requests to the table for each login; none where there is no table.
    pub requests: f64,
    /// Envelopes that arrived for each login of a user whom every other node has just sent to.
    pub envelopes_if_sent_to: f64,
}

/// Counts what logins cost a cluster of so many nodes. `is_placed` tells whether a user comes to the node that it belongs to, as a gateway
/// by the ring has it; otherwise it comes to any.
pub async fn cost(fabric: &dyn Fabric, directories: &dyn Directories, nodes: usize, is_placed: bool) -> Cost {
    const USERS: usize = 10_000;
    const ALONE: usize = 300;
    // Logins that come at once.
    const BURST: usize = 100;
    // Nothing is said but what is counted.
    let quiet = (Duration::from_secs(60), LONG);
    let mut seats = Vec::new();
    for n in 0..nodes {
        seats.push(sit_at(fabric, directories, &format!("n{n}"), quiet).await);
    }
    let is_whole = |seat: &Seat| {
        let peers = seat.cluster().peers();
        peers.len() == nodes - 1 && peers.iter().all(|peer| peer.complete && !peer.is_apart)
    };
    eventually("all to know each other", || seats.iter().all(is_whole)).await;
    let names: Vec<String> = (0..nodes).map(|n| format!("n{n}")).collect();
    let ring = Ring::new(RingHash::default(), names.iter().map(|name| (name.as_str(), 1)));
    let place = |number: usize| match is_placed {
        true => names.iter().position(|name| Some(name.as_str()) == ring.owner(user(number).as_str())),
        false => Some(number % nodes),
    };
    let place = |number: usize| &seats[place(number).expect("a ring of nodes has owners")];
    let arrived = || {
        let of = |seat: &Seat| seat.cluster().counters().received.load(Ordering::Relaxed);
        seats.iter().map(of).sum::<u64>() as f64
    };
    let asked = || {
        let of = |seat: &Seat| {
            let asked = seat.cluster().asked();
            asked.map_or(0, |asked| asked.counters().requests.load(Ordering::Relaxed))
        };
        seats.iter().map(of).sum::<u64>() as f64
    };
    let settled = async || {
        for seat in &seats {
            seat.cluster().all_read().await;
        }
    };
    settled().await;
    let (envelopes, requests) = (arrived(), asked());
    for number in 0..ALONE {
        claim(place(number), number);
        place(number).cluster().all_read().await;
    }
    let (envelopes_alone, requests) =
        ((arrived() - envelopes) / ALONE as f64, (asked() - requests) / ALONE as f64);
    let (envelopes, before) = (arrived(), resident());
    for first in (ALONE..USERS).step_by(BURST) {
        for number in first..USERS.min(first + BURST) {
            claim(place(number), number);
        }
        settled().await;
    }
    let count = (USERS - ALONE) as f64;
    let envelopes_at_once = (arrived() - envelopes) / count;
    let bytes = (resident() - before) / count / nodes as f64;
    let sent_to: Vec<usize> = (USERS..USERS + ALONE).collect();
    for number in &sent_to {
        for seat in &seats {
            eventually("the user to be looked up", || {
                seat.directory().find(&hub(), &user(*number)).beside != Beside::Anybody
            })
            .await;
        }
    }
    let envelopes = arrived();
    for number in &sent_to {
        claim(place(*number), *number);
        place(*number).cluster().all_read().await;
    }
    let envelopes_if_sent_to = (arrived() - envelopes) / ALONE as f64;
    leave_all(seats).await;
    Cost { bytes, envelopes_alone, envelopes_at_once, requests, envelopes_if_sent_to }
}

/// Bytes of this process that are in memory.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is measured on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().expect("it is a number");
    kib * 1024.0
}
