// The demo page's script: a client of tieline.v1 with nothing between it and the browser's WebSocket.
//
// Who is on: every page says so in a group of its own every few seconds, and forgets those it has not heard for longer than a
// cluster's lease. Where to go when the node is gone: only the node that served the page is asked for the others, because what
// people say in messages is not to be trusted with a token; the answer is remembered.
// Everything that came from somebody else becomes text by textContent, never markup.
"use strict";

const HUB = "demo";
const PEOPLE = "demo:people"; // the group in which pages say that they are there
const STORED = "tieline-demo";

const BEAT_MS = 5_000;
const LEASE_MS = 15_000;
const CONNECT_MS = 4_000; // an attempt that takes longer is given up for the next node
const SILENCE_MS = 8_000; // a ping without an answer for so long: the node is gone, though nobody said so
const SILENT = 0; // in place of a close code: the node said nothing any more
const NODES_MS = 10_000;
const MOST_PAUSE_MS = 5_000;
const REMEMBERED_MS = 3_600_000; // a node takes back its former pages for as long

const MOST_PEOPLE = 500;
const MOST_NODES = 64;
const MOST_LINES = 300;
const MOST_TEXT = 4_000;

// Codes after which coming back would do no good, with what to say.
const FINAL = new Map([
  [1000, "The connection was closed."],
  [1003, "The server did not understand this page."],
  [1008, "The server closed the connection for good."],
  [4400, "The server did not understand this page."],
  [4401, "Your token has expired."],
  [4403, "You were removed from this server."],
  [4409, "You are connected somewhere else."],
]);

const $ = (id) => document.getElementById(id);
const page = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);

const stored = recall();
let nodes = stored.nodes; // { name, incarnation, url, seen }, the one that served the page first
let groups = new Set(stored.groups);
let me = null; // { name, token } once the door was passed
let link = null; // the connection, from the first attempt to its end
let node = ""; // the name of the node that the page is connected to
const seen = new Map(); // the last position of each group's log, and under "" of the inbox
let lastAck = 0;
const waiting = new Map(); // what is told when an ack comes, by its number
const people = new Map(); // { name, page, node, heard } by user and page

// ---- what is remembered ----

function recall() {
  const nothing = { name: "", groups: [], nodes: [] };
  try {
    const found = JSON.parse(localStorage.getItem(STORED)) ?? {};
    const isText = (text) => typeof text === "string";
    const isNode = (node) => node && isText(node.name) && isText(node.url) && node.seen > Date.now() - REMEMBERED_MS;
    return {
      name: isText(found.name) ? found.name : "",
      groups: Array.isArray(found.groups) ? found.groups.filter(isText).slice(0, 50) : [],
      nodes: Array.isArray(found.nodes) ? found.nodes.filter(isNode).slice(0, MOST_NODES) : [],
    };
  } catch {
    return nothing; // storage may be forbidden, or hold what an older page wrote
  }
}

function remember() {
  const name = me && !me.token ? me.name : stored.name;
  try {
    localStorage.setItem(STORED, JSON.stringify({ name, groups: [...groups], nodes }));
  } catch {
    // Then the next visit begins afresh.
  }
}

// ---- nodes ----

const isSafe = location.protocol === "https:";
const ownUrl = `${isSafe ? "wss" : "ws"}://${location.host}`;

// A page that came over TLS may open nothing else.
function toSocketUrl(url) {
  const parsed = new URL(url);
  const safe = isSafe || ["https:", "wss:"].includes(parsed.protocol);
  return `${safe ? "wss" : "ws"}://${parsed.host}`;
}

// The pages of the other nodes, for whoever has nobody to write to yet.
function showElsewhere() {
  const parts = [];
  const others = nodes.filter((node) => node.url !== ownUrl).sort((a, b) => a.name.localeCompare(b.name));
  for (const { name, url } of others) {
    const at = element("a", "", name);
    at.href = `${url.replace("ws", "http")}/`;
    at.target = "_blank";
    at.rel = "noopener";
    parts.push(parts.length ? ", " : ", best on another node: ", at);
  }
  $("elsewhere").replaceChildren(...parts);
}

// Asks the node that served this page for the others. Returns whether a token is needed, or null when it does not answer.
async function learnNodes() {
  try {
    const answer = await fetch("/demo/nodes", { cache: "no-store", signal: AbortSignal.timeout(CONNECT_MS) });
    if (!answer.ok) return null;
    const found = await answer.json();
    const now = Date.now();
    const fresh = found.nodes
      .filter((node) => node.self || node.clientUrl)
      .map((node) => ({
        name: node.name,
        incarnation: node.incarnation,
        url: node.self ? ownUrl : toSocketUrl(node.clientUrl),
        seen: now,
      }));
    const known = new Set(fresh.map((node) => node.url));
    const gone = nodes.filter((node) => !known.has(node.url) && node.seen > now - REMEMBERED_MS);
    nodes = [...fresh, ...gone].slice(0, MOST_NODES);
    if (link?.id) showNode();
    showElsewhere();
    remember();
    return !found.anonymous;
  } catch {
    return null;
  }
}

function candidates() {
  return [...new Set([ownUrl, ...nodes.map((node) => node.url)])];
}

// A connection's id begins with the incarnation of its node: eight bytes.
function nodeOf(id, url) {
  let incarnation = "";
  try {
    const bytes = atob(id.slice(0, 12).replaceAll("-", "+").replaceAll("_", "/"));
    incarnation = [...bytes].slice(0, 8).map((byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join("");
  } catch {
    // Another server's ids may be anything.
  }
  const found = nodes.find((node) => node.incarnation === incarnation) ?? nodes.find((node) => node.url === url);
  return found?.name ?? new URL(url).host;
}

function showNode() {
  const before = node;
  node = nodeOf(link.id, link.url);
  showStatus("on", `on ${node}`);
  if (before && before !== node) addEvent(`You are on ${node} now; ${before} is gone.`);
  if (before !== node) {
    beat();
    showPeople();
  }
}

// ---- the connection ----

// Seeks a node until one answers, beginning with the one at `first`. A first visit gives up after each was tried once.
async function seek(first, isFirstVisit) {
  const seeking = {};
  link = seeking;
  for (let round = 0; ; round += 1) {
    const urls = candidates();
    const start = Math.max(0, urls.indexOf(first));
    for (let i = 0; i < urls.length; i += 1) {
      const url = urls[(start + i) % urls.length];
      const name = nodes.find((node) => node.url === url)?.name ?? new URL(url).host;
      showStatus("seeking", `trying ${name} …`);
      const opened = await open(url);
      if (link !== seeking) {
        opened?.socket.close();
        return;
      }
      if (opened) return arrive(opened, url);
    }
    if (isFirstVisit) {
      const reason = me.token ? "No node let you in. Is the token right, for the hub “demo”, and not expired?" : "No node answers.";
      return leave(reason);
    }
    await pause(Math.min(MOST_PAUSE_MS, 250 * 2 ** round) * (0.5 + Math.random() / 2));
    if (link !== seeking) return;
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Opens a socket and waits for the server's first words. Null when there are none in time.
function open(url) {
  const who = me.token ? `access_token=${encodeURIComponent(me.token)}` : `user=${encodeURIComponent(me.name)}`;
  return new Promise((done) => {
    let socket;
    try {
      socket = new WebSocket(`${url}/client/hubs/${HUB}?${who}`, "tieline.v1");
    } catch {
      return done(null); // the browser forbids this address
    }
    const give = (opened) => {
      clearTimeout(timer);
      socket.onmessage = socket.onclose = null;
      if (!opened) socket.close();
      done(opened);
    };
    const timer = setTimeout(() => give(null), CONNECT_MS);
    socket.onclose = () => give(null);
    socket.onmessage = ({ data }) => {
      const frame = parse(data);
      if (frame?.type === "system" && frame.event === "connected") give({ socket, connected: frame });
    };
  });
}

function arrive({ socket, connected }, url) {
  link = { socket, url, id: connected.connectionId, pinged: 0, heard: Date.now() };
  const mine = link;
  me.name = connected.userId ?? "";
  socket.onmessage = ({ data }) => {
    if (link !== mine) return;
    mine.heard = Date.now();
    take(parse(data));
  };
  socket.onclose = ({ code }) => {
    if (link === mine) lost(code);
  };
  $("door").hidden = true;
  if ($("hall").hidden) {
    $("hall").hidden = false;
    $("panel").open = matchMedia("(min-width: 48rem)").matches;
    $("text").focus();
  }
  showStatus("on", "on …");
  ask({ type: "joinGroup", group: PEOPLE }, (ack) => {
    if (ack.success) tell({ ask: true });
    else addEvent(`Who else is on cannot be seen: ${reasonOf(ack)}`);
  });
  const inbox = seen.get("");
  ask({ type: "hello", ...(inbox && { inbox }) }, (ack) => noteEnd("", ack));
  groups.forEach(join);
  showNode();
  showTargets();
  showPeople();
  remember();
}

// The connection is gone; what was not acknowledged may have arrived or not.
function lost(code) {
  for (const done of waiting.values()) done(null);
  waiting.clear();
  const url = link?.url;
  if (FINAL.has(code)) return leave(FINAL.get(code));
  // One that stops or keeps silent will not take anybody; one that was only cut may.
  const urls = candidates();
  const isLeaving = code === 1001 || code === 4503 || code === SILENT;
  const first = isLeaving ? urls[(urls.indexOf(url) + 1) % urls.length] : url;
  const wait = code === 1013 || code === 4429 ? MOST_PAUSE_MS : 0;
  showStatus("seeking", `${node || "the node"} is gone`);
  const waits = {};
  link = waits;
  pause(wait).then(() => link === waits && seek(first, false));
}

// Back to the door, with a word about why.
function leave(why) {
  link = null;
  node = "";
  people.clear();
  showStatus("away", "Not connected");
  $("hall").hidden = true;
  $("door").hidden = false;
  $("enter").disabled = false;
  showDoor(why);
}

function say(frame) {
  if (link?.socket?.readyState !== WebSocket.OPEN) return false;
  link.socket.send(JSON.stringify(frame));
  return true;
}

// Sends a request; `done` is given the ack, or null when it is not known what became of it.
function ask(frame, done) {
  lastAck += 1;
  waiting.set(lastAck, done);
  if (!say({ ...frame, ackId: lastAck })) {
    waiting.delete(lastAck);
    done(null);
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

const reasonOf = (ack) => ack?.error?.message ?? "the connection was lost";

// Where the page is in a log, if the node keeps one, so that it misses nothing when it comes back.
function noteEnd(log, ack) {
  if (ack?.position) seen.set(log, ack.position);
  if (ack?.recovered === false && ack.reason !== "no-history") {
    addEvent(`What was sent ${log ? `to ${log} ` : ""}meanwhile is not kept any more.`);
  }
}

function notePlace({ from, group, position }) {
  if (!position) return;
  seen.set(from === "group" ? group : "", position);
  if (from !== "group") say({ type: "inboxAck", offset: position.offset });
}

function take(frame) {
  if (frame?.type === "ack") {
    const done = waiting.get(frame.ackId);
    waiting.delete(frame.ackId);
    done?.(frame);
  } else if (frame?.type === "message") {
    notePlace(frame);
    if (frame.from === "group" && frame.group === PEOPLE) hearOf(frame);
    else addMessage(frame);
  } else if (frame?.type === "system" && frame.event === "gap") {
    addEvent("Messages from another node may have been missed.");
  }
}

// ---- who is on ----

function tell(data) {
  say({ type: "sendToGroup", group: PEOPLE, noEcho: true, dataType: "json", data: { page, node, ...data } });
}

let lastBeat = 0;
function beat() {
  lastBeat = Date.now();
  tell({});
}

function hearOf({ fromUserId, data }) {
  if (!data || typeof data.page !== "string" || typeof data.node !== "string") return;
  const name = fromUserId ?? "";
  const key = JSON.stringify([name, data.page.slice(0, 64)]);
  if (data.bye) people.delete(key);
  else if (people.has(key) || people.size < MOST_PEOPLE) {
    people.set(key, { name, node: data.node.slice(0, 128), heard: Date.now() });
  }
  // Timers of a hidden page hardly run, but messages come: others' signs of life keep its own going.
  if (data.ask || Date.now() - lastBeat >= BEAT_MS) beat();
  showPeople();
}

function look() {
  if (!link?.socket) return;
  const now = Date.now();
  for (const [key, person] of people) {
    if (now - person.heard > LEASE_MS) people.delete(key);
  }
  showPeople();
  if (now - lastBeat >= BEAT_MS) {
    beat();
    if (link.heard >= link.pinged && say({ type: "ping" })) link.pinged = now;
  }
  if (link.heard < link.pinged && now - link.pinged > SILENCE_MS) {
    link.socket.onclose = null;
    link.socket.close();
    lost(SILENT);
  }
}

// ---- what is shown ----

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
}

function showDoor(why) {
  $("door-error").hidden = !why;
  $("door-error").textContent = why ?? "";
}

const nameOf = (name) => name || "somebody without a name";

let shownPeople = "";
function showPeople() {
  const others = [...people.values()].sort((a, b) => a.name.localeCompare(b.name) || a.node.localeCompare(b.node));
  const shown = JSON.stringify([me?.name, node, others.map(({ name, node }) => [name, node])]);
  if (shown === shownPeople) return;
  shownPeople = shown;
  const held = document.activeElement?.dataset?.user;
  const count = new Set([me?.name, ...others.map((person) => person.name)]).size;
  const nodesOn = new Set([node, ...others.map((person) => person.node)]).size;
  $("people-count").textContent =
    count === 1 ? "Nobody else is on" : `${count} people on ${nodesOn} ${nodesOn === 1 ? "node" : "nodes"}`;
  const self = element("li");
  const row = element("div", "self");
  row.append(element("span", "who", `${nameOf(me?.name)} (you)`), element("span", "node", node));
  self.append(row);
  const rows = others.map((person) => {
    const item = element("li");
    const button = element("button");
    button.type = "button";
    button.dataset.user = person.name;
    button.append(element("span", "unseen", "Write to "), element("span", "who", nameOf(person.name)), element("span", "node", person.node));
    button.disabled = !person.name;
    button.onclick = () => {
      $("target").value = `user:${person.name}`;
      if (!matchMedia("(min-width: 48rem)").matches) $("panel").open = false;
      $("text").focus();
    };
    item.append(button);
    return item;
  });
  $("people").replaceChildren(self, ...rows);
  if (held !== undefined) [...$("people").querySelectorAll("button")].find((button) => button.dataset.user === held)?.focus();
  showTargets();
}

function showTargets() {
  const names = new Set([...people.values()].map((person) => person.name).filter(Boolean));
  const chosen = $("target").value || "all";
  // Somebody who has just left may still be written to, and the ack will say that nobody is there.
  if (chosen.startsWith("user:")) names.add(chosen.slice(5));
  const option = (value, text) => {
    const made = element("option", "", text);
    made.value = value;
    return made;
  };
  const section = (title, options) => {
    const made = element("optgroup");
    made.label = title;
    made.append(...options);
    return made;
  };
  const parts = [option("all", "everybody")];
  if (groups.size) parts.push(section("Groups", [...groups].sort().map((name) => option(`group:${name}`, `group ${name}`))));
  if (names.size) parts.push(section("People", [...names].sort().map((name) => option(`user:${name}`, name))));
  $("target").replaceChildren(...parts);
  $("target").value = chosen;
  if ($("target").selectedIndex < 0) $("target").value = "all";
}

function showGroups() {
  const rows = [...groups].sort().map((name) => {
    const item = element("li");
    const button = element("button", "", "Leave");
    button.type = "button";
    button.setAttribute("aria-label", `Leave ${name}`);
    button.onclick = () => {
      ask({ type: "leaveGroup", group: name }, () => {});
      groups.delete(name);
      seen.delete(name);
      remember();
      showGroups();
      $("group").focus();
    };
    item.append(element("span", "", name), button);
    return item;
  });
  $("groups").replaceChildren(...(rows.length ? rows : [element("li", "none", "None yet")]));
  showTargets();
}

function join(name) {
  const since = seen.get(name);
  ask({ type: "joinGroup", group: name, ...(since && { since }) }, (ack) => {
    noteEnd(name, ack);
    if (!ack || ack.success) return; // when the connection was lost it is tried again with the next one
    groups.delete(name);
    remember();
    showGroups();
    addEvent(`You are not in ${name}: ${reasonOf(ack)}`);
  });
}

function addLine(line) {
  const log = $("log");
  log.append(line);
  while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
  $("empty").hidden = true;
  if (wasAtEnd || line.classList.contains("own")) log.scrollTop = log.scrollHeight;
}

function addEvent(text) {
  addLine(element("li", "event", text));
}

function line(from, to, time, text, className) {
  const made = element("li", `message ${className}`);
  const head = element("p", "head");
  const at = element("time", "", time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  at.dateTime = time.toISOString();
  head.append(element("span", "from", from), element("span", "", to), at);
  made.append(head, element("p", "body", text));
  return made;
}

function textOf({ dataType, data }) {
  const text = dataType === "json" ? JSON.stringify(data) : String(data);
  if (dataType === "binary") return `(${Math.floor((text.length * 3) / 4)} bytes)`;
  return text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)} …` : text;
}

function addMessage(frame) {
  const to = frame.from === "group" ? `to group ${frame.group}` : frame.from === "user" ? "to you" : "to everybody";
  const time = new Date(frame.time);
  addLine(line(frame.fromUserId ?? "the server", to, isNaN(time) ? new Date() : time, textOf(frame), "theirs"));
}

function send(target, text) {
  const name = target.slice(target.indexOf(":") + 1);
  const [frame, to] = target.startsWith("group:")
    ? [{ type: "sendToGroup", group: name }, `to group ${name}`]
    : target.startsWith("user:")
      ? [{ type: "sendToUser", user: name }, `to ${name}`]
      : [{ type: "sendToAll" }, "to everybody"];
  const shown = line("you", to, new Date(), text, "own");
  const fate = element("p", "fate", "sending …");
  shown.append(fate);
  addLine(shown);
  ask({ ...frame, noEcho: true, dataType: "text", data: text }, (ack) => {
    shown.classList.toggle("failed", !ack?.success);
    fate.textContent = fateOf(ack);
  });
}

function fateOf(ack) {
  if (!ack) return "The connection was lost: it may have arrived or not.";
  if (!ack.success) return `Not sent: ${reasonOf(ack)}`;
  if (ack.delivered == null) return "Sent; one node did not say in time whom it reached.";
  if (ack.queued && !ack.delivered) return "Nobody of that name is on; it is kept until they come.";
  if (ack.delivered === 0) return ack.unknown ? "Nobody of that name is on." : "Nobody was there to get it.";
  return `Reached ${ack.delivered} ${ack.delivered === 1 ? "connection" : "connections"}.`;
}

// ---- what people do ----

$("door-form").onsubmit = (event) => {
  event.preventDefault();
  const token = $("token-field").hidden ? "" : $("token").value.trim();
  const name = $("name").value.trim();
  if (!token && !name) return showDoor($("token-field").hidden ? "Please say your name." : "Please paste a token.");
  me = { name, token };
  seen.clear();
  showDoor();
  $("enter").disabled = true;
  showGroups();
  seek(ownUrl, true);
};

$("group-form").onsubmit = (event) => {
  event.preventDefault();
  const name = $("group").value.trim();
  if (!name || name === PEOPLE) return;
  groups.add(name);
  join(name);
  $("group").value = "";
  remember();
  showGroups();
  $("target").value = `group:${name}`;
};

$("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (text.trim()) send($("target").value, text);
  $("text").value = "";
  $("text").focus();
};

// Whatever takes room from the messages, the newest stay in view.
let wasAtEnd = true;
$("log").addEventListener("scroll", ({ target }) => {
  wasAtEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 80;
});
new ResizeObserver(() => {
  if (wasAtEnd) $("log").scrollTop = $("log").scrollHeight;
}).observe($("log"));

addEventListener("pagehide", () => tell({ bye: true }));
setInterval(look, 1_000);
setInterval(learnNodes, NODES_MS);

(async () => {
  $("name").value = stored.name;
  $("enter").disabled = true;
  const needsToken = await learnNodes();
  $("enter").disabled = false;
  if (needsToken) {
    $("door-text").textContent = "Everybody who opens this page with a token, on any node of the cluster, can write to each other.";
    $("door-title").textContent = "A token, please";
    $("name-field").hidden = true;
    $("name").required = false;
    $("token-field").hidden = false;
    $("token").required = true;
  }
  $(needsToken ? "token" : "name").focus();
})();
