//! The way to the broker: the name servers that tell it are gone while nodes run, or tell another way, and nothing that was taken is
//! lost on the way.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tieline_core::broker::To;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use xtask::proxy::Proxy;

use super::super::frames::whole;
use super::super::link::Link;
use super::super::questions;
use super::super::{RocketMqError, Trouble};
use super::beginnings::start;
use super::*;
use crate::conformance::private::nobody;
use crate::conformance::{Heard, Recorder};

/// A name server that knows one broker, or none, and tells it for every topic.
struct NameServer {
    url: String,
    /// What it tells.
    broker: Arc<Mutex<Option<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl NameServer {
    async fn start(login: &str, broker: Option<SocketAddr>) -> NameServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("rocketmq://{login}{}", listener.local_addr().unwrap());
        let broker = Arc::new(Mutex::new(broker));
        let told = Arc::clone(&broker);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&told)));
            }
        });
        NameServer { url, broker, task }
    }

    fn tell(&self, broker: SocketAddr) {
        *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, broker: Arc<Mutex<Option<SocketAddr>>>) {
    let mut inbox = Vec::new();
    while stream.read_buf(&mut inbox).await.is_ok_and(|len| len > 0) {
        while let Ok(Some(end)) = whole(&inbox) {
            let rest = inbox.split_off(end);
            let question = std::mem::replace(&mut inbox, rest);
            let end = 8 + u32::from_be_bytes(question[4..8].try_into().unwrap()) as usize;
            let question: serde_json::Value = serde_json::from_slice(&question[8..end]).unwrap();
            let opaque = &question["opaque"];
            let known = *broker.lock().unwrap_or_else(PoisonError::into_inner);
            let code = if known.is_some() { 0 } else { questions::NO_TOPIC };
            let header = format!(r#"{{"code":{code},"flag":1,"opaque":{opaque}}}"#);
            let body = known.map(|broker| {
                format!(r#"{{"brokerDatas":[{{"brokerName":"b","brokerAddrs":{{"0":"{broker}"}}}}]}}"#)
            });
            let body = body.unwrap_or_default();
            let lengths = [(4 + header.len() + body.len()) as u32, header.len() as u32].map(u32::to_be_bytes);
            stream
                .write_all(&[&lengths.concat()[..], header.as_bytes(), body.as_bytes()].concat())
                .await
                .unwrap();
        }
    }
}

/// A proxy, which has a runtime of its own.
async fn proxy(target: SocketAddr) -> Proxy {
    tokio::task::spawn_blocking(move || Proxy::before(target)).await.unwrap()
}

fn count(recorder: &Recorder, what: &Heard) -> usize {
    recorder.with(|heard| heard.iter().filter(|heard| *heard == what).count())
}

async fn until(recorder: &Recorder, what: Heard, times: usize) {
    let is_so = |heard: &[Heard]| heard.iter().filter(|heard| **heard == what).count() >= times;
    recorder.until(&format!("{what:?}, {times} times"), is_so).await;
}

#[tokio::test]
async fn name_servers_without_a_broker_are_told() {
    let empty = NameServer::start("", None).await;
    match start(settings(&empty.url)).await {
        Err(RocketMqError::Server { trouble: Trouble::NoBroker, .. }) => {}
        other => panic!("{:?}", other.err()),
    }
    let nobody = nobody();
    let wrong = NameServer::start("", Some(nobody)).await;
    match start(settings(&wrong.url)).await {
        Err(RocketMqError::Server { trouble: Trouble::Connect { place, .. }, .. }) => {
            assert_eq!(place, nobody.to_string(), "the broker is named, not the name server");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_breaks_or_moves_loses_nothing_that_was_taken() {
    let engine = Engine::rocketmq().start().unwrap();
    let (login, server) = engine.url().strip_prefix("rocketmq://").unwrap().split_once('@').unwrap();
    // The topic has to be there, because a name server of the test does not learn of it.
    let settings = settings(engine.url());
    let (sender, _) = start(settings.clone()).await.unwrap();
    let mut names = Link::open(server, None).await.unwrap();
    let broker: SocketAddr = questions::any_broker(&mut names).await.unwrap().unwrap().parse().unwrap();

    let first = proxy(broker).await;
    let names = NameServer::start(&format!("{login}@"), Some(first.address)).await;
    let address = RocketMqAddress::parse(&names.url).unwrap();
    let (node, recorder) = start(RocketMqSettings { address, ..settings }).await.unwrap();
    let mut sent = 0;
    let mut send = |count: u32| {
        for _ in 0..count {
            assert_eq!(sender.send(To::All, &Arc::from(&u32::to_be_bytes(sent)[..])), Ok(()));
            sent += 1;
        }
        sent as usize
    };
    recorder.until_count(send(100)).await;

    // Cut for a while: what is sent meanwhile comes afterwards, in order and once.
    first.sever();
    until(&recorder, Heard::Away, 1).await;
    let due = send(100);
    assert_eq!(count(&recorder, &Heard::Back), 0);
    first.heal();
    until(&recorder, Heard::Back, 1).await;
    recorder.until_count(due).await;

    // The same where it moves.
    let second = proxy(broker).await;
    names.tell(second.address);
    first.sever();
    until(&recorder, Heard::Back, 2).await;
    recorder.until_count(send(100)).await;

    // Without a name server it stays where it is, and comes back.
    drop(names);
    second.sever();
    until(&recorder, Heard::Away, 3).await;
    let due = send(100);
    second.heal();
    until(&recorder, Heard::Back, 3).await;
    let numbers: Vec<_> = (0..due as u32).map(|number| number.to_be_bytes().to_vec()).collect();
    assert_eq!(recorder.until_envelopes(due).await, numbers);
    drop(node);
}
