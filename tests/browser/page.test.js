// The demo page in a real Chromium: what people do with it, and what it does when a node dies.
//
// Nothing sleeps: each step waits, with a time limit, until the page shows what it should.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

import { killAll, start, startTwo, token } from "./cluster.js";

const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const PATIENCE = 40_000;
const PHONE = { viewport: { width: 320, height: 600 }, isMobile: true, hasTouch: true };
const HOSTILE = `<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>`;

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: process.env.TIELINE_CHROMIUM, args: ARGS });
});
after(async () => {
  await browser?.close();
  killAll();
});

// Opens the page and collects what goes wrong in it. That a dead node cannot be reached is no fault.
async function visit(url, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("console", (message) => {
    const isFault = message.type() === "error" && !/ERR_CONNECTION|WebSocket connection to|net::ERR/.test(message.text());
    if (isFault) page.faults.push(message.text());
  });
  await page.goto(url);
  return page;
}

async function enter(page, name) {
  await page.getByLabel("Your name").fill(name);
  await page.getByRole("button", { name: "Connect" }).click();
  await page.waitForSelector("#hall:not([hidden])");
}

const status = (page, text) => page.locator("#status", { hasText: text }).waitFor();
const person = (page, name, node) => page.locator(`#people button:has-text("${name}"):has(.node:text-is("${node}"))`);
const shown = (page, from, to, text) =>
  page.locator(".message", { hasText: text }).filter({ hasText: from }).filter({ hasText: to }).waitFor();

async function write(page, target, text) {
  await page.getByLabel("To", { exact: true }).selectOption(target);
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
}

async function joinGroup(page, name) {
  await page.locator("#panel").evaluate((panel) => (panel.open = true));
  await page.getByLabel("Name of a group to join").fill(name);
  await page.getByRole("button", { name: "Join" }).click();
  await page.getByRole("button", { name: `Leave ${name}` }).waitFor();
}

// Nothing reaches beyond the window's sides, and nothing can be scrolled there.
async function assertFits(page) {
  const outside = await page.evaluate(() => {
    const isOutside = (element) => {
      const { left, right, width } = element.getBoundingClientRect();
      return width > 1 && (left < 0 || right > innerWidth + 0.5);
    };
    const scrolls = (element) => element.scrollWidth > element.clientWidth && getComputedStyle(element).overflowX === "auto";
    const found = [...document.querySelectorAll("html, body, body *:not(pre, pre *)")];
    return found.filter((element) => isOutside(element) || scrolls(element)).map((element) => element.outerHTML.slice(0, 100));
  });
  assert.deepEqual(outside, []);
}

describe("the demo page", { concurrency: true }, () => {
  test("two people on two nodes write to each other, and go on when a node is killed", async () => {
    const [first, second] = await startTwo();
    const alice = await visit(first.url, { viewport: { width: 1100, height: 700 } });
    // People say localhost where nodes say 127.0.0.1.
    const bob = await visit(second.url.replace("127.0.0.1", "localhost"), PHONE);
    await assertFits(bob);
    // A name as long as the page takes one, of one word, fits in as well.
    const long = await visit(first.url, PHONE);
    await enter(long, "n".repeat(40));
    await enter(alice, "alice");
    await enter(bob, "bob");
    await person(bob, "nnnn", "node-a").waitFor({ state: "attached" });
    await bob.locator("summary").click();
    await assertFits(bob);
    await assertFits(alice);
    await write(long, "all", "n".repeat(2000));
    await shown(bob, "nnnn", "to everybody", "nnnn");
    await assertFits(bob);
    await long.locator("summary").click();
    await assertFits(long);
    await long.close();
    await bob.locator("summary").click();
    await person(alice, "nnnn", "node-a").waitFor({ state: "detached" });
    await status(alice, "on node-a");
    await status(bob, "on node-b");
    await person(alice, "bob", "node-b").waitFor();
    await person(bob, "alice", "node-a").waitFor({ state: "attached" });

    await write(alice, "all", "hello to all");
    await shown(bob, "alice", "to everybody", "hello to all");
    await alice.locator(".own", { hasText: "Reached 1 connection." }).waitFor();
    await person(alice, "bob", "node-b").click();
    assert.equal(await alice.locator("#target").inputValue(), "user:bob");
    await write(bob, "user:alice", HOSTILE);
    await shown(alice, "bob", "to you", HOSTILE);
    assert.equal(await alice.locator(".log img, .log script").count(), 0, "text stays text");
    assert.equal(await alice.title(), "tieline demo");
    await joinGroup(alice, "room");
    await joinGroup(bob, "room");
    await write(alice, "group:room", "hello to the room");
    await shown(bob, "alice", "to group room", "hello to the room");
    await write(bob, "all", "long".repeat(400));
    await shown(alice, "bob", "to everybody", "longlong");
    await assertFits(bob);

    // Somebody on the second node who never says goodbye, and will not come back.
    await bob.evaluate(
      (url) =>
        new Promise((done) => {
          const socket = new WebSocket(`${url}/client/hubs/demo?user=ghost`, "tieline.v1");
          const data = { page: "ghost", node: "node-b" };
          socket.onopen = () => {
            socket.send(JSON.stringify({ type: "sendToGroup", group: "demo:people", dataType: "json", data, ackId: 1 }));
          };
          socket.onmessage = (event) => event.data.includes('"ackId":1') && done();
        }),
      second.url.replace("http", "ws"),
    );
    await person(alice, "ghost", "node-b").waitFor();

    await second.kill();
    await status(bob, "on node-a");
    await person(alice, "bob", "node-a").waitFor();
    await bob.locator(".event", { hasText: "node-b is gone" }).waitFor();
    // Both ways, and he is in his group again.
    await write(bob, "user:alice", "still here");
    await shown(alice, "bob", "to you", "still here");
    await write(alice, "group:room", "good to hear");
    await shown(bob, "alice", "to group room", "good to hear");
    await person(alice, "ghost", "node-b").waitFor({ state: "detached" });
    await write(alice, "user:bob", "and nobody else");
    await shown(bob, "alice", "to you", "and nobody else");
    await assertFits(bob);

    // Who leaves is gone at once.
    await bob.close();
    await person(alice, "bob", "node-a").waitFor({ state: "detached", timeout: 5_000 });
    assert.deepEqual([...alice.faults, ...bob.faults], []);
    await first.kill();
    await status(alice, "trying");
  });

  test("where a token is needed the page says so and takes one", async () => {
    const key = "a-key-for-tests-that-is-long-enough-for-hs256";
    const node = await start("locked", "--access-key", key);
    const page = await visit(node.url, PHONE);
    await page.getByText("lets nobody in without a token").waitFor();
    assert.equal(await page.getByLabel("Your name").isVisible(), false);
    await assertFits(page);
    const connect = async (text) => {
      await page.getByLabel("Access token").fill(text);
      await page.getByRole("button", { name: "Connect" }).click();
    };
    await connect(token(key, "--hub", "another", "--user", "carol"));
    await page.getByRole("alert").filter({ hasText: "Is the token right" }).waitFor();
    await connect(token(key, "--hub", "demo", "--user", "carol", "--role", "webpubsub.joinLeaveGroup", "--role", "webpubsub.sendToGroup"));
    await status(page, "on locked");
    await page.locator("#people .self", { hasText: "carol (you)" }).waitFor({ state: "attached" });
    // The token does not let her do this, and she is told.
    await write(page, "all", "hello");
    await page.locator(".own.failed", { hasText: "Not sent" }).waitFor();
    assert.equal(await page.evaluate(() => JSON.stringify(localStorage).includes("eyJ")), false, "tokens are not kept");
    assert.deepEqual(page.faults, []);
  });

  test("a page that came over TLS opens nothing but TLS", async () => {
    const node = await start("behind");
    const page = await visit("about:blank");
    const incarnation = "00000000000000ff";
    const nodes = [
      { name: "behind", incarnation, self: true },
      { name: "other", incarnation, clientUrl: "ws://other.example:7800", self: false },
    ];
    // In place of a proxy that ends TLS.
    await page.route("https://demo.example/**", async (route) => {
      const { pathname } = new URL(route.request().url());
      if (pathname === "/demo/nodes") return route.fulfill({ json: { anonymous: true, nodes } });
      const answer = await fetch(`${node.url}${pathname}`);
      await route.fulfill({ headers: Object.fromEntries(answer.headers), body: await answer.text() });
    });
    // Nobody is there, so what the page asks of the browser is looked at.
    await page.addInitScript(() => {
      window.opened = [];
      window.WebSocket = class extends WebSocket {
        constructor(url, protocol) {
          window.opened.push(new URL(url).origin);
          super(url, protocol);
        }
      };
    });
    await page.goto("https://demo.example/");
    await page.getByLabel("Your name").fill("gina");
    await page.getByRole("button", { name: "Connect" }).click();
    await page.getByRole("alert").filter({ hasText: "No node answers" }).waitFor();
    assert.deepEqual(await page.evaluate(() => window.opened), ["wss://demo.example", "wss://other.example:7800"]);
    assert.deepEqual(page.faults, []);
  });

  test("a node that stands still is left although its sockets are open", async () => {
    const [first, second] = await startTwo();
    const page = await visit(second.url);
    await enter(page, "fred");
    await status(page, "on node-b");
    // It has to know where else to go.
    await page.waitForFunction(() => JSON.parse(localStorage.getItem("tieline-demo")).nodes.length === 2);
    second.freeze();
    await page.locator("#status", { hasText: "on node-a" }).waitFor({ timeout: 2 * PATIENCE });
    await write(page, "all", "to whom it may concern");
    // Whether anybody got it is known, or is said not to be known, while the other node is still waited for.
    await page.locator(".own:not(.failed) .fate", { hasText: /^(Nobody was there|Sent; one node did not say)/ }).waitFor();
    assert.deepEqual(page.faults, []);
  });
});

test("what is kept is not missed: a page whose node died, and somebody who was not there", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tieline-page-"));
  const config = join(folder, "node.toml");
  const kept = `store = "sqlite://${folder}/s.db"\n[inbox]\ncount = 9\n[[group]]\nmatch = "kept"\nhistory = { count = 9 }\n`;
  await writeFile(config, kept);
  try {
    const [first, second] = await startTwo("--config", config);
    const alice = await visit(`${first.url}/`);
    const bob = await visit(`${second.url}/`);
    await enter(alice, "alice");
    await enter(bob, "bob");
    for (const page of [alice, bob]) await joinGroup(page, "kept");
    await status(bob, "node-b");
    await write(alice, "group:kept", "one");
    await shown(bob, "alice", "kept", "one");
    await second.kill();
    for (const text of ["two", "three"]) await write(alice, "group:kept", text);
    await status(bob, "node-a");
    for (const text of ["two", "three"]) await shown(bob, "alice", "kept", text);
    assert.equal(await bob.locator(".message").count(), 3);

    await bob.close();
    const body = "while you were out";
    const headers = { "Content-Type": "text/plain" };
    const sent = await fetch(`${first.url}/api/hubs/demo/users/bob/:send`, { method: "POST", headers, body });
    assert.equal(sent.status, 202);
    const again = await visit(`${first.url}/`);
    await enter(again, "bob");
    await again.locator(".message", { hasText: body }).waitFor();
    assert.deepEqual([...alice.faults, ...bob.faults, ...again.faults], []);
  } finally {
    killAll();
    await rm(folder, { recursive: true });
  }
});
