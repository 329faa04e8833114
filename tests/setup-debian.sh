#!/usr/bin/env bash
# Install the Debian packages that some tests need, where that is possible; say loudly what stays untested elsewhere.
# Arguments, PACKAGE=FILE, add to what is needed.
set -euo pipefail

declare -A needed=(
  [chromium]=/usr/bin/chromium
  [dataset-fashion-mnist]=/usr/share/datasets/fashion-mnist
  [prometheus]=/usr/bin/prometheus
  [gcc-aarch64-linux-gnu]=/usr/bin/aarch64-linux-gnu-gcc
  [libc6-dev-arm64-cross]=/usr/aarch64-linux-gnu/include/stdint.h
  [qemu-user-static]=/usr/bin/qemu-aarch64-static
)
for each in "$@"; do
  needed[${each%%=*}]=${each#*=}
done

missing=()
for package in "${!needed[@]}"; do
  [[ -e ${needed[$package]} ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
  echo "Installing Debian packages for the tests: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  if apt-get update -qq && apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null; then
    exit 0
  fi
fi

echo "##########################################################################" >&2
echo "# NOT INSTALLED: ${missing[*]}" >&2
echo "# The tests that need them are skipped. As root: apt-get install ${missing[*]}" >&2
echo "##########################################################################" >&2
