//! Kafka: one server by itself, which is its own controller; without passwords on its first port, with them on the second, and with TLS on the third.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::java::{self, Jars};
use super::{Error, Kind, Source};

static JARS: Jars = Jars { profile: "kafka", source: None, finish: Some(make_key) };

/// What is beside the first port: where a user and a password are wanted, where TLS is spoken, and the controller.
const FURTHER: [i32; 3] = [1, 2, 3];

/// The user of the second port, and the password.
pub const LOGIN: (&str, &str) = ("tieline", "hush/1");

/// The cluster's id, which is any.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qk";

/// Of the file with the server's key and certificate, which protect nothing.
const KEY_PASSWORD: &str = "tieline";

pub(super) struct Kafka;

/// The certificate that the server shows on its third port, as clients are told to trust it.
pub fn certificate() -> PathBuf {
    JARS.jars().join("certificate.pem")
}

/// Runs one of the server's own tools, and gives what it says.
pub fn tool(class: &str, words: &[&str]) -> io::Result<String> {
    let mut command = java::machine(128);
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error");
    command.arg("-cp").arg(JARS.class_path(&[])).arg(class).args(words);
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(io::Error::other(said)) }
}

/// Makes the server's key, and a certificate of it, which are the same for all instances.
fn make_key() -> Result<(), Error> {
    let store = keystore();
    let keytool = |words: &[&str]| {
        let mut command = Command::new("keytool");
        command
            .args(words)
            .args(["-alias", "server", "-storepass", KEY_PASSWORD])
            .arg("-keystore")
            .arg(&store);
        java::run(command)
    };
    let names =
        ["-dname", "CN=tieline test", "-ext", "san=dns:localhost,ip:127.0.0.1", "-ext", "bc:c=ca:true"];
    let key = [
        "-genkeypair",
        "-keyalg",
        "EC",
        "-groupname",
        "secp256r1",
        "-validity",
        "3650",
        "-storetype",
        "PKCS12",
    ];
    keytool(&[&key[..], &names[..]].concat())?;
    let path = certificate();
    keytool(&["-exportcert", "-rfc", "-file", &path.to_string_lossy()])
}

fn keystore() -> PathBuf {
    JARS.jars().join("key.p12")
}

impl Kind for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_KAFKA"
    }

    fn source(&self) -> Source {
        Source::Jars(&JARS)
    }

    fn further_ports(&self) -> &'static [i32] {
        &FURTHER
    }

    fn configure(&self, folder: &Path, port: u16) -> io::Result<()> {
        let [login, tls, controller] = FURTHER.map(|further| i32::from(port) + further);
        let (user, password) = LOGIN;
        let at = |name: &str, port: i32| format!("{name}://127.0.0.1:{port}");
        let open = [at("PLAINTEXT", port.into()), at("LOGIN", login), at("TLS", tls)].join(",");
        let module = "org.apache.kafka.common.security";
        let settings = [
            format!("listeners={open},{}", at("CONTROLLER", controller)),
            format!("advertised.listeners={open}"),
            format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
            format!("log.dirs={}", folder.join("data").display()),
            format!(
                "listener.name.login.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{user}=\"{password}\";"
            ),
            format!(
                "listener.name.login.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;"
            ),
            format!("listener.name.tls.ssl.keystore.location={}", keystore().display()),
            format!("listener.name.tls.ssl.keystore.password={KEY_PASSWORD}"),
            SETTINGS.to_owned(),
        ];
        std::fs::write(folder.join("server.properties"), settings.join("\n"))?;
        // What the server's own tool writes into an empty folder, which would take a second virtual machine.
        let meta = folder.join("data/meta.properties");
        if !meta.exists() {
            std::fs::create_dir_all(folder.join("data"))?;
            std::fs::write(meta, format!("version=1\ncluster.id={CLUSTER}\nnode.id=1\n"))?;
        }
        Ok(())
    }

    fn command(&self, folder: &Path, _port: u16) -> Command {
        let mut command = java::machine(256);
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.arg("-cp").arg(JARS.class_path(&[]));
        command.arg("kafka.Kafka").arg(folder.join("server.properties")).current_dir(folder);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        // A request for the cluster's description, whose answer names the servers that are there: none as long as this one waits
        // for its controller.
        let ask = || -> io::Result<Vec<u8>> {
            let mut stream = super::connect(port)?;
            stream.write_all(&METADATA)?;
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; u32::from_be_bytes(length).min(65_536) as usize];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        // Behind the correlation id is the number of servers.
        ask().is_ok_and(|answer| answer.get(4..8) == Some(&1u32.to_be_bytes()[..]))
    }

    fn url(&self, port: u16) -> String {
        format!("kafka://127.0.0.1:{port}")
    }
}

/// A request for metadata, version 1, of no topics, with the correlation id 1 and without a client's name.
const METADATA: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];

/// What every instance is told beside its ports and folders: small, and quick to be back after it was killed.
const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT,TLS:SSL
listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.tls.ssl.keystore.type=PKCS12
num.partitions=1
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
num.replica.fetchers=1
background.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=65536
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=1000
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=250
initial.broker.registration.timeout.ms=60000
controller.quorum.election.timeout.ms=200
controller.quorum.fetch.timeout.ms=500
controller.quorum.election.backoff.max.ms=200
";
