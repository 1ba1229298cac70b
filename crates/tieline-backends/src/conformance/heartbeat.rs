//! What the registry that stands over any broker must do: who comes is seen by all with what it says of itself,
//! who leaves is gone at once, who dies is gone after its lease and not before, and who is started again is another.

use std::time::Instant;

use super::Fabric;
use super::seat::{BEAT, LONG, SHORT, Seat, all_see_each_other, leave_all, sit, sit_together, url};

/// The whole suite. Each part joins nodes of its own to the fabric that `new` makes.
pub async fn suite<F: Fabric>(new: impl Fn() -> F) {
    who_comes_is_seen_by_all(&new()).await;
    who_leaves_is_gone_at_once(&new()).await;
    who_dies_is_gone_after_its_lease(&new()).await;
    who_is_started_again_is_another(&new()).await;
}

/// Each sees all others, with what they say of themselves, also who comes late.
pub async fn who_comes_is_seen_by_all(fabric: &dyn Fabric) {
    let mut seats = sit_together(fabric, &["a", "b"], LONG).await;
    seats.push(sit(fabric, "late", LONG).await);
    let refs: Vec<&Seat> = seats.iter().collect();
    all_see_each_other(&refs).await;
    for seat in &seats {
        let view = seat.registry().view().borrow().clone();
        for member in &view.members {
            assert_eq!(member.registration.client_url, url(member.id.name.as_str()));
        }
    }
    leave_all(seats).await;
}

/// A goodbye ends a membership long before the lease does.
pub async fn who_leaves_is_gone_at_once(fabric: &dyn Fabric) {
    let mut seats = sit_together(fabric, &["a", "b", "c"], LONG).await;
    seats.pop().expect("three sat down").leave().await;
    let refs: Vec<&Seat> = seats.iter().collect();
    all_see_each_other(&refs).await;
    leave_all(seats).await;
}

/// Who dies is a member until its lease is over, and then no more.
pub async fn who_dies_is_gone_after_its_lease(fabric: &dyn Fabric) {
    let mut seats = sit_together(fabric, &["a", "b", "c"], SHORT).await;
    let dead = seats.pop().expect("three sat down");
    let since = Instant::now();
    dead.die().await;
    for seat in &seats {
        let others: Vec<_> = seats.iter().map(|other| &other.id).filter(|id| **id != seat.id).collect();
        seat.until_members(&others).await;
        assert!(since.elapsed() + BEAT * 3 >= SHORT, "the lease was cut short");
    }
    leave_all(seats).await;
}

/// A node that is started again is another; its former self is gone with its first sign of life.
pub async fn who_is_started_again_is_another(fabric: &dyn Fabric) {
    let mut seats = sit_together(fabric, &["a", "b", "c"], LONG).await;
    let former = seats.pop().expect("three sat down");
    let former_id = former.id.clone();
    former.die().await;
    seats.push(sit(fabric, "c", LONG).await);
    let refs: Vec<&Seat> = seats.iter().collect();
    all_see_each_other(&refs).await;
    assert_ne!(seats[2].id, former_id);
    leave_all(seats).await;
}
