#!/usr/bin/env bash
# Starts two nodes and runs the official SDKs of one language against them.
#
#   run-sdk.sh BINARY js|python [gateway]
#
# With `gateway` both are known to the SDKs by one address, that of a gateway in front of them; upstream events and inboxes,
# which go past it, are left out then.
# TIELINE_A and TIELINE_B name running nodes and TIELINE_KEY their key; then none are started, and upstream events are left
# out unless TIELINE_UPSTREAM says where the nodes send them. Ends with 0, 1, or 77
# when the language is not there.
set -euo pipefail

binary=$1
language=$2
way=${3:-}
# Suites, by file.
js=(wire.test.js recovery.test.js rest.test.js upstream.test.js inbox.test.js resume.test.js)
python=(test_wire test_rest)

here=$(cd "$(dirname "$0")" && pwd)
target=$here/../target
run=$(mktemp -d)
nodes=()
failed=1
cleanup() {
  for node in "${nodes[@]}"; do
    kill "$node" 2>/dev/null && wait "$node" 2>/dev/null || true
  done
  if [ $failed -ne 0 ] && [ -s "$run/a.log" ]; then
    echo "--- the node's last words"
    tail -n 20 "$run"/*.log
  fi
  rm -rf "$run"
}
trap cleanup EXIT

leave_out() {
  failed=0
  echo "LEFT OUT: $1" >&2
  exit 77
}

case $language in
  js)
    command -v npm >/dev/null || leave_out "npm is not installed (node 20 or later)"
    [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || leave_out "node is older than 20"
    # `npm ci` leaves a stamp with what it installed; a changed lock file makes it run again.
    if ! cmp -s "$here/sdk-js/package-lock.json" "$here/sdk-js/node_modules/.installed"; then
      (cd "$here/sdk-js" && npm ci --ignore-scripts --no-audit --no-fund --loglevel error)
      cp "$here/sdk-js/package-lock.json" "$here/sdk-js/node_modules/.installed"
    fi
    ;;
  python)
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
      leave_out "python3 (3.9 or later, with venv) is not installed"
    if ! cmp -s "$here/sdk-python/requirements.txt" "$target/sdk-python/installed.txt"; then
      rm -rf "$target/sdk-python"
      mkdir -p "$target/sdk-python"
      python3 -m venv "$target/sdk-python/env"
      "$target/sdk-python/env/bin/pip" install --quiet --disable-pip-version-check -r "$here/sdk-python/requirements.txt"
      cp "$here/sdk-python/requirements.txt" "$target/sdk-python/installed.txt"
    fi
    ;;
  *) echo "usage: run-sdk.sh BINARY js|python"; exit 2 ;;
esac

# Starts a node and puts its address into `address`.
start() {
  local name=$1
  shift
  spawn "$name" serve --access-key "$TIELINE_KEY" "$@"
}

# The same with any command. Our own variables are no settings, which a node refuses.
spawn() {
  local log=$run/$1.log command=$2
  shift 2
  env -u TIELINE_A -u TIELINE_B -u TIELINE_KEY -u TIELINE_UPSTREAM -u TIELINE_INBOX -u TIELINE_MORTAL -u TIELINE_MORTAL_PID -u TIELINE_HEIR "$binary" "$command" --listen 127.0.0.1:0 "$@" >"$log" 2>&1 &
  nodes+=($!)
  for _ in $(seq 100); do
    address=$(sed -n 's|.*listening on \(http://[^ ]*\).*|\1|p' "$log" | head -1)
    [ -z "$address" ] || return 0
    kill -0 "${nodes[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  echo "the node did not print its address"
  return 1
}

if [ -z "${TIELINE_A:-}" ]; then
  export TIELINE_KEY=${TIELINE_KEY:-a-key-for-tests-that-is-long-enough-for-hs256}
  # Where the suite will have the endpoint of an application: a port that is free now.
  if [ "$language" = js ]; then
    port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
    export TIELINE_UPSTREAM=http://127.0.0.1:$port
    cat >"$run/nodes.toml" <<END
[[upstream]]
hub = "upstream"
url = "$TIELINE_UPSTREAM/api/webpubsub/hubs/{hub}/{event}"
system_events = ["connect", "connected", "disconnected"]
END
  else
    : >"$run/nodes.toml"
  fi
  # Two nodes of one cluster: what is asked of one is about the clients of both.
  start a --config "$run/nodes.toml" --node a --broker mesh:// --peer-listen 127.0.0.1:0
  export TIELINE_A=$address
  peers=$(sed -n 's|.*peers on \([^ ]*\).*|\1|p' "$run/a.log" | head -1)
  start b --config "$run/nodes.toml" --node b --broker "mesh://$peers" --peer-listen 127.0.0.1:0
  export TIELINE_B=$address
  # One by itself that keeps what it is sent for users.
  printf '[inbox]\ncount = 1000\n' >"$run/inbox.toml"
  start inbox --config "$run/inbox.toml" --node inbox --store "sqlite://$run/inbox.db"
  export TIELINE_INBOX=$address
  # Two that keep everything in one file, one of which the suite kills.
  if [ "$language" = js ]; then
    printf '[[group]]\nmatch = "kept*"\nhistory = { count = 10000 }\n[inbox]\ncount = 1000\n' >"$run/kept.toml"
    start mortal --config "$run/kept.toml" --node mortal --store "sqlite://$run/kept.db" --broker mesh:// --peer-listen 127.0.0.1:0
    export TIELINE_MORTAL=$address TIELINE_MORTAL_PID=${nodes[-1]}
    peers=$(sed -n 's|.*peers on \([^ ]*\).*|\1|p' "$run/mortal.log" | head -1)
    start heir --config "$run/kept.toml" --node heir --store "sqlite://$run/kept.db" --broker "mesh://$peers" --peer-listen 127.0.0.1:0
    export TIELINE_HEIR=$address
  fi
  for _ in $(seq 100); do
    ! grep -q "peer is linked" "$run/a.log" || break
    sleep 0.1
  done
  if [ "$way" = gateway ]; then
    spawn gateway gateway --registry "static://a=${TIELINE_A/http/ws},b=${TIELINE_B/http/ws}"
    export TIELINE_A=$address TIELINE_B=$address
    js=(wire.test.js recovery.test.js rest.test.js)
  fi
fi
: "${TIELINE_B:=$TIELINE_A}" "${TIELINE_KEY:?TIELINE_KEY must hold the access key of the named nodes}"
export TIELINE_B

case $language in
  js) (cd "$here/sdk-js" && node --test --test-force-exit --test-reporter=spec "${js[@]}") ;;
  python) (cd "$here/sdk-python" && "$target/sdk-python/env/bin/python" -B -W ignore::ResourceWarning -m unittest "${python[@]}") ;;
esac
failed=0
