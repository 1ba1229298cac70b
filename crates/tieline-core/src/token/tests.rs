//! Tokens as others make them and as nobody should; the same tokens through jsonwebtoken.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_769_864_400;

fn keys() -> Keys {
    Keys::new(["first key", "second key"])
}

/// A token made by jsonwebtoken.
fn sign(algorithm: Algorithm, key: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
}

/// Claims that are accepted for the hub `chat`, with `changes` put in; null takes a member out.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"aud": "http://127.0.0.1:8080/client/hubs/chat", "iat": NOW, "exp": NOW + 60});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn verify(changes: Value) -> Result<ClientToken, TokenError> {
    keys().verify_client(&sign(Algorithm::HS256, "first key", &claims(changes)), "chat", NOW)
}

/// A token of any header and payload, signed rightly with the first key.
fn sign_text(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"first key"), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[test]
fn what_a_token_says_is_read() {
    let token = verify(json!({
        "sub": "a/b ?#%ü",
        "role": ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup.room", "somebody.else"],
        "webpubsub.group": ["g1", "g2"],
        "device": "phone",
    }))
    .unwrap();
    assert_eq!(token.user.as_deref(), Some("a/b ?#%ü"));
    assert_eq!(token.groups, [GroupName::new("g1").unwrap(), GroupName::new("g2").unwrap()]);
    assert_eq!((token.expires, token.device.as_deref()), (NOW + 60, Some("phone")));
    assert!(token.roles.may_join("any") && token.roles.may_send_to_group("room"));
    assert!(!token.roles.may_send_to_group("other") && !token.roles.may_send_to_all());
}

#[test]
fn roles_and_groups_may_be_one_string_or_absent() {
    let token = verify(json!({"role": "webpubsub.sendToGroup", "webpubsub.group": "g"})).unwrap();
    assert!(token.roles.may_send_to_group("x"));
    assert_eq!(token.groups, [GroupName::new("g").unwrap()]);
    let token = verify(json!({})).unwrap();
    assert_eq!((token.user, token.roles, token.groups), (None, Roles::nothing(), vec![]));
}

#[test]
fn times_have_thirty_seconds_of_leeway() {
    for (changes, expected) in [
        (json!({"exp": NOW - 29}), Ok(())),
        (json!({"exp": NOW - 30}), Err(TokenError::Expired)),
        (json!({"exp": 0}), Err(TokenError::Expired)),
        (json!({"exp": -5}), Err(TokenError::Expired)),
        (json!({"exp": i64::MAX}), Ok(())),
        (json!({"exp": (NOW + 1) as f64 + 0.5}), Ok(())),
        (json!({"exp": null}), Err(TokenError::NoExpiry)),
        (json!({"exp": "soon"}), Err(TokenError::Claims)),
        (json!({"nbf": NOW + 30}), Ok(())),
        (json!({"nbf": NOW + 31}), Err(TokenError::NotYet)),
        (json!({"nbf": -1}), Ok(())),
        (json!({"iat": NOW + 9999}), Ok(())),
    ] {
        assert_eq!(verify(changes.clone()).map(drop), expected, "{changes}");
    }
}

#[test]
fn a_token_opens_its_own_hub_alone() {
    for (aud, expected) in [
        (json!("https://elsewhere.example.com/client/hubs/chat"), Ok(())),
        (json!("ws://h/client/hubs/%63hat"), Ok(())),
        (json!(["x", "http://h/client/hubs/chat"]), Ok(())),
        (json!("http://h/client/hubs/chats"), Err(TokenError::Audience)),
        (json!("http://h/client/hubs/Chat"), Err(TokenError::Audience)),
        (json!("http://h/client/hubs/chat/"), Err(TokenError::Audience)),
        (json!("http://h/api/hubs/chat"), Err(TokenError::Audience)),
        (json!("http://h/?x=/client/hubs/chat"), Err(TokenError::Audience)),
        (json!("chat"), Err(TokenError::Audience)),
        (json!([]), Err(TokenError::Audience)),
        (json!(null), Err(TokenError::Audience)),
        (json!(7), Err(TokenError::Claims)),
    ] {
        assert_eq!(verify(json!({ "aud": aud })).map(drop), expected, "{aud}");
    }
}

#[test]
fn claims_that_break_their_rules_are_refused() {
    for changes in [
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": "u".repeat(1025)}),
        json!({"role": 7}),
        json!({"role": ["a", 7]}),
        json!({"webpubsub.group": " "}),
        json!({"webpubsub.group": ["g", "g".repeat(1025)]}),
        json!({"device": ["x"]}),
        json!({"device": ""}),
        json!({"device": "x".repeat(257)}),
    ] {
        assert_eq!(verify(changes.clone()), Err(TokenError::Claims), "{changes}");
    }
    let twice = sign_text(r#"{"alg":"HS256"}"#, r#"{"exp":9999999999,"exp":9999999999}"#);
    assert_eq!(keys().verify_client(&twice, "chat", NOW), Err(TokenError::Claims));
}

#[test]
fn every_key_verifies_and_no_other() {
    let signed_by = |key| keys().verify_client(&sign(Algorithm::HS256, key, &claims(json!({}))), "chat", NOW);
    assert!(signed_by("first key").is_ok());
    assert!(signed_by("second key").is_ok());
    assert_eq!(signed_by("third key"), Err(TokenError::Signature));
    assert_eq!(signed_by("first ke"), Err(TokenError::Signature));
    let token = sign(Algorithm::HS256, "x", &claims(json!({})));
    assert_eq!(Keys::default().verify_client(&token, "chat", NOW), Err(TokenError::NoKey));
    let empty = Keys::new(["", ""]);
    assert!(empty.is_empty());
    assert_eq!(empty.verify_client(&token, "chat", NOW), Err(TokenError::NoKey));
}

#[test]
fn no_other_algorithm_is_accepted_and_none_least_of_all() {
    let payload = claims(json!({})).to_string();
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = sign(algorithm, "first key", &claims(json!({})));
        assert_eq!(keys().verify_client(&token, "chat", NOW), Err(TokenError::Algorithm));
    }
    for (header, expected) in [
        (r#"{"alg":"HS256","kid":"x"}"#, Ok(())),
        (r#"{ "typ" : "at+jwt", "alg" : "HS256" }"#, Ok(())),
        (r#"{"alg":"none"}"#, Err(TokenError::Algorithm)),
        (r#"{"alg":"None","typ":"JWT"}"#, Err(TokenError::Algorithm)),
        (r#"{"alg":"hs256"}"#, Err(TokenError::Algorithm)),
        (r#"{"alg":"RS256"}"#, Err(TokenError::Algorithm)),
        (r#"{"alg":"HS256","crit":["exp"]}"#, Err(TokenError::Algorithm)),
        (r#"{"alg":"none","alg":"HS256"}"#, Err(TokenError::Malformed)),
        (r#"{"alg":["HS256"]}"#, Err(TokenError::Malformed)),
        (r#"{"typ":"JWT"}"#, Err(TokenError::Malformed)),
        ("[]", Err(TokenError::Malformed)),
        ("", Err(TokenError::Malformed)),
    ] {
        let token = sign_text(header, &payload);
        assert_eq!(keys().verify_client(&token, "chat", NOW).map(drop), expected, "{header}");
        // Without its signature it is worth nothing, whatever the header.
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert!(keys().verify_client(&unsigned, "chat", NOW).is_err(), "{header}");
    }
}

#[test]
fn garbage_is_malformed() {
    let good = sign(Algorithm::HS256, "first key", &claims(json!({})));
    let (signed, tag) = good.rsplit_once('.').unwrap();
    for bad in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "ü.ü.ü",
        signed,
        &format!("{signed}.{tag}="),
        &format!(" {good}"),
        &format!("{good} "),
        &format!("{good}.{tag}"),
        &format!("{signed}.{tag}{tag}"),
    ] {
        let error = keys().verify_client(bad, "chat", NOW).unwrap_err();
        assert!(matches!(error, TokenError::Malformed | TokenError::Signature), "{bad}: {error:?}");
    }
    // Rightly signed, and still no claims.
    for payload in ["", "{", "null", "[]", "7", "\u{0}", &"[".repeat(100_000)] {
        let token = sign_text(r#"{"alg":"HS256","typ":"JWT"}"#, payload);
        assert_eq!(keys().verify_client(&token, "chat", NOW).unwrap_err(), TokenError::Claims);
    }
}

#[test]
fn behind_a_prefix_a_token_is_for_either_address() {
    let verify = |prefix: &str, aud: &str| {
        let token = sign(Algorithm::HS256, "first key", &claims(json!({ "aud": aud })));
        keys().verify_client_behind(prefix, &token, "chat", NOW).map(drop)
    };
    for (prefix, aud, expected) in [
        ("/ws", "http://h/ws/client/hubs/chat", Ok(())),
        ("/ws", "http://h/client/hubs/chat", Ok(())),
        ("/ws", "http://h/ws/client/hubs/other", Err(TokenError::Audience)),
        ("/ws", "http://h/x/client/hubs/chat", Err(TokenError::Audience)),
        ("", "http://h/ws/client/hubs/chat", Err(TokenError::Audience)),
    ] {
        assert_eq!(verify(prefix, aud), expected, "{prefix} {aud}");
    }
}

#[test]
fn a_token_of_the_rest_api_is_for_one_request() {
    let sent = "/api/hubs/h/:send?api-version=1&filter=userId%20eq%20%27a%2Fb%27";
    let verify = |aud: &str| {
        let token = sign(Algorithm::HS256, "second key", &json!({"aud": aud, "exp": NOW + 60}));
        keys().verify_rest(&token, sent, NOW)
    };
    for good in [
        "http://h:1/api/hubs/h/:send?api-version=1&filter=userId%20eq%20%27a%2Fb%27",
        "https://proxy/api/hubs/h/%3Asend?api-version=1&filter=userId%20eq%20'a/b'",
        "http://h/api/hubs/h/:send",
    ] {
        assert_eq!(verify(good), Ok(()), "{good}");
    }
    for bad in [
        "http://h/api/hubs/h/:send?api-version=1",
        "http://h/api/hubs/h/:send?api-version=1&filter=userId%20eq%20%27b%27",
        "http://h/api/hubs/h/:send?filter=userId%20eq%20%27a%2Fb%27&api-version=1",
        "http://h/api/hubs/other/:send",
        "http://h/api/hubs/h/:send/",
        "http://h/?/api/hubs/h/:send",
        "/api/hubs/h/:send",
    ] {
        assert_eq!(verify(bad), Err(TokenError::Audience), "{bad}");
    }
    let late = sign(Algorithm::HS256, "first key", &json!({"aud": "http://h/a", "exp": NOW - 31}));
    assert_eq!(keys().verify_rest(&late, "/a", NOW), Err(TokenError::Expired));
}

#[test]
fn what_is_signed_here_verifies_here_and_with_jsonwebtoken() {
    let grant = Grant {
        endpoint: "https://chat.example.com".into(),
        hub: HubName::new("a`[x],b").unwrap(),
        user: Some(UserId::new("\"ü\\").unwrap()),
        roles: vec!["webpubsub.sendToGroup.r".into()],
        groups: vec![GroupName::new("g").unwrap()],
        presence: Some(json!({"name": "A"})),
        lifetime: 60,
    };
    let token = keys().sign_client(&grant, NOW).unwrap();
    let read = keys().verify_client(&token, "a`[x],b", NOW).unwrap();
    assert_eq!(read.details.unwrap().members(), r#""data":{"name":"A"}"#);
    let large = Grant { presence: Some(json!("x".repeat(1023))), ..grant.clone() };
    assert_eq!(keys().sign_client(&large, NOW), Err(TokenError::PresenceTooLarge));
    assert_eq!((read.user, read.groups, read.expires), (grant.user.clone(), grant.groups.clone(), NOW + 60));
    assert!(read.roles.may_send_to_group("r"));
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&["https://chat.example.com/client/hubs/a%60%5Bx%5D,b"]);
    validation.validate_exp = false;
    let key = DecodingKey::from_secret(b"first key");
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(claims["sub"], "\"ü\\");
    assert_eq!(Keys::default().sign_client(&grant, NOW), Err(TokenError::NoKey));
}

#[test]
fn keys_do_not_show() {
    assert_eq!(format!("{:?}", keys()), "Keys(2)");
}

proptest! {
    #[test]
    fn no_changed_token_is_accepted(at in 0usize..1000, flip in 1u8..=255) {
        let mut token = sign(Algorithm::HS256, "first key", &claims(json!({"sub": "u"}))).into_bytes();
        let at = at % token.len();
        token[at] ^= flip;
        if let Ok(token) = String::from_utf8(token) {
            prop_assert!(keys().verify_client(&token, "chat", NOW).is_err());
        }
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = keys().verify_client(&text, "chat", NOW);
        let _ = keys().verify_client(&sign_text(&text, &text), "chat", NOW);
        let _ = keys().verify_rest(&sign_text(r#"{"alg":"HS256"}"#, &text), &text, NOW);
    }
}

#[test]
fn a_text_is_signed_by_each_key_as_rfc_4231_says() {
    let keys = Keys::new(["Jefe", "other"]);
    let signed = keys.sign_text("what do ya want for nothing?");
    assert_eq!(signed[0], "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!((signed.len(), signed[1].len()), (2, 64));
}

#[test]
fn what_others_see_is_the_device_and_the_claim_and_has_a_bound() {
    let seen = |changes: Value| verify(changes).map(|token| token.details.map(|of| of.members().to_owned()));
    assert_eq!(seen(json!({})), Ok(None));
    assert_eq!(seen(json!({"device": "phone"})), Ok(Some("\"device\":\"phone\"".into())));
    assert_eq!(
        seen(json!({"device": "phone", "presence": {"a": [1, null]}})),
        Ok(Some("\"device\":\"phone\",\"data\":{\"a\":[1,null]}".into()))
    );
    assert_eq!(seen(json!({"presence": null})), Ok(None));
    assert!(seen(json!({"presence": "x".repeat(1022)})).is_ok());
    assert_eq!(seen(json!({"presence": "x".repeat(1023)})), Err(TokenError::PresenceTooLarge));
}

#[test]
fn all_who_share_keys_see_others_at_once() {
    let keys = Keys::new(["one"]);
    let token = sign(Algorithm::HS256, "one", &claims(json!({})));
    assert!(keys.verify_client(&token, "chat", NOW).is_ok());
    keys.replace(Keys::new(["two"]));
    assert_eq!(keys.verify_client(&token, "chat", NOW), Err(TokenError::Signature));
    keys.replace(Keys::default());
    assert_eq!((keys.is_empty(), keys.verify_client(&token, "chat", NOW)), (true, Err(TokenError::NoKey)));
}
