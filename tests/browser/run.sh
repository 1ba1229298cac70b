#!/usr/bin/env bash
# Tries the demo page in a real Chromium, on nodes that the tests start and kill.
#
#   run.sh BINARY
#
# TIELINE_CHROMIUM names a browser. Without one, and without any installed, it is installed from Debian's packages where that
# is possible (by root). Ends with 0, 1, or 77 when there is no browser or no node.
set -euo pipefail

binary=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)

leave_out() {
  echo "LEFT OUT: $1" >&2
  exit 77
}

command -v npm >/dev/null || leave_out "npm is not installed (node 20 or later)"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || leave_out "node is older than 20"

find_chromium() {
  [ -n "${TIELINE_CHROMIUM:-}" ] || TIELINE_CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || return 1
}

if ! find_chromium; then
  if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    leave_out "Chromium is not installed"
  fi
  echo "Chromium is not installed; installing Debian's package"
  if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends chromium >/dev/null; }; then
    leave_out "Chromium is not installed, and its package cannot be"
  fi
  find_chromium || leave_out "Chromium's package brings no browser"
fi
export TIELINE_CHROMIUM TIELINE_BINARY=$binary

# `npm ci` leaves a stamp with what it installed; a changed lock file makes it run again.
cd "$here"
if ! cmp -s package-lock.json node_modules/.installed; then
  npm ci --ignore-scripts --no-audit --no-fund --loglevel error
  cp package-lock.json node_modules/.installed
fi
node --test --test-force-exit --test-reporter=spec page.test.js
