#!/usr/bin/env bash
# Runs Autobahn's fuzzing client against `tieline echo`, the same connection code that `serve` uses.
#
#   run.sh BINARY            the part that fits in half a minute
#   run.sh BINARY --all      all 517 cases
#   run.sh --url ws://H:P [--all]   any echo server, to see that failures are found
#
# wstest exists for CPython 2.7 alone; an environment for it is made once, under target/autobahn. Ends with 0 when all
# cases passed, 1 when not, and 77 when there is no CPython 2.7 to be had.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$here/../../target/autobahn
selection=part
url=
binary=
while [ $# -gt 0 ]; do
  case $1 in
    --all) selection=all ;;
    --url) url=$2; shift ;;
    *) binary=$1 ;;
  esac
  shift
done
[ -n "$url$binary" ] || { sed -n '2,9p' "$0"; exit 2; }

# The first interpreter that really is 2.7: named, on the path, or kept by pyenv.
find_python() {
  local candidate
  for candidate in "${AUTOBAHN_PYTHON:-}" "$(command -v python2.7 || true)" \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys, zlib, ssl; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

mkdir -p "$work"
if ! cmp -s "$here/requirements.txt" "$work/installed.txt"; then
  python=$(find_python)
  if [ -z "$python" ] && command -v pyenv >/dev/null; then
    echo "building CPython 2.7.18 with pyenv"
    pyenv install --skip-existing 2.7.18 >"$work/pyenv.log" 2>&1 || tail -5 "$work/pyenv.log"
    python=$(find_python)
  fi
  if [ -z "$python" ]; then
    echo "LEFT OUT: Autobahn needs CPython 2.7, and neither python2.7, pyenv nor AUTOBAHN_PYTHON gives one" >&2
    exit 77
  fi
  echo "making the environment of wstest"
  rm -rf "$work/tool" "$work/env"
  python3 -m venv "$work/tool"
  # The last virtualenv that can make an environment for 2.7 is 20.21.
  "$work/tool/bin/pip" install --quiet 'virtualenv==20.21.1'
  "$work/tool/bin/virtualenv" --quiet --python "$python" "$work/env"
  "$work/env/bin/pip" install --quiet --no-python-version-warning -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$work/installed.txt"
fi

run=$(mktemp -d "$work/run.XXXXXX")
server=
cleanup() { # Also after a failure: nothing may go on running.
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
}
trap cleanup EXIT

if [ -z "$url" ]; then
  # Cases of group 9 send up to 16 MiB in one message.
  "$binary" echo --listen 127.0.0.1:0 --deflate --max-message 33554432 >"$run/echo.out" 2>"$run/echo.err" &
  server=$!
  for _ in $(seq 100); do
    address=$(sed -n 's|^listening on http://||p' "$run/echo.out" | head -1)
    [ -z "$address" ] || break
    kill -0 "$server" 2>/dev/null || { cat "$run/echo.err"; echo "the echo server ended"; exit 1; }
    sleep 0.1
  done
  [ -n "$address" ] || { echo "the echo server did not print its address"; exit 1; }
  url=ws://$address
fi

expected=$(python3 - "$here/spec.json" "$selection" "$url" "$run" <<'PYTHON'
import json, sys
selections, name, url, run = sys.argv[1:]
selection = json.load(open(selections))[name]
spec = {"outdir": run + "/reports", "servers": [{"url": url}], "cases": selection["cases"], "exclude-cases": [],
        "exclude-agent-cases": {}}
json.dump(spec, open(run + "/spec.json", "w"))
print(selection["expected"])
PYTHON
)
# An hour is several times what a busy machine needs; wstest itself would wait for ever.
if ! timeout 3600 "$work/env/bin/wstest" -m fuzzingclient -s "$run/spec.json" >"$run/wstest.log" 2>&1; then
  tail -5 "$run/wstest.log"
  echo "wstest did not end well; its log is in $run"
  exit 1
fi
if [ -n "$server" ] && ! kill -0 "$server" 2>/dev/null; then
  cat "$run/echo.err"
  echo "the echo server died on the way"
  exit 1
fi
if ! python3 "$here/judge.py" "$run/reports" "$expected"; then
  echo "reports of all cases: $run/reports/index.html"
  exit 1
fi
cleanup
server=
rm -rf "$run"
