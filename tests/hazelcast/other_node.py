"""Stands for another node of a cluster, by the official client: hears what a node publishes, then publishes to it.

other_node.py URL TOPIC_TO_ALL OWN_INBOX ITS_INBOX OWN_INCARNATION ITS_INCARNATION

The layout of a message is that of `crates/tieline-backends/src/hazelcast/topics.rs`, written down a second time on purpose.
"""

import queue
import struct
import sys

import hazelcast

HEAD = struct.Struct(">4sBIQQ")
LENGTH = struct.Struct(">I")


def message(to, origin, target, envelopes):
    parts = [HEAD.pack(b"tln1", to, 1, origin, target)]
    for envelope in envelopes:
        parts.append(LENGTH.pack(len(envelope)) + envelope)
    return bytearray(b"".join(parts))


def envelopes(bytes, at=HEAD.size):
    while at < len(bytes):
        (length,) = LENGTH.unpack_from(bytes, at)
        at += LENGTH.size
        yield bytes[at : at + length]
        at += length


def main(url, to_all, own_inbox, its_inbox, own, its):
    own, its = int(own, 16), int(its, 16)
    place, _, name = url.removeprefix("hazelcast://").partition("?cluster=")
    client = hazelcast.HazelcastClient(cluster_name=name, cluster_members=[place])
    heard = queue.Queue()
    topics = {name: client.get_topic(name).blocking() for name in (to_all, own_inbox, its_inbox)}
    for topic in (to_all, own_inbox):
        topics[topic].add_listener(lambda event: heard.put(bytes(event.message)))
    print("listening", flush=True)
    count = 0
    while count < 4:
        came = heard.get(timeout=30)
        mark, to, session, origin, target = HEAD.unpack_from(came)
        if origin == its and (to == 0 or target == own):
            assert (mark, target) == (b"tln1", own if to else 0) and session > 0, came
            for envelope in envelopes(came):
                count += 1
                print("one" if to else "all", envelope.hex(), flush=True)
    topics[to_all].publish(message(0, own, 0, [b"from Python to all", b"and one more"]))
    topics[its_inbox].publish(message(1, own, its, [b"from Python to one"]))
    # Nothing that it published itself may be heard as a node's, which the node's side looks at.
    client.shutdown()


main(*sys.argv[1:])
