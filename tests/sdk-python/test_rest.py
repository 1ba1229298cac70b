"""The Python server SDK: REST goes to B, clients are on A."""

import unittest

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.messaging.webpubsubclient.models import SendMessageError, WebPubSubDataType
from clients import B, HARD_NAME, Case, new_hub, service

TEXT = {"content_type": "text/plain"}


class Rest(Case):
    def test_to_all_user_group_and_connection(self):
        hub = new_hub()
        rest = service(hub, B)
        alice, bob = self.connect(hub, "alice"), self.connect(hub, "bob", groups=["room"])
        rest.send_to_user("alice", "to alice", **TEXT)
        rest.send_to_connection(bob.id, "to bob's connection", **TEXT)
        rest.send_to_group("room", {"to": "the room"})
        rest.send_to_all("excluded", excluded=[alice.id], **TEXT)
        rest.send_to_all("filtered", filter="userId eq 'alice'", **TEXT)
        rest.send_to_all("to all", **TEXT)
        alice.got("to all")
        bob.got("to all")
        self.assertEqual(alice.data, ["to alice", "filtered", "to all"])
        self.assertEqual(bob.data, ["to bob's connection", {"to": "the room"}, "excluded", "to all"])

    def test_existence_and_a_malformed_filter(self):
        hub = new_hub()
        rest = service(hub, B)
        client = self.connect(hub, "alice", groups=["room"])
        self.assertTrue(rest.connection_exists(client.id))
        self.assertTrue(rest.user_exists("alice"))
        self.assertTrue(rest.group_exists("room"))
        self.assertFalse(rest.connection_exists("nobody"))
        self.assertFalse(rest.user_exists("nobody"))
        self.assertFalse(rest.group_exists("nobody"))
        with self.assertRaises(HttpResponseError) as caught:
            rest.send_to_all("x", filter="userId eq", **TEXT)
        self.assertEqual(caught.exception.status_code, 400)

    def test_groups_are_changed_and_listed_by_page(self):
        hub = new_hub()
        rest = service(hub, B)
        clients = [self.connect(hub, f"u{n}") for n in range(5)]
        for client in clients[:3]:
            rest.add_connection_to_group(HARD_NAME, client.id)
        rest.add_user_to_group(HARD_NAME, "u3")
        listed = [member.connection_id for member in rest.list_connections(group=HARD_NAME)]
        self.assertEqual(sorted(listed), sorted(client.id for client in clients[:4]))
        self.assertEqual(len(list(rest.list_connections(group=HARD_NAME, top=2))), 2)
        rest.remove_connection_from_group(HARD_NAME, clients[0].id)
        rest.remove_user_from_group(HARD_NAME, "u1")
        rest.remove_user_from_all_groups("u2")
        rest.remove_connection_from_all_groups(clients[3].id)
        self.assertEqual(list(rest.list_connections(group=HARD_NAME)), [])
        with self.assertRaises(ResourceNotFoundError):
            rest.add_connection_to_group(HARD_NAME, "nobody")

    def test_permissions(self):
        hub = new_hub()
        rest = service(hub, B)
        client = self.connect(hub, "alice", roles=[], groups=["room"])
        send = lambda: client.sdk.send_to_group("room", "x", WebPubSubDataType.TEXT)
        self.assertFalse(rest.has_permission("sendToGroup", client.id, target_name="room"))
        with self.assertRaises(SendMessageError):
            send()
        rest.grant_permission("sendToGroup", client.id, target_name="room")
        self.assertTrue(rest.has_permission("sendToGroup", client.id, target_name="room"))
        send()
        client.got("x")
        rest.revoke_permission("sendToGroup", client.id, target_name="room")
        with self.assertRaises(SendMessageError):
            send()

    def test_closed_with_a_reason(self):
        hub = new_hub()
        rest = service(hub, B)
        alice = self.connect(hub, "alice", reconnect_retry_total=0)
        bob = self.connect(hub, "bob", groups=["room"], reconnect_retry_total=0)
        rest.close_connection(alice.id, reason="because: ü")
        rest.close_group_connections("room", reason="the room")
        for client, reason in ((alice, "because: ü"), (bob, "the room")):
            client.until(lambda: client.disconnected and client.stopped, "the end")
            self.assertEqual(client.disconnected[0].message, reason)
        rest.close_user_connections("nobody")
        rest.close_all_connections()

    def test_hard_names(self):
        hub = new_hub()
        rest = service(hub, B)
        client = self.connect(hub, HARD_NAME)
        self.assertTrue(rest.user_exists(HARD_NAME))
        rest.send_to_user(HARD_NAME, "hard", **TEXT)
        client.got("hard")

    def test_a_wrong_key_is_401(self):
        rest = service(new_hub(), B, key="another key, which is long enough too")
        with self.assertRaises(HttpResponseError) as caught:
            rest.send_to_all("x", **TEXT)
        self.assertEqual(caught.exception.status_code, 401)


if __name__ == "__main__":
    unittest.main()
