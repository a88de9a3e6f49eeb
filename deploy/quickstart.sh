#!/usr/bin/env bash
# The first command of the README: from a bare Debian 12 to a model in 4 bits within a hard budget,
# each step with a sentence about it. Builds in build/release; everything else is temporary.
# Usage: deploy/quickstart.sh [--no-install]
# Time: under 8 minutes on 2 cores from a bare machine; seconds when it is built.
set -euo pipefail
cd "$(dirname "$0")/.."

install=true
for argument in "$@"; do
  case "$argument" in
    --no-install) install=false ;;
    *) echo "usage: $0 [--no-install]" >&2; exit 2 ;;
  esac
done

work=$(mktemp -d)
daemon=
clean_up() {
  local status=$?
  if [[ -n "$daemon" ]] && kill -0 "$daemon" 2>/dev/null; then
    kill "$daemon" && wait "$daemon" || true
  fi
  if [[ $status -ne 0 ]]; then
    echo
    echo "quickstart.sh failed (exit code $status)."
    if [[ -s "$work/log" ]]; then
      echo "The daemon's last lines:"
      tail -n 20 "$work/log"
    fi
  fi
  rm -rf "$work"
}
trap clean_up EXIT

heading() { printf '\n== %s\n   %s\n' "$1" "$2"; }
# Shows a command as one would type it, and runs it.
run() { printf '\n$ %s\n' "$*"; "$@"; }
# A figure of `nibble memory --json`.
figure() { nibble memory --json | sed -n "s/^ *\"$1\": \"\([0-9]*\)\".*/\1/p" | head -n 1; }

heading "Packages" "Everything comes from Debian 12; the build downloads nothing."
if $install; then
  deploy/install_packages.sh build
else
  echo "   not installed, because of --no-install"
fi

heading "Build" "One program, daemon and client; with CUDA where nvcc is found."
started=$SECONDS
cmake --preset release >"$work/cmake" 2>&1 || { cat "$work/cmake"; exit 1; }
cmake --build --preset release --target nibble -j 2
export PATH="$PWD/build/release/bin:$PATH"
echo "   built in $((SECONDS - started)) s"
run nibble version

demo=tests/data/demo-model
heading "Plan" "Says to the byte what a load will take, from the checkpoint's headers alone."
run nibble plan $demo

heading "Serve" "The daemon: one device (the host's memory where there is no GPU), one hard budget."
printf '\n$ nibble serve --vram-budget 1536MiB --model-root tests/data --model-root %s &\n' "$work"
nibble serve --vram-budget 1536MiB --model-root tests/data --model-root "$work" --listen 127.0.0.1:0 \
  --http-listen 127.0.0.1:0 --port-file "$work/ports" >"$work/log" 2>&1 &
daemon=$!
for _ in $(seq 300); do
  [[ -s "$work/ports" ]] && break
  kill -0 "$daemon" 2>/dev/null || { echo "The daemon did not start."; exit 1; }
  sleep 0.1
done
[[ -s "$work/ports" ]] || { echo "The daemon did not open its ports within 30 s."; exit 1; }
export NIBBLE_ADDRESS="127.0.0.1:$(sed -n 's/^grpc=//p' "$work/ports")"
http="http://127.0.0.1:$(sed -n 's/^http=//p' "$work/ports")"
echo "   gRPC at $NIBBLE_ADDRESS, HTTP at $http"
available=$(figure available_bytes)
allocated=$(figure allocated_bytes)

heading "Load" "Streams the checkpoint in and quantizes it on the way; the peak is the plan's peak."
run nibble load demo $demo
run nibble ps

heading "Generate" "It answers from what was loaded, in 4 bits."
run nibble generate demo "Once upon a time" --max-tokens 60 --temperature 0
run nibble generate demo --chat "Leo took a green key to the market. What color was the key?" --max-tokens 40 --temperature 0

heading "Memory" "Where every byte of the budget is, from the ledger that enforces it."
run nibble memory

heading "Metrics" "The same figures for Prometheus."
printf '\n$ curl %s/metrics\n' "$http"
python3 - "$http/metrics" >"$work/metrics" <<'PYTHON'
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
PYTHON
grep -E '^nibble_(vram_budget_bytes|vram_allocated_bytes|vram_peak_bytes|model_plan_error_bytes|model_quantized_ratio|checkpoint_read_bytes_total)' "$work/metrics"

heading "Refuse" "What does not fit is refused before a byte of it is read, with what would help."
run nibble synth llama-8b "$work/llama-8b" --sparse
if run nibble load big "$work/llama-8b"; then
  echo "A load beyond the budget was NOT refused."
  exit 1
fi

heading "Unload" "Returns when the bytes are back in the budget."
run nibble unload demo
run nibble memory
if [[ "$(figure available_bytes)" != "$available" || "$(figure allocated_bytes)" != "$allocated" ]]; then
  echo "The budget is NOT back at its start: available $(figure available_bytes), was $available."
  exit 1
fi
echo "   available as at the start: $available bytes"

heading "Stop" "SIGTERM drains the daemon; it exits with 0."
kill "$daemon"
wait "$daemon"
daemon=
tail -n 1 "$work/log"

heading "Done" "Next: your own checkpoint."
cat <<'TEXT'

  export PATH="$PWD/build/release/bin:$PATH"
  nibble plan /models/YOUR-MODEL                     # what it would take
  nibble serve --model-root /models &                # 90 % of the first GPU, or half the memory
  nibble load my-model /models/YOUR-MODEL
  nibble chat my-model
  nibble --help
TEXT
