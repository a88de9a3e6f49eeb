#!/usr/bin/env bash
# What takes minutes: run by hand after tests/run.sh, figures go into the notes of a release.
#
#   tests/long.sh [ITEM...]     default: exact staging cycles
#
#   exact     every shape up to llama-8b: loads within exactly its plan, is refused with one byte less
#   staging   one-big-tensor with 64 MiB of staging: peak = resident + staging, and the host's VmHWM
#   35b       every shape of 30B and more on the host device, sparse: within its plan, and with context
#             within 32 GB; needs 24 GiB of memory
#   35b-real  dense-35b and qwen3.5-35b-a3b from real data: also 70 GB of disk under TMPDIR
#   cycles    1000 loads and unloads: ledger, RSS, threads and files flat
#   bench     loads of llama-8b from the page cache, beside the machine's own rates; fails below 3 GB/s of
#             source, or if quantizing carries less than 0.4 of memcpy; answers of llama-1b, of which 32
#             at once must be 3 times as fast as one: on a quiet machine
#   mix       load, generation, cancellation, unload and failure at random from 16 clients, 10 minutes
#   cache     100 writers of the cache killed at random moments; llama-8b loaded twice: what the second load reads
#   fuzz      10 minutes of each fuzzer
#
# Time: 35b and 35b-real up to 20 minutes each, fuzz 90, mix 10, the others a minute or two.
set -euo pipefail
cd "$(dirname "$0")/.."
export NIBBLE_BINARY=$PWD/build/release/bin/nibble
[[ -x "$NIBBLE_BINARY" ]] || { echo "long.sh: tests/run.sh first: no $NIBBLE_BINARY" >&2; exit 1; }

exact() { python3 tests/e2e/exact.py "$@"; }

run_item() {
  case "$1" in
    exact) exact llama-tiny llama-1b llama-8b ;;
    staging) exact --staging=64MiB one-big-tensor ;;
    35b) exact --card=32000000000 dense-35b qwen3.5-35b-a3b llama-32b qwen3-moe-30b ;;
    35b-real) for shape in dense-35b qwen3.5-35b-a3b; do exact --card=32000000000 --real "$shape"; done ;;
    cycles) ctest --test-dir build/release --output-on-failure --no-tests=error -R 'ModelCycle' ;;
    bench) python3 tests/e2e/bench.py --bounds ;;
    mix) python3 tests/e2e/mix.py 600 ;;
    cache) NIBBLE_CACHE_KILLS=100 NIBBLE_CACHE_SHAPE=llama-8b python3 tests/e2e/cache.py ;;
    fuzz)
      cmake --preset fuzz
      cmake --build --preset fuzz
      tests/fuzz/run.sh 600
      ;;
    *) echo "long.sh: no item $1" >&2; exit 2 ;;
  esac
}

(($# > 0)) || set -- exact staging cycles
for item in "$@"; do
  started=$SECONDS
  echo "long.sh: $item"
  run_item "$item"
  echo "long.sh: $item passed in $((SECONDS - started)) s"
done
