//! Nodes that do not belong together.

use crate::client::{assert_ack, to_user};
use crate::processes::{Process, SECRET, TestCluster, any};

#[test]
fn nodes_of_another_secret_or_cluster_serve_on_alone() {
    let mut cluster = TestCluster::start(1);
    let seed = [cluster.nodes[0].peers];
    let wrong_secret = ["--cluster-secret", "not the secret of the cluster under test"];
    let wrong_cluster = ["--cluster", "another", "--cluster-secret", SECRET];
    let mut secret = Process::start("wrong-secret", any(), any(), &seed, &wrong_secret, &[]);
    let mut name = Process::start("wrong-cluster", any(), any(), &seed, &wrong_cluster, &[]);
    // Each was refused, and both sides say why.
    for node in [&mut cluster.nodes[0], &mut secret] {
        node.wait_for_log("the cluster secret differs");
    }
    for node in [&mut cluster.nodes[0], &mut name] {
        node.wait_for_log("this is a node of another cluster");
    }
    // One that belongs there is taken after them.
    let right = Process::start("right", any(), any(), &seed, &["--cluster-secret", SECRET], &[]);
    cluster.nodes.push(right);
    cluster.wait_for_all();
    let mut clients: Vec<_> =
        [&cluster.nodes[0], &secret, &name].iter().map(|node| node.connect("h", &node.name)).collect();
    let names = ["n0", "wrong-secret", "wrong-cluster"];
    for (from, client) in clients.iter_mut().enumerate() {
        for (to, name) in names.iter().enumerate() {
            let itself = u64::from(from == to);
            // The ack and what was sent to oneself come in either order.
            client.send_acked(to_user(name, 1));
            let mut frames = Vec::new();
            while frames.len() <= itself as usize {
                frames.push(client.next());
            }
            let (acks, messages): (Vec<_>, Vec<_>) =
                frames.into_iter().partition(|frame| frame["type"] == "ack");
            assert_ack(&acks[0], itself, 1 - itself);
            assert_eq!(messages.len() as u64, itself);
        }
    }
    clients.iter_mut().for_each(|client| client.expect_nothing());
    assert_eq!(secret.reaches(), ["wrong-secret"]);
    assert_eq!(name.reaches(), ["wrong-cluster"]);
    assert_eq!(cluster.nodes[1].reaches(), ["n0", "right"]);
}
