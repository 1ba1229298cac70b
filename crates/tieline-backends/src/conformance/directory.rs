//! What every directory must do, on the one that stands over any broker: claims are known to all, in one order everywhere,
//! a release takes back its own claim alone, and a dead node holds nobody.

use tieline_core::directory::Claimed;
use tieline_proto::{HubName, Incarnation, UserId};

use super::Fabric;
use super::seat::{LONG, SHORT, Seat, eventually, leave_all, sit, sit_together};

/// The whole suite. Each part joins nodes of its own to the fabric that `new` makes.
pub async fn suite<F: Fabric>(new: impl Fn() -> F) {
    a_claim_is_known_until_it_is_released(&new()).await;
    claims_of_many_have_one_order(&new()).await;
    a_release_names_its_claim(&new()).await;
    a_dead_node_holds_nobody(&new()).await;
    who_comes_late_knows_all(&new()).await;
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

fn holders(seat: &Seat, number: usize) -> Vec<Incarnation> {
    seat.directory().holders(&hub(), &user(number)).iter().map(|holder| holder.node).collect()
}

/// Waits until all of them know these holders of a user, newest first.
async fn until_held(seats: &[Seat], number: usize, wanted: &[Incarnation]) {
    for seat in seats {
        let wish = format!("user {number} to be held by {wanted:?} at {}", seat.id);
        eventually(&wish, || holders(seat, number) == wanted).await;
    }
}

/// From the claim on the node itself, and soon all others, know it; after the release nobody does. Hubs do not touch.
pub async fn a_claim_is_known_until_it_is_released(fabric: &dyn Fabric) {
    let seats = sit_together(fabric, &["a", "b", "c"], LONG).await;
    let Claimed { number, .. } = claim(&seats[0], 0);
    assert_eq!(holders(&seats[0], 0), [seats[0].incarnation()]);
    until_held(&seats, 0, &[seats[0].incarnation()]).await;
    let other = HubName::new("other").expect("names of tests keep the rule");
    assert!(seats[1].directory().holders(&other, &user(0)).is_empty());
    seats[0].directory().release(&hub(), &user(0), number);
    until_held(&seats, 0, &[]).await;
    leave_all(seats).await;
}

/// Whatever the nodes knew of each other when they claimed, in the end all have the same order.
pub async fn claims_of_many_have_one_order(fabric: &dyn Fabric) {
    const USERS: usize = 200;
    let seats = sit_together(fabric, &["a", "b", "c"], LONG).await;
    for number in 0..USERS {
        for turn in 0..seats.len() {
            claim(&seats[(number + turn) % seats.len()], number);
        }
    }
    for number in 0..USERS {
        eventually("one order everywhere", || {
            let first = seats[0].directory().holders(&hub(), &user(number));
            let is_whole = first.len() == seats.len();
            is_whole && seats.iter().all(|seat| seat.directory().holders(&hub(), &user(number)) == first)
        })
        .await;
    }
    // One that knows of all others is the newest everywhere.
    claim(&seats[1], 0);
    eventually("the newest claim to be first", || {
        seats.iter().all(|seat| holders(seat, 0)[0] == seats[1].incarnation())
    })
    .await;
    leave_all(seats).await;
}

/// An older connection's end does not end the claim of a newer one, here or elsewhere.
pub async fn a_release_names_its_claim(fabric: &dyn Fabric) {
    let seats = sit_together(fabric, &["a", "b"], LONG).await;
    let [a, b] = [seats[0].incarnation(), seats[1].incarnation()];
    let first = claim(&seats[0], 0).number;
    until_held(&seats, 0, &[a]).await;
    let second = claim(&seats[1], 0).number;
    until_held(&seats, 0, &[b, a]).await;
    let third = claim(&seats[0], 0).number;
    until_held(&seats, 0, &[a, b]).await;
    assert!(first < second && second < third);
    seats[0].directory().release(&hub(), &user(0), first);
    seats[1].directory().release(&hub(), &user(0), third);
    seats[1].directory().release(&hub(), &user(0), second);
    until_held(&seats, 0, &[a]).await;
    seats[0].directory().release(&hub(), &user(0), third);
    until_held(&seats, 0, &[]).await;
    leave_all(seats).await;
}

/// What a dead node claimed is gone with its lease; what others claim to the same users is not.
pub async fn a_dead_node_holds_nobody(fabric: &dyn Fabric) {
    let mut seats = sit_together(fabric, &["a", "b", "c"], SHORT).await;
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
pub async fn who_comes_late_knows_all(fabric: &dyn Fabric) {
    let mut seats = sit_together(fabric, &["a", "b"], LONG).await;
    for number in 0..100 {
        claim(&seats[number % 2], number);
    }
    seats.push(sit(fabric, "late", LONG).await);
    for number in 0..100 {
        until_held(&seats, number, &[seats[number % 2].incarnation()]).await;
    }
    leave_all(seats).await;
}
