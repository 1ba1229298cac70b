//! Claims as the official libraries write them, as others may, and as nobody should.

use proptest::prelude::*;

use super::*;

#[test]
fn a_client_token_of_the_official_libraries() {
    let claims: ClientClaims = serde_json::from_str(
        r#"{"role":["webpubsub.sendToGroup"],"webpubsub.group":["g1","g2"],"sub":"alice","aud":"http://h:1/client/hubs/chat",
            "exp":1769864400,"iat":1769860800,"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name":"x"}"#,
    )
    .unwrap();
    assert_eq!(claims.user().unwrap().unwrap().as_str(), "alice");
    assert_eq!(claims.role, ["webpubsub.sendToGroup"]);
    assert_eq!(claims.groups, ["g1", "g2"]);
    assert_eq!(claims.aud, ["http://h:1/client/hubs/chat"]);
    assert_eq!((claims.exp, claims.iat, claims.nbf), (Some(1_769_864_400), Some(1_769_860_800), None));
}

#[test]
fn one_string_is_a_list_of_one() {
    let claims: ClientClaims = serde_json::from_str(
        r#"{"role":"a","webpubsub.group":"g","aud":["x","y"],"exp":12.9,"nbf":null,"device":"d"}"#,
    )
    .unwrap();
    assert_eq!(
        (claims.role.as_slice(), claims.groups.as_slice()),
        (&["a".to_owned()][..], &["g".to_owned()][..])
    );
    assert_eq!((claims.aud.len(), claims.exp, claims.nbf), (2, Some(12), None));
    assert_eq!((claims.user(), claims.device.as_deref()), (Ok(None), Some("d")));
    assert_eq!(serde_json::from_str::<RestClaims>("{}").unwrap(), RestClaims::default());
}

#[test]
fn wrong_types_are_refused() {
    for bad in [
        r#"{"sub":1}"#,
        r#"{"role":1}"#,
        r#"{"role":{"a":1}}"#,
        r#"{"role":["a",1]}"#,
        r#"{"exp":"1"}"#,
        r#"{"exp":1e300}"#,
        r#"{"exp":18446744073709551615}"#,
        r#"{"exp":true}"#,
        r#"{"exp":1,"exp":2}"#,
        "[1]",
    ] {
        assert!(serde_json::from_str::<ClientClaims>(bad).is_err(), "{bad}");
    }
    let empty: ClientClaims = serde_json::from_str(r#"{"sub":""}"#).unwrap();
    assert_eq!(empty.user(), Err(NameError::User));
}

#[test]
fn paths_of_audiences() {
    for (audience, path) in [
        ("http://h:1/client/hubs/chat", Some("/client/hubs/chat")),
        ("HTTPS://h/api/hubs/h/:send?api-version=1&filter=a%2Fb", Some("/api/hubs/h/:send")),
        ("ws://h/a#b/c", Some("/a")),
        ("http://h?x=/client/hubs/chat", Some("/")),
        ("http://h", Some("/")),
        ("http://", None),
        ("http:///client/hubs/chat", None),
        ("/client/hubs/chat", None),
        ("ftp://h/client/hubs/chat", None),
        ("x", None),
        ("http://h\\/client/hubs/chat", None),
        ("http://h/cl ient", None),
    ] {
        assert_eq!(audience_path(audience), path, "{audience}");
    }
}

#[test]
fn hubs_of_audiences() {
    let hub = |audience| audience_hub(audience).map(|hub| hub.to_string());
    assert_eq!(hub("http://127.0.0.1:8080/client/hubs/chat"), Some("chat".into()));
    assert_eq!(hub("https://h/client/hubs/a%60b?x=y"), Some("a`b".into()));
    for bad in [
        "http://h/client/hubs/",
        "http://h/client/hubs/chat/",
        "http://h/client/hubs/chat/x",
        "http://h/client/hubs/../hubs/chat",
        "http://h/x/client/hubs/chat",
        "http://h//client/hubs/chat",
        "http://h/client/hubs/chat%2Fx",
        "http://h/client/hubs/%",
        "http://h/client/hubs/%zz",
        "http://h/client/hubs/chat%00",
        "http://h/Client/hubs/chat",
        "http://h/?/client/hubs/chat",
        "http://h/api/hubs/chat",
    ] {
        assert_eq!(hub(bad), None, "{bad}");
    }
    let behind = |prefix, audience| audience_hub_behind(prefix, audience).map(|hub| hub.to_string());
    assert_eq!(behind("/x", "http://h/x/client/hubs/chat"), Some("chat".into()));
    for bad in ["http://h/client/hubs/chat", "http://h/xx/client/hubs/chat", "http://h/x/x/client/hubs/chat"]
    {
        assert_eq!(behind("/x", bad), None, "{bad}");
    }
}

#[test]
fn paths_compare_by_segment() {
    for (one, other) in [
        ("/api/hubs/h/users/a%2Fb", "/api/hubs/h/users/a%2fb"),
        ("/api/hubs/h/:send", "/api/hubs/h/%3Asend"),
        ("/api/hubs/h/users/ü", "/api/hubs/h/users/%C3%BC"),
    ] {
        assert!(same_path(one, other) && same_path(other, one), "{one}");
    }
    for (one, other) in [
        ("/users/a%2Fb", "/users/a/b"),
        ("/users/a", "/users/a/"),
        ("/users/a", "/users/A"),
        ("/users/%", "/users/%25"),
        ("/users/a+b", "/users/a%20b"),
        ("/users/%FF", "/users/%fF"),
    ] {
        assert!(!same_path(one, other) && !same_path(other, one), "{one}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = (audience_path(&text), audience_hub(&text), decode_segment(&text), same_path(&text, "/a"));
        let _ = serde_json::from_str::<ClientClaims>(&text);
    }

    #[test]
    fn encoded_segments_come_back(text in any::<String>()) {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let decoded = decode_segment(&encoded).map(|segment| segment.into_owned());
        prop_assert_eq!(decoded, Some(text));
    }
}
