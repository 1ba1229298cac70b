//! Several servers: the next one is tried when one is gone, and two that are joined keep the order of what goes to all and to one.

use std::net::TcpListener;

use super::*;
use crate::conformance::private::nobody;

fn address(engine: &Engine) -> &str {
    engine.url().strip_prefix("nats://").unwrap()
}

#[tokio::test]
async fn the_next_server_is_used_when_one_is_gone() {
    if !is_private("several servers") {
        return;
    }
    let nobody = nobody();
    let (mut one, two) = (Engine::nats().start().unwrap(), Engine::nats().start().unwrap());
    let url = format!("nats://{nobody},{},{}", address(&one), address(&two));
    let settings = settings(&fresh_cluster(), &url);
    let (a, at_a) = start_with(settings.clone()).await.unwrap();
    let (_b, at_b) = start_with(settings).await.unwrap();
    one.kill().unwrap();
    for recorder in [&at_a, &at_b] {
        recorder.until("the other server is used", |heard| heard.contains(&Heard::Back)).await;
    }
    assert_eq!(a.send(To::All, &Arc::from(&b"over the other one"[..])), Ok(()));
    assert_eq!(at_b.until_envelopes(1).await, [b"over the other one"]);
    // Of several servers the one is told that answered.
    let closed = configured("authorization { token: other }\n");
    match trouble(&format!("nats://hush@{nobody},{},{nobody}", address(&closed))).await {
        Trouble::Refused(text) => assert!(text.contains("Authorization Violation"), "{text}"),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_joined_keep_the_order_over_both_channels() {
    const COUNT: u32 = 3_000;
    if !is_private("joined servers") {
        return;
    }
    let [one, two] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let first = configured(format!("cluster {{ name: joined, listen: \"{one}\" }}\n"));
    let lines = format!("cluster {{ name: joined, listen: \"{two}\", routes: [\"nats://{one}\"] }}\n");
    let second = configured(lines);
    let cluster = fresh_cluster();
    let node = fresh_node("b");
    let (a, _) = start_with(settings(&cluster, first.url())).await.unwrap();
    let at_b = Recorder::new();
    let inbound = Arc::clone(&at_b) as Arc<dyn Inbound>;
    let _b = NatsBroker::start(settings(&cluster, second.url()), &node, inbound).await.unwrap();
    // Servers tell each other of subscriptions in their own time.
    for to in [To::All, To::One(node.incarnation)] {
        let before = at_b.envelopes().len();
        loop {
            a.send(to, &Arc::from(&[][..])).unwrap();
            let came = at_b.until("a first envelope", |heard| heard.len() > before);
            if tokio::time::timeout(Duration::from_millis(100), came).await.is_ok() {
                break;
            }
        }
    }
    for number in 0..COUNT {
        let to = if number % 3 == 0 { To::All } else { To::One(node.incarnation) };
        a.send(to, &Arc::from(&number.to_be_bytes()[..])).unwrap();
    }
    let numbers = |heard: &[Heard]| -> Vec<u32> {
        let number = |heard: &Heard| match heard {
            Heard::Envelope(bytes) => Some(u32::from_be_bytes(bytes.as_slice().try_into().ok()?)),
            _ => None,
        };
        heard.iter().filter_map(number).collect()
    };
    at_b.until("everything", |heard| numbers(heard).len() >= COUNT as usize).await;
    assert_eq!(at_b.with(numbers), (0..COUNT).collect::<Vec<_>>());
}
