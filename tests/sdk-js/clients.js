// What the cases are written with: the official clients, and a record of what reached them.
//
// The nodes are named by the environment, nothing is started here. Each test takes a hub of its own, so that no test
// sees another's messages. What must not happen is checked by a fence: a later message that must arrive, sent by the
// same sender; nothing waits for time to pass.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { AzureKeyCredential, WebPubSubServiceClient } from "@azure/web-pubsub";
import { WebPubSubClient, WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } from "@azure/web-pubsub-client";

const required = (name) => process.env[name] ?? assert.fail(`${name} is not set; tests/run-sdk.sh does that`);

/** The node most clients connect to. */
export const A = required("TIELINE_A");
/** Another node of the same cluster, or the same one. */
export const B = process.env.TIELINE_B || A;
const KEY = required("TIELINE_KEY");

/** How long anything may take to arrive. Nobody waits longer than it needs. */
const PATIENCE_MS = 10_000;

export const PROTOCOLS = { plain: WebPubSubJsonProtocol, reliable: WebPubSubJsonReliableProtocol };

/** A name that is hard on every place that splits, quotes or encodes. */
export const HARD_NAME = "a/b ?#%ü";

export const ALL_ROLES = ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"];

let hubs = 0;
/** A hub nobody else has. */
export const newHub = () => `h${process.pid}_${Date.now().toString(36)}_${++hubs}`;

/** The server SDK for a hub. It also makes client tokens, offline. */
export const service = (hub, node = A, key = KEY) =>
  new WebPubSubServiceClient(node, new AzureKeyCredential(key), hub, {
    allowInsecureConnection: true,
    // A retry would hide a server that fails now and then.
    retryOptions: { maxRetries: 0 },
  });

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token made by hand, for what the SDK cannot be made to say. */
export function token(claims, { key = KEY, header = { alg: "HS256", typ: "JWT" } } = {}) {
  const text = `${encode(header)}.${encode(claims)}`;
  const signature = header.alg === "none" ? "" : createHmac("sha256", key).update(text).digest("base64url");
  return `${text}.${signature}`;
}

export const inAnHour = () => Math.floor(Date.now() / 1000) + 3600;

/** A list of what arrived that can be waited on. */
export class Inbox {
  items = [];
  #waiting = new Set();

  push(item) {
    this.items.push(item);
    for (const look of this.#waiting) look();
  }

  /** Resolves with the first item, past or future, that `wanted` accepts. */
  find(wanted, what = "an item") {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = this.items.find(wanted);
        if (found !== undefined) settle(resolve, found);
      };
      const settle = (end, value) => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        end(value);
      };
      const give = () => settle(reject, new Error(`${what} did not come; there are: ${JSON.stringify(this.items).slice(0, 2000)}`));
      const timer = setTimeout(give, PATIENCE_MS);
      this.#waiting.add(look);
      look();
    });
  }

  /** Resolves when there are that many. */
  async count(n) {
    let last;
    await this.find(() => (last = this.items.length) >= n || undefined, `item ${n} (${last} came)`);
    return this.items;
  }
}

/** A client of the official SDK and what it has seen. */
export class Client {
  /** Group and server messages in the order of arrival, as {group?, from?, type, data}. */
  messages = new Inbox();
  connected = new Inbox();
  disconnected = new Inbox();
  stopped = new Inbox();
  rejoinFailed = new Inbox();

  constructor(url, options) {
    this.sdk = new WebPubSubClient(typeof url === "string" ? url : { getClientAccessUrl: url }, {
      // As quick as the protocol allows; the wire is the same.
      messageRetryOptions: { maxRetries: 0 },
      ...options,
    });
    const record = ({ message }) =>
      this.messages.push({
        group: message.group,
        from: message.fromUserId,
        type: message.dataType,
        data: message.data instanceof ArrayBuffer ? [...new Uint8Array(message.data)] : message.data,
        sequenceId: message.sequenceId,
      });
    this.sdk.on("group-message", record);
    this.sdk.on("server-message", record);
    this.sdk.on("connected", (e) => this.connected.push(e));
    this.sdk.on("disconnected", (e) => this.disconnected.push(e));
    this.sdk.on("stopped", (e) => this.stopped.push(e));
    this.sdk.on("rejoin-group-failed", (e) => this.rejoinFailed.push(e));
  }

  get id() {
    return this.connected.items.at(-1).connectionId;
  }

  get data() {
    return this.messages.items.map((message) => message.data);
  }

  /** Resolves when a message with this data is there. */
  got(data) {
    const text = JSON.stringify(data);
    return this.messages.find((message) => JSON.stringify(message.data) === text, `message ${text}`);
  }

  async stop() {
    this.sdk.stop();
    await this.stopped.find(() => true, "the end of the client");
  }
}

/**
 * Connects a client with a token that the server SDK made, and stops it when the test `t` ends.
 * `node` is whom it connects to, `protocol` one of PROTOCOLS, `sdk` more options for the client.
 */
export async function connect(t, hub, options = {}) {
  const { node = A, protocol = "reliable", user, roles = ALL_ROLES, groups, sdk } = options;
  const { url } = await service(hub, node).getClientAccessToken({ userId: user, roles, groups });
  return connectTo(t, url, { protocol, sdk });
}

/** The same with a URL that is already there. */
export async function connectTo(t, url, { protocol = "reliable", sdk } = {}) {
  const client = new Client(url, { protocol: PROTOCOLS[protocol](), ...sdk });
  await client.sdk.start();
  t.after(() => client.stopped.items.length || client.stop());
  await client.connected.find(() => true, "connected");
  return client;
}
