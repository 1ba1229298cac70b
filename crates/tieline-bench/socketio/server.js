// The socket.io server of the comparison: rooms, users and nothing else, with socket.io's own defaults.
// It takes `--listen HOST:PORT`, and `--redis URL` to be joined with others by socket.io's Redis adapter. Clients speak engine.io's WebSocket transport directly, so polling is left out.
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");

function given(name) {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
}
const [host, port] = (given("--listen") || "127.0.0.1:0").split(":");

const server = http.createServer();
const io = new Server(server, { transports: ["websocket"], perMessageDeflate: false });

io.on("connection", (socket) => {
  // A room for each user, which is how socket.io's documentation addresses users.
  socket.join("user:" + socket.handshake.query.user);
  socket.on("join", (group) => {
    socket.join(group);
    socket.emit("joined", group);
  });
  // Like noEcho: to all in the group but the sender.
  socket.on("group", (group, data) => socket.to(group).emit("message", data));
  // Also to the sender, when it writes to itself.
  socket.on("user", (user, data) => io.to("user:" + user).emit("message", data));
});

async function main() {
  if (given("--redis")) {
    const { createClient } = require("redis");
    const { createAdapter } = require("@socket.io/redis-adapter");
    const publisher = createClient({ url: given("--redis") });
    const subscriber = publisher.duplicate();
    await Promise.all([publisher.connect(), subscriber.connect()]);
    io.adapter(createAdapter(publisher, subscriber));
  }
  server.listen(Number(port), host, () => {
    const address = server.address();
    console.log(`socket.io listens on ${address.address}:${address.port}`);
  });
}

main();
