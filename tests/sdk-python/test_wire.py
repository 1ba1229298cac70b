"""The Python client against one node or two, without REST: tokens are made offline by the server SDK."""

import unittest

from azure.messaging.webpubsubclient.models import OpenClientError, SendMessageError, WebPubSubDataType
from clients import A, B, HARD_NAME, PROTOCOLS, Case, Client, Proxy, new_hub, service


class Wire(Case):
    def test_connected_names_the_user_and_the_connection(self):
        for protocol in PROTOCOLS:
            with self.subTest(protocol):
                client = self.connect(new_hub(), "alice", protocol_type=protocol)
                self.assertEqual(client.connected[0].user_id, "alice")
                self.assertTrue(client.id)

    def test_a_message_reaches_the_group_on_both_nodes_and_nobody_else(self):
        for protocol in PROTOCOLS:
            with self.subTest(protocol):
                hub = new_hub()
                alice, bob, carol = (
                    self.connect(hub, user, node=node, protocol_type=protocol)
                    for user, node in (("alice", A), ("bob", B), ("carol", B))
                )
                alice.sdk.join_group("room")
                bob.sdk.join_group("room")
                carol.sdk.join_group("other")
                alice.sdk.send_to_group("room", "hello", WebPubSubDataType.TEXT)
                alice.sdk.send_to_group("other", "the fence", WebPubSubDataType.TEXT)
                for member in (alice, bob):
                    message = member.got("hello")
                    self.assertEqual((message.group, message.from_user_id), ("room", "alice"))
                carol.got("the fence")
                self.assertEqual(carol.data, ["the fence"])

    def test_json_text_and_binary_arrive_as_they_were_sent(self):
        hub = new_hub()
        client = self.connect(hub, "alice")
        client.sdk.join_group("room")
        value = {"nested": [1, None, True, {"ü": 'quote " backslash \\ 𝄞'}]}
        client.sdk.send_to_group("room", value, WebPubSubDataType.JSON)
        client.sdk.send_to_group("room", 'line\n"𝄞"', WebPubSubDataType.TEXT)
        client.sdk.send_to_group("room", memoryview(bytes(range(256))), WebPubSubDataType.BINARY)
        client.until(lambda: len(client.messages) == 3, "three messages")
        first, second, third = client.data
        self.assertEqual((first, second, bytes(third)), (value, 'line\n"𝄞"', bytes(range(256))))

    def test_no_echo_and_leaving(self):
        hub = new_hub()
        alice, bob = self.connect(hub, "alice"), self.connect(hub, "bob", node=B)
        for client in (alice, bob):
            client.sdk.join_group("room")
        alice.sdk.send_to_group("room", "quiet", WebPubSubDataType.TEXT, no_echo=True)
        alice.sdk.send_to_group("room", "loud", WebPubSubDataType.TEXT)
        alice.got("loud")
        bob.got("loud")
        self.assertEqual((alice.data, bob.data), (["loud"], ["quiet", "loud"]))
        alice.sdk.leave_group("room")
        alice.sdk.send_to_group("room", "for bob", WebPubSubDataType.TEXT)
        alice.sdk.join_group("room")
        alice.sdk.send_to_group("room", "the fence", WebPubSubDataType.TEXT)
        alice.got("the fence")
        bob.got("the fence")
        self.assertEqual(alice.data, ["loud", "the fence"])
        self.assertEqual(bob.data, ["quiet", "loud", "for bob", "the fence"])

    def test_without_the_role_it_is_forbidden_and_the_connection_lives(self):
        client = self.connect(new_hub(), "poor", roles=["webpubsub.joinLeaveGroup.mine"])
        for forbidden in (
            lambda: client.sdk.join_group("yours"),
            lambda: client.sdk.send_to_group("mine", "x", WebPubSubDataType.TEXT),
        ):
            with self.assertRaises(SendMessageError) as caught:
                forbidden()
            self.assertEqual(caught.exception.error_detail.name, "Forbidden")
        client.sdk.join_group("mine")
        self.assertFalse(client.disconnected)

    def test_a_wrong_key_is_turned_away(self):
        url = service(new_hub(), key="another key, which is long enough too").get_client_access_token()["url"]
        client = Client(url, reconnect_retry_total=0)
        with self.assertRaisesRegex(OpenClientError, "401"):
            client.sdk.open()

    def test_hard_names(self):
        client = self.connect(new_hub(), HARD_NAME, groups=[HARD_NAME])
        client.sdk.send_to_group(HARD_NAME, "hard", WebPubSubDataType.TEXT)
        message = client.got("hard")
        self.assertEqual((message.group, message.from_user_id), (HARD_NAME, HARD_NAME))

    def test_a_cut_in_the_middle_of_200_messages_loses_none_and_doubles_none(self):
        hub = new_hub()
        proxy = Proxy(A)
        reader = self.connect(hub, "reader", node=proxy.url)
        writer = self.connect(hub, "writer", node=B)
        reader.sdk.join_group("room")
        for number in range(200):
            writer.sdk.send_to_group("room", number, WebPubSubDataType.JSON, ack=False)
            if number in (60, 140):
                reader.got(number - 20)
                self.assertEqual(proxy.cut(), 1)
        reader.until(lambda: len(reader.messages) >= 200, "message 200")
        self.assertEqual(reader.data, list(range(200)))
        self.assertEqual(len(reader.connected), 1, "a recovery is not a new connection")
        self.assertFalse(reader.disconnected)


if __name__ == "__main__":
    unittest.main()
