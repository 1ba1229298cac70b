//! The rules as tables. Each row of the second one changes one fact of a request that is let in.

use super::*;

/// A program of this machine asks a server of this machine that has no key.
const LOCAL: Facts<'static> = Facts {
    allow_anonymous: false,
    has_keys: false,
    listener: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    peer: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    host: "localhost:7800",
    is_forwarded: false,
    standing: Standing::Absent,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn without_a_token_only_this_machine_is_let_in() {
    let cases: Vec<(&str, Facts<'_>, bool)> = vec![
        ("as it is", LOCAL, true),
        ("there is a key", Facts { has_keys: true, ..LOCAL }, false),
        ("listens on every address", Facts { listener: ip("0.0.0.0"), ..LOCAL }, false),
        ("listens on every address, IPv6", Facts { listener: ip("::"), ..LOCAL }, false),
        ("listens on a network", Facts { listener: ip("192.168.1.5"), ..LOCAL }, false),
        ("listens on another loopback", Facts { listener: ip("127.0.0.53"), ..LOCAL }, true),
        ("listens on IPv6", Facts { listener: ip("::1"), peer: ip("::1"), ..LOCAL }, true),
        ("comes from a network", Facts { peer: ip("192.168.1.6"), ..LOCAL }, false),
        ("comes from everywhere", Facts { peer: ip("0.0.0.0"), ..LOCAL }, false),
        ("IPv4 written as IPv6", Facts { peer: ip("::ffff:127.0.0.1"), ..LOCAL }, true),
        ("a network written as IPv6", Facts { peer: ip("::ffff:192.168.1.6"), ..LOCAL }, false),
        ("through a proxy", Facts { is_forwarded: true, ..LOCAL }, false),
        ("a page of the node", Facts { standing: Standing::Own, ..LOCAL }, true),
        ("a page of another node", Facts { standing: Standing::Member, ..LOCAL }, true),
        (
            "a page of another node, from a network",
            Facts { standing: Standing::Member, peer: ip("192.168.1.6"), ..LOCAL },
            false,
        ),
        ("a listed page", Facts { standing: Standing::Listed, ..LOCAL }, false),
        ("any page", Facts { standing: Standing::Foreign, ..LOCAL }, false),
    ];
    for (what, facts, expected) in cases {
        assert_eq!(admits_anonymous(&facts), expected, "{what}");
        assert_eq!(is_local(&facts), expected || facts.has_keys, "{what}");
        // Asked for in words, everybody is let in but pages of other sites, of other nodes on other machines too.
        let open = Facts { allow_anonymous: true, ..facts };
        assert_eq!(admits_anonymous(&open), admits_page(&facts), "{what}");
    }
}

#[test]
fn pages_of_other_nodes_connect_on_the_machine_of_both_alone() {
    let page = |standing| Facts { standing, ..LOCAL };
    for (what, facts, expected) in [
        ("no page", page(Standing::Absent), true),
        ("the node's", page(Standing::Own), true),
        ("a listed one", page(Standing::Listed), true),
        ("a foreign one", page(Standing::Foreign), false),
        ("a member's", page(Standing::Member), true),
        ("a member's with a token", Facts { has_keys: true, ..page(Standing::Member) }, true),
        ("a member's, all may come", Facts { allow_anonymous: true, ..page(Standing::Member) }, true),
        ("a member's through a proxy", Facts { is_forwarded: true, ..page(Standing::Member) }, false),
        ("a member's, public listener", Facts { listener: ip("0.0.0.0"), ..page(Standing::Member) }, false),
        ("a member's, a peer elsewhere", Facts { peer: ip("10.0.0.1"), ..page(Standing::Member) }, false),
        ("a member's, a public name", Facts { host: "a.example.com", ..page(Standing::Member) }, false),
        ("a listed one through a proxy", Facts { is_forwarded: true, ..page(Standing::Listed) }, true),
    ] {
        assert_eq!(admits_page(&facts), expected, "{what}");
    }
}

#[test]
fn a_page_is_judged_by_host_then_list_then_members() {
    let members = MemberOrigins::new(Some("ws://127.0.0.1:7800"));
    members.note(["ws://127.0.0.1:7801"].into_iter(), Instant::now());
    let listed = ["http://localhost:7801".to_owned()];
    let judge = |origin, host, listed: &[String]| standing(Some(origin), host, listed, &members);
    assert_eq!(judge("http://127.0.0.1:7800", "127.0.0.1:7800", &[]), Standing::Own);
    assert_eq!(judge("http://localhost:7800", "127.0.0.1:7800", &[]), Standing::Member);
    assert_eq!(judge("http://localhost:7801", "127.0.0.1:7800", &[]), Standing::Member);
    assert_eq!(judge("http://localhost:7801", "127.0.0.1:7800", &listed), Standing::Listed);
    assert_eq!(judge("http://localhost:7802", "127.0.0.1:7800", &[]), Standing::Foreign);
}

#[test]
fn local_names_are_those_no_name_server_can_claim() {
    for host in [
        "localhost",
        "LOCALHOST:80",
        "a.localhost",
        "a.b.localhost:7800",
        "127.0.0.1",
        "127.0.0.1:7800",
        "127.255.0.1",
        "[::1]",
        "[::1]:7800",
    ] {
        assert!(admits_anonymous(&Facts { host, ..LOCAL }), "{host}");
    }
    for host in [
        "",
        ":",
        ":7800",
        "localhost.",
        "localhost.example.com",
        "xlocalhost",
        "notlocalhost:7800",
        "127.0.0.1.example.com",
        "127.0.0.1.nip.io:7800",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "[::]",
        "[::2]:7800",
        "evil.example.com",
        "localhost@evil.example.com",
        "evil.example.com:localhost",
        "example.localhost.com",
    ] {
        assert!(!admits_anonymous(&Facts { host, ..LOCAL }), "{host}");
    }
}

#[test]
fn an_origin_is_the_servers_own_when_host_and_port_are() {
    let own = |origin, host| standing(Some(origin), host, &[], &MemberOrigins::default()) == Standing::Own;
    for (origin, host) in [
        ("http://localhost:7800", "localhost:7800"),
        ("http://127.0.0.1:7800", "127.0.0.1:7800"),
        ("http://[::1]:7800", "[::1]:7800"),
        ("http://chat.example.com", "chat.example.com"),
        ("http://chat.example.com", "chat.example.com:80"),
        ("https://chat.example.com", "chat.example.com"),
        ("https://chat.example.com", "chat.example.com:443"),
        ("https://chat.example.com:443", "chat.example.com"),
        ("HTTP://Chat.Example.com", "chat.example.COM"),
    ] {
        assert!(own(origin, host), "{origin} {host}");
    }
    for (origin, host) in [
        ("http://localhost:7801", "localhost:7800"),
        ("http://localhost", "localhost:7800"),
        ("http://127.0.0.1:7800", "localhost:7800"),
        ("https://chat.example.com", "chat.example.com:80"),
        ("http://example.com", "chat.example.com"),
        ("http://chat.example.com.evil.com", "chat.example.com"),
        ("http://chat.example.com@evil.com", "chat.example.com"),
        ("file://chat.example.com", "chat.example.com"),
        ("chat.example.com", "chat.example.com"),
        ("http://", ""),
        ("null", "null"),
        ("", ""),
    ] {
        assert!(!own(origin, host), "{origin} {host}");
    }
}

#[test]
fn listed_origins_are_compared_whole() {
    let listed = ["https://app.example.com".to_owned(), "http://localhost:3000".to_owned()];
    let nobody = MemberOrigins::default();
    let judge = |origin| standing(origin, "chat.example.com", &listed, &nobody);
    assert_eq!(judge(None), Standing::Absent);
    assert_eq!(judge(Some("https://app.example.com")), Standing::Listed);
    assert_eq!(judge(Some("https://APP.example.com")), Standing::Listed);
    assert_eq!(judge(Some("http://localhost:3000")), Standing::Listed);
    for foreign in
        ["http://app.example.com", "https://app.example.com.evil.com", "https://app.example.com/", "null", ""]
    {
        assert_eq!(judge(Some(foreign)), Standing::Foreign, "{foreign}");
    }
    let all = ["*".to_owned()];
    assert_eq!(standing(Some("https://any.example.com"), "h", &all, &nobody), Standing::Listed);
    let sandboxed = ["null".to_owned()];
    assert_eq!(standing(Some("null"), "h", &sandboxed, &nobody), Standing::Listed);
}

#[test]
fn origins_in_a_configuration_have_scheme_and_host_alone() {
    for good in ["https://app.example.com", "http://localhost:3000", "https://[2001:db8::1]:8443"] {
        assert!(is_origin(good), "{good}");
    }
    for bad in [
        "app.example.com",
        "https://",
        "https://a/",
        "https://a/b",
        "ftp://a",
        "https://a:99999",
        "https://a b",
        "ws://a",
    ] {
        assert!(!is_origin(bad), "{bad}");
    }
}

#[test]
fn proxies_are_known_by_their_headers() {
    for name in [
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded",
        "x-real-ip",
        "x-envoy-external-address",
    ] {
        assert!(is_forwarding_header(name), "{name}");
    }
    for name in ["host", "origin", "user-agent", "x-request-id", "cookie", "referer"] {
        assert!(!is_forwarding_header(name), "{name}");
    }
}
