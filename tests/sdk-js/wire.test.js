// The client SDK against one node or two, without REST: tokens are made offline by the server SDK.

import assert from "node:assert/strict";
import { test } from "node:test";
import { A, B, Client, HARD_NAME, PROTOCOLS, connect, connectTo, inAnHour, newHub, service, token } from "./clients.js";

for (const protocol of Object.keys(PROTOCOLS)) {
  test(`${protocol}: connected names the user and the connection`, async (t) => {
    const client = await connect(t, newHub(), { protocol, user: "alice" });
    const [event] = client.connected.items;
    assert.equal(event.userId, "alice");
    assert.match(event.connectionId, /^\S+$/);
  });

  test(`${protocol}: without a user id the connection has no user`, async (t) => {
    const hub = newHub();
    const nobody = await connect(t, hub, { protocol });
    assert.ok(!nobody.connected.items[0].userId);
    await nobody.sdk.joinGroup("g");
    await nobody.sdk.sendToGroup("g", "from nobody", "text");
    assert.ok(!(await nobody.got("from nobody")).from);
  });

  test(`${protocol}: a group's message reaches its members on both nodes and nobody else`, async (t) => {
    const hub = newHub();
    const alice = await connect(t, hub, { protocol, user: "alice" });
    const bob = await connect(t, hub, { protocol, user: "bob", node: B });
    const carol = await connect(t, hub, { protocol, user: "carol", node: B });
    await Promise.all([alice.sdk.joinGroup("room"), bob.sdk.joinGroup("room"), carol.sdk.joinGroup("other")]);
    await alice.sdk.sendToGroup("room", "hello", "text");
    await alice.sdk.sendToGroup("other", "the fence", "text");
    for (const member of [alice, bob]) {
      const { group, from, type, data } = await member.got("hello");
      assert.deepEqual({ group, from, type, data }, { group: "room", from: "alice", type: "text", data: "hello" });
    }
    await carol.got("the fence");
    assert.deepEqual(carol.data, ["the fence"]);
  });

  test(`${protocol}: one who left gets nothing more`, async (t) => {
    const hub = newHub();
    const alice = await connect(t, hub, { protocol, user: "alice" });
    const bob = await connect(t, hub, { protocol, user: "bob", node: B });
    await bob.sdk.joinGroup("room");
    await bob.sdk.joinGroup("other");
    await alice.sdk.sendToGroup("room", "before", "text");
    await bob.got("before");
    await bob.sdk.leaveGroup("room");
    await alice.sdk.sendToGroup("room", "after", "text");
    await alice.sdk.sendToGroup("other", "the fence", "text");
    await bob.got("the fence");
    assert.deepEqual(bob.data, ["before", "the fence"]);
  });

  test(`${protocol}: noEcho keeps a message from its sender, the default does not`, async (t) => {
    const hub = newHub();
    const alice = await connect(t, hub, { protocol, user: "alice" });
    const bob = await connect(t, hub, { protocol, user: "bob", node: B });
    const otherAlice = await connect(t, hub, { protocol, user: "alice", node: B });
    for (const client of [alice, bob, otherAlice]) await client.sdk.joinGroup("room");
    await alice.sdk.sendToGroup("room", "quiet", "text", { noEcho: true });
    await alice.sdk.sendToGroup("room", "loud", "text");
    for (const client of [alice, bob, otherAlice]) await client.got("loud");
    assert.deepEqual(alice.data, ["loud"]);
    assert.deepEqual(bob.data, ["quiet", "loud"]);
    assert.deepEqual(otherAlice.data, ["quiet", "loud"], "noEcho is about the connection, not the user");
  });

  test(`${protocol}: json, text and binary arrive as they were sent, whatever is in them`, async (t) => {
    const hub = newHub();
    const alice = await connect(t, hub, { protocol, user: "alice" });
    const bob = await connect(t, hub, { protocol, user: "bob", node: B });
    await bob.sdk.joinGroup("room");
    const json = { nested: [1, -2.5, null, true, { ü: 'quote " backslash \\ nul \u0000 astral 𝄞' }], empty: {}, large: 9007199254740991 };
    const text = 'line\nbreak "quoted" \\ \u2028 𝄞 </script>';
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
    await alice.sdk.sendToGroup("room", json, "json");
    await alice.sdk.sendToGroup("room", text, "text");
    await alice.sdk.sendToGroup("room", bytes.buffer, "binary");
    await alice.sdk.sendToGroup("room", "a string can be json", "json");
    await bob.got("a string can be json");
    assert.deepEqual(bob.data, [json, text, [...bytes], "a string can be json"]);
    assert.deepEqual(bob.messages.items.map((m) => m.type), ["json", "text", "binary", "json"]);
  });

  test(`${protocol}: fire and forget arrives too, in order with what is acknowledged`, async (t) => {
    const hub = newHub();
    const alice = await connect(t, hub, { protocol, user: "alice" });
    const bob = await connect(t, hub, { protocol, user: "bob", node: B });
    await bob.sdk.joinGroup("room");
    for (let i = 0; i < 50; i++) await alice.sdk.sendToGroup("room", i, "json", { fireAndForget: i % 5 !== 0 });
    await bob.messages.count(50);
    assert.deepEqual(bob.data, Array.from({ length: 50 }, (_, i) => i));
  });

  test(`${protocol}: an ackId used twice is a duplicate and is delivered once`, async (t) => {
    const hub = newHub();
    const alice = await connect(t, hub, { protocol, user: "alice" });
    await alice.sdk.joinGroup("room");
    const first = await alice.sdk.sendToGroup("room", "once", "text", { ackId: 4711 });
    const second = await alice.sdk.sendToGroup("room", "once", "text", { ackId: 4711 });
    assert.equal(first.isDuplicated, false);
    assert.equal(second.isDuplicated, true);
    await alice.sdk.sendToGroup("room", "the fence", "text");
    await alice.got("the fence");
    assert.deepEqual(alice.data, ["once", "the fence"]);
  });

  test(`${protocol}: groups and users with hard names`, async (t) => {
    const hub = newHub();
    const client = await connect(t, hub, { protocol, user: HARD_NAME, roles: [`webpubsub.joinLeaveGroup.${HARD_NAME}`, `webpubsub.sendToGroup.${HARD_NAME}`] });
    assert.equal(client.connected.items[0].userId, HARD_NAME);
    await client.sdk.joinGroup(HARD_NAME);
    await client.sdk.sendToGroup(HARD_NAME, "hard", "text");
    const { group, from } = await client.got("hard");
    assert.deepEqual({ group, from }, { group: HARD_NAME, from: HARD_NAME });
  });

  test(`${protocol}: groups named by the token are joined before connected`, async (t) => {
    const hub = newHub();
    const bob = await connect(t, hub, { protocol, user: "bob", groups: ["one", HARD_NAME], roles: [] });
    const alice = await connect(t, hub, { protocol, user: "alice", node: B });
    await alice.sdk.sendToGroup("one", 1, "json");
    await alice.sdk.sendToGroup(HARD_NAME, 2, "json");
    await bob.got(1);
    await bob.got(2);
  });

  test(`${protocol}: without the role, joining and sending are Forbidden and the connection lives`, async (t) => {
    const hub = newHub();
    const poor = await connect(t, hub, { protocol, user: "poor", roles: [] });
    const forbidden = (error) => {
      assert.equal(error.name, "SendMessageError");
      assert.equal(error.errorDetail.name, "Forbidden");
      return true;
    };
    await assert.rejects(poor.sdk.joinGroup("room"), forbidden);
    await assert.rejects(poor.sdk.sendToGroup("room", "x", "text"), forbidden);

    const narrow = await connect(t, hub, { protocol, user: "narrow", roles: ["webpubsub.joinLeaveGroup.mine", "webpubsub.sendToGroup.mine"] });
    await assert.rejects(narrow.sdk.joinGroup("yours"), forbidden);
    await assert.rejects(narrow.sdk.sendToGroup("yours", "x", "text"), forbidden);
    await narrow.sdk.joinGroup("mine");
    await narrow.sdk.sendToGroup("mine", "allowed", "text");
    await narrow.got("allowed");
    assert.equal(poor.disconnected.items.length + narrow.disconnected.items.length, 0);
  });

  test(`${protocol}: nothing crosses hubs`, async (t) => {
    const [here, there] = [newHub(), newHub()];
    const alice = await connect(t, here, { protocol, user: "alice" });
    const stranger = await connect(t, there, { protocol, user: "alice" });
    await Promise.all([alice.sdk.joinGroup("room"), stranger.sdk.joinGroup("room")]);
    await alice.sdk.sendToGroup("room", "here", "text");
    await alice.got("here");
    await stranger.sdk.sendToGroup("room", "there", "text");
    await stranger.got("there");
    assert.deepEqual([alice.data, stranger.data], [["here"], ["there"]]);
  });

  test(`${protocol}: a message of 900 KB arrives whole`, async (t) => {
    const hub = newHub();
    const alice = await connect(t, hub, { protocol, user: "alice" });
    const bob = await connect(t, hub, { protocol, user: "bob", node: B });
    await bob.sdk.joinGroup("room");
    const large = "0123456789".repeat(90_000);
    await alice.sdk.sendToGroup("room", large, "text");
    await bob.messages.count(1);
    assert.ok(bob.data[0] === large);
  });

  test(`${protocol}: stop() ends at once and the same client can start again`, async (t) => {
    const client = await connect(t, newHub(), { protocol, user: "alice" });
    const before = performance.now();
    await client.stop();
    // The SDK waits for the answer to its close frame, up to 30 s.
    assert.ok(performance.now() - before < 5000, "the close frame was not answered");
    client.stopped.items.length = 0;
    await client.sdk.start();
    await client.connected.count(2);
    assert.notEqual(client.connected.items[1].connectionId, client.connected.items[0].connectionId);
  });
}

test("an event without a handler is acknowledged", async (t) => {
  const client = await connect(t, newHub(), { user: "alice" });
  const result = await client.sdk.sendEvent("anything", { a: 1 }, "json");
  assert.equal(result.isDuplicated, false);
});

test("an invocation without a handler is answered, not left waiting", async (t) => {
  const client = await connect(t, newHub(), { user: "alice" });
  await assert.rejects(client.sdk.invokeEvent("anything", "x", "text"), (error) => error.name === "InvocationError");
});

test("pings are answered: an idle client stays connected beyond its own time-out", async (t) => {
  const client = await connect(t, newHub(), { user: "alice", sdk: { keepAliveIntervalInMs: 200, keepAliveTimeoutInMs: 1000 } });
  // Three time-outs long nothing but pings goes over the wire.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  assert.equal(client.disconnected.items.length, 0);
  assert.equal(client.connected.items.length, 1);
});

/** Whom the server must turn away before the upgrade; each is given the hub and its audience. */
const BAD_TOKENS = {
  "a wrong key": (aud) => token({ aud, exp: inAnHour() }, { key: "another key, which is long enough too" }),
  "an expired token": (aud) => token({ aud, exp: inAnHour() - 7200 }),
  "alg none": (aud) => token({ aud, exp: inAnHour() }, { header: { alg: "none", typ: "JWT" } }),
  "a token of another hub": () => token({ aud: `${A}/client/hubs/another`, exp: inAnHour() }),
  "a token for REST": () => token({ aud: `${A}/api/hubs/h/:send?api-version=2024-12-01`, exp: inAnHour() }),
  "no expiry": (aud) => token({ aud }),
  "no token at all": () => "",
  garbage: () => "x.y.z",
};

for (const [what, make] of Object.entries(BAD_TOKENS)) {
  test(`denied with 401: ${what}`, async () => {
    const hub = newHub();
    const url = `${A.replace(/^http/, "ws")}/client/hubs/${hub}?access_token=${make(`${A}/client/hubs/${hub}`)}`;
    const client = new Client(url, { protocol: PROTOCOLS.reliable(), autoReconnect: false });
    await assert.rejects(client.sdk.start(), /401/);
  });
}

test("a role may be a bare string, and the audience's host is not looked at", async (t) => {
  const hub = newHub();
  const claims = { aud: `https://other.example/client/hubs/${hub}`, exp: inAnHour(), sub: "alice", role: "webpubsub.joinLeaveGroup" };
  const client = await connectTo(t, `${A.replace(/^http/, "ws")}/client/hubs/${hub}?access_token=${token(claims)}`);
  await client.sdk.joinGroup("room");
});

test("the token a connection string makes is taken, trailing slash and all", async (t) => {
  const hub = newHub();
  const { WebPubSubServiceClient } = await import("@azure/web-pubsub");
  const text = `Endpoint=${A};AccessKey=${process.env.TIELINE_KEY};Version=1.0;`;
  const { url } = await new WebPubSubServiceClient(text, hub, { allowInsecureConnection: true }).getClientAccessToken({ userId: "alice" });
  const client = await connectTo(t, url);
  assert.equal(client.connected.items[0].userId, "alice");
});

test("a hub's name that is none is refused", async () => {
  const { url } = await service("1st", A).getClientAccessToken();
  const client = new Client(url, { protocol: PROTOCOLS.reliable(), autoReconnect: false });
  await assert.rejects(client.sdk.start(), /40[04]/);
});
