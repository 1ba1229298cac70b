//! What the tests of engines have of servers: one of their own as what the suites break, names that nobody else uses on a shared one, and addresses where
//! somebody else answers, or nobody.

use std::fmt::{Debug, Display};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use xtask::{Engine, left_out};

use super::outage::Server;

impl Server for Engine {
    fn kill(&mut self) {
        Engine::kill(self).unwrap();
    }

    fn restart(&mut self) {
        Engine::restart(self).unwrap();
    }

    fn stand_still(&mut self) {
        Engine::stand_still(self).unwrap();
    }

    fn go_on(&mut self) {
        Engine::go_on(self).unwrap();
    }
}

/// Whether servers are started here, and so are ours to configure and to hurt. If not, because this variable names others, it is said what
/// is left out.
pub fn is_private(variable: &str, broker: &str, test: &str) -> bool {
    let is_named = std::env::var_os(variable).is_some();
    if is_named {
        left_out(
            &format!("{broker}: {test}"),
            &format!("{variable} names servers that were not started here"),
        );
    }
    !is_named
}

/// How long a start may take that cannot succeed.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

/// The error of a start that cannot succeed, which comes in time and has no password in it. A busy machine has three attempts.
pub async fn refused<B, E: Display + Debug>(start: impl AsyncFn() -> Result<B, E>) -> E {
    let mut took = Vec::new();
    loop {
        let began = Instant::now();
        let error = start().await.err().expect("such a start cannot succeed");
        took.push(began.elapsed());
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        if took.last().is_some_and(|took| *took < REFUSED_WITHIN) {
            return error;
        }
        assert!(took.len() < 3, "it took {took:?}: {error}");
    }
}

/// A cluster's name that no other test, and no other run on the same server, has.
pub fn fresh_cluster() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A server of something else, which says its words to whoever comes, and waits for the other to leave. It ends with the tests.
pub fn stranger(says: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                if stream.write_all(says).is_ok() {
                    let _ = stream.read_to_end(&mut Vec::new());
                }
            });
        }
    });
    server
}

/// Where nobody listens: no connection is given this port, and no server of a test.
pub fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}
