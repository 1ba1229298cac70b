//! Topics that are not as nodes have made them: foreign messages in them, removed messages, and topics that vanish under running nodes.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tieline_core::broker::To;
use tokio::time::timeout;

use super::super::topics::{Topics, inbox};
use super::*;

/// How long topics may take to be there again: servers make and remove them one after the other, and a busy machine takes long for 64
/// partitions.
const PATIENCE: Duration = Duration::from_secs(120);

type Admin = AdminClient<DefaultClientContext>;

/// Two nodes of one cluster, and its topics.
async fn pair(settings: KafkaSettings) -> ([(KafkaBroker, Arc<Recorder>, NodeId); 2], Topics) {
    let topics = Topics::new(&settings.cluster, None).unwrap();
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let (node, recorder) = (fresh_node(name), Recorder::new());
        let inbound = Arc::clone(&recorder) as Arc<dyn Inbound>;
        nodes.push((KafkaBroker::start(settings.clone(), &node, inbound).await.unwrap(), recorder, node));
    }
    (nodes.try_into().ok().unwrap(), topics)
}

/// Sends until it arrives: both ways, to all and to one.
async fn flows(nodes: &[(KafkaBroker, Arc<Recorder>, NodeId); 2], word: &str) {
    for (from, to) in [(0, 1), (1, 0)] {
        for is_one in [true, false] {
            let text = format!("{word} {from} {is_one}");
            let target = if is_one { To::One(nodes[to].2.incarnation) } else { To::All };
            let flowing = async {
                loop {
                    // What is lost on the way to a topic that is not there yet is lost.
                    let _ = nodes[from].0.send(target, &Arc::from(text.as_bytes()));
                    let envelopes = nodes[to].1.envelopes();
                    if envelopes.iter().any(|envelope| envelope == text.as_bytes()) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(PATIENCE, flowing).await.unwrap_or_else(|_| panic!("{text} does not arrive"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_are_counted_and_passed_over() {
    let _turn = TURN.lock().await;
    let engine = Engine::kafka().start().unwrap();
    let (nodes, topics) = pair(settings(engine.url())).await;
    let stranger: ThreadedProducer<DefaultProducerContext> = stranger(engine.url()).create().unwrap();
    let own = inbox(nodes[1].2.incarnation);
    let key = nodes[1].2.incarnation.0.to_be_bytes();
    let garbage: [&[u8]; 4] = [b"", b"short", &[0xff; 12], &[7; 100]];
    for bytes in garbage {
        stranger.send(BaseRecord::<[u8], [u8]>::to(&topics.all).partition(0).payload(bytes)).unwrap();
        let record = BaseRecord::<[u8], [u8]>::to(&topics.one).partition(own).payload(bytes);
        stranger.send(record).map_err(|(error, _)| error).unwrap();
        let record = BaseRecord::<[u8], [u8]>::to(&topics.one).partition(own).key(&key[..]).payload(bytes);
        stranger.send(record).map_err(|(error, _)| error).unwrap();
        let record =
            BaseRecord::<[u8], [u8]>::to(&topics.one).partition(own).key(&b"nobody's"[..]).payload(bytes);
        stranger.send(record).map_err(|(error, _)| error).unwrap();
    }
    // Nothing at all, as a deletion is written.
    stranger.send(BaseRecord::<[u8], [u8]>::to(&topics.all).partition(0)).unwrap();
    stranger.flush(Duration::from_secs(20)).unwrap();
    flows(&nodes, "after").await;
    assert_eq!(nodes[1].0.foreign(), 13, "what has another's key is another's");
    assert!(nodes[1].1.envelopes().iter().all(|envelope| envelope.starts_with(b"after")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_vanish_are_made_anew_and_read_on() {
    let _turn = TURN.lock().await;
    if !is_private("topics that are deleted") {
        return;
    }
    let engine = Engine::kafka().start().unwrap();
    let (nodes, topics) = pair(settings(engine.url())).await;
    flows(&nodes, "before").await;
    let admin: Admin = stranger(engine.url()).create().unwrap();
    let options = AdminOptions::new();
    let names = [topics.all.as_str(), topics.one.as_str()];
    admin.delete_topics(&names, &options).await.unwrap();
    flows(&nodes, "deleted").await;

    // Removed under their readers, as by a retention that is too short.
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(&topics.all, 0, Offset::End).unwrap();
    admin.delete_records(&all, &options).await.unwrap();
    flows(&nodes, "removed").await;

    // Made anew by somebody else, and with too few partitions.
    admin.delete_topics(&names, &options).await.unwrap();
    let made = names.map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
    // A node may be faster.
    drop(admin.create_topics(&made, &options).await);
    flows(&nodes, "made anew").await;
}
