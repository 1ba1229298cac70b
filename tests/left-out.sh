#!/usr/bin/env bash
# Nothing is left out in silence: remembers which suites could not run here, and says so at the very end.
#
#   left-out.sh begin               forgets what an earlier run left out
#   left-out.sh run NAME COMMAND…   runs it; an exit code of 77 means "cannot run here" and is remembered
#   left-out.sh report              prints what was left out; never fails
set -uo pipefail

list=$(cd "$(dirname "$0")/.." && pwd)/target/left-out.txt
mkdir -p "$(dirname "$list")"

case $1 in
  begin) rm -f "$list" ;;
  run)
    name=$2
    shift 2
    errors=$(mktemp)
    echo "=== $name"
    # Its errors are shown as they come, and kept, because they say why it cannot run.
    { "$@" 2>&1 1>&3 | tee "$errors" >&2; } 3>&1
    code=${PIPESTATUS[0]}
    if [ $code -eq 77 ]; then
      echo "$name: $(grep -m1 'LEFT OUT' "$errors" | sed 's/^LEFT OUT: //')" >>"$list"
      code=0
    fi
    rm -f "$errors"
    exit $code
    ;;
  report)
    if [ -s "$list" ]; then
      echo
      echo "================ LEFT OUT: these suites did not run on this machine ================"
      cat "$list"
    else
      echo "every suite ran"
    fi
    ;;
esac
