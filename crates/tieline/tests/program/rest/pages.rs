//! The members of a group, page by page.

use std::collections::BTreeSet;

use super::{AZURE, HARD_PATH, ask, connect};
use crate::server::Server;
use crate::support::http::{call, post_json};

const MEMBERS: usize = 450;

/// The sizes of all pages, and every member that was on one. Links are followed as they stand, without their host.
fn walk(server: &Server, query: &str) -> (Vec<usize>, Vec<String>) {
    let (mut sizes, mut members) = (Vec::new(), Vec::new());
    let mut target = format!("/api/hubs/h/groups/{HARD_PATH}/connections{query}");
    loop {
        let page = call(server.address, "GET", &target, "", "").json();
        let value = page["value"].as_array().unwrap();
        sizes.push(value.len());
        for member in value {
            assert_eq!(member["userId"].as_str().map(|user| user.starts_with('u')), Some(true));
            members.push(member["connectionId"].as_str().unwrap().to_owned());
        }
        let Some(link) = page.get("nextLink") else { return (sizes, members) };
        let origin = format!("http://{}", server.address);
        target = link.as_str().unwrap().strip_prefix(&origin).expect("an absolute address").to_owned();
    }
}

#[test]
fn each_member_is_on_one_page() {
    let server = Server::start("");
    let clients: Vec<_> = (0..MEMBERS).map(|n| connect(&server, AZURE, &format!("u{n}"))).collect();
    let (_outsider, _) = connect(&server, AZURE, "outsider");
    let add = r#"{"groups":["a/b ?#%ü"],"filter":"startswith(userId, 'u')"}"#;
    assert_eq!(post_json(server.address, "/api/hubs/h/:addToGroups", add).status, 200);
    let ids: BTreeSet<String> = clients.iter().map(|(_, id)| id.clone()).collect();
    for (query, expected) in [
        ("?api-version=2024-12-01", vec![200, 200, 50]),
        ("?maxpagesize=150&api-version=2024-12-01", vec![150, 150, 150]),
        ("?maxpagesize=200&top=200", vec![200]),
        ("?top=300", vec![200, 100]),
        ("?maxpagesize=100&top=250", vec![100, 100, 50]),
        ("?maxpagesize=100&top=100000", vec![100, 100, 100, 100, 50]),
        ("?top=1", vec![1]),
    ] {
        let (sizes, members) = walk(&server, query);
        assert_eq!(sizes, expected, "{query}");
        let distinct: BTreeSet<String> = members.iter().cloned().collect();
        assert_eq!(distinct.len(), members.len(), "{query}: nobody is there twice");
        assert!(distinct.is_subset(&ids));
    }
    // Whoever leaves between two pages moves nobody else.
    let path = format!("/groups/{HARD_PATH}/connections?maxpagesize=200");
    let first = ask(&server, "GET", &path).json();
    let last = first["value"][199]["connectionId"].as_str().unwrap();
    assert_eq!(ask(&server, "DELETE", &format!("/groups/{HARD_PATH}/connections/{last}")).status, 204);
    let second = ask(&server, "GET", &format!("{path}&continuationToken={last}")).json();
    assert_eq!(second["value"].as_array().unwrap().len(), 200);
    assert!(second["value"][0]["connectionId"].as_str() != Some(last));
}

#[test]
fn a_link_keeps_the_scheme_and_version_of_the_request() {
    let server = Server::start("access_key = [\"k\"]\nallow_anonymous = true");
    let _clients = [connect(&server, AZURE, "a"), connect(&server, AZURE, "b")];
    let server_url = format!("http://{}", server.address);
    let target = |path: &str| format!("/api/hubs/h{path}");
    let token = |target: &str| super::tokens::bearer("k", &format!("{server_url}{target}"));
    let add = target("/:addToGroups");
    let headers = format!("{}Content-Type: application/json\r\n", token(&add));
    assert_eq!(call(server.address, "POST", &add, &headers, r#"{"groups":["g"]}"#).status, 200);
    let list = target("/groups/g/connections?maxpagesize=1&api-version=2024-12-01");
    let headers = format!("{}X-Forwarded-Proto: https\r\n", token(&list));
    let page = call(server.address, "GET", &list, &headers, "").json();
    let link = page["nextLink"].as_str().unwrap();
    assert!(
        link.starts_with(&format!("https://{}/api/hubs/h/groups/g/connections?", server.address)),
        "{link}"
    );
    assert!(link.ends_with("&maxpagesize=1&api-version=2024-12-01"), "{link}");
    // Signed anew as it stands, it is the last page.
    let rest = link.strip_prefix(&format!("https://{}", server.address)).unwrap();
    let page = call(server.address, "GET", rest, &super::tokens::bearer("k", link), "").json();
    assert_eq!((page["value"].as_array().unwrap().len(), page.get("nextLink")), (1, None));
}

#[test]
fn an_empty_group_has_an_empty_page() {
    let server = Server::start("");
    let answer = ask(&server, "GET", "/groups/nobody/connections");
    assert_eq!((answer.status, &*answer.body), (200, r#"{"value":[]}"#));
}
