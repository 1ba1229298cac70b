// Connections cut in the middle of traffic, by a proxy that resets them. Needs no REST.
//
// The proxy leads to A, where the cut client stays unless a test leads it elsewhere; whoever talks to it is on B.

import assert from "node:assert/strict";
import { test } from "node:test";
import { WebSocket } from "ws";
import { A, B, connect, newHub } from "./clients.js";
import { proxyTo } from "./proxy.js";

const NUMBERS = Array.from({ length: 200 }, (_, i) => i);

test("reliable: a subscriber cut in the middle of 200 messages misses none and gets none twice", async (t) => {
  const hub = newHub();
  const proxy = await proxyTo(A);
  const reader = await connect(t, hub, { node: proxy.url, user: "reader" });
  const writer = await connect(t, hub, { node: B, user: "writer" });
  await reader.sdk.joinGroup("room");
  const { id } = reader;
  for (const n of NUMBERS) {
    await writer.sdk.sendToGroup("room", n, "json");
    if (n === 60 || n === 140) {
      await reader.got(n - 20);
      assert.equal(proxy.cut(), 1);
    }
  }
  await reader.messages.count(200);
  assert.deepEqual(reader.data, NUMBERS);
  const ids = reader.messages.items.map((m) => m.sequenceId);
  assert.ok(ids.every((sequence, i) => i === 0 || sequence > ids[i - 1]), "sequence ids rise strictly");
  assert.equal(reader.connected.items.length, 1, "a recovery is not a new connection");
  assert.equal(reader.disconnected.items.length, 0);
  assert.equal(reader.id, id);
});

test("reliable: a subscriber that comes to another node after each cut misses none of 200 messages and gets none twice", async (t) => {
  const hub = newHub();
  const proxy = await proxyTo(A);
  const reader = await connect(t, hub, { node: proxy.url, user: "reader" });
  const writers = [await connect(t, hub, { node: A, user: "a" }), await connect(t, hub, { node: B, user: "b" })];
  await reader.sdk.joinGroup("room");
  const { id } = reader;
  for (const n of NUMBERS) {
    await writers[n % 2].sdk.sendToGroup("room", n, "json");
    if (n % 40 === 20) {
      proxy.lead(n % 80 === 20 ? B : A);
      assert.equal(proxy.cut(), 1);
    }
  }
  await reader.messages.count(200);
  assert.deepEqual(reader.data.toSorted((a, b) => a - b), NUMBERS);
  for (const from of [0, 1]) {
    assert.deepEqual(reader.data.filter((n) => n % 2 === from), NUMBERS.filter((n) => n % 2 === from), "each sender's order");
  }
  assert.equal(reader.connected.items.length, 1, "a recovery is not a new connection");
  assert.equal(reader.disconnected.items.length, 0);
  assert.equal(reader.id, id);
  // It may still do what it could, and joins where it is now.
  await reader.sdk.joinGroup("after");
  await writers[0].sdk.sendToGroup("after", "here", "text");
  await reader.got("here");
});

test("reliable: a subscriber that was away finds what came meanwhile", async (t) => {
  const hub = newHub();
  const proxy = await proxyTo(A);
  const reader = await connect(t, hub, { node: proxy.url, user: "reader" });
  const writer = await connect(t, hub, { node: B, user: "writer" });
  await reader.sdk.joinGroup("room");
  proxy.refuse(true);
  proxy.cut();
  for (const n of NUMBERS) await writer.sdk.sendToGroup("room", n, "json");
  assert.equal(reader.messages.items.length, 0);
  proxy.refuse(false);
  await reader.messages.count(200);
  assert.deepEqual(reader.data, NUMBERS);
});

test("reliable: a publisher cut in the middle repeats its ackIds, and nothing is doubled or lost", async (t) => {
  const hub = newHub();
  const proxy = await proxyTo(A);
  const reader = await connect(t, hub, { node: B, user: "reader" });
  const writer = await connect(t, hub, {
    node: proxy.url,
    user: "writer",
    sdk: { messageRetryOptions: { maxRetries: 20, retryDelayInMs: 200, mode: "Fixed" } },
  });
  await reader.sdk.joinGroup("room");
  const waiting = [...NUMBERS];
  const unacknowledged = new Set();
  const send = async () => {
    for (let n = waiting.shift(); n !== undefined; n = waiting.shift()) {
      unacknowledged.add(n);
      await writer.sdk.sendToGroup("room", n, "json", { ackId: 1000 + n });
      unacknowledged.delete(n);
      // The cut comes when all that are on their way have been delivered, but no ack has come back.
      if (n === 60 || n === 140) {
        proxy.mute(true);
        await Promise.all([...unacknowledged].map((sent) => reader.got(sent)));
        proxy.cut();
        proxy.mute(false);
      }
    }
  };
  await Promise.all(Array.from({ length: 8 }, send));
  await writer.sdk.sendToGroup("room", "the fence", "text");
  await reader.got("the fence");
  const numbers = reader.data.slice(0, -1);
  assert.deepEqual(numbers.toSorted((a, b) => a - b), NUMBERS);
});

test("reliable: groups outlive the cut, and new ones can be joined after it", async (t) => {
  const hub = newHub();
  const proxy = await proxyTo(A);
  const reader = await connect(t, hub, { node: proxy.url, user: "reader" });
  const writer = await connect(t, hub, { node: B, user: "writer" });
  await reader.sdk.joinGroup("before");
  proxy.cut();
  await writer.sdk.sendToGroup("before", "still there", "text");
  await reader.got("still there");
  await reader.sdk.joinGroup("after");
  await writer.sdk.sendToGroup("after", "new", "text");
  await reader.got("new");
  assert.equal(reader.connected.items.length, 1);
});

test("plain: after a cut the client is a new connection, back in its groups, and gets nothing twice", async (t) => {
  const hub = newHub();
  const proxy = await proxyTo(A);
  const reader = await connect(t, hub, { node: proxy.url, protocol: "plain", user: "reader" });
  const writer = await connect(t, hub, { node: B, protocol: "plain", user: "writer" });
  await reader.sdk.joinGroup("room");
  const first = reader.id;
  for (const n of NUMBERS.slice(0, 100)) await writer.sdk.sendToGroup("room", n, "json");
  await reader.got(99);
  proxy.cut();
  await reader.connected.count(2);
  assert.notEqual(reader.id, first);
  assert.deepEqual(reader.rejoinFailed.items, []);
  for (const n of NUMBERS.slice(100)) await writer.sdk.sendToGroup("room", n, "json");
  await reader.got(199);
  assert.deepEqual(reader.data, NUMBERS);
});

test("reliable: a forged reconnection token is closed with 1008 and disturbs nobody", async (t) => {
  const hub = newHub();
  const proxy = await proxyTo(A);
  const client = await connect(t, hub, { node: proxy.url, user: "alice" });
  // What the SDK does after a cut, with a token that does not fit: accepted, then closed with 1008.
  const url = `${proxy.url.replace(/^http/, "ws")}/client/hubs/${hub}?awps_connection_id=${client.id}&awps_reconnection_token=forged`;
  const socket = new WebSocket(url, "json.reliable.webpubsub.azure.v1");
  const code = await new Promise((resolve, reject) => {
    socket.on("close", resolve);
    socket.on("error", reject);
  });
  assert.equal(code, 1008);
  await client.sdk.joinGroup("room");
  await client.sdk.sendToGroup("room", "undisturbed", "text");
  await client.got("undisturbed");
});
