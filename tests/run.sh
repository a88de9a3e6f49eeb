#!/usr/bin/env bash
# The second command of the README: installs what is needed, builds the product with its tests, and
# runs the unit and the short end-to-end tests. Options: --no-install.
# Time: under 12 minutes on 2 cores from a bare machine.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ "${1:-}" != --no-install ]]; then
  deploy/install_packages.sh
fi
started=$SECONDS
cmake --preset release
cmake --build --preset release
echo "run.sh: built in $((SECONDS - started)) s"
ctest --test-dir build/release --output-on-failure --no-tests=error -LE '^(gpu|bench|long)$' -j "$(nproc)" "${@:2}"
