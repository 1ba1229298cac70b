// Nodes as processes of their own: the binary that TIELINE_BINARY names, on free ports of this machine.

import { spawn, execFileSync } from "node:child_process";

const BINARY = process.env.TIELINE_BINARY;

// Our own variables are no settings, which a node refuses.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TIELINE_")));

const running = new Set();

// Starts a node and waits until it says where it listens.
export async function start(name, ...args) {
  const child = spawn(BINARY, ["serve", "--node", name, "--listen", "127.0.0.1:0", ...args], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  running.add(child);
  const ended = new Promise((done) => child.once("exit", done));
  let text = "";
  const expects = args.includes("--peer-listen") ? /listening on (\S+)[^]*peers on (\S+)\n/ : /listening on (\S+)\n/;
  const found = await new Promise((done, fail) => {
    child.stdout.setEncoding("utf8").on("data", (more) => {
      text += more;
      const match = text.match(expects);
      if (match) done(match);
    });
    ended.then(() => fail(new Error(`${name} ended: ${text}`)));
  });
  return {
    name,
    url: found[1],
    peers: found[2],
    // Keeps it from running; its sockets stay open.
    freeze: () => child.kill("SIGSTOP"),
    // Ends it without a word.
    async kill() {
      child.kill("SIGKILL");
      await ended;
      running.delete(child);
    },
  };
}

// Two nodes of one cluster, the second one told of the first.
export async function startTwo(...args) {
  const first = await start("node-a", "--broker", "mesh://", "--peer-listen", "127.0.0.1:0", ...args);
  const second = await start("node-b", "--broker", `mesh://${first.peers}`, "--peer-listen", "127.0.0.1:0", ...args);
  const deadline = Date.now() + 20_000;
  for (const node of [first, second]) {
    while (!(await (await fetch(`${node.url}/demo/nodes`)).text()).match(/node-a[^]*node-b|node-b[^]*node-a/)) {
      if (Date.now() > deadline) throw new Error(`${node.name} does not learn of the other`);
    }
  }
  return [first, second];
}

export function token(key, ...args) {
  return execFileSync(BINARY, ["token", "--access-key", key, ...args], { env, encoding: "utf8" }).trim();
}

export function killAll() {
  for (const child of running) child.kill("SIGKILL");
}
