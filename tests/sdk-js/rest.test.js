// The server SDK: everything under /api/hubs. Clients are on A, REST goes to B.

import assert from "node:assert/strict";
import { test } from "node:test";
import { A, B, HARD_NAME, PROTOCOLS, connect, connectTo, inAnHour, newHub, service, token } from "./clients.js";
import { proxyTo } from "./proxy.js";

const REST_ERROR = (status) => (error) => {
  assert.equal(error.name, "RestError");
  assert.equal(error.statusCode, status, error.message);
  assert.ok(error.message && error.code, "an error says what was wrong");
  return true;
};

for (const protocol of Object.keys(PROTOCOLS)) {
  test(`${protocol}: to all, user, group and connection, each to those and nobody else`, async (t) => {
    const hub = newHub();
    const rest = service(hub, B);
    const alice = await connect(t, hub, { protocol, user: "alice" });
    const alice2 = await connect(t, hub, { protocol, user: "alice", node: B });
    const bob = await connect(t, hub, { protocol, user: "bob" });
    await bob.sdk.joinGroup("room");
    await rest.sendToUser("alice", "to alice", { contentType: "text/plain" });
    await rest.sendToConnection(alice2.id, { to: "alice2" });
    await rest.group("room").sendToAll("to the room", { contentType: "text/plain" });
    await rest.sendToAll([1, 2, 3]);
    for (const client of [alice, alice2, bob]) await client.got([1, 2, 3]);
    assert.deepEqual(alice.data, ["to alice", [1, 2, 3]]);
    assert.deepEqual(alice2.data, ["to alice", { to: "alice2" }, [1, 2, 3]]);
    assert.deepEqual(bob.data, ["to the room", [1, 2, 3]]);
    const [room] = bob.messages.items;
    assert.deepEqual({ group: room.group, from: room.from }, { group: "room", from: undefined });
    assert.equal(alice.messages.items[0].group, undefined, "what comes from the server has no group");
  });
}

test("text, json and bytes keep their kind", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const client = await connect(t, hub, { user: "alice" });
  await rest.sendToUser("alice", "text", { contentType: "text/plain" });
  await rest.sendToUser("alice", "a json string");
  await rest.sendToUser("alice", { a: [1, "ü𝄞"] });
  await rest.sendToUser("alice", Uint8Array.of(0, 255, 10).buffer);
  await client.messages.count(4);
  assert.deepEqual(client.messages.items.map((m) => [m.type, m.data]), [
    ["text", "text"],
    ["json", "a json string"],
    ["json", { a: [1, "ü𝄞"] }],
    ["binary", [0, 255, 10]],
  ]);
});

test("sending to nobody succeeds", async () => {
  const rest = service(newHub(), B);
  await rest.sendToAll("x");
  await rest.sendToUser("nobody", "x");
  await rest.group("nobody").sendToAll("x");
});

test("excluded connections get nothing", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const clients = [];
  for (let i = 0; i < 4; i++) clients.push(await connect(t, hub, { user: `u${i}`, groups: ["room"] }));
  const excludedConnections = [clients[0].id, clients[2].id];
  await rest.sendToAll("all", { contentType: "text/plain", excludedConnections });
  await rest.group("room").sendToAll("room", { contentType: "text/plain", excludedConnections });
  await rest.sendToAll("fence", { contentType: "text/plain" });
  for (const client of clients) await client.got("fence");
  assert.deepEqual(clients.map((client) => client.data.length), [1, 3, 1, 3]);
});

const FILTERS = {
  "userId eq 'u1'": [1],
  "userId ne 'u1' and userId ne null": [0, 2],
  "not (userId eq 'u1') and not (userId eq null)": [0, 2],
  "userId eq null": [3],
  "userId in ('u0', 'u2')": [0, 2],
  "'vip' in groups": [0, 1],
  "'vip' in groups and startswith(userId, 'u0')": [0],
  "length(groups) gt 1": [1],
  "toupper(userId) eq 'U2' or endswith(userId, '0')": [0, 2],
  "contains(concat(userId, '''s'), '1''s')": [1],
  "USERID eq 'u0'": [0],
  "indexof(userId, '2') ge 1": [2],
  "substring(userId, 1) eq '0'": [0],
};

test("filters choose by user, groups and functions", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const clients = [
    await connect(t, hub, { user: "u0", groups: ["vip"] }),
    await connect(t, hub, { user: "u1", groups: ["vip", "more"] }),
    await connect(t, hub, { user: "u2" }),
    await connect(t, hub, { groups: ["other"] }),
  ];
  for (const filter of Object.keys(FILTERS)) await rest.sendToAll(filter, { contentType: "text/plain", filter });
  await rest.sendToAll(`${clients[2].id}`, { contentType: "text/plain", filter: `connectionId eq '${clients[2].id}'` });
  await rest.sendToAll("fence", { contentType: "text/plain" });
  for (const client of clients) await client.got("fence");
  for (const [filter, expected] of Object.entries(FILTERS)) {
    const got = clients.flatMap((client, i) => (client.data.includes(filter) ? [i] : []));
    assert.deepEqual(got, expected, filter);
  }
  assert.deepEqual(clients.flatMap((client, i) => (client.data.includes(clients[2].id) ? [i] : [])), [2]);
});

for (const filter of ["userId eq", "userId = 'a'", "nobody eq 'a'", "not length(userId) gt 5", "userId eq 'a", "(".repeat(5000)]) {
  test(`a malformed filter is 400: ${filter.slice(0, 30)}`, async () => {
    await assert.rejects(service(newHub(), B).sendToAll("x", { filter }), REST_ERROR(400));
  });
}

test("existence of connections, users and groups follows them", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const exist = async (id) => [await rest.connectionExists(id), await rest.userExists("alice"), await rest.groupExists("room")];
  const client = await connect(t, hub, { user: "alice" });
  assert.deepEqual(await exist(client.id), [true, true, false]);
  await client.sdk.joinGroup("room");
  assert.deepEqual(await exist(client.id), [true, true, true]);
  await client.sdk.leaveGroup("room");
  assert.deepEqual(await exist(client.id), [true, true, false]);
  const { id } = client;
  await client.stop();
  // A clean close ends the connection at once on its own node; another node hears of it a moment later.
  for (let i = 0; i < 100 && (await exist(id)).some(Boolean); i++) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(await exist(id), [false, false, false]);
});

test("a cut connection still exists, and gets what was sent meanwhile", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const proxy = await proxyTo(A);
  const client = await connect(t, hub, { node: proxy.url, user: "alice" });
  proxy.refuse(true);
  proxy.cut();
  assert.equal(await rest.connectionExists(client.id), true);
  assert.equal(await rest.userExists("alice"), true);
  await rest.group("room").addConnection(client.id);
  await rest.sendToUser("alice", "one", { contentType: "text/plain" });
  await rest.group("room").sendToAll("two", { contentType: "text/plain" });
  proxy.refuse(false);
  await client.got("two");
  assert.deepEqual(client.data, ["one", "two"]);
});

test("REST puts connections and users into groups and takes them out", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const alice = await connect(t, hub, { user: "alice", roles: [] });
  const bob = await connect(t, hub, { user: "bob", roles: [], node: B });
  const room = rest.group("room");
  const members = async (group = room) => {
    const users = [];
    for await (const member of await group.listConnections()) users.push(member.userId);
    return users.toSorted();
  };
  await room.addConnection(alice.id);
  assert.deepEqual(await members(), ["alice"]);
  await room.addUser("bob");
  assert.deepEqual(await members(), ["alice", "bob"]);
  await room.removeConnection(alice.id);
  await room.removeUser("bob");
  assert.deepEqual(await members(), []);

  await rest.addConnectionsToGroups(["room", "hall"], "userId eq 'alice' or userId eq 'bob'");
  assert.deepEqual(await members(), ["alice", "bob"]);
  await rest.removeUserFromAllGroups("bob");
  assert.deepEqual([await members(), await members(rest.group("hall"))], [["alice"], ["alice"]]);
  await rest.removeConnectionsFromGroups(["room"], "userId eq 'alice'");
  assert.deepEqual([await members(), await members(rest.group("hall"))], [[], ["alice"]]);
  await rest.removeConnectionFromAllGroups(alice.id);
  assert.deepEqual(await members(rest.group("hall")), []);

  await assert.rejects(room.addConnection("nobody"), REST_ERROR(404));
  await room.removeConnection("nobody");
});

test("a group's connections are listed in pages, each once", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const clients = [];
  for (let i = 0; i < 13; i++) clients.push(await connect(t, hub, { user: `u${i}`, groups: [HARD_NAME], node: i % 2 ? A : B }));
  const group = rest.group(HARD_NAME);
  const ids = clients.map((client) => client.id).toSorted();
  const pages = [];
  for await (const page of (await group.listConnections({ maxPageSize: 5 })).byPage()) pages.push(page);
  assert.ok(pages.every((page) => page.length <= 5), "no page is larger than asked for");
  assert.ok(pages.length >= 3);
  assert.deepEqual(pages.flat().map((member) => member.connectionId).toSorted(), ids);
  const top = [];
  for await (const member of await group.listConnections({ maxPageSize: 3, top: 7 })) top.push(member.connectionId);
  assert.equal(top.length, 7);
  assert.equal(new Set(top).size, 7);
  const none = [];
  for await (const member of await rest.group("empty").listConnections()) none.push(member);
  assert.deepEqual(none, []);
});

test("permissions are granted, asked for and revoked, for one group or all", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const client = await connect(t, hub, { user: "alice", roles: [] });
  const forbidden = (error) => error.errorDetail?.name === "Forbidden";
  const has = (permission, targetName) => rest.hasPermission(client.id, permission, { targetName });

  await assert.rejects(client.sdk.joinGroup("room"), forbidden);
  assert.equal(await has("joinLeaveGroup", "room"), false);
  await rest.grantPermission(client.id, "joinLeaveGroup", { targetName: "room" });
  assert.equal(await has("joinLeaveGroup", "room"), true);
  assert.equal(await has("joinLeaveGroup", "other"), false);
  assert.equal(await has("sendToGroup", "room"), false);
  await client.sdk.joinGroup("room");
  await assert.rejects(client.sdk.joinGroup("other"), forbidden);

  await rest.grantPermission(client.id, "sendToGroup");
  assert.equal(await has("sendToGroup", "anything"), true);
  await client.sdk.sendToGroup("room", "allowed", "text");
  await client.got("allowed");

  await rest.revokePermission(client.id, "sendToGroup");
  assert.equal(await has("sendToGroup", "room"), false);
  await assert.rejects(client.sdk.sendToGroup("room", "denied", "text"), forbidden);
  await assert.rejects(rest.grantPermission("nobody", "sendToGroup"), REST_ERROR(404));
});

for (const protocol of Object.keys(PROTOCOLS)) {
  test(`${protocol}: closed by REST, the client is told why and stays away`, async (t) => {
    const hub = newHub();
    const rest = service(hub, B);
    const client = await connect(t, hub, { protocol, user: "alice", sdk: { autoReconnect: false } });
    await rest.closeConnection(client.id, { reason: "because: ü" });
    const event = await client.disconnected.find(() => true, "disconnected");
    assert.equal(event.message?.message, "because: ü");
    await client.stopped.find(() => true, "stopped");
    assert.equal(await rest.connectionExists(client.id), false);
  });
}

test("closing a user, a group, all; the excluded stay; unknown ones are no error", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const sdk = { autoReconnect: false };
  const bob = await connect(t, hub, { user: "bob", sdk });
  const alice = await connect(t, hub, { user: "alice", sdk });
  const inRoom = await connect(t, hub, { user: "carol", groups: ["room"], sdk });
  const gone = (client) => client.stopped.find(() => true, "stopped");
  await rest.closeUserConnections("alice", { reason: "user" });
  await gone(alice);
  assert.equal(alice.disconnected.items[0].message?.message, "user");
  await rest.group("room").closeAllConnections({ reason: "group" });
  await gone(inRoom);
  assert.equal(inRoom.disconnected.items[0].message?.message, "group");
  await rest.sendToAll("alive", { contentType: "text/plain" });
  await bob.got("alive");
  await rest.closeConnection("nobody");
  await rest.closeUserConnections("nobody");
  await rest.closeAllConnections({ reason: "all" });
  await gone(bob);
  assert.equal(bob.disconnected.items[0].message?.message, "all");
});

test("with autoReconnect a closed client comes back as a new connection, in its groups", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  const client = await connect(t, hub, { user: "alice" });
  await client.sdk.joinGroup("room");
  const first = client.id;
  await rest.closeConnection(first);
  await client.connected.count(2);
  assert.notEqual(client.id, first);
  await rest.group("room").sendToAll("back", { contentType: "text/plain" });
  await client.got("back");
});

test("hard names of users and groups work in paths", async (t) => {
  const hub = newHub();
  const rest = service(hub, B);
  for (const name of [HARD_NAME, ":send", "a/../b", "%2F"]) {
    const client = await connect(t, hub, { user: name });
    assert.equal(await rest.userExists(name), true, name);
    await rest.group(name).addUser(name);
    await rest.sendToUser(name, "to the user", { contentType: "text/plain" });
    await rest.group(name).sendToAll("to the group", { contentType: "text/plain" });
    await client.got("to the group");
    assert.deepEqual(client.data, ["to the user", "to the group"], name);
    await client.stop();
  }
});

test("a generated token carries user, roles and groups", async (t) => {
  const hub = newHub();
  const query = "api-version=2024-12-01&userId=alice&role=webpubsub.sendToGroup&group=one&group=two&minutesToExpire=5&clientType=Default";
  const url = `${B}/api/hubs/${hub}/:generateToken?${query}`;
  const answer = await fetch(url, { method: "POST", headers: { authorization: `Bearer ${token({ aud: url, exp: inAnHour() })}` } });
  assert.equal(answer.status, 200);
  const body = await answer.json();
  const client = await connectTo(t, `${A.replace(/^http/, "ws")}/client/hubs/${hub}?access_token=${body.token}`);
  assert.equal(client.connected.items[0].userId, "alice");
  await client.sdk.sendToGroup("two", "by role and group", "text");
  await client.got("by role and group");
  await assert.rejects(client.sdk.joinGroup("three"), (error) => error.errorDetail?.name === "Forbidden");
});

test("REST with a wrong key or none is 401, and says so", async (t) => {
  const hub = newHub();
  await assert.rejects(service(hub, B, "another key, which is long enough too").sendToAll("x"), REST_ERROR(401));
  const bare = await fetch(`${B}/api/hubs/${hub}/:send?api-version=2024-12-01`, { method: "POST", body: "x" });
  assert.equal(bare.status, 401);
  const client = await service(hub, B).getClientAccessToken({ userId: "alice" });
  const borrowed = await fetch(`${B}/api/hubs/${hub}/:send?api-version=2024-12-01`, {
    method: "POST",
    headers: { authorization: `Bearer ${client.token}`, "content-type": "text/plain" },
    body: "x",
  });
  assert.equal(borrowed.status, 401, "a client's token must not open REST");
  await t.test("the same error as JSON, and in a header", async () => {
    const body = await bare.json();
    assert.equal(typeof body.code, "string");
    assert.equal(typeof body.message, "string");
    assert.equal(bare.headers.get("x-ms-error-code"), body.code);
  });
});
