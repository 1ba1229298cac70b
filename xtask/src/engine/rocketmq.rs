//! RocketMQ: a name server and one broker, in one process, so that it is killed and stands still as one. Whoever talks to the broker
//! has to say who he is.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use super::java::{self, Jars};
use super::{Kind, Source};

static JARS: Jars = Jars { profile: "rocketmq", source: Some("RunRocketMq.java"), finish: None };

/// Who may do everything, and the secret that requests are signed with.
const USER: &str = "tieline";
const SECRET: &str = "tieline-secret";

/// Where the broker is, counted from the name server's port.
const BROKER: u16 = 3;

/// What is beside the name server's port: two ports of the broker, the second of which it makes up by itself, and the one for its
/// replicas, which alone listens on every interface, because it cannot be told not to.
const FURTHER: [i32; 3] = [BROKER as i32, BROKER as i32 - 2, BROKER as i32 + 1];

/// What the server reaches into.
const OPENED: [&str; 4] = [
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
];

pub(super) struct RocketMq;

impl Kind for RocketMq {
    fn name(&self) -> &'static str {
        "rocketmq"
    }

    fn variable(&self) -> &'static str {
        "TIELINE_TEST_ROCKETMQ"
    }

    fn source(&self) -> Source {
        Source::Jars(&JARS)
    }

    fn further_ports(&self) -> &'static [i32] {
        &FURTHER
    }

    fn configure(&self, folder: &Path, port: u16) -> io::Result<()> {
        let place = folder.display();
        std::fs::create_dir_all(folder.join("conf"))?;
        // Native libraries are unpacked there, and stay when the server is killed.
        std::fs::create_dir_all(folder.join("tmp"))?;
        std::fs::write(folder.join("conf/rmq.logback.xml"), LOG)?;
        let names = format!(
            "listenPort={port}\nbindAddress=127.0.0.1\nkvConfigPath={place}/kv.json\nconfigStorePath={place}/ns.conf\n"
        );
        std::fs::write(folder.join("namesrv.conf"), names)?;
        let broker = format!(
            "{BROKER_SETTINGS}namesrvAddr=127.0.0.1:{port}\nlistenPort={}\nhaListenPort={}\n\
             storePathRootDir={place}/store\nstorePathCommitLog={place}/store/commitlog\nauthConfigPath={place}/auth\n\
             initAuthenticationUser={{\"username\":\"{USER}\",\"password\":\"{SECRET}\"}}\n\
             innerClientAuthenticationCredentials={{\"accessKey\":\"inner\",\"secretKey\":\"{SECRET}\"}}\n",
            port + BROKER,
            port + BROKER + 1,
        );
        std::fs::write(folder.join("broker.conf"), broker)
    }

    fn command(&self, folder: &Path, port: u16) -> Command {
        let mut command = java::machine(256);
        command.arg("-XX:MaxDirectMemorySize=128m").args(OPENED);
        for name in ["user.home", "rocketmq.home.dir"] {
            command.arg(format!("-D{name}={}", folder.display()));
        }
        command.arg(format!("-Djava.io.tmpdir={}", folder.join("tmp").display()));
        command.arg(format!("-Drocketmq.namesrv.addr=127.0.0.1:{port}"));
        // Otherwise it refuses messages, and throws away old ones, on a disk that is nearly full.
        for name in ["WarningLevel", "CleanForcibly"] {
            command.arg(format!("-Drocketmq.broker.diskSpace{name}Ratio=0.99"));
        }
        command.arg("-Dtls.server.mode=disabled");
        command.arg("-cp").arg(JARS.class_path(&[folder.join("conf")]));
        command.arg("RunRocketMq").arg(folder).current_dir(folder);
        command
    }

    fn is_ready(&self, port: u16) -> bool {
        // The name server knows the way to a topic that every broker has.
        let header = r#"{"code":105,"flag":0,"language":"OTHER","opaque":1,"serializeTypeCurrentRPC":"JSON","version":477,
            "extFields":{"topic":"TBW102","acceptStandardJsonOnly":"true"}}"#;
        let ask = || -> io::Result<String> {
            let mut stream = super::connect(port)?;
            let len = header.len() as u32;
            stream.write_all(&[&(len + 4).to_be_bytes(), &len.to_be_bytes(), header.as_bytes()].concat())?;
            let mut lengths = [0; 8];
            stream.read_exact(&mut lengths)?;
            let mut answer = vec![0; usize::from(u16::from_be_bytes([lengths[6], lengths[7]]))];
            stream.read_exact(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        ask().is_ok_and(|answer| answer.contains("\"code\":0,"))
    }

    fn url(&self, port: u16) -> String {
        format!("rocketmq://{USER}:{SECRET}@127.0.0.1:{port}")
    }
}

/// Errors alone, to where the keeper keeps them.
const LOG: &str = r#"<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d %p %c - %m%n</pattern></encoder></appender>
  <root level="ERROR"><appender-ref ref="OUT"/></root>
</configuration>
"#;

/// What every broker is told beside its ports and folders: files of a size for tests, users with passwords, and nothing that tests
/// do not need.
const BROKER_SETTINGS: &str = "\
brokerClusterName=DefaultCluster
brokerName=broker-a
brokerId=0
brokerRole=ASYNC_MASTER
flushDiskType=ASYNC_FLUSH
brokerIP1=127.0.0.1
brokerIP2=127.0.0.1
bindAddress=127.0.0.1
mappedFileSizeCommitLog=16777216
mappedFileSizeConsumeQueue=60000
maxMessageSize=1048576
maxIndexNum=20000
maxHashSlotNum=5000
autoCreateTopicEnable=true
autoCreateSubscriptionGroup=true
defaultTopicQueueNums=1
fileReservedTime=1
diskMaxUsedSpaceRatio=99
timerWheelEnable=false
traceTopicEnable=false
longPollingEnable=true
authenticationEnabled=true
authenticationProvider=org.apache.rocketmq.auth.authentication.provider.DefaultAuthenticationProvider
authenticationMetadataProvider=org.apache.rocketmq.auth.authentication.provider.LocalAuthenticationMetadataProvider
authorizationEnabled=true
authorizationProvider=org.apache.rocketmq.auth.authorization.provider.DefaultAuthorizationProvider
authorizationMetadataProvider=org.apache.rocketmq.auth.authorization.provider.LocalAuthorizationMetadataProvider
";
