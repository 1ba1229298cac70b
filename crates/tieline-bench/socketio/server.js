// The socket.io server of the comparison: rooms, users and nothing else, with socket.io's own defaults.
// It takes `--listen HOST:PORT`. Clients speak engine.io's WebSocket transport directly, so polling is left out.
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");

const at = process.argv.indexOf("--listen");
const [host, port] = (process.argv[at + 1] || "127.0.0.1:0").split(":");

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

server.listen(Number(port), host, () => {
  const address = server.address();
  console.log(`socket.io listens on ${address.address}:${address.port}`);
});
