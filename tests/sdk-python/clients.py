"""What the cases are written with: the official clients, and a record of what reached them.

The nodes are named by the environment; nothing is started here. Each case takes a hub of its own.
The SDK runs every callback on a thread of its own, so the order of arrival is read from the sequence ids.
"""

import itertools
import logging
import os
import socket
import struct
import threading
import time
import unittest
from urllib.parse import urlsplit

from azure.core.credentials import AzureKeyCredential
from azure.messaging.webpubsubclient import WebPubSubClient, WebPubSubClientCredential
from azure.messaging.webpubsubclient.models import CallbackType, WebPubSubProtocolType
from azure.messaging.webpubsubservice import WebPubSubServiceClient

A = os.environ["TIELINE_A"]
B = os.environ.get("TIELINE_B") or A
KEY = os.environ["TIELINE_KEY"]

#: Seconds anything may take to arrive. Nobody waits longer than it needs.
PATIENCE = 10

HARD_NAME = "a/b ?#%ü"
ALL_ROLES = ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"]
PROTOCOLS = (WebPubSubProtocolType.JSON, WebPubSubProtocolType.JSON_RELIABLE)

# Both libraries report every cut and every close as a warning, and cuts are what we make here.
for _name in ("azure", "websocket"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_hubs = itertools.count(1)


def new_hub():
    """A hub nobody else has."""
    return f"p{os.getpid()}_{time.time_ns()}_{next(_hubs)}"


def service(hub, node=A, key=KEY):
    """The server SDK for a hub. A retry would hide a server that fails now and then."""
    return WebPubSubServiceClient(node, hub, AzureKeyCredential(key), retry_total=0)


class Client:
    """A client of the official SDK and what it has seen."""

    def __init__(self, url, **options):
        self._changed = threading.Condition()
        self.messages = []
        self.connected = []
        self.disconnected = []
        self.stopped = []
        options.setdefault("message_retry_total", 0)
        # The SDK starts to wait after it has sent, and misses an ack that came in between: then it looks again only
        # when this time is over, and is content. A quick server makes that likely.
        options.setdefault("ack_timeout", 1)
        self.sdk = WebPubSubClient(WebPubSubClientCredential(lambda: url), **options)
        for kind, record in (
            (CallbackType.GROUP_MESSAGE, self.messages),
            (CallbackType.SERVER_MESSAGE, self.messages),
            (CallbackType.CONNECTED, self.connected),
            (CallbackType.DISCONNECTED, self.disconnected),
            (CallbackType.STOPPED, self.stopped),
        ):
            self.sdk.subscribe(kind, self._recorder(record))

    def _recorder(self, record):
        def add(event=None):
            with self._changed:
                record.append(event)
                self._changed.notify_all()

        return add

    @property
    def id(self):
        return self.connected[-1].connection_id

    @property
    def data(self):
        """What arrived, sorted by sequence id where there is one."""
        return [message.data for message in sorted(self.messages, key=lambda message: message.sequence_id or 0)]

    def until(self, holds, what):
        """Returns when `holds()` is true of what was recorded."""
        with self._changed:
            if not self._changed.wait_for(holds, PATIENCE):
                raise AssertionError(f"{what} did not come; there is {str(self.data)[:2000]}")

    def got(self, data):
        """Returns the first message with this data."""
        find = lambda: next((message for message in self.messages if message.data == data), None)
        self.until(lambda: find() is not None, f"message {data!r}")
        return find()


class Case(unittest.TestCase):
    """A case that closes its clients at its end, the last one first."""

    def connect(self, hub, user=None, roles=ALL_ROLES, groups=(), node=A, **options):
        """A client with a token that the server SDK made, offline."""
        claims = {"roles": roles, "groups": list(groups)}
        if user is not None:
            claims["user_id"] = user
        return self.connect_to(service(hub, node).get_client_access_token(**claims)["url"], **options)

    def connect_to(self, url, **options):
        client = Client(url, **options)
        client.sdk.open()
        self.addCleanup(client.sdk.close)
        client.until(lambda: client.connected, "connected")
        return client


class Proxy:
    """A TCP proxy to a node that can reset what goes through it, and refuse more."""

    def __init__(self, url):
        parts = urlsplit(url)
        self._node = (parts.hostname, parts.port)
        self._pairs = set()
        self.refusing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, _ = self._listener.accept()
            if self.refusing:
                self._reset(near)
                continue
            far = socket.create_connection(self._node)
            pair = (near, far)
            self._pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                threading.Thread(target=self._carry, args=(source, sink, pair), daemon=True).start()

    def _carry(self, source, sink, pair):
        try:
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        except OSError:
            pass  # Reset by us or by them: either way this pair is over.
        self._pairs.discard(pair)
        for end in pair:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @staticmethod
    def _reset(end):
        """Closes with RST instead of FIN: a linger of zero seconds."""
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()

    def cut(self):
        """Resets every connection on both sides; returns how many there were."""
        pairs = list(self._pairs)
        for pair in pairs:
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for end in pair:
                # A reader blocked in recv keeps the descriptor open, so the close alone would send nothing.
                try:
                    end.shutdown(socket.SHUT_RD)
                except OSError:
                    pass
                end.close()
        return len(pairs)
