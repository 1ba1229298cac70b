//! Identifiers: round trips, layout, and text that must be refused.

use proptest::prelude::*;

use super::*;

#[test]
fn a_connection_id_shows_its_parts() {
    const ID: ConnectionId =
        ConnectionId::new(Incarnation(0x0102_0304_0506_0708), 9, 0x0a0b0c, 0x0d0e0f10, 0x11121314);
    assert_eq!(ID.to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    assert_eq!(ID.to_string(), "AQIDBAUGBwgJCgsMDQ4PEBESExQ");
    assert_eq!(ID.incarnation(), Incarnation(0x0102_0304_0506_0708));
    assert_eq!((ID.shard(), ID.slot(), ID.generation(), ID.random()), (9, 0x0a0b0c, 0x0d0e0f10, 0x11121314));
    assert_eq!(serde_json::to_string(&ID).unwrap(), "\"AQIDBAUGBwgJCgsMDQ4PEBESExQ\"");
    assert_eq!(serde_json::from_str::<ConnectionId>("\"AQIDBAUGBwgJCgsMDQ4PEBESExQ\"").unwrap(), ID);
}

#[test]
fn only_canonical_connection_ids_are_read() {
    for text in [
        "",
        "AQIDBAUGBwgJCgsMDQ4PEBESEx",
        "AQIDBAUGBwgJCgsMDQ4PEBESExQA",
        "AQIDBAUGBwgJCgsMDQ4PEBESExQ=",
        "AQIDBAUGBwgJCgsMDQ4PEBESExR",
        "AQIDBAUGBwgJCgsMDQ4PEBESEx+",
        " AQIDBAUGBwgJCgsMDQ4PEBESExQ",
        "üQIDBAUGBwgJCgsMDQ4PEBESEx",
    ] {
        assert_eq!(text.parse::<ConnectionId>(), Err(IdError("connection id")), "{text}");
    }
}

#[test]
fn a_message_id_is_a_ulid() {
    // The example of the ULID specification: 01ARZ3NDEKTSV4RRFFQ69G5FAV was made at 1469922850259 ms.
    let id: MessageId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    assert_eq!(id.unix_ms(), 1_469_922_850_259);
    assert_eq!(id.to_string(), "01ARZ3NDEKTSV4RRFFQ69G5FAV");
    assert!(MessageId::new(1, u128::MAX) < MessageId::new(2, 0));
    for text in [
        "",
        "81ARZ3NDEKTSV4RRFFQ69G5FAV",
        "01arz3ndektsv4rrffq69g5fav",
        "01ARZ3NDEKTSV4RRFFQ69G5FA",
        "O1ARZ3NDEKTSV4RRFFQ69G5FAV",
        "01ARZ3NDEKTSV4RRFFQ69G5Fü",
    ] {
        assert!(text.parse::<MessageId>().is_err(), "{text}");
    }
}

#[test]
fn a_node_id_names_a_start() {
    let id: NodeId = "host-1:7800/00000000000000ff".parse().unwrap();
    assert_eq!((id.name.as_str(), id.incarnation), ("host-1:7800", Incarnation(255)));
    assert_eq!(id.to_string(), "host-1:7800/00000000000000ff");
    for text in [
        "",
        "a",
        "a/ff",
        "a/00000000000000FF",
        "/00000000000000ff",
        "a b/00000000000000ff",
        "a/+0000000000000ff",
    ] {
        assert!(text.parse::<NodeId>().is_err(), "{text}");
    }
    assert!(NodeName::new(&"n".repeat(128)).is_ok());
    assert_eq!(NodeName::new(&"n".repeat(129)), Err(NameError::Node));
}

#[test]
fn hub_names() {
    let long = format!("h{}", "0".repeat(127));
    for good in ["a", "Z", "chat", "a_`,.[]9", long.as_str()] {
        assert_eq!(check_hub(good), Ok(()), "{good}");
    }
    let too_long = format!("{long}0");
    for bad in ["", "1a", "_a", "a-b", "a/b", "ä", "aü", "a b", too_long.as_str()] {
        assert_eq!(check_hub(bad), Err(NameError::Hub), "{bad}");
    }
}

#[test]
fn group_and_user_names_are_counted_in_characters() {
    let long = "😀".repeat(1024);
    for good in ["a", "a/b ?#%ü", ":send", " a", long.as_str()] {
        assert_eq!(check_group(good), Ok(()), "{good}");
        assert_eq!(check_user(good), Ok(()), "{good}");
    }
    assert_eq!(check_user(" "), Ok(()));
    let (too_long, huge) = ("ü".repeat(1025), "x".repeat(1 << 20));
    for bad in ["", " ", "\t \u{3000}", too_long.as_str(), huge.as_str()] {
        assert_eq!(check_group(bad), Err(NameError::Group));
    }
    for bad in ["", too_long.as_str(), huge.as_str()] {
        assert_eq!(check_user(bad), Err(NameError::User));
    }
}

#[test]
fn positions_stay_exact_in_javascript() {
    let position = Position { epoch: 3, offset: MAX_EXACT };
    let json = r#"{"epoch":3,"offset":9007199254740991}"#;
    assert_eq!(serde_json::to_string(&position).unwrap(), json);
    assert_eq!(serde_json::from_str::<Position>(json).unwrap(), position);
    for bad in [
        r#"{"epoch":3,"offset":9007199254740992}"#,
        r#"{"epoch":3}"#,
        r#"{"epoch":-1,"offset":1}"#,
        r#"{"epoch":1.0,"offset":1}"#,
    ] {
        assert!(serde_json::from_str::<Position>(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn connection_ids_survive_text(bytes in any::<[u8; 20]>()) {
        let id = ConnectionId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse::<ConnectionId>().unwrap(), id);
        prop_assert_eq!(ConnectionId::new(id.incarnation(), id.shard(), id.slot(), id.generation(), id.random()), id);
    }

    #[test]
    fn text_that_reads_as_an_id_is_what_the_id_prints(text in "[A-Za-z0-9_-]{27}") {
        if let Ok(id) = text.parse::<ConnectionId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn message_ids_survive_text_and_sort_by_it(a in any::<u128>(), b in any::<u128>()) {
        let (a, b) = (MessageId(a), MessageId(b));
        prop_assert_eq!(a.to_string().parse::<MessageId>().unwrap(), a);
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }
}
