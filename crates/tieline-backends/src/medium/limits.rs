//! What every engine's [`Medium`] must do with a server of its own that stands still or dies: take no more than there is room for, forget what
//! waited when the session is over, and stop in time. The tests of each engine await both functions; beside them is the suite of all
//! brokers (`conformance.rs`), which knows neither queues nor tasks.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_core::broker::{Broker, NotTaken, To};
use tokio::time::timeout;

use super::{Engine, MAX_ENVELOPE, Medium};
use crate::conformance::outage::{RETURN, Server};
use crate::conformance::{Heard, Recorder};

/// A node that has begun, and what it hears.
pub(crate) type Begun<E> = (Medium<E>, Arc<Recorder>);

/// How long two nodes may take to stop.
const SOON: Duration = Duration::from_secs(10);

/// What is taken while nothing leaves: 16 MiB in the queue, and what sockets hold.
pub(crate) const QUEUE_AND_SOCKETS: RangeInclusive<usize> = 15..=100;

/// What is taken where everything counts until the server has confirmed it.
#[cfg(feature = "rabbitmq")]
pub(crate) const QUEUE: RangeInclusive<usize> = 15..=15;

/// Of `taken` MiB, so many must have been in the queue, and so come never.
const FORGOTTEN: usize = 4;

/// The server stands still: no more is taken than fits (`fits`, in MiB), and of what waited nothing is published in one late burst when the server
/// goes on. `start` begins nodes of one cluster.
pub(crate) async fn a_queue_is_bounded_and_forgotten<E: Engine>(
    server: &mut dyn Server,
    start: impl AsyncFn() -> Begun<E>,
    fits: RangeInclusive<usize>,
) {
    let (broker, recorder) = start().await;
    let (_other, heard) = start().await;
    let envelope: Arc<[u8]> = vec![7; 1 << 20].into();
    let too_long: Arc<[u8]> = vec![7; MAX_ENVELOPE + 1].into();
    assert_eq!(broker.send(To::All, &too_long), Err(NotTaken::Full));
    server.stand_still();
    let taken = (0..200).take_while(|_| broker.send(To::All, &envelope) == Ok(())).count();
    assert!(fits.contains(&taken), "{taken} MiB were taken");
    assert!(broker.overflows() >= 2);
    assert!(broker.stats().queued_bytes > 0);
    for recorder in [&recorder, &heard] {
        recorder.until("the server to be away", |heard| heard.contains(&Heard::Away)).await;
    }
    assert_eq!(broker.send(To::All, &envelope), Err(NotTaken::Unreachable));
    assert_eq!(broker.stats().queued_bytes, 0, "what waited is forgotten");
    server.go_on();
    for recorder in [&recorder, &heard] {
        let back = recorder.until("the server to be back", |heard| heard.contains(&Heard::Back));
        timeout(RETURN, back).await.expect("it is back soon");
    }
    assert_eq!(broker.send(To::All, &Arc::from(&b"fresh"[..])), Ok(()));
    let is_fresh = |heard: &Heard| *heard == Heard::Envelope(b"fresh".to_vec());
    heard.until("what is sent now", |heard| heard.iter().any(is_fresh)).await;
    let late = heard.envelopes().len() - 1;
    assert!(late + FORGOTTEN <= taken, "{late} MiB of the past, of {taken}");
    for _ in 0..15 {
        assert_eq!(broker.send(To::All, &envelope), Ok(()), "there is room again");
    }
}

/// A node stops in time while its server stands still, and while it is away.
pub(crate) async fn it_stops_while_its_server_is_away<E: Engine>(
    server: &mut dyn Server,
    start: impl AsyncFn() -> Begun<E>,
) {
    let (broker, recorder) = start().await;
    let (standing, _) = start().await;
    server.stand_still();
    let began = Instant::now();
    standing.close();
    standing.closed().await;
    server.kill();
    recorder.until("the server to be away", |heard| heard.contains(&Heard::Away)).await;
    broker.close();
    broker.closed().await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    assert_eq!(broker.send(To::All, &Arc::from(&b"x"[..])), Err(NotTaken::Unreachable));
}
