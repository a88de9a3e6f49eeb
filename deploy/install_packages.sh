#!/usr/bin/env bash
# Installs what the build and the tests need from Debian 12; the one list of it. Without root it says
# what is missing and how to get it. Does nothing where everything is there.
# Usage: deploy/install_packages.sh [build|all]    (default: all)
# Time: about a minute on a bare machine.
set -euo pipefail

# To configure and build, and what the quickstart uses.
build=(
  ca-certificates cmake g++ git libabsl-dev libbenchmark-dev libboost1.81-dev libc-ares-dev
  libcli11-dev libedit-dev libgmock-dev libgrpc++-dev libgtest-dev libhwy-dev libpcre2-dev libprotobuf-dev
  libre2-dev libspdlog-dev libssl-dev libtomlplusplus-dev libutf8proc-dev libxxhash-dev ninja-build
  nlohmann-json3-dev pkg-config prometheus-cpp-dev protobuf-compiler protobuf-compiler-grpc python3 zlib1g-dev
)
# What the end-to-end tests call the daemon with.
test=(python3-grpcio python3-protobuf)
# What tests/ci.sh checks with.
check=(clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev patchelf prometheus)

case "${1:-all}" in
  build) wanted=("${build[@]}") ;;
  all) wanted=("${build[@]}" "${test[@]}" "${check[@]}") ;;
  *) echo "usage: $0 [build|all]" >&2; exit 2 ;;
esac

is_installed() {
  [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

missing=()
for package in "${wanted[@]}"; do
  is_installed "$package" || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "All packages are there."
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "These Debian 12 packages, or what they are called here, are missing: ${missing[*]}" >&2
  exit 1
fi
if [[ $EUID -ne 0 ]]; then
  echo "These packages are missing, and only root can install them:" >&2
  echo "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# A service that a package brings (prometheus, for its promtool) must not start on this machine.
policy=/usr/sbin/policy-rc.d
if [[ ! -e "$policy" ]]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
install() {
  apt-get -qq -o Acquire::Retries=3 update &&
    apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 install -y \
      --no-install-recommends "${missing[@]}" >/dev/null
}
echo "Installing ${#missing[@]} packages: ${missing[*]}"
for attempt in 1 2 3; do
  if install; then
    exit 0
  fi
  echo "Attempt $attempt of 3 failed." >&2
  sleep $((5 * attempt))
done
echo "The packages could not be installed; see the messages of apt-get above." >&2
exit 1
