//! Nacos: one server by itself with its own small database, without its console, whose users have to say who they are.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::java::{self, Jars};
use super::{Kind, Source};

static JARS: Jars = Jars { profile: "nacos", source: Some("RunNacos.java"), finish: None };

/// The library that must come before its newer self: without the old one no client hears of a change, and with the new one first
/// the server does not start.
const FIRST: &str = "hessian-4.0.63.jar";

/// What the user `nacos` is given.
const PASSWORD: &str = "tieline";

/// Where users log in.
const LOGIN: &str = "/nacos/v3/auth/user/login";

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What is beside the port, as the server counts: two for gRPC; and one for the consensus that a single server has with itself,
/// which alone listens on every interface, because it cannot be told not to.
const FURTHER: [i32; 3] = [1000, 1001, -1000];

pub(super) struct Nacos;

/// What an operator does: sends a request of HTTP to the server of `nacos://USER:PASSWORD@HOST:PORT/…`, logged in as that user,
/// and gives what it answers.
pub fn command(url: &str, method: &str, path: &str, form: &str) -> io::Result<String> {
    let bad = || io::Error::from(io::ErrorKind::InvalidInput);
    let (login, place) = url.strip_prefix("nacos://").and_then(|url| url.split_once('@')).ok_or_else(bad)?;
    let (user, password) = login.split_once(':').ok_or_else(bad)?;
    let server = place.split('/').next().ok_or_else(bad)?;
    let login = format!("username={user}&password={password}");
    let answer = exchange(TcpStream::connect(server)?, "POST", LOGIN, "", &login)?;
    let token = answer.split_once("\"accessToken\":\"").and_then(|(_, rest)| rest.split('"').next());
    let token = token.ok_or_else(|| io::Error::other(format!("no login: {answer}")))?;
    let answer = exchange(TcpStream::connect(server)?, method, path, token, form)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("{method} {path}: {answer}")));
    }
    Ok(body.to_owned())
}

/// One request and its answer, with its head.
fn exchange(mut stream: TcpStream, method: &str, path: &str, token: &str, form: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let head = "Host: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded";
    let size = form.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{head}\r\naccessToken: {token}\r\nContent-Length: {size}\r\n\r\n{form}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Kind for Nacos {
    fn name(&self) -> &'static str {
        "nacos"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_NACOS"
    }

    fn source(&self) -> Source {
        Source::Jars(&JARS)
    }

    fn further_ports(&self) -> &'static [i32] {
        &FURTHER
    }

    fn configure(&self, folder: &Path, port: u16) -> io::Result<()> {
        let settings = format!("nacos.server.main.port={port}\n{SETTINGS}");
        std::fs::create_dir_all(folder.join("conf"))?;
        std::fs::write(folder.join("conf/application.properties"), settings)
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = java::machine(256);
        for name in ["nacos.home", "user.home"] {
            command.arg(format!("-D{name}={}", folder.display()));
        }
        // Its database need not outlive the machine, and is not waited for.
        command.arg("-Dderby.system.durability=test");
        command.args(["-Dnacos.standalone=true", "-Dnacos.remote.grpc.listen.ip=127.0.0.1"]);
        command.arg("-cp").arg(JARS.class_path(&[JARS.jars().join(FIRST), folder.join("conf")]));
        command.args(["RunNacos", &port.to_string(), PASSWORD]).current_dir(folder);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        let form = format!("username=nacos&password={PASSWORD}");
        let ask = |method, path, form| exchange(super::connect(port)?, method, path, "", form);
        let answers = [ask("POST", LOGIN, &form), ask("GET", "/nacos/v3/admin/core/state/readiness", "")];
        answers.into_iter().all(|answer| answer.is_ok_and(|text| text.starts_with("HTTP/1.1 200")))
    }

    fn url(&self, port: u16) -> String {
        format!("nacos://nacos:{PASSWORD}@127.0.0.1:{port}/public")
    }
}

/// What every instance is told beside its port. The secret signs its own tokens, and protects nothing.
const SETTINGS: &str = "\
nacos.server.contextPath=/nacos
server.address=127.0.0.1
nacos.inetutils.ip-address=127.0.0.1
nacos.core.auth.system.type=nacos
nacos.core.auth.enabled=true
nacos.core.auth.admin.enabled=true
nacos.core.auth.console.enabled=true
nacos.core.auth.caching.enabled=true
nacos.core.auth.server.identity.key=tieline
nacos.core.auth.server.identity.value=tieline
nacos.core.auth.plugin.nacos.token.expire.seconds=18000
nacos.core.auth.plugin.nacos.token.secret.key=dGllbGluZS10ZXN0LXNlY3JldC1rZXktb2YtYXQtbGVhc3QtMzItYnl0ZXM=
db.pool.config.connectionTimeout=60000
server.tomcat.accesslog.enabled=false
server.tomcat.basedir=file:.
management.metrics.export.elastic.enabled=false
management.metrics.export.influx.enabled=false
";
