"""Stands for another node of a cluster whose directory is a map, by the official client: reads who holds a user, then holds one itself.

other_holder.py URL MAP OWN_INCARNATION KEY_OF_ITS_USER KEY_OF_OWN_USER

What the entries say is written down in `crates/tieline-backends/src/hazelcast/directory/roll.rs` and `row.rs`, and a second time here, on
purpose.
"""

import sys
import time

import hazelcast

LEASE = 60


def come(map, own):
    """Puts this node on the roll as one whose users are all there, with a lease."""
    while True:
        roll = map.get("nodes")
        number, others = roll.split(" ", 1)
        stay = f"{own}.{number}"
        map.put(f"node/{stay}", "lives", LEASE)
        if map.replace_if_same("nodes", roll, f"{int(number) + 1} {others} {stay}"):
            return stay


def until(is_so):
    deadline = time.monotonic() + 30
    while not (found := is_so()):
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.02)
    return found


def main(url, name, own, its_user, own_user):
    place, _, cluster = url.removeprefix("hazelcast://").partition("?cluster=")
    client = hazelcast.HazelcastClient(cluster_name=cluster, cluster_members=[place])
    map = client.get_map(name).blocking()
    print(until(lambda: map.get(its_user)), flush=True)
    stay = come(map, own)
    assert map.put_if_absent(own_user, f"{stay}=7") is None
    print(stay, flush=True)
    # A node looks for the user, and from then on is to be told when it moves.
    print(until(lambda: (text := map.get(own_user)).endswith("~") and text), flush=True)
    client.shutdown()


main(*sys.argv[1:])
