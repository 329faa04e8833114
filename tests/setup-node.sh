#!/usr/bin/env bash
# Install Node.js and the packages of deploy/node for the tests, where that is possible; say loudly what stays untested
# elsewhere.
set -euo pipefail
cd "$(dirname "$0")/../deploy/node"

if ! command -v npm >/dev/null && [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
  echo "Installing Debian packages for the tests: nodejs npm"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -qq --yes --no-install-recommends nodejs npm >/dev/null || true
fi

# npm writes this file last: an older one is of an older lock file, or of an installation that was cut.
installed=node_modules/.package-lock.json
if command -v npm >/dev/null && { [[ $installed -nt package-lock.json ]] || npm ci --ignore-scripts --loglevel=error; }; then
  exit 0
fi

echo "##########################################################################" >&2
echo "# NOT INSTALLED: Node.js 18 or newer with npm, or the packages of deploy/node" >&2
echo "# The tests of the Node.js client are skipped. As root: apt-get install nodejs npm" >&2
echo "# Then: npm ci --prefix deploy/node" >&2
echo "##########################################################################" >&2
