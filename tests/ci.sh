#!/usr/bin/env bash
# What CI checks beside tests/run.sh, which must have run before: style, layers, CUDA code that
# compiles, promtool, sanitizers on the layers without gRPC. With arguments, only the named steps:
# tests/ci.sh style cuda prometheus asan tsan fuzz tidy. By name only, until server/engine is clean:
# tidy (clang-tidy). fuzz runs each fuzzer for FUZZ_SECONDS, half a minute.
# Time: about 50 minutes on 2 cores together with tests/run.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 suppressions=$PWD/tests/tsan.supp"
export ASAN_OPTIONS="detect_leaks=1 strict_string_checks=1"
export UBSAN_OPTIONS="print_stacktrace=1"
fuzz_seconds=${FUZZ_SECONDS:-30}

sources() { git ls-files -- '*.h' '*.cc' '*.cu' '*.cuh'; }

style() {
  sources | xargs clang-format-14 --dry-run -Werror
  tests/check_layers.sh
  # A script that bash cannot parse fails here and not on the day it is needed.
  git ls-files -- '*.sh' .ci/run | xargs -n1 bash -n
}

tidy() {
  cmake --preset tidy
  cmake --build build/tidy --target nibble_generated
  sources | grep -E '\.cc$' | xargs tests/tidy.py build/tidy
}

# The release build holds the CUDA code where nvcc is found; here it must be.
cuda() {
  grep -q '^NIBBLE_WITH_CUDA:.*=ON' build/release/CMakeCache.txt
  test -n "$(find build/release/kernels -name '*.cu.o' -print -quit)"
}

sanitized() {  # sanitized PRESET
  cmake --preset "$1"
  cmake --build --preset "$1"
  ctest --test-dir "build/$1" --output-on-failure --no-tests=error -LE '^(gpu|bench|long)$' -j "$(nproc)"
}
asan() { sanitized asan; }
tsan() { sanitized tsan; }

fuzz() {
  cmake --preset fuzz
  cmake --build --preset fuzz
  tests/fuzz/run.sh "$fuzz_seconds"
}

prometheus() { ctest --test-dir build/release --output-on-failure --no-tests=error -R '[Pp]romtool'; }

for step in "${@:-style cuda prometheus asan tsan fuzz}"; do
  for name in $step; do
    started=$SECONDS
    echo "ci.sh: $name"
    "$name"
    echo "ci.sh: $name passed in $((SECONDS - started)) s"
  done
done
