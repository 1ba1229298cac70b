//! What is bounded, and what comes to nothing: strangers' messages, messages for nobody, a server that is short of memory or stands
//! still, a node that does not read, and connections that are cut with and without a word.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex as StdMutex};
use std::thread;
use std::time::Instant;

use tieline_core::broker::NotTaken;
use tokio::io::AsyncWriteExt;

use super::super::confirms::Confirms;
use super::super::frames::{self, GREETING, Method};
use super::super::messages::{Messages, Said};
use super::super::names::Names;
use super::*;
use crate::conformance::Heard;
use crate::conformance::outage::RETURN;
use crate::inbox::Inbox;
use crate::medium::limits;
use crate::tls;

/// Two leases: what is left of a node that is gone must be gone by then.
const TWO_LEASES: Duration = Duration::from_secs(30);

/// Pause between two looks at a server, each of which takes it a good part of a second.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_bounded_and_what_comes_to_nothing_is_counted() {
    let _turn = TURN.lock().await;
    let Some(engine) = private("limits") else { return };
    foreign_messages_are_counted_and_done_with(&engine).await;
    a_message_for_nobody_is_counted_and_nothing_else(&engine).await;
    a_node_that_does_not_read_gets_the_newest(&engine).await;
    a_server_that_is_short_of_memory_is_away(&engine).await;
    a_connection_is_made_anew(&engine).await;
    a_silent_cut_leaves_no_queue_and_locks_none(&engine).await;
    a_queue_is_bounded_by_what_is_not_confirmed(engine).await;
}

fn address(engine: &Engine) -> SocketAddr {
    engine.url().strip_prefix("amqp://").unwrap().parse().unwrap()
}

fn names(settings: &RabbitMqSettings, node: &NodeId) -> Names {
    Names::new(&settings.cluster, node.incarnation)
}

/// Publishes as somebody does who knows the names and nothing else, and waits until the server has it all.
async fn publish(engine: &Engine, messages: &[(&str, &str, &[u8])]) {
    let stream = tokio::net::TcpStream::connect(address(engine)).await.unwrap();
    let (read, mut write) = tls::plain(stream);
    let mut out = GREETING.to_vec();
    frames::write(&mut out, 0, (10, 11), |arguments| {
        arguments.table(&[]).short(b"PLAIN").long(b"\0guest\0guest").short(b"en_US");
    });
    frames::write(&mut out, 0, (10, 31), |arguments| {
        arguments.u16(1).u32(131_072).u16(0);
    });
    frames::write(&mut out, 0, (10, 40), |arguments| {
        arguments.short(b"/").short(b"").u8(0);
    });
    frames::write(&mut out, 1, (20, 10), |arguments| {
        arguments.short(b"");
    });
    frames::write(&mut out, 1, (85, 10), |arguments| {
        arguments.u8(0);
    });
    let confirms = Confirms::default();
    for (exchange, key, payload) in messages {
        confirms.published(1);
        frames::publish(&mut out, 1, 131_072, (exchange.as_bytes(), key.as_bytes()), [payload, &[]]);
    }
    write.write_all(&out).await.unwrap();
    let mut heard = Messages::new(Inbox::new(read, Vec::new()));
    let mut left = messages.len();
    while left > 0 {
        while let Some(said) = heard.next().unwrap() {
            match said {
                Said::Method(Method::Ack { tag, and_before }) => {
                    left -= confirms.confirmed(tag, and_before).1
                }
                Said::Method(Method::Start { .. } | Method::Tune { .. } | Method::Other) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(left == 0 || heard.read().await.unwrap() > 0);
    }
}

fn counted(broker: &RabbitMqBroker) -> [u64; 3] {
    let strays = broker.stats().strays;
    ["foreign", "returned", "refused"]
        .map(|why| strays.iter().find(|(reason, _)| *reason == why).map_or(0, |(_, count)| *count))
}

async fn foreign_messages_are_counted_and_done_with(engine: &Engine) {
    let settings = settings(engine.url());
    let (broker, recorder, node) = start_with(settings.clone()).await;
    let (other, ..) = start_with(settings.clone()).await;
    let names = names(&settings, &node);
    let queue = names.queue(0);
    let large = vec![b'x'; 20 << 20];
    publish(
        engine,
        &[
            (&names.all, "", b"hello"),
            (&names.all, "any key", b""),
            (&names.one, &names.own, b"a text that is long enough for a header"),
            // Past the exchanges, and longer than any of ours.
            ("", &queue, b"00000000\x00\x00\x00\x01 an envelope"),
            (&names.one, &names.own, &large),
        ],
    )
    .await;
    assert_eq!(other.send(To::All, &Arc::from(&b"behind"[..])), Ok(()));
    assert_eq!(recorder.until_envelopes(1).await, [b"behind"]);
    assert_eq!(counted(&broker), [5, 0, 0]);
    assert_eq!(counted(&other), [2, 0, 0]);
    // Nothing is put back, and nobody is away for it.
    let left = control(engine, &["list_queues", "--no-table-headers", "name", "messages"]).unwrap();
    assert!(left.lines().any(|line| line.starts_with(&queue) && line.ends_with("\t0")), "{left}");
    assert!(recorder.with(|heard| heard.len() == 1));
}

async fn a_message_for_nobody_is_counted_and_nothing_else(engine: &Engine) {
    let settings = settings(engine.url());
    let (one, recorder, _) = start_with(settings.clone()).await;
    let (_other, hears, node) = start_with(settings).await;
    let nobody = fresh_node("nobody").incarnation;
    for number in 0..10u8 {
        for to in [To::One(nobody), To::One(node.incarnation)] {
            assert_eq!(one.send(to, &Arc::from([number])), Ok(()));
        }
    }
    let expected: Vec<_> = (0..10u8).map(|number| [number]).collect();
    assert_eq!(hears.until_envelopes(10).await, expected);
    // All ten came back before that of the other node, which was sent last, was confirmed.
    until("all is confirmed", || one.stats().queued_bytes == 0).await;
    assert_eq!(counted(&one), [0, 10, 0]);
    assert_eq!(recorder.with(<[_]>::len), 0);
}

/// Passes connections on to a server, until those that there are fall silent. New ones pass.
struct Gate {
    address: SocketAddr,
    doors: Arc<Doors>,
}

/// Which connections pass.
#[derive(Default)]
struct Doors {
    /// Connections of a lower number pass nothing.
    open_from: StdMutex<usize>,
    /// Told when they may pass again.
    opened: Condvar,
    /// Connections so far.
    passed: AtomicUsize,
}

impl Doors {
    /// Waits until this connection may pass.
    fn wait(&self, number: usize) {
        let open_from = self.open_from.lock().unwrap();
        drop(self.opened.wait_while(open_from, |open_from| number < *open_from).unwrap());
    }
}

impl Gate {
    fn before(server: SocketAddr) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let doors = Arc::<Doors>::default();
        let all = Arc::clone(&doors);
        // It ends with the process of the tests.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let number = all.passed.fetch_add(1, Ordering::Relaxed);
                let ways = [(&client, &server), (&server, &client)];
                for (from, to) in ways.map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    let doors = Arc::clone(&all);
                    thread::spawn(move || carry(from, to, number, &doors));
                }
            }
        });
        Gate { address, doors }
    }

    /// Nothing passes any more over the connections that there are.
    fn shut(&self) {
        *self.doors.open_from.lock().unwrap() = self.doors.passed.load(Ordering::Relaxed);
    }

    /// All pass what they have.
    fn open(&self) {
        *self.doors.open_from.lock().unwrap() = 0;
        self.doors.opened.notify_all();
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, number: usize, doors: &Doors) {
    let mut chunk = vec![0; 16 << 10];
    loop {
        doors.wait(number);
        let read = from.read(&mut chunk).unwrap_or(0);
        if read == 0 || to.write_all(&chunk[..read]).is_err() {
            let _ = to.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

async fn a_node_that_does_not_read_gets_the_newest(engine: &Engine) {
    const COUNT: u32 = 2_000;
    let gate = Gate::before(address(engine));
    let mut settings = settings(engine.url());
    settings.pace.canary = Duration::from_secs(10);
    let behind = RabbitMqSettings {
        address: RabbitMqAddress::parse(&format!("amqp://{}", gate.address)).unwrap(),
        backlog: 256 << 10,
        ..settings.clone()
    };
    let (sender, ..) = start_with(settings).await;
    let (_slow, hears, node) = start_with(behind).await;
    gate.shut();
    for number in 0..COUNT {
        let envelope = [&number.to_be_bytes()[..], &[0; 16 << 10]].concat();
        until("there is room", || sender.send(To::One(node.incarnation), &envelope.clone().into()) == Ok(()))
            .await;
    }
    until("the server has it", || sender.stats().queued_bytes == 0).await;
    gate.open();
    let number = |heard: &Heard| match heard {
        Heard::Envelope(bytes) => u32::from_be_bytes(bytes[..4].try_into().unwrap()),
        other => panic!("{other:?}"),
    };
    hears.until("the newest", |heard| heard.last().map(number) == Some(COUNT - 1)).await;
    let came: Vec<_> = hears.with(|heard| heard.iter().map(number).collect());
    assert!(came.is_sorted_by(|a, b| a < b), "nothing is doubled or out of order");
    assert!(came.len() < COUNT as usize - 500, "{} of {COUNT} came", came.len());
    assert_eq!(counted(&sender), [0, 0, 0]);
}

async fn a_server_that_is_short_of_memory_is_away(engine: &Engine) {
    let (broker, recorder, _) = start_with(settings(engine.url())).await;
    let set = |mark| control(engine, &["set_vm_memory_high_watermark", mark]).unwrap();
    set("0.000001");
    recorder.until("the server to be away", |heard| heard == [Heard::Away]).await;
    assert_eq!(broker.send(To::All, &Arc::from(&b"x"[..])), Err(NotTaken::Unreachable));
    let blocked = |broker: &RabbitMqBroker| {
        broker.stats().refused.iter().any(|(why, count)| *why == "blocked" && *count > 0)
    };
    until("it is still short of memory", || blocked(&broker)).await;
    let error = RabbitMqBroker::start(settings(engine.url()), &fresh_node("n"), Recorder::new()).await.err();
    let error = error.expect("nothing is taken").to_string();
    assert!(error.contains("takes no messages") && error.contains("memory"), "{error}");
    set("0.4");
    let back = recorder.until("the server to be back", |heard| heard == [Heard::Away, Heard::Back]);
    timeout(RETURN, back).await.expect("it is back soon");
    assert_eq!(broker.send(To::All, &Arc::from(&b"x"[..])), Ok(()));
}

async fn a_connection_is_made_anew(engine: &Engine) {
    let settings = settings(engine.url());
    let (broker, recorder, node) = start_with(settings.clone()).await;
    let names = names(&settings, &node);
    let turns = |count: usize| (0..count).flat_map(|_| [Heard::Away, Heard::Back]).collect::<Vec<_>>();
    // An operator closes connections, or deletes what is a node's.
    control(engine, &["close_all_connections", "test"]).unwrap();
    recorder.until("the connection is made anew", |heard| heard == turns(1)).await;
    control(engine, &["delete_queue", &names.queue(1)]).unwrap();
    recorder.until("the queue is made anew", |heard| heard == turns(2)).await;
    let (other, hears, _) = start_with(settings).await;
    for (from, to) in [(&broker, &hears), (&other, &recorder)] {
        assert_eq!(from.send(To::All, &Arc::from(&b"x"[..])), Ok(()));
        to.until_count(1).await;
    }
}

/// The server does not hear that the connection is over, and the node comes back before it could find out.
async fn a_silent_cut_leaves_no_queue_and_locks_none(engine: &Engine) {
    let gate = Gate::before(address(engine));
    let settings = settings(&format!("amqp://{}", gate.address));
    let (_broker, recorder, node) = start_with(settings.clone()).await;
    let names = names(&settings, &node);
    let (other, hears, _) =
        start_with(RabbitMqSettings { address: RabbitMqAddress::parse(engine.url()).unwrap(), ..settings })
            .await;
    gate.shut();
    recorder.until("another connection", |heard| heard == [Heard::Away, Heard::Back]).await;
    let both = [names.queue(0), names.queue(1)];
    let cut = Instant::now();
    let mut left = queues(engine, names.queues());
    left.sort();
    assert_eq!(left, both, "the server takes the former connection for alive");
    for to in [To::All, To::One(node.incarnation)] {
        assert_eq!(other.send(to, &Arc::from(&b"to the new one"[..])), Ok(()));
    }
    recorder.until_envelopes(2).await;
    while queues(engine, names.queues()) != both[1..] {
        assert!(cut.elapsed() < TWO_LEASES, "the former queue is still there");
        sleep(LOOK_EVERY).await;
    }
    assert_eq!(other.send(To::One(node.incarnation), &Arc::from(&b"still"[..])), Ok(()));
    recorder.until_envelopes(3).await;
    assert_eq!(hears.with(<[_]>::len), 0, "the other node has noticed nothing");
}

async fn a_queue_is_bounded_by_what_is_not_confirmed(mut server: Engine) {
    let settings = settings(server.url());
    let start = async || {
        let (broker, recorder, _) = start_with(settings.clone()).await;
        (broker, recorder)
    };
    // What sockets hold is not confirmed either.
    limits::a_queue_is_bounded_and_forgotten(&mut server, start, limits::QUEUE).await;
}
