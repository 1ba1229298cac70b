//! The table of metrics: name, kind, labels, meaning, and where the value comes from.

use std::sync::atomic::Ordering;

use tieline_core::directory::Asked;
use tieline_core::registry;

use super::{ClusterView, Samples, View};

/// What a metric's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A total since the start.
    Counter,
    /// What is so now.
    Gauge,
    /// How long something took, in buckets.
    Seconds,
}

/// All samples of one name.
pub(super) struct Family {
    /// Without the prefix.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The names of the labels; their values come from tables of this program.
    pub(super) labels: &'static [&'static str],
    /// What it counts, in one line.
    pub(super) help: &'static str,
    /// Whether a node has it only as a member of a cluster.
    pub(super) is_clusters: bool,
    /// Writes the samples.
    pub(super) read: fn(&View<'_>, &mut Samples<'_>),
}

/// A family of a single value that every node has.
const fn own(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    read: fn(&View<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind, labels: &[], help, is_clusters: false, read }
}

/// One that members of a cluster have.
const fn clusters(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    read: fn(&View<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind, labels: &[], help, is_clusters: true, read }
}

impl Family {
    const fn labels(mut self, labels: &'static [&'static str]) -> Family {
        self.labels = labels;
        self
    }
}

/// A count of the switchboard, as [`Family::read`].
macro_rules! switchboard {
    ($field:ident) => {
        |view, samples| samples.value(view.counters.$field)
    };
}

/// A count of what was sent to where it belongs, as a member of a cluster has it.
macro_rules! rebalance {
    ($field:ident) => {
        |view, samples| {
            placement(view, |_| samples.value(view.rebalance.$field.load(Ordering::Relaxed)));
        }
    };
}

/// A count of the edge.
macro_rules! http {
    ($field:ident) => {
        |view, samples| samples.value(view.http.$field.load(Ordering::Relaxed))
    };
}

/// A count of the cluster.
macro_rules! cluster {
    ($field:ident) => {
        |view, samples| {
            members(view, |at| samples.value(at.cluster.counters().$field.load(Ordering::Relaxed)))
        }
    };
}

/// A count of the node's durable side.
macro_rules! logs {
    ($field:ident) => {
        |view, samples| {
            let logs = view.node.logs();
            samples.value(logs.map_or(0, |logs| logs.counters().$field.load(Ordering::Relaxed)));
        }
    };
}

/// A count of the connections that the store keeps.
macro_rules! checkpoints {
    ($field:ident) => {
        |view, samples| {
            let counters = view.node.checkpoint_counters();
            samples.value(counters.map_or(0, |counters| counters.$field.load(Ordering::Relaxed)));
        }
    };
}

/// Reads what only a member of a cluster has.
fn members(view: &View<'_>, read: impl FnOnce(&ClusterView<'_>)) {
    if let Some(cluster) = &view.cluster {
        read(cluster);
    }
}

/// Reads what only a member has whose directory asks a server.
fn asked(view: &View<'_>, read: impl FnOnce(&Asked)) {
    members(view, |at| {
        if let Some(asked) = at.cluster.asked() {
            read(asked);
        }
    });
}

fn placement(view: &View<'_>, read: impl FnOnce(&registry::View)) {
    if let Some(shown) = &view.placement {
        read(shown);
    }
}

use Kind::{Counter, Gauge, Seconds};

/// Everything, in the order it is written.
pub(super) const FAMILIES: &[Family] = &[
    own("info", Gauge, "The program and the node.", |view, samples| {
        samples.labelled(&[&env!("CARGO_PKG_VERSION"), &view.node.id().name], 1);
    })
    .labels(&["version", "node"]),
    // ---- configuration ----
    own(
        "config_changes_total",
        Counter,
        "Configurations that were read while the node ran: taken, or refused for a mistake in them.",
        |view, samples| {
            for (result, count) in [("taken", &view.reloads.taken), ("refused", &view.reloads.refused)] {
                samples.labelled(&[&result], count.load(Ordering::Relaxed));
            }
        },
    )
    .labels(&["result"]),
    own(
        "config_waiting_settings",
        Gauge,
        "Settings that were changed while the node ran and need a restart.",
        |view, samples| samples.value(view.reloads.waiting.load(Ordering::Relaxed) as u64),
    ),
    own(
        "config_source_up",
        Gauge,
        "Whether the configuration could be looked at last time: 0 while its server is away, and the last good one stays.",
        |view, samples| samples.value(u64::from(!view.reloads.is_away.load(Ordering::Relaxed))),
    ),
    // ---- connections ----
    own(
        "connections",
        Gauge,
        "Connections, those that are cut or closing among them.",
        switchboard!(connections),
    ),
    own("connections_cut", Gauge, "Connections that were cut and may be recovered.", switchboard!(detached)),
    own("connections_opened_total", Counter, "Connections opened.", switchboard!(opened)),
    own(
        "connections_recovered_total",
        Counter,
        "Connections recovered on a new socket.",
        switchboard!(resumed),
    ),
    own("connections_closed_total", Counter, "Connections ended, for whatever cause.", switchboard!(closed)),
    own(
        "connections_displaced_total",
        Counter,
        "Connections that ended because a newer one took the only place of their user.",
        |view, samples| samples.value(view.tally.displaced),
    ),
    own(
        "connections_sent_away_total",
        Counter,
        "Connections that were told to go to another node.",
        |view, samples| samples.value(view.tally.sent_away),
    ),
    own(
        "connections_ended_total",
        Counter,
        "Connections that the server ended, by reason.",
        |view, samples| {
            let counters = &view.counters;
            for (reason, count) in [
                ("slow", counters.ended_lag),
                ("memory", counters.ended_memory),
                ("silent", counters.ended_silent),
                ("idle", counters.ended_idle),
                ("protocol", counters.ended_protocol),
            ] {
                samples.labelled(&[&reason], count);
            }
        },
    )
    .labels(&["reason"]),
    // ---- messages ----
    own("messages_received_total", Counter, "Messages from clients.", switchboard!(messages_in)),
    own("received_bytes_total", Counter, "Bytes read from clients.", switchboard!(bytes_in)),
    own("requests_total", Counter, "What clients asked for, by kind.", |view, samples| {
        view.tally.counts().for_each(|(kind, count)| samples.labelled(&[&kind], count));
    })
    .labels(&["kind"]),
    own("errors_total", Counter, "Errors that clients were answered with, by code.", |view, samples| {
        view.tally.errors.counts().for_each(|(code, count)| samples.labelled(&[&code], count));
    })
    .labels(&["code"]),
    own("deliveries_total", Counter, "Frames queued to clients.", switchboard!(deliveries)),
    own("sent_bytes_total", Counter, "Bytes written to clients.", switchboard!(bytes_out)),
    own("sends_total", Counter, "System calls that wrote to clients.", switchboard!(sends)),
    own("messages_dropped_total", Counter, "Messages that a client missed, by reason.", |view, samples| {
        samples.labelled(&[&"slow"], view.counters.dropped_lag);
    })
    .labels(&["reason"]),
    // ---- queues ----
    own("log_bytes", Gauge, "Memory in the logs of what clients have coming.", switchboard!(log_bytes)),
    own(
        "lag_bytes",
        Gauge,
        "Memory of what lagging clients have coming beside the logs.",
        switchboard!(copied_bytes),
    ),
    own("mailbox_bytes", Gauge, "Memory of what waits for the shards.", |view, samples| {
        samples.value(view.node.handle().mailbox_bytes() as u64);
    }),
    own(
        "parked_total",
        Counter,
        "Times a client was not read on because a shard had too much waiting.",
        switchboard!(parked),
    ),
    // ---- HTTP ----
    own("http_accepted_total", Counter, "Sockets accepted.", http!(accepted)),
    own("http_upgraded_total", Counter, "Sockets that became connections.", http!(upgraded)),
    own(
        "http_malformed_total",
        Counter,
        "Sockets that spoke no proper HTTP, or too slowly.",
        http!(malformed),
    ),
    own("http_refused_total", Counter, "HTTP requests that were refused, by code.", |view, samples| {
        view.http.refused().for_each(|(code, count)| samples.labelled(&[&code], count));
    })
    .labels(&["code"]),
    own(
        "proxy_headers_refused_total",
        Counter,
        "Connections closed for want of a proper header of the PROXY protocol, by reason.",
        |view, samples| {
            view.http.header_refused().for_each(|(error, count)| samples.labelled(&[&error.name()], count));
        },
    )
    .labels(&["reason"]),
    own(
        "rest_calls_total",
        Counter,
        "Calls of the REST API, by what they asked for and outcome.",
        |view, samples| {
            view.rest.counts().for_each(|(call, outcome, count)| samples.labelled(&[&call, &outcome], count));
        },
    )
    .labels(&["call", "outcome"]),
    own(
        "rest_seconds",
        Seconds,
        "How long calls of the REST API took, from head to answer.",
        |view, samples| {
            view.rest.latencies().for_each(|(call, latency)| samples.latency(&[&call], latency));
        },
    )
    .labels(&["call"]),
    own(
        "upstream_events_total",
        Counter,
        "Events for the application, by kind and by what became of them: `answered` by its endpoint, `refused` by it, `failed` for good, sent again (`retried`), or `dropped` for want of room.",
        |view, samples| {
            for (event, outcome, count) in view.upstream.counts() {
                samples.labelled(&[&event, &outcome], count);
            }
        },
    )
    .labels(&["event", "outcome"]),
    own(
        "upstream_events_waiting",
        Gauge,
        "Events that wait in memory, to be sent to the application or to be kept in the store.",
        |view, samples| samples.value(view.upstream.waiting()),
    ),
    own(
        "upstream_request_seconds",
        Seconds,
        "How long the application's endpoints took for one request, by kind of event, those that did not answer among them.",
        |view, samples| {
            view.upstream.latencies().for_each(|(event, latency)| samples.latency(&[&event], latency));
        },
    )
    .labels(&["event"]),
    // ---- logs ----
    own("log_stored_total", Counter, "Durable messages that the store took.", logs!(stored)),
    own(
        "log_stored_again_total",
        Counter,
        "Durable messages that the store had taken before: the same ones, said again.",
        logs!(again),
    ),
    own(
        "log_refused_total",
        Counter,
        "Durable messages that the store did not take, or of which nobody knows.",
        logs!(failed),
    ),
    own("log_delivered_total", Counter, "Messages of logs that were handed to threads.", logs!(delivered)),
    own(
        "log_caught_up_total",
        Counter,
        "Messages that were given to connections that had missed them.",
        logs!(caught_up),
    ),
    own("log_pages_total", Counter, "Pages of logs that were read from the store.", logs!(pages)),
    own(
        "log_not_taken_total",
        Counter,
        "Durable messages of other nodes that had no room here, and were read from the store later.",
        logs!(not_taken),
    ),
    own(
        "log_losses_total",
        Counter,
        "Times that messages were trimmed before this node had delivered them.",
        logs!(losses),
    ),
    own(
        "log_requests_waiting",
        Gauge,
        "Durable messages, joins and hellos that wait for the task of the logs.",
        |view, samples| samples.value(view.node.logs().map_or(0, |logs| logs.requests_waiting() as u64)),
    ),
    own(
        "log_divided",
        Gauge,
        "1 while durable messages are refused because the nodes have different stores, or none.",
        |view, samples| {
            samples.value(u64::from(view.node.logs().is_some_and(|logs| logs.is_missing())));
        },
    ),
    own(
        "log_store_up",
        Gauge,
        "Whether the store does what it is asked: 1, also where there is none, or 0 while it does not answer, and when it did not take a message: until it takes one, or for a minute.",
        |view, samples| {
            let is_up = view.node.logs().and_then(|logs| logs.is_store_up());
            samples.value(u64::from(is_up.unwrap_or(true)));
        },
    ),
    own("log_append_seconds", Seconds, "How long the store took for a durable message.", |view, samples| {
        if let Some(logs) = view.node.logs() {
            samples.latency(&[], &logs.counters().append_wait);
        }
    }),
    own(
        "checkpoints_written_total",
        Counter,
        "Connections that were written down in the store, so that they outlive this node.",
        checkpoints!(written),
    ),
    own(
        "checkpoints_refused_total",
        Counter,
        "Those that the store did not take, or of which nobody knows; they are written again.",
        checkpoints!(unwritten),
    ),
    own(
        "resumed_total",
        Counter,
        "Connections of dead nodes that go on here, from the store.",
        checkpoints!(resumed),
    ),
    own(
        "resumes_refused_total",
        Counter,
        "Times that one which is in the store could not go on here: not all of it is kept any more, another node was quicker, or the store did not answer.",
        checkpoints!(unresumed),
    ),
    own(
        "fenced_total",
        Counter,
        "Connections that were ended here because another node had taken this one for dead, and has them.",
        checkpoints!(fenced),
    ),
    // ---- presence ----
    own(
        "presence_users",
        Gauge,
        "Users that are present on whichever node, each as often as there are groups and hubs with presence that it is in.",
        |view, samples| samples.value(view.node.presence().users() as u64),
    ),
    own(
        "presence_events_total",
        Counter,
        "Users that have come and gone where it is told who is present, as this node saw it.",
        |view, samples| {
            let counters = view.node.presence().counters();
            for (event, count) in [("join", &counters.joins), ("leave", &counters.leaves)] {
                samples.labelled(&[&event], count.load(Ordering::Relaxed));
            }
        },
    )
    .labels(&["event"]),
    own(
        "presence_frames_total",
        Counter,
        "Frames about these that were handed to threads with subscribers.",
        |view, samples| samples.value(view.node.presence().counters().frames.load(Ordering::Relaxed)),
    ),
    own(
        "presence_dropped_total",
        Counter,
        "Frames about these that a thread had no room for; its clients were told of a gap.",
        |view, samples| samples.value(view.node.presence().counters().dropped.load(Ordering::Relaxed)),
    ),
    // ---- the cluster ----
    clusters(
        "peers",
        Gauge,
        "Other nodes: reached, lost, or vouched for by a third one that reaches them.",
        |view, samples| {
            members(view, |at| {
                let reached = at.peers.iter().filter(|peer| peer.is_reached()).count();
                let vouched = at.peers.iter().filter(|peer| peer.is_vouched).count();
                samples.labelled(&[&"reached"], reached);
                samples.labelled(&[&"vouched"], vouched);
                samples.labelled(&[&"lost"], at.peers.len() - reached - vouched);
            });
        },
    )
    .labels(&["state"]),
    clusters(
        "broker_up",
        Gauge,
        "Whether the broker carries envelopes: 1, or 0 while it is away.",
        |view, samples| members(view, |at| samples.value(u64::from(at.cluster.is_broker_up()))),
    ),
    clusters(
        "registry_up",
        Gauge,
        "Whether the registry can be reached: 1, or 0 while it is away and the last view stays.",
        |view, samples| placement(view, |shown| samples.value(u64::from(!shown.is_degraded))),
    ),
    clusters(
        "directory_up",
        Gauge,
        "Whether the directory's server can be reached: 1, or 0 while it is away and messages to users go to all nodes.",
        |view, samples| asked(view, |asked| samples.value(u64::from(asked.is_up()))),
    ),
    clusters(
        "directory_requests_total",
        Counter,
        "Claims, releases and looks that were asked of the directory's server.",
        |view, samples| asked(view, |asked| samples.value(asked.counters().requests.load(Ordering::Relaxed))),
    ),
    clusters(
        "directory_remembered_users",
        Gauge,
        "Users whose whereabouts are remembered, or being looked up.",
        |view, samples| asked(view, |asked| samples.value(asked.remembered() as u64)),
    ),
    clusters(
        "directory_finds_total",
        Counter,
        "How often it was asked where a user is: those that were remembered, and those that were not, whose messages go to all nodes.",
        |view, samples| {
            asked(view, |asked| {
                let counters = asked.counters();
                samples.labelled(&[&"remembered"], counters.remembered.load(Ordering::Relaxed));
                samples.labelled(&[&"unknown"], counters.unknown.load(Ordering::Relaxed));
            });
        },
    )
    .labels(&["found"]),
    clusters(
        "directory_stated_total",
        Counter,
        "Claims that were stated to all nodes because the directory's server had not settled them in time.",
        |view, samples| asked(view, |asked| samples.value(asked.counters().stated.load(Ordering::Relaxed))),
    ),
    clusters(
        "registry_members",
        Gauge,
        "Other nodes that are registered: those that take new clients, and those that drain or were disabled.",
        |view, samples| {
            placement(view, |shown| {
                let taking = shown.members.iter().filter(|member| member.takes_clients()).count();
                samples.labelled(&[&"taking"], taking);
                samples.labelled(&[&"closed"], shown.members.len() - taking);
            });
        },
    )
    .labels(&["state"]),
    clusters(
        "registry_strange_entries",
        Gauge,
        "Entries in the registry that no node of the cluster wrote, or that are too many.",
        |view, samples| placement(view, |shown| samples.value(shown.strange as u64)),
    ),
    clusters(
        "rebalance_plans_total",
        Counter,
        "Plans that were made because the ring has changed, where `placement` is a ring.",
        rebalance!(plans),
    ),
    clusters(
        "rebalance_planned_total",
        Counter,
        "Connections that belonged to other nodes by these plans.",
        rebalance!(planned),
    ),
    clusters("rebalance_moved_total", Counter, "Connections that were sent there.", rebalance!(moved)),
    clusters(
        "broker_queue_bytes",
        Gauge,
        "Memory of what waits to leave for other nodes.",
        |view, samples| members(view, |at| samples.value(at.broker.queued_bytes)),
    ),
    clusters(
        "broker_refused_total",
        Counter,
        "Links with other nodes, or with the broker's server, that did not come about, by reason.",
        |view, samples| {
            members(view, |at| {
                at.broker.refused.iter().for_each(|(reason, count)| samples.labelled(&[reason], count));
            });
        },
    )
    .labels(&["reason"]),
    clusters(
        "broker_strays_total",
        Counter,
        "Messages that came to nothing at the broker's server, or that no node has sent, by reason: `foreign` is nobody's of the cluster, `returned` found no receiver there, `refused` was not taken by the server.",
        |view, samples| {
            members(view, |at| {
                at.broker.strays.iter().for_each(|(reason, count)| samples.labelled(&[reason], count));
            });
        },
    )
    .labels(&["reason"]),
    clusters("envelopes_sent_total", Counter, "Envelopes handed to the broker.", cluster!(sent)),
    clusters(
        "envelopes_not_taken_total",
        Counter,
        "Envelopes that the broker did not take for some receiver.",
        cluster!(not_taken),
    ),
    clusters("envelopes_received_total", Counter, "Envelopes that arrived.", cluster!(received)),
    clusters("envelopes_malformed_total", Counter, "Envelopes that could not be read.", cluster!(malformed)),
    clusters(
        "envelopes_again_total",
        Counter,
        "Envelopes that had been seen before and were dropped.",
        cluster!(again),
    ),
    clusters(
        "envelopes_missing_total",
        Counter,
        "Envelopes of other nodes that never arrived.",
        cluster!(missing),
    ),
    clusters("gaps_total", Counter, "Gaps that this node's clients were told of.", cluster!(gaps)),
    clusters(
        "cluster_dropped_total",
        Counter,
        "Messages of other nodes that a full shard did not take.",
        cluster!(dropped),
    ),
    clusters(
        "cluster_words_waiting",
        Gauge,
        "Words of other nodes that wait to be read.",
        |view, samples| {
            members(view, |at| samples.value(at.cluster.words_waiting() as u64));
        },
    ),
    clusters(
        "cluster_words_dropped_total",
        Counter,
        "Words of other nodes that this one was too busy to read.",
        cluster!(words_dropped),
    ),
    clusters(
        "messages_handed_on_total",
        Counter,
        "Messages that were held for users on their way, and followed them to other nodes.",
        cluster!(handed_on),
    ),
    clusters(
        "messages_held_in_vain_total",
        Counter,
        "Messages that were held for users who did not come in time.",
        cluster!(held_in_vain),
    ),
    clusters(
        "cluster_outnamed_total",
        Counter,
        "Signs of life of nodes that are taken for dead because a younger one has their name.",
        cluster!(outnamed),
    ),
    clusters(
        "cluster_out_of_order_total",
        Counter,
        "Envelopes taken in although what should be before them, on the other channel, had not come within a beat.",
        cluster!(out_of_order),
    ),
    clusters(
        "cluster_unread_total",
        Counter,
        "Joins and logins answered before every other node had read of them.",
        cluster!(unread),
    ),
    clusters(
        "cluster_read_seconds",
        Seconds,
        "How long joins and logins waited for the other nodes to have read of them.",
        |view, samples| members(view, |at| samples.latency(&[], &at.cluster.counters().read_wait)),
    ),
    clusters(
        "receipts_waiting",
        Gauge,
        "Sends that wait to hear from other nodes how many they reached.",
        |view, samples| members(view, |at| samples.value(at.cluster.receipts_waiting() as u64)),
    ),
    clusters(
        "receipt_seconds",
        Seconds,
        "How long sends waited for that, those that were given up after a second among them.",
        |view, samples| members(view, |at| samples.latency(&[], at.cluster.receipt_wait())),
    ),
];
