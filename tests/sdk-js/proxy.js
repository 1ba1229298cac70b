// A TCP proxy that can do what networks do: cut connections without a word, refuse new ones, swallow answers.

import { once } from "node:events";
import { connect as dial, createServer } from "node:net";

/**
 * Starts a proxy to the node at `url`, or wherever it is led later; `url` of the result is what clients are given. It ends with the process and not
 * with the test, because the clients that a test stops at its end must not find it gone.
 */
export async function proxyTo(url) {
  let goal = new URL(url);
  const pairs = new Set();
  let refusing = false;
  let muted = false;

  const server = createServer((near) => {
    if (refusing) return near.resetAndDestroy();
    const far = dial(Number(goal.port), goal.hostname);
    const pair = { near, far };
    pairs.add(pair);
    for (const socket of [near, far]) {
      socket.setNoDelay(true);
      // Ends, cleanly or not, are passed on by destroying the other side.
      socket.on("error", () => {});
      socket.on("close", () => {
        pairs.delete(pair);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far);
    far.on("data", (chunk) => muted || near.write(chunk));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");

  /** Resets every connection, on both sides, whatever is on its way; returns how many there were. */
  const cut = () => {
    const present = [...pairs];
    for (const { near, far } of present) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
    return present.length;
  };
  /** Leads new connections to another node. */
  const lead = (to) => (goal = new URL(to));
  return { url: `http://127.0.0.1:${server.address().port}`, cut, lead, refuse: (on) => (refusing = on), mute: (on) => (muted = on) };
}
