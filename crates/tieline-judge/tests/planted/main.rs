//! The judge is judged: valid histories pass, and whatever is planted into them is found, in every one of many seeds.
//!
//! `course.rs` makes up what a cluster could have done, `plants.rs` breaks it in one place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod course;
mod plants;

use tieline_judge::{Counts, Dice, History, Rule, Verdict, judge};

const SEEDS: u64 = 60;

/// Plants something into the history of each seed. What returns false has found no place for it.
#[track_caller]
fn each(plant: impl Fn(&mut History, &mut Dice) -> bool, check: impl Fn(&Verdict, &str)) {
    let mut planted = 0;
    for seed in 0..SEEDS {
        let mut history = course::course(seed);
        if !plant(&mut history, &mut Dice::new(seed)) {
            continue;
        }
        planted += 1;
        let verdict = judge(&history);
        check(&verdict, &format!("seed {seed}: {}", verdict.report(&history)));
    }
    assert!(planted > SEEDS / 3, "planted only {planted} times");
}

/// The plant breaks this rule, and perhaps others that follow from it.
#[track_caller]
fn finds(rule: Rule, plant: impl Fn(&mut History, &mut Dice) -> bool) {
    each(plant, |verdict, report| assert!(verdict.broken.contains_key(&rule), "{report}"));
}

/// The plant breaks this rule and no other.
#[track_caller]
fn finds_only(rule: Rule, plant: impl Fn(&mut History, &mut Dice) -> bool) {
    each(plant, |verdict, report| {
        assert_eq!(verdict.broken.keys().collect::<Vec<_>>(), [&rule], "{report}");
    });
}

#[test]
fn what_a_cluster_could_have_done_passes_and_has_everything_in_it() {
    let mut sum = Counts::default();
    for seed in 0..2 * SEEDS {
        let history = course::course(seed);
        let verdict = judge(&history);
        assert!(verdict.is_kept(), "seed {seed}: {}", verdict.report(&history));
        let counts = verdict.counts;
        for outcome in 0..3 {
            sum.durable[outcome] += counts.durable[outcome];
            sum.live[outcome] += counts.live[outcome];
        }
        sum.again += counts.again;
        sum.recovered += counts.recovered;
        sum.notices += counts.notices;
        sum.holes = [sum.holes[0] + counts.holes[0], sum.holes[1] + counts.holes[1]];
    }
    let seen = [&sum.durable[..], &sum.live, &[sum.again, sum.recovered, sum.notices], &sum.holes].concat();
    assert!(seen.iter().all(|count| *count > 0), "{sum:?}");
}

#[test]
fn a_message_that_one_receiver_never_got_is_found() {
    finds(Rule::Lost, plants::lose_for_one);
}

#[test]
fn an_acknowledgement_of_what_was_never_stored_is_found() {
    finds_only(Rule::Lost, plants::acknowledge_falsely);
}

#[test]
fn the_end_of_a_log_that_never_came_is_found() {
    finds(Rule::Lost, plants::lose_the_end);
}

#[test]
fn an_unacknowledged_message_that_only_some_got_is_found() {
    finds(Rule::Lost, plants::lose_unacknowledged);
}

#[test]
fn a_message_that_was_stored_twice_is_found() {
    finds_only(Rule::Duplicate, plants::store_twice);
}

#[test]
fn a_live_message_that_came_twice_is_found() {
    finds_only(Rule::Duplicate, plants::hear_twice);
}

#[test]
fn two_messages_that_changed_places_for_one_receiver_are_found() {
    finds_only(Rule::Disorder, plants::swap_places);
}

#[test]
fn two_messages_that_came_in_the_wrong_order_are_found() {
    finds(Rule::Backwards, plants::swap_arrivals);
}

#[test]
fn a_recovery_that_passed_over_a_message_is_found() {
    finds(Rule::Hole, plants::skip_at_recovery);
}

#[test]
fn a_recovery_that_began_too_early_is_found() {
    finds(Rule::Backwards, plants::overlap_at_recovery);
}

#[test]
fn a_recovery_that_was_refused_is_found() {
    finds_only(Rule::NotRecovered, plants::refuse_recovery);
}

#[test]
fn a_log_that_begins_anew_is_excused_where_the_store_was_lost_and_nothing_else() {
    let mut not_lost = 0;
    for seed in 0..SEEDS {
        let mut history = course::with_losses(seed);
        let verdict = judge(&history);
        assert!(verdict.is_kept(), "seed {seed}: {}", verdict.report(&history));
        let mut dice = Dice::new(seed);
        assert!(plants::refuse_recovery(&mut history, &mut dice));
        let found = judge(&history).broken;
        assert!(found.contains_key(&Rule::NotRecovered), "seed {seed}: another reason is no excuse");

        let mut history = course::with_losses(seed);
        if plants::lose_in_the_end(&mut history, &mut dice) {
            assert!(
                judge(&history).broken.contains_key(&Rule::Lost),
                "seed {seed}: what came after the loss is owed"
            );
            not_lost += 1;
        }
        let mut history = course::with_losses(seed);
        history.store_lost = false;
        assert!(
            judge(&history).broken.contains_key(&Rule::NotRecovered),
            "seed {seed}: nobody planned a loss"
        );
    }
    assert!(not_lost > SEEDS / 3);
}

#[test]
fn a_log_that_has_another_epoch_for_no_reason_is_found() {
    finds(Rule::Renewed, plants::renew);
}

#[test]
fn a_message_that_nobody_sent_is_found() {
    finds_only(Rule::Phantom, plants::make_up);
    finds_only(Rule::Phantom, plants::garble);
}

#[test]
fn a_refused_message_that_came_is_found() {
    finds_only(Rule::Refused, plants::refuse_falsely);
}

#[test]
fn a_message_in_the_wrong_inbox_is_found() {
    finds(Rule::Outsider, plants::tell_another_user);
}

#[test]
fn a_message_for_those_who_had_not_joined_is_found() {
    finds_only(Rule::Outsider, plants::tell_a_stranger);
    finds(Rule::Outsider, plants::tell_before_the_ack);
}

#[test]
fn a_message_by_another_group_is_found() {
    finds_only(Rule::Outsider, plants::cross);
}

#[test]
fn a_missing_or_superfluous_position_is_found() {
    finds(Rule::Unplaced, plants::take_position);
    finds_only(Rule::Unplaced, plants::give_position);
}

#[test]
fn live_messages_out_of_order_are_found() {
    finds(Rule::Reordered, plants::swap_live);
}

#[test]
fn a_hole_that_nobody_told_of_is_found() {
    finds(Rule::Untold, plants::lose_silently);
    each(plants::keep_silent, |verdict, report| {
        let untold = verdict.broken.get(&Rule::Untold).map_or(0, |broken| broken.count);
        let [holes, excused] = verdict.counts.holes;
        assert_eq!(untold, holes - excused, "{report}");
    });
}

#[test]
fn a_live_message_lost_in_calm_is_found() {
    finds(Rule::MissedInCalm, plants::lose_in_calm);
}

#[test]
fn the_report_names_the_message_and_shows_both_histories_around_it() {
    let mut history = course::course(3);
    assert!(plants::acknowledge_falsely(&mut history, &mut Dice::new(3)));
    let verdict = judge(&history);
    let first = &verdict.broken[&Rule::Lost].first;
    let (message, report) = (first.message.unwrap(), verdict.report(&history));
    let marked: Vec<_> = report.lines().filter(|line| line.trim_start().starts_with('>')).collect();
    assert_eq!(marked.len(), 1, "{report}");
    assert!(
        marked[0].contains(&format!(
            "#{} to {} on connection",
            message.counter,
            history.target(message.target)
        )),
        "{report}"
    );
    assert!(report.contains(&history.words(message)), "{report}");
    let of_receiver = format!("{} (user", history.receivers[first.receiver].name);
    assert!(report.split(&of_receiver).nth(1).unwrap().lines().count() > 5, "{report}");
    assert!(report.lines().count() < 60, "{report}");
}
