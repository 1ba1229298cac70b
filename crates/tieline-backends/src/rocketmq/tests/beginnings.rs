//! How it begins, and how it does not: keys, addresses where nobody or somebody else answers, names that no topic may have. And what
//! somebody else sends to the cluster's topic, and what is left on the server.

use tieline_core::broker::To;

use super::super::frames::{Answer, Request};
use super::super::link::Link;
use super::super::names::Names;
use super::super::signature::{Fields, Signer};
use super::super::{RocketMqError, Trouble, messages, questions};
use super::*;
use crate::conformance::private::{nobody, refused, stranger};
use crate::conformance::{PATIENCE, Recorder, fresh_node};

pub(super) async fn start(
    settings: RocketMqSettings,
) -> Result<(RocketMqBroker, Arc<Recorder>), RocketMqError> {
    let recorder = Recorder::new();
    let broker =
        RocketMqBroker::start(settings, &fresh_node("n"), Arc::clone(&recorder) as Arc<dyn Inbound>).await?;
    Ok((broker, recorder))
}

/// What is wrong with a server that says something, found in time. A busy one is waited for, and then asked again.
async fn trouble(url: &str) -> Trouble {
    trouble_by(|| settings(url)).await
}

/// What is wrong with a server that may say nothing.
async fn silence(url: &str) -> Trouble {
    trouble_by(|| RocketMqSettings::new(&fresh_cluster(), RocketMqAddress::parse(url).unwrap())).await
}

async fn trouble_by(settings: impl Fn() -> RocketMqSettings) -> Trouble {
    let error = refused(async || start(settings()).await).await;
    let RocketMqError::Server { trouble, .. } = error else { panic!("{error}") };
    trouble
}

#[tokio::test]
async fn what_is_no_rocketmq_is_told() {
    let nobody = nobody();
    assert!(matches!(trouble(&format!("rocketmq://{nobody}")).await, Trouble::Connect { .. }));
    let unknown = silence("rocketmq://no-such-host.invalid").await;
    assert!(matches!(unknown, Trouble::Connect { .. } | Trouble::Silent), "{unknown}");
    let http = stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(matches!(trouble(&format!("rocketmq://{http}")).await, Trouble::Garbage));
    // Who speaks TLS alone.
    let alert = stranger(&[0x15, 3, 1, 0, 2, 2, 80]);
    assert!(matches!(trouble(&format!("rocketmq://k:hush@{alert}")).await, Trouble::Garbage));
    let silent = stranger(b"");
    assert!(matches!(silence(&format!("rocketmq://k:hush@{silent}")).await, Trouble::Silent));
    let other_header = stranger(b"\0\0\0\x06\0\0\0\x02[]");
    assert!(matches!(trouble(&format!("rocketmq://{nobody},{other_header}")).await, Trouble::Garbage));
}

#[tokio::test]
async fn names_of_clusters_are_bounded() {
    for cluster in [String::new(), "n".repeat(257)] {
        let settings = RocketMqSettings { cluster, ..settings("rocketmq://127.0.0.1:1") };
        assert!(matches!(start(settings).await, Err(RocketMqError::Cluster)));
    }
}

/// A connection to the broker, as somebody who has the keys.
async fn visit(url: &str, topic: &str) -> Link {
    let address = RocketMqAddress::parse(url).unwrap();
    let signer = address.login.as_ref().map(|login| Arc::new(Signer::new(login)));
    let mut names = Link::open(&address.server(), signer.as_ref()).await.unwrap();
    // A broker tells the name servers of a new topic when it has answered who made it.
    let known = async {
        loop {
            if let Some(broker) = questions::route(&mut names, topic).await.unwrap() {
                return broker;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let broker = tokio::time::timeout(PATIENCE, known).await.expect("the topic is known");
    Link::open(&broker, signer.as_ref()).await.unwrap()
}

async fn ask(link: &mut Link, code: i32, fields: Fields<'_>, body: &str) -> Answer {
    let answer = link.call(Request { code, fields, body: body.as_bytes() }).await.unwrap();
    assert_eq!(answer.code, 0, "{}", answer.remark);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_strangers_and_names_on_a_real_server() {
    let engine = Engine::rocketmq().start().unwrap();
    keys_are_checked_at_once(&engine).await;
    a_user_may_do_no_more_than_is_needed(&engine).await;
    foreign_messages_are_passed_over(engine.url()).await;
    no_name_of_a_cluster_is_too_odd(engine.url()).await;
    nothing_on_the_server_is_a_nodes_own(engine.url()).await;
    a_topic_that_was_deleted_is_made_again(engine.url()).await;
}

async fn keys_are_checked_at_once(engine: &Engine) {
    if !is_private("keys") {
        return;
    }
    let (login, server) = engine.url().strip_prefix("rocketmq://").unwrap().split_once('@').unwrap();
    let key = login.split_once(':').unwrap().0;
    let cases = [
        (String::new(), "username cannot be null"),
        (format!("{key}:hush@"), "check signature failed"),
        ("nobody:hush@".to_owned(), "nobody is not found"),
    ];
    for (login, reason) in cases {
        match trouble(&format!("rocketmq://{login}{server}")).await {
            Trouble::Refused { text, .. } if text.contains(reason) => {}
            other => panic!("{login}: {other}"),
        }
    }
}

async fn a_user_may_do_no_more_than_is_needed(engine: &Engine) {
    const CREATE_USER: i32 = 3001;
    const CREATE_ACL: i32 = 3006;
    if !is_private("permissions") {
        return;
    }
    let server = engine.url().split_once('@').unwrap().1;
    let url = format!("rocketmq://node:hush-1@{server}");
    let mut operator = visit(engine.url(), "SELF_TEST_TOPIC").await;
    let user = r#"{"username":"node","password":"hush-1","userType":"Normal"}"#;
    ask(&mut operator, CREATE_USER, Fields::from([("username", "node".into())]), user).await;
    match trouble(&url).await {
        Trouble::Refused { code: 16, text } if text.contains("has no permission") => {}
        other => panic!("{other}"),
    }
    // As the documents say.
    let allow = |resource: &str, actions: &str| {
        format!(r#"{{"resource":"{resource}:tieline-*","actions":[{actions}],"decision":"Allow"}}"#)
    };
    let topic = allow("Topic", r#""Pub","Sub","Get","Create""#);
    let group = allow("Group", r#""Sub""#);
    let rules = format!(
        r#"{{"subject":"User:node","policies":[{{"policyType":"Custom","entries":[{topic},{group}]}}]}}"#
    );
    ask(&mut operator, CREATE_ACL, Fields::from([("subject", "User:node".into())]), &rules).await;
    let settings = settings(&url);
    let ((one, _), (_other, recorder)) =
        (start(settings.clone()).await.unwrap(), start(settings.clone()).await.unwrap());
    send_and_hear(&one, To::All, &recorder, 1, b"allowed").await;
}

/// A node that has just heard `bytes` from another one has read everything before.
async fn send_and_hear(from: &RocketMqBroker, to: To, recorder: &Recorder, count: usize, bytes: &[u8]) {
    assert_eq!(from.send(to, &Arc::from(bytes)), Ok(()));
    assert_eq!(recorder.until_envelopes(count).await.last().map(Vec::as_slice), Some(bytes));
}

async fn foreign_messages_are_passed_over(url: &str) {
    let settings = settings(url);
    let (node, recorder) = (fresh_node("n"), Recorder::new());
    let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
    let broker = RocketMqBroker::start(settings.clone(), &node, inbound).await.unwrap();
    let (other, _) = start(settings.clone()).await.unwrap();
    let names = Names::new(&settings.cluster, node.incarnation);
    let mut stranger = visit(url, &names.topic).await;
    let mut foreign = Vec::new();
    for tag in ["all", names.own(), "0", "", "*", "all || all", "\u{1}"] {
        for body in [&b""[..], b"short", &[0; 12], &[0xff; 13], &[7; 4000]] {
            messages::put(&mut foreign, tag, &[body]);
        }
    }
    questions::send(&mut stranger, &names.topic, &foreign).await.unwrap();
    send_and_hear(&other, To::One(node.incarnation), &recorder, 1, b"to one").await;
    send_and_hear(&other, To::All, &recorder, 2, b"to all").await;
    assert_eq!(recorder.heard().len(), 2, "nothing else, and no outage: {:?}", recorder.heard());
    // At least those of its own two tags.
    assert!(matches!(broker.stats().strays[..], [("foreign", 1..)]));
}

async fn no_name_of_a_cluster_is_too_odd(url: &str) {
    let odd = format!("{}/..%RETRY%|ä\u{1}\u{2} ||", std::process::id());
    for cluster in [odd.clone() + "a", odd + "b", "_".repeat(255) + "a", "_".repeat(255) + "b"] {
        let settings = RocketMqSettings { cluster, ..settings(url) };
        let ((one, _), (_other, recorder)) =
            (start(settings.clone()).await.unwrap(), start(settings.clone()).await.unwrap());
        send_and_hear(&one, To::All, &recorder, 1, settings.cluster.as_bytes()).await;
    }
}

async fn nothing_on_the_server_is_a_nodes_own(url: &str) {
    const TOPICS: i32 = 21;
    const GROUPS: i32 = 201;
    let settings = settings(url);
    let topic = Names::new(&settings.cluster, fresh_node("n").incarnation).topic;
    let mut gone = Vec::new();
    for number in 1..=3 {
        let (node, recorder) = (fresh_node("n"), Recorder::new());
        let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
        let broker = RocketMqBroker::start(settings.clone(), &node, inbound).await.unwrap();
        let (other, _) = start(settings.clone()).await.unwrap();
        send_and_hear(&other, To::One(node.incarnation), &recorder, 1, &[number]).await;
        broker.close();
        broker.closed().await;
        gone.push(node.incarnation.to_string());
    }
    let mut visitor = visit(url, &topic).await;
    for code in [TOPICS, GROUPS] {
        let answer = ask(&mut visitor, code, Fields::new(), "").await;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(text.contains(&topic), "{code}: {text}");
        let of_cluster = text.split('"').filter(|word| word.contains(&settings.cluster));
        assert!(of_cluster.into_iter().all(|word| word == topic), "{code}: {text}");
        assert!(!gone.iter().any(|node| text.contains(node)), "{code}: {text}");
    }
}

/// Its messages are gone, and with them the places that nodes had read up to.
async fn a_topic_that_was_deleted_is_made_again(url: &str) {
    const DELETE_IN_BROKER: i32 = 215;
    let settings = settings(url);
    let topic = Names::new(&settings.cluster, fresh_node("n").incarnation).topic;
    let ((one, _), (_other, recorder)) =
        (start(settings.clone()).await.unwrap(), start(settings.clone()).await.unwrap());
    for number in 0..3 {
        send_and_hear(&one, To::All, &recorder, number + 1, b"before").await;
    }
    let mut operator = visit(url, &topic).await;
    // When the topic is gone, a broker without timers fails at the timers that the topic might have had, so its answer says nothing.
    let fields = Fields::from([("topic", topic.as_str().into())]);
    operator.call(Request { code: DELETE_IN_BROKER, fields, body: b"" }).await.unwrap();
    let is_behind = |bytes: &Vec<u8>| bytes == b"behind";
    let sending = async {
        loop {
            let _ = one.send(To::All, &Arc::from(&b"behind"[..]));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let hearing = async {
        recorder
            .until("what was sent behind it", |heard| {
                heard
                    .iter()
                    .any(|heard| matches!(heard, conformance::Heard::Envelope(bytes) if is_behind(bytes)))
            })
            .await;
    };
    tokio::select! {
        () = hearing => {}
        () = sending => {}
    }
}
