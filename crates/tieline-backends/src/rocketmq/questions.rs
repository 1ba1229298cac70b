//! What is asked of name servers and brokers, and what their answers mean. Tested by the broker's tests against a real server, and
//! the reading of routes here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tokio::time::sleep;

use super::Trouble;
use super::frames::{Answer, Garbage, Request};
use super::link::Link;
use super::names::Names;
use super::signature::Fields;

/// A topic that every broker has, whatever its settings. By it brokers are found.
const EVERYWHERE: &str = "SELF_TEST_TOPIC";

/// The settings of a new topic: that of a server for topics that it makes by itself, and who may do what (read and write).
const DEFAULT_TOPIC: &str = "TBW102";
const READ_AND_WRITE: &str = "6";

/// The one queue.
const QUEUE: &str = "0";

/// How long a broker holds a pull that finds nothing, in milliseconds. A node hears of its canaries more often.
const HOLD: &str = "10000";

/// Bits of a pull: hold it, and the tags come with it. Nothing is committed.
const HOLD_AND_SUBSCRIBE: &str = "6";

/// The most messages of one pull. A broker gives less, by default 32 and 256 KiB.
const PULL: &str = "1024";

/// The pause before a busy broker is asked again.
const BUSY: Duration = Duration::from_millis(20);

/// The code of the answer that a topic is not there.
pub(super) const NO_TOPIC: i32 = 17;

/// What a question is about.
mod code {
    pub(super) const PULL: i32 = 11;
    pub(super) const CREATE_TOPIC: i32 = 17;
    pub(super) const OFFSET_BY_TIME: i32 = 29;
    pub(super) const NEWEST_OFFSET: i32 = 30;
    pub(super) const ROUTE: i32 = 105;
    pub(super) const SEND_BATCH: i32 = 320;
}

/// How an answer went.
mod answer {
    pub(super) const DONE: i32 = 0;
    /// Not even begun.
    pub(super) const BUSY: i32 = 2;
    /// Stored, but not yet on the disk, or not with the replica.
    pub(super) const STORED: [i32; 3] = [10, 11, 12];
    /// Nothing came while the pull was held.
    pub(super) const NOTHING: i32 = 19;
    /// Nothing for these tags up to a place.
    pub(super) const GO_ON: i32 = 20;
    /// The place is not one of the queue any more.
    pub(super) const MOVED: i32 = 21;
}

/// Asks a name server which broker has a topic: `host:port`. Of several it is the one whose name comes first, the same for every node.
/// None if the topic is not known.
pub(super) async fn route(link: &mut Link, topic: &str) -> Result<Option<String>, Trouble> {
    let fields = Fields::from([("topic", topic.into()), ("acceptStandardJsonOnly", "true".into())]);
    let answer = link.call(Request { code: code::ROUTE, fields, body: b"" }).await?;
    match answer.code {
        answer::DONE => Ok(first_broker(answer.body())?),
        NO_TOPIC => Ok(None),
        _ => Err(Trouble::refused(&answer)),
    }
}

/// Asks a name server for a broker that a topic can be made on. None if it knows no broker.
pub(super) async fn any_broker(link: &mut Link) -> Result<Option<String>, Trouble> {
    route(link, EVERYWHERE).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    #[serde(default)]
    broker_datas: Vec<Broker>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Broker {
    broker_name: String,
    /// By their numbers; that of the master is 0.
    broker_addrs: HashMap<String, String>,
}

fn first_broker(body: &[u8]) -> Result<Option<String>, Garbage> {
    let route: Route = serde_json::from_slice(body).map_err(|_| Garbage)?;
    let mut masters: Vec<_> = route
        .broker_datas
        .into_iter()
        .filter_map(|mut broker| Some((broker.broker_name, broker.broker_addrs.remove("0")?)))
        .collect();
    masters.sort_unstable();
    Ok(masters.into_iter().next().map(|(_, place)| place))
}

/// Makes the topic. One that is there stays.
pub(super) async fn create_topic(link: &mut Link, topic: &str) -> Result<(), Trouble> {
    let fields = Fields::from([
        ("topic", topic.into()),
        ("defaultTopic", DEFAULT_TOPIC.into()),
        ("readQueueNums", "1".into()),
        ("writeQueueNums", "1".into()),
        ("perm", READ_AND_WRITE.into()),
        ("topicFilterType", "SINGLE_TAG".into()),
        ("topicSysFlag", "0".into()),
        ("order", "false".into()),
    ]);
    done(&link.call(Request { code: code::CREATE_TOPIC, fields, body: b"" }).await?)
}

/// Where the next message will be.
pub(super) async fn newest(link: &mut Link, topic: &str) -> Result<i64, Trouble> {
    let fields =
        Fields::from([("topic", topic.into()), ("queueId", QUEUE.into()), ("committed", "true".into())]);
    offset(link, code::NEWEST_OFFSET, fields).await
}

/// Where the first message is that was stored at this time, by the broker's clock, or later.
pub(super) async fn since(link: &mut Link, topic: &str, time: i64) -> Result<i64, Trouble> {
    let time = time.to_string();
    let fields =
        Fields::from([("topic", topic.into()), ("queueId", QUEUE.into()), ("timestamp", time.into())]);
    offset(link, code::OFFSET_BY_TIME, fields).await
}

async fn offset(link: &mut Link, code: i32, fields: Fields<'_>) -> Result<i64, Trouble> {
    let answer = link.call(Request { code, fields, body: b"" }).await?;
    done(&answer)?;
    Ok(answer.number("offset")?)
}

/// Has messages stored, all or none of them, behind all that were stored before. A broker that is too busy to begin is asked again.
pub(super) async fn send(link: &mut Link, topic: &str, messages: &[u8]) -> Result<(), Trouble> {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let fields = Fields::from([
            // The producer's group, which need not exist; the topic; and how one is made where that is allowed.
            ("a", topic.into()),
            ("b", topic.into()),
            ("c", DEFAULT_TOPIC.into()),
            ("d", "1".into()),
            ("e", QUEUE.into()),
            // Flags, the time, flags.
            ("f", "0".into()),
            ("g", Cow::Owned(now.to_string())),
            ("h", "0".into()),
            // No retry, no unit, and several messages.
            ("j", "0".into()),
            ("k", "false".into()),
            ("m", "true".into()),
        ]);
        let answer = link.call(Request { code: code::SEND_BATCH, fields, body: messages }).await?;
        if answer.code != answer::BUSY {
            return if answer::STORED.contains(&answer.code) { Ok(()) } else { done(&answer) };
        }
        sleep(BUSY).await;
    }
}

/// What a pull brought.
pub(super) enum Pulled {
    /// Messages, maybe none, and where to pull from next.
    Messages { answer: Option<Answer>, next: i64 },
    /// There is nothing at this place any more, or not yet.
    Moved,
}

/// Pulls from a place on. Without anything there, the broker holds the pull until there is, or [`HOLD`] is over.
pub(super) async fn pull(link: &mut Link, names: &Names, from: i64) -> Result<Pulled, Trouble> {
    let place = from.to_string();
    let fields = Fields::from([
        ("consumerGroup", names.topic.as_str().into()),
        ("topic", names.topic.as_str().into()),
        ("queueId", QUEUE.into()),
        ("queueOffset", place.into()),
        ("maxMsgNums", PULL.into()),
        ("sysFlag", HOLD_AND_SUBSCRIBE.into()),
        ("commitOffset", "0".into()),
        ("suspendTimeoutMillis", HOLD.into()),
        ("subscription", names.subscription.as_str().into()),
        ("subVersion", "0".into()),
        ("expressionType", "TAG".into()),
    ]);
    let answer = link.call(Request { code: code::PULL, fields, body: b"" }).await?;
    let next = || answer.number("nextBeginOffset");
    match answer.code {
        answer::DONE => {
            let next = next()?;
            Ok(Pulled::Messages { next, answer: Some(answer) })
        }
        answer::NOTHING => Ok(Pulled::Messages { next: next()?, answer: None }),
        answer::GO_ON => {
            let next = next()?;
            if next == from {
                // The broker cannot say more now, and is not asked without a pause.
                sleep(BUSY).await;
            }
            Ok(Pulled::Messages { next, answer: None })
        }
        answer::MOVED => Ok(Pulled::Moved),
        _ => Err(Trouble::refused(&answer)),
    }
}

fn done(answer: &Answer) -> Result<(), Trouble> {
    if answer.code == answer::DONE { Ok(()) } else { Err(Trouble::refused(answer)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_finds_the_same_broker() {
        let broker = |name: &str, addresses: &str| {
            format!(r#"{{"brokerName":"{name}","cluster":"c","brokerAddrs":{{{addresses}}}}}"#)
        };
        let of = |brokers: &[String]| {
            first_broker(format!(r#"{{"queueDatas":[],"brokerDatas":[{}]}}"#, brokers.join(",")).as_bytes())
        };
        let (a, b) = (broker("a", r#""1":"r:1","0":"a:1""#), broker("b", r#""0":"b:1""#));
        let replica = broker("_", r#""1":"r:2""#);
        for brokers in [[a.clone(), b.clone(), replica.clone()], [replica.clone(), b.clone(), a]] {
            assert_eq!(of(&brokers), Ok(Some("a:1".to_owned())));
        }
        assert_eq!(of(&[b, replica.clone()]), Ok(Some("b:1".to_owned())));
        assert_eq!(of(&[replica]), Ok(None), "a replica takes nothing");
        assert_eq!(first_broker(b"{}"), Ok(None));
        assert_eq!(first_broker(b"{brokerDatas:1}"), Err(Garbage));
    }
}
