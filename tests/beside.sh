#!/usr/bin/env bash
# Run a check while another command runs, and show what the check says at the end: `mypy` takes half a minute of one core,
# and many tests wait.
#
#   tests/beside.sh CHECK COMMAND      fails where one of the two fails
set -uo pipefail

said=$(mktemp)
trap 'rm -f "$said"' EXIT
# A command in the background does not hear of Ctrl-C.
trap 'kill "$check" 2>/dev/null; exit 130' INT
trap 'kill "$check" 2>/dev/null; exit 143' TERM

echo "$1"
$1 >"$said" 2>&1 &
check=$!
echo "$2"
$2
done=$?
wait "$check"
checked=$?
printf '%s:\n%s\n' "$1" "$(<"$said")"
[[ $done -eq 0 ]] && exit "$checked"
exit "$done"
