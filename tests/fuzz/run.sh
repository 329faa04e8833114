#!/usr/bin/env bash
# Fuzz the decoder, with the native coder built for it: address and undefined-behaviour sanitisers, coverage counters.
#
#   tests/fuzz/run.sh PYTHON SECONDS             fuzz; the corpus grows in .fuzz/corpus, findings land in .fuzz/
#   tests/fuzz/run.sh PYTHON SECONDS pack        then write tests/fuzz/corpus.tar.xz from what reaches something
#
# PYTHON has atheris and what the codec needs. To look at a finding: run.sh PYTHON 0 .fuzz/crash-...
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$1 seconds=$2 then=${3:-}
clang=${CLANG:-$(command -v clang || command -v clang-14 || true)}
[[ -n $clang ]] || { echo "error: fuzzing needs clang: apt-get install clang, or name one in CLANG" >&2; exit 1; }

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
# clang leaves the sanitisers' functions open in a shared library; atheris brings them, to be loaded before Python.
CC=$clang python3 compression/slimfleet/compression/codec/native/build.py --out "$built/_slimcodec.so" \
  -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all >/dev/null
preload=$("$python" -c 'import atheris; print(atheris.path() + "/asan_with_fuzzer.so")')

run() {
  LD_PRELOAD=$preload ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16:allocator_may_return_null=1 \
    SLIMFLEET_NATIVE_LIBRARY=$built/_slimcodec.so "$python" tests/fuzz/fuzz_decode.py -max_len=6000 -timeout=10 "$@"
}
export PYTHONPATH=compression

if [[ -f $then ]]; then
  run "$then"
  exit
fi
corpus=.fuzz/corpus
mkdir -p "$corpus"
"$python" tests/fuzz/cases.py unpack "$corpus"
run "$corpus" -max_total_time="$seconds" -rss_limit_mb=2048 -artifact_prefix=.fuzz/ -print_final_stats=1 \
  -use_value_profile=1
[[ $then == pack ]] || exit 0
mkdir "$built/merged"
run "$built/merged" "$corpus" -merge=1
"$python" tests/fuzz/cases.py pack "$built/merged" "$corpus"
