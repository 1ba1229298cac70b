//! Tables of offers and answers.

use super::*;
use crate::handshake::extensions::parse;

fn answer(policy: DeflatePolicy, offer: &str) -> Option<String> {
    let extension = parse(offer.as_bytes()).next().unwrap().unwrap();
    policy.answer(&extension).map(|params| params.header_value())
}

/// A policy that demands nothing.
const OPEN: DeflatePolicy = DeflatePolicy {
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

#[test]
fn a_server_answers_what_it_is_asked() {
    let cases = [
        ("", ""),
        ("; server_no_context_takeover", "; server_no_context_takeover"),
        ("; client_no_context_takeover", "; client_no_context_takeover"),
        ("; server_max_window_bits=15", "; server_max_window_bits=15"),
        ("; server_max_window_bits=9", "; server_max_window_bits=9"),
        ("; client_max_window_bits", ""),
        ("; client_max_window_bits=10", "; client_max_window_bits=10"),
        ("; client_max_window_bits=\"10\"", "; client_max_window_bits=10"),
        ("; client_max_window_bits=8", "; client_max_window_bits=8"),
    ];
    for (offer, expected) in cases {
        assert_eq!(answer(OPEN, &format!("{NAME}{offer}")), Some(format!("{NAME}{expected}")), "{offer}");
    }
}

#[test]
fn a_server_declines_what_is_wrong_or_impossible() {
    for offer in [
        "; server_max_window_bits=8",
        "; server_max_window_bits",
        "; server_max_window_bits=16",
        "; server_max_window_bits=09",
        "; server_max_window_bits=+9",
        "; client_max_window_bits=7",
        "; client_max_window_bits=x",
        "; client_max_window_bits; client_max_window_bits=10",
        "; server_no_context_takeover; server_no_context_takeover",
        "; server_no_context_takeover=1",
        "; client_no_context_takeover=true",
        "; something_new",
    ] {
        assert_eq!(answer(OPEN, &format!("{NAME}{offer}")), None, "{offer}");
    }
}

#[test]
fn a_policy_is_answered_even_where_nobody_asked() {
    assert_eq!(
        answer(DeflatePolicy::default(), NAME).unwrap(),
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    );
    let small = DeflatePolicy { server_max_window_bits: 11, client_max_window_bits: 10, ..OPEN };
    assert_eq!(
        answer(small, "permessage-deflate; client_max_window_bits").unwrap(),
        "permessage-deflate; server_max_window_bits=11; client_max_window_bits=10"
    );
    // A client that does not offer to be limited must not be.
    assert_eq!(answer(small, NAME).unwrap(), "permessage-deflate; server_max_window_bits=11");
}

#[test]
fn both_ends_agree_on_every_combination() {
    let bools = [false, true];
    for (server, client) in (8..=15).flat_map(|server| (9..=15).map(move |client| (server, client))) {
        for (a, b) in bools.into_iter().flat_map(|a| bools.map(|b| (a, b))) {
            let offer = DeflateOffer {
                server_no_context_takeover: a,
                client_no_context_takeover: b,
                server_max_window_bits: server,
                client_max_window_bits: client,
            };
            for policy in
                [OPEN, DeflatePolicy::default(), DeflatePolicy { client_max_window_bits: 12, ..OPEN }]
            {
                let header = offer.header_value();
                let extension = parse(header.as_bytes()).next().unwrap().unwrap();
                let Some(at_server) = policy.answer(&extension) else {
                    assert_eq!(server, 8, "{header} was declined");
                    continue;
                };
                let header = at_server.header_value();
                let extension = parse(header.as_bytes()).next().unwrap().unwrap();
                let at_client = offer.agree(&extension).expect("an answer to the offer");
                assert_eq!(at_client, at_server, "{offer:?} and {policy:?}");
            }
        }
    }
}

#[test]
fn a_client_refuses_what_it_did_not_offer() {
    let offer = DeflateOffer {
        server_no_context_takeover: true,
        server_max_window_bits: 12,
        client_max_window_bits: 12,
        ..DeflateOffer::default()
    };
    let agree = |answer: &str| offer.agree(&parse(answer.as_bytes()).next().unwrap().unwrap());
    let good = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12";
    let params = agree(good).unwrap();
    assert_eq!((params.server_max_window_bits, params.client_max_window_bits), (12, 12));
    for bad in [
        "permessage-deflate; server_max_window_bits=12",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits",
    ] {
        assert_eq!(agree(bad), None, "{bad}");
    }
    for bad in ["client_max_window_bits=13", "client_max_window_bits", "client_max_window_bits=8"] {
        assert_eq!(agree(&format!("{good}; {bad}")), None, "{bad}");
    }
}

#[test]
fn each_end_inflates_as_the_other_deflates() {
    let extension = parse(b"permessage-deflate; client_no_context_takeover; server_max_window_bits=10");
    let params = OPEN.answer(&extension.last().unwrap().unwrap()).unwrap();
    assert_eq!(params.inflate_mode(Role::Server), InflateMode::Shared);
    assert_eq!(params.inflate_mode(Role::Client), InflateMode::Own { window_bits: 10 });
}
