// Upstream events: Microsoft's handler for express, as it is published, takes what the nodes send; clients are those of the SDK.
//
// The nodes are set up for one hub, whose events go to the address TIELINE_UPSTREAM. The handler is called as express would call
// it; express itself is not needed for that.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { WebPubSubEventHandler } from "@azure/web-pubsub-express";
import { A, B, Client, Inbox, PROTOCOLS, connect, inAnHour, service, token } from "./clients.js";

const HUB = "upstream";
const address = process.env.TIELINE_UPSTREAM;
const options = { skip: address ? false : "TIELINE_UPSTREAM is not set; tests/run-sdk.sh does that" };

/** What the handler was told. */
const connected = new Inbox();
const disconnected = new Inbox();
/** What it does now. */
let decide = (_, res) => res.success();
let answer = (_, res) => res.success();

const nodes = [A, B];
const handler = new WebPubSubEventHandler(HUB, {
  allowedEndpoints: nodes,
  handleConnect: (req, res) => decide(req, res),
  handleUserEvent: (req, res) => answer(req, res),
  onConnected: (req) => connected.push(req),
  onDisconnected: (req) => disconnected.push(req),
});
const middleware = handler.getMiddleware();
const server = createServer((req, res) => {
  req.baseUrl = "";
  req.path = new URL(req.url, "http://h").pathname;
  middleware(req, res, () => {
    res.statusCode = 500;
    res.end("not for this handler");
  });
});

before(async () => {
  if (!address) return;
  const { hostname, port } = new URL(address);
  await new Promise((resolve) => server.listen(Number(port), hostname, resolve));
});
after(() => server.close());

/** Lets the test say who connects, and what becomes of events; afterwards everybody may. */
function script(t, { onConnect, onEvent }) {
  if (onConnect) decide = onConnect;
  if (onEvent) answer = onEvent;
  t.after(() => {
    decide = (_, res) => res.success();
    answer = (_, res) => res.success();
  });
}

function checkContext(context, client, event) {
  assert.equal(context.hub, HUB);
  assert.equal(context.connectionId, client.id);
  assert.equal(context.eventName, event);
  assert.ok(nodes.some((node) => new URL(node).host === context.origin), context.origin);
  const hmac = createHmac("sha256", process.env.TIELINE_KEY).update(client.id).digest("hex");
  assert.ok(context.signature.split(",").includes(`sha256=${hmac}`), "it is signed");
}

for (const [protocol, node] of [["plain", A], ["reliable", B]]) {
  test(`${protocol}: the handler names user, groups, roles and state, and hears of the connection`, options, async (t) => {
    let asked;
    script(t, {
      onConnect: (req, res) => {
        asked = req;
        res.setState("visits", 1);
        res.success({ userId: "bob", groups: ["room"], roles: ["webpubsub.sendToGroup.room"] });
      },
    });
    const client = await connect(t, HUB, { protocol, node, user: "alice", roles: [] });
    assert.equal(client.connected.items[0].userId, "bob");
    checkContext(asked.context, client, "connect");
    assert.equal(asked.context.userId, "alice");
    assert.deepEqual(asked.claims.sub, ["alice"]);
    assert.deepEqual(asked.subprotocols, [PROTOCOLS[protocol]().name]);
    assert.ok(asked.headers.host && asked.queries && asked.clientCertificates.length === 0);
    await client.sdk.sendToGroup("room", "to the room", "text");
    await client.got("to the room");
    const told = await connected.find((req) => req.context.connectionId === client.id);
    checkContext(told.context, client, "connected");
    assert.deepEqual([told.context.userId, told.context.states], ["bob", { visits: 1 }]);
    await client.stop();
    const end = await disconnected.find((req) => req.context.connectionId === client.id);
    checkContext(end.context, client, "disconnected");
    assert.ok(end.reason);
    assert.deepEqual(end.context.states, { visits: 1 });
  });

  test(`${protocol}: events are answered, in their order, and change the state`, options, async (t) => {
    const asked = [];
    script(t, {
      onEvent: (req, res) => {
        // The handler's own object changes with `setState`.
        const count = req.context.states.count ?? 0;
        asked.push({ ...req, count });
        res.setState("count", count + 1);
        if (req.context.eventName === "silent") return res.success();
        const data = req.dataType === "json" ? JSON.stringify({ echo: req.data }) : req.data;
        res.success(data, req.dataType);
      },
    });
    const client = await connect(t, HUB, { protocol, node, user: "carol" });
    await Promise.all([
      client.sdk.sendEvent("echo", "hi ü", "text"),
      client.sdk.sendEvent("silent", "", "text"),
      client.sdk.sendEvent("echo", { a: 1 }, "json"),
      client.sdk.sendEvent("echo", new Uint8Array([0, 255]).buffer, "binary"),
    ]);
    await client.messages.count(3);
    assert.deepEqual(client.data, ["hi ü", { echo: { a: 1 } }, [0, 255]]);
    assert.deepEqual(asked.map((req) => req.dataType), ["text", "text", "json", "binary"]);
    assert.deepEqual(asked.map((req) => req.count), [0, 1, 2, 3]);
    checkContext(asked[0].context, client, "echo");
    assert.equal(asked[0].context.userId, "carol");
  });

  test(`${protocol}: what the handler fails is an error of that event, and the connection goes on`, options, async (t) => {
    script(t, { onEvent: (req, res) => (req.data === "bad" ? res.fail(400, "no such thing") : res.success()) });
    const client = await connect(t, HUB, { protocol, node });
    await assert.rejects(client.sdk.sendEvent("e", "bad", "text"), (error) => {
      assert.deepEqual([error.errorDetail.name, error.errorDetail.message], ["RefusedByHandler", "no such thing"]);
      return true;
    });
    await client.sdk.sendEvent("e", "good", "text");
  });
}

test("whom the handler refuses gets its status", options, async (t) => {
  script(t, { onConnect: (_, res) => res.fail(401, "not today") });
  const { url } = await service(HUB).getClientAccessToken({ userId: "mallory" });
  const client = new Client(url, { protocol: PROTOCOLS.plain() });
  await assert.rejects(client.sdk.start(), /401/);
});

test("a call of the client is answered by the handler", options, async (t) => {
  script(t, { onEvent: (req, res) => res.success(`${req.context.eventName}: ${req.data}`, "text") });
  const client = await connect(t, HUB, {});
  const result = await client.sdk.invokeEvent("ask", "what", "text");
  assert.equal(result.data, "ask: what");
});
