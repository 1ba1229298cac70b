//! What is pure in asks: answers made one of several, and the form between nodes.

use std::sync::Arc;

use proptest::prelude::*;
use tieline_proto::{ConnectionId, Filter, GroupName, Incarnation, Permission, UserId};

use super::*;

fn id(n: u32) -> ConnectionId {
    // The slot alone would sort like the numbers; the generation alone tells them apart as well.
    ConnectionId::new(Incarnation(u64::from(n % 3)), (n % 2) as u8, n, n, 7)
}

fn member(n: u32) -> Member {
    Member { connection: id(n), user: n.is_multiple_of(2).then(|| UserId::new("u").unwrap()) }
}

/// The page that one node with these members gives.
fn page_of(members: &[u32], after: Option<ConnectionId>, limit: u32) -> Page {
    let mut members: Vec<Member> = members.iter().copied().map(member).collect();
    members.retain(|member| after.is_none_or(|after| member.connection > after));
    members.sort();
    let more = members.len() > limit as usize;
    members.truncate(limit as usize);
    Page { members, more, limit }
}

proptest! {
    #[test]
    fn pages_of_several_nodes_are_those_of_one_with_all_members(
        nodes in proptest::collection::vec(proptest::collection::vec(0..200_u32, 0..40), 1..5),
        limit in 1..30_u32,
        shift in 0..5_usize,
    ) {
        let mut all: Vec<u32> = nodes.concat();
        all.sort_unstable();
        all.dedup();
        let mut nodes = nodes;
        for node in &mut nodes {
            node.sort_unstable();
            node.dedup();
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let answers = nodes.iter().map(|node| Answer::Page(page_of(node, after, limit)));
            let mut answers: Vec<Answer> = answers.collect();
            let turn = shift % answers.len();
            answers.rotate_left(turn);
            let merged = answers.into_iter().reduce(Answer::merge).unwrap();
            prop_assert_eq!(&merged, &Answer::Page(page_of(&all, after, limit)));
            let Answer::Page(page) = merged else { unreachable!() };
            after = page.members.last().map(|member| member.connection);
            seen.extend(page.members);
            if !page.more {
                break;
            }
        }
        let mut expected: Vec<Member> = all.into_iter().map(member).collect();
        expected.sort();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn one_finding_is_enough_and_counts_add_up() {
    let (yes, no) = (Answer::Found(true), Answer::Found(false));
    assert_eq!(yes.clone().merge(no.clone()), yes);
    assert_eq!(no.clone().merge(yes.clone()), yes);
    assert_eq!(no.clone().merge(no.clone()), no);
    assert_eq!(Answer::Reached(2).merge(Answer::Reached(3)), Answer::Reached(5));
    assert_eq!(Answer::Reached(u64::MAX).merge(Answer::Reached(1)), Answer::Reached(u64::MAX));
    assert_eq!(yes.clone().merge(Answer::Reached(1)), yes, "a wrong answer changes nothing");
    assert!(yes.is_any() && !no.is_any() && Answer::Reached(1).is_any() && !Answer::Reached(0).is_any());
}

#[test]
fn asks_and_answers_travel_as_text() {
    let filter = Arc::new(Filter::parse("userId eq 'it''s' and 'g' in groups").unwrap());
    let group = GroupName::new("a/b ?#%ü").unwrap();
    let user = UserId::new(":send").unwrap();
    let right = Right { connection: id(1), permission: Permission::SendToUser, target: Some("u".into()) };
    let asks = [
        Ask::Exists(Who::Connection(id(1))),
        Ask::Close { who: Who::Everyone, excluded: vec![id(2)], reason: "because: ü".into() },
        Ask::Join { who: Who::Matching(filter), groups: vec![group.clone()] },
        Ask::Leave { who: Who::User(user), groups: vec![group.clone()] },
        Ask::LeaveAll(Who::Group(group.clone())),
        Ask::Grant(right.clone()),
        Ask::Revoke(right.clone()),
        Ask::Holds(right),
        Ask::Members { group, after: Some(id(3)), limit: 7 },
    ];
    for ask in asks {
        let text = serde_json::to_string(&ask).unwrap();
        assert_eq!(serde_json::from_str::<Ask>(&text).unwrap(), ask, "{text}");
        let nobody = ask.nobody();
        let text = serde_json::to_string(&nobody).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), nobody, "{text}");
        assert!(!nobody.is_any());
    }
    for broken in [
        r#"{"Exists":{"Matching":"userId eq"}}"#,
        r#"{"Exists":{"Connection":"x"}}"#,
        r#"{"Holds":{"connection":"AQEBAQEBAQEBAQEBAQEBAQEBAQE","permission":"sendToGroup","target":null}}"#,
    ] {
        assert!(serde_json::from_str::<Ask>(broken).is_err(), "{broken}");
    }
}
