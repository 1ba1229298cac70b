// A node that is killed by SIGKILL while the official client is connected to it: the client goes on at another node, which takes its
// connection from the store, and misses nothing. What it had not acknowledged may come again, with new numbers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { connect, newHub } from "./clients.js";
import { proxyTo } from "./proxy.js";

const { TIELINE_MORTAL: mortal, TIELINE_MORTAL_PID: pid, TIELINE_HEIR: heir } = process.env;
const options = { skip: mortal ? false : "TIELINE_MORTAL is not set; tests/run-sdk.sh does that" };

/** A dead node is believed to live for 15 seconds, and the client comes again for 30. */
const PATIENCE_MS = 45_000;

/** Looks again and again until something is so. */
async function until(what, isSo) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    assert.ok(Date.now() < deadline, `never: ${what}`);
    await pause(50);
  }
}

async function metric(node, name) {
  const text = await (await fetch(`${node}/metrics`)).text();
  return Number(text.match(new RegExp(`^tieline_${name} (\\d+)$`, "m"))[1]);
}

test("reliable: a subscriber whose node is killed goes on at another one and misses nothing", options, async (t) => {
  const hub = newHub();
  const proxy = await proxyTo(mortal);
  const reader = await connect(t, hub, { node: proxy.url, user: "reader" });
  const writer = await connect(t, hub, { node: heir, user: "writer" });
  await reader.sdk.joinGroup("kept");
  const { id } = reader;
  const numbers = Array.from({ length: 300 }, (_, i) => i);
  for (const n of numbers.slice(0, 100)) await writer.sdk.sendToGroup("kept", n, "json");
  await reader.got(99);
  // The client acknowledges once a second; its node writes that down once a second.
  await until("it is written down", async () => (await metric(mortal, "checkpoints_written_total")) >= 1);
  for (const n of numbers.slice(100, 200)) await writer.sdk.sendToGroup("kept", n, "json");
  process.kill(Number(pid), "SIGKILL");
  proxy.lead(heir);
  for (const n of numbers.slice(200)) await writer.sdk.sendToGroup("kept", n, "json");
  await until("everything comes", () => new Set(reader.data).size === numbers.length);
  assert.deepEqual([...new Set(reader.data)], numbers, "the first time that each comes is in order");
  const ids = reader.messages.items.map((m) => m.sequenceId);
  assert.ok(ids.every((sequence, i) => i === 0 || sequence > ids[i - 1]), "sequence ids rise strictly");
  assert.equal(ids.findLast(() => true) > 2 ** 32, true);
  assert.equal(reader.connected.items.length, 1, "a recovery is not a new connection");
  assert.equal(reader.disconnected.items.length, 0);
  assert.equal(reader.id, id);
  assert.equal(await metric(heir, "resumed_total"), 1);
  // It may still do what it could.
  await reader.sdk.joinGroup("kept after");
  await writer.sdk.sendToGroup("kept after", "here", "text");
  await reader.got("here");
});
