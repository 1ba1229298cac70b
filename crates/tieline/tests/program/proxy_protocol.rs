//! `--proxy-protocol`: a balancer in front of the clients' listener says for whom it connects.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tieline_websocket::ClientRequest;

use crate::server::Server;
use crate::support::http::{Answer, connect, get, read_answer};
use crate::support::proxy_protocol::{header, local, proxied};
use crate::support::socket::{Frame, Socket};

/// With a listener for operators, which is no balancer's business.
fn server(more: &str) -> Server {
    Server::start(&format!("proxy_protocol = true\nadmin_listen = \"127.0.0.1:0\"\n{more}"))
}

fn request() -> ClientRequest {
    ClientRequest::new("localhost", "/client/hubs/h?user=u").unwrap().protocol("tieline.v1")
}

/// The other end of the socket as the balancer tells it; of a port nobody learns anything.
fn source(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 4711)
}

/// The status of a handshake behind a header.
fn open(server: &Server, header: &[u8]) -> u16 {
    match Socket::open_with(server.address, header, request(), b"") {
        Ok(mut socket) => {
            assert_eq!(socket.json()["event"], "connected");
            101
        }
        Err(answer) => answer.status,
    }
}

/// GET of a path behind a header.
fn get_behind(server: &Server, header: &[u8], path: &str) -> Answer {
    let mut stream = connect(server.address);
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(&[header, head.as_bytes()].concat()).unwrap();
    read_answer(&mut stream, Vec::new())
}

/// How many connections were closed for a reason, as operators are told.
fn refused(server: &Server, reason: &str) -> u64 {
    let metrics = get(server.admin.unwrap(), "/metrics", "").body;
    let label = format!("tieline_proxy_headers_refused_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&label));
    line.unwrap_or_else(|| panic!("{label} is not in {metrics}")).parse().unwrap()
}

/// Waits until the server has closed, which must be without a word.
fn expect_end(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => assert!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn the_address_in_the_header_is_the_clients() {
    // One connection of each address, and then one in a thousand seconds.
    let server = server("allow_anonymous = true\n[limits]\nconnect_rate = 1\nconnect_burst = 1\n");
    for ip in ["203.0.113.7", "203.0.113.8", "2001:db8::1"] {
        assert_eq!(open(&server, &proxied(source(ip))), 101, "{ip}");
    }
    for ip in ["203.0.113.7", "2001:db8::ffff"] {
        assert_eq!(open(&server, &proxied(source(ip))), 429, "{ip}");
    }
    // The balancer itself is on this machine, which is not limited, and neither is whom it cannot name.
    let unnamed =
        [local(), header(0x21, 0x00, &[]), header(0x21, 0x31, &[b'/'; 216]), header(0x20, 0xff, &[9; 40])];
    for header in unnamed.iter().chain(&unnamed) {
        assert_eq!(open(&server, header), 101, "{header:x?}");
    }
}

#[test]
fn nobody_is_local_behind_a_balancer() {
    let server = server("");
    for header in [proxied(source("127.0.0.1")), proxied(source("::1")), local(), header(0x21, 0, &[])] {
        assert_eq!(open(&server, &header), 401, "{header:x?}");
        assert_eq!(get_behind(&server, &header, "/api/v1/nodes").code(), "Unauthorized", "{header:x?}");
    }
    // Where it is asked for in words that everybody may come, everybody may.
    let open_door = Server::start("proxy_protocol = true\nallow_anonymous = true\n");
    assert_eq!(open(&open_door, &proxied(source("127.0.0.1"))), 101);
    assert_eq!(get_behind(&open_door, &proxied(source("127.0.0.1")), "/metrics").code(), "Unauthorized");
}

#[test]
fn balancers_see_whether_the_node_is_well() {
    let server = server("");
    for header in [local(), proxied(source("192.0.2.1"))] {
        assert_eq!(get_behind(&server, &header, "/healthz").status, 200);
        assert_eq!(get_behind(&server, &header, "/readyz").status, 200);
    }
    // The listener for operators knows no balancer.
    let admin = server.admin.unwrap();
    assert_eq!(get(admin, "/healthz", "").status, 200);
    assert_eq!(get(admin, "/api/v1/nodes", "").status, 200);
    // Who only looks whether somebody listens has done nothing wrong.
    drop(TcpStream::connect(server.address).unwrap());
    let mut stream = connect(server.address);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    expect_end(&mut stream);
    for reason in ["absent", "cut", "slow"] {
        assert_eq!(refused(&server, reason), 0, "{reason}");
    }
}

#[test]
fn a_connection_without_a_proper_header_is_closed_and_counted() {
    let server = server("allow_anonymous = true");
    let good = proxied(source("192.0.2.1"));
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let plain = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let mut long = changed(14, 0x10);
    long[15] = 1;
    for (bytes, reason) in [
        (plain.clone(), "absent"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\nGET / HTTP/1.1\r\n".to_vec(), "absent"),
        (request().to_bytes().unwrap(), "absent"),
        (changed(11, 0), "absent"),
        (changed(12, 0x31), "version"),
        (changed(12, 0x2f), "command"),
        (changed(13, 0x51), "family"),
        (header(0x21, 0x11, &[0; 11]), "short"),
        (long, "long"),
    ] {
        let before = refused(&server, reason);
        let mut stream = connect(server.address);
        // What the client sends behind it is nobody's; the server may have closed already.
        let _ = stream.write_all(&[bytes, plain.clone()].concat());
        expect_end(&mut stream);
        assert_eq!(refused(&server, reason), before + 1, "{reason}");
    }
    // In the middle of a header the client goes away.
    for length in [1, 12, 15, 20, good.len() - 1] {
        let before = refused(&server, "cut");
        let mut stream = connect(server.address);
        stream.write_all(&good[..length]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        expect_end(&mut stream);
        assert_eq!(refused(&server, "cut"), before + 1, "{length} bytes");
    }
    // Only the first of two headers is one.
    let twice = [good.clone(), good.clone()].concat();
    let mut stream = connect(server.address);
    stream.write_all(&[twice, plain].concat()).unwrap();
    assert_eq!(read_answer(&mut stream, Vec::new()).status, 400);
    assert_eq!(open(&server, &good), 101, "and the server serves on");
}

#[test]
fn a_header_in_pieces_is_read_and_a_slow_one_is_not_waited_for() {
    let server = server("allow_anonymous = true\n[times]\nhandshake = \"700ms\"\n");
    let request = request();
    let bytes = [proxied(source("192.0.2.1")), request.to_bytes().unwrap()].concat();
    let length = bytes.len();
    for cuts in [vec![1], vec![12, 13], vec![16], vec![28, 33], vec![40], vec![length - 1], (1..40).collect()]
    {
        let mut stream = connect(server.address);
        let mut from = 0;
        for cut in cuts.iter().copied().chain([length]) {
            stream.write_all(&bytes[from..cut]).unwrap();
            from = cut;
        }
        let mut socket = Socket::shake(stream, &request).unwrap();
        assert_eq!(socket.json()["event"], "connected", "{cuts:?}");
        socket.close(1000);
        assert_eq!(socket.next(), Frame::Close(1000, String::new()));
    }
    for length in [0, 1, 20] {
        let before = refused(&server, "slow");
        let mut stream = connect(server.address);
        stream.write_all(&bytes[..length]).unwrap();
        let begun = Instant::now();
        expect_end(&mut stream);
        // The kernel may keep a silent socket back for a second or two before.
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        assert_eq!(refused(&server, "slow"), before + 1, "{length} bytes");
    }
}

#[test]
fn without_the_switch_a_header_is_no_http() {
    let server = Server::start("");
    let mut stream = connect(server.address);
    let plain = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(&[&proxied(source("192.0.2.1"))[..], plain].concat()).unwrap();
    assert_eq!(read_answer(&mut stream, Vec::new()).status, 400);
}
