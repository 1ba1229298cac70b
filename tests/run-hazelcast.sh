#!/usr/bin/env bash
# The Hazelcast broker and directory beside the official Python client, on private members.
#
#   run-hazelcast.sh CARGO-FLAGS…   those that choose packages and features, such as `-p tieline-backends --features hazelcast`
#
# Ends with 0, 1, or 77 when Python is not there.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
place=${CARGO_TARGET_DIR:-$here/../target}/hazelcast-python

if ! python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
  echo "LEFT OUT: python3 (3.9 or later, with venv) is not installed" >&2
  exit 77
fi
# What was installed is installed again when the list has changed.
if ! cmp -s "$here/hazelcast/requirements.txt" "$place/installed.txt"; then
  rm -rf "$place"
  mkdir -p "$place"
  python3 -m venv "$place/env"
  "$place/env/bin/pip" install --quiet --disable-pip-version-check -r "$here/hazelcast/requirements.txt"
  cp "$here/hazelcast/requirements.txt" "$place/installed.txt"
fi

TIELINE_HAZELCAST_PYTHON=$place/env/bin/python cargo test "$@" --lib -- --ignored hazelcast::tests::official hazelcast::directory::tests::official
