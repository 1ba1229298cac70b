// Inboxes: a user who is away gets what was sent on connecting, and not again what was acknowledged. The node is one by itself,
// with a store and `[inbox]`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, connectTo, inAnHour, newHub, service, token } from "./clients.js";

const node = process.env.TIELINE_INBOX;
const options = { skip: node ? false : "TIELINE_INBOX is not set; tests/run-sdk.sh does that" };

const NUMBERS = Array.from({ length: 300 }, (_, i) => i);

/** A client of a device of a user, by a token that the SDK cannot be made to sign. */
const onDevice = (t, hub, protocol, device) => {
  const jwt = token({ aud: `${node}/client/hubs/${hub}`, sub: "bob", exp: inAnHour(), device });
  return connectTo(t, `${node.replace("http", "ws")}/client/hubs/${hub}?access_token=${jwt}`, { protocol });
};

/** Connects again and again until a client is given nothing that was sent before. */
async function untilRead(t, hub, old, connectAgain) {
  const deadline = Date.now() + 10_000;
  for (let fence = 0; ; fence++) {
    const client = await connectAgain();
    await service(hub, node).sendToUser("bob", { fence });
    await client.got({ fence });
    const again = client.data.filter((data) => old.includes(data));
    await client.stop();
    if (again.length === 0) return;
    assert.ok(Date.now() < deadline, `${again} came again`);
  }
}

for (const protocol of ["reliable", "plain"]) {
  test(`${protocol}: a user who was away gets the inbox on connecting, and then what follows`, options, async (t) => {
    const hub = newHub();
    for (const n of NUMBERS) await service(hub, node).sendToUser("bob", n);
    const bob = await connect(t, hub, { node, protocol, user: "bob" });
    await bob.got(NUMBERS.at(-1));
    await service(hub, node).sendToUser("bob", 300);
    await bob.got(300);
    assert.deepEqual(bob.data, [...NUMBERS, 300]);
  });

  test(`${protocol}: what was read does not come again, to whatever connection of the user`, options, async (t) => {
    const hub = newHub();
    const old = [1, 2, 3];
    for (const n of old) await service(hub, node).sendToUser("bob", n);
    const bob = await connect(t, hub, { node, protocol, user: "bob" });
    await bob.got(3);
    // The client acknowledges once a second, and its WebSocket answers pings by itself.
    await untilRead(t, hub, old, () => connect(t, hub, { node, protocol, user: "bob" }));
  });

  test(`${protocol}: each device reads for itself`, options, async (t) => {
    const hub = newHub();
    await service(hub, node).sendToUser("bob", 1);
    const phone = await onDevice(t, hub, protocol, "phone");
    await phone.got(1);
    await untilRead(t, hub, [1], () => onDevice(t, hub, protocol, "phone"));
    const tablet = await onDevice(t, hub, protocol, "tablet");
    await tablet.got(1);
    assert.equal(tablet.data[0], 1);
  });
}
