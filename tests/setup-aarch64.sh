#!/usr/bin/env bash
# Make a folder with an aarch64 Python that qemu can run, as a 64-bit Raspberry Pi would have it: Debian's interpreter,
# and from PyPI the wheels that pip would choose there. Needs Debian's apt and the network, but not root. Made once.
#
#   tests/setup-aarch64.sh PYTHON      PYTHON has pip; the folder is ~/.cache/slimfleet/aarch64
#
# Debian's packages come from the mirror that this machine's apt uses, or from DEBIAN_MIRROR.
set -euo pipefail

python=$1
root=${XDG_CACHE_HOME:-$HOME/.cache}/slimfleet/aarch64
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

debs=(libc6 libgcc-s1 libstdc++6 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
  zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1)
wheels=(numpy xxhash annotated-types pydantic)

# The folder remembers the script that made it.
! cmp --silent "$root/made-by" "$0" || exit 0

give_up() {
  echo "##########################################################################" >&2
  echo "# NOT TESTED on aarch64: $1" >&2
  echo "##########################################################################" >&2
  exit 1
}

[[ $(uname -sm) == "Linux x86_64" ]] || give_up "the tests of it run on Linux on x86-64 only"
for command in apt-get dpkg-deb qemu-aarch64-static; do
  command -v "$command" >/dev/null || give_up "there is no $command; it takes Debian and tests/setup-debian.sh"
done

# Where this machine's apt finds its own release of Debian.
own_mirror() {
  local id codename release
  id=$(. /etc/os-release && echo "${ID:-}")
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
  [[ $id == debian ]] || return 0
  for release in "$codename" stable oldstable testing unstable sid; do
    apt-get indextargets --format '$(REPO_URI)' \
      'Identifier: Packages' 'Component: main' "Release: $release"
  done | sed -n 1p
}
mirror=${DEBIAN_MIRROR:-$(own_mirror)}
[[ -n $mirror ]] || give_up "apt knows no mirror of Debian here: name one with DEBIAN_MIRROR=http://..."
[[ -e $keyring ]] || give_up "there is no $keyring: apt-get install debian-archive-keyring"

echo "Making $root for the tests on aarch64, once: 40 MB to fetch, 120 MB in the end"
mkdir -p "$(dirname "$root")"
fresh=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
trap 'give_up "$root could not be made, see above"' ERR
mkdir -p "$fresh"/apt/{lists,archives}/partial "$fresh"/debs "$fresh"/site-packages
echo "deb [arch=arm64 signed-by=$keyring] $mirror bookworm main" >"$fresh/apt/sources.list"
# Lists, cache and state of its own: what the machine knows of packages stays as it is.
apt=(apt-get -qq -o Dir::Etc::SourceList="$fresh/apt/sources.list" -o Dir::Etc::SourceParts=-
  -o Dir::State::Lists="$fresh/apt/lists" -o Dir::Cache="$fresh/apt" -o Dir::State::Status=/dev/null
  -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User="$(id -un)"
  -o Acquire::Languages=none -o Acquire::Retries=3)
"${apt[@]}" update
(cd "$fresh/debs" && "${apt[@]}" download "${debs[@]/%/:arm64}")
for deb in "$fresh"/debs/*.deb; do
  dpkg-deb --extract "$deb" "$fresh"
done
"$python" -m pip install --disable-pip-version-check --quiet --no-compile --target "$fresh/site-packages" \
  --implementation cp --python-version 3.11 --only-binary=:all: \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
  "${wheels[@]}"

rm -rf "$fresh"/apt "$fresh"/debs "$fresh"/usr/share
cp "$0" "$fresh/made-by"
chmod 755 "$fresh"
rm -rf "$root"
mv "$fresh" "$root"
