#!/bin/sh
# llama.cpp on the CPU beside us: decode and prefill of a random model of the shape llama-1b, in turn
# on the same machine, ratios of medians.
#
#   tests/bench/peers.sh NIBBLE CHECKPOINT LLAMA_BENCH GGUF...
#
#   NIBBLE       our binary
#   CHECKPOINT   what `nibble synth llama-1b CHECKPOINT` wrote
#   LLAMA_BENCH  llama-bench of a build of llama.cpp
#   GGUF         the same shape, quantized (Q4_0, Q4_K_M)
#
# ROUNDS (9), THREADS (all cores), PROMPT (128) and TOKENS (32) come from the environment. llama.cpp is
# built outside this repository; on processors with AMX, GCC 12 needs -fno-tree-dse for its
# ggml-cpu/amx/mmq.cpp.
set -eu

if [ "$#" -lt 4 ]; then
  sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
nibble=$1
checkpoint=$2
llama_bench=$3
shift 3
rounds=${ROUNDS:-9}
threads=${THREADS:-$(nproc)}
prompt=${PROMPT:-128}
tokens=${TOKENS:-32}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Ours: as many cores as threads, because the device takes all it may use.
cores=0-$((threads - 1))
ours() {  # ours decode|prefill PROMPT_TOKENS [FLAG...]
  what=$1
  prompt_tokens=$2
  shift 2
  taskset -c "$cores" "$nibble" bench "$what" --runs 1 --prompt-tokens "$prompt_tokens" --json "$@" \
    "$checkpoint" |
    sed -n 's/.*"tokens_per_second": {"median": \([0-9.e+]*\).*/\1/p'
}
# Theirs, prompt first, then decode; the last column but one of CSV rows is the average.
theirs() {  # theirs GGUF
  taskset -c "$cores" "$llama_bench" -m "$1" -t "$threads" -p "$prompt" -n "$tokens" -r 1 -o csv |
    python3 -c 'import csv, sys
for row in csv.DictReader(sys.stdin):
    print("prefill" if int(row["n_prompt"]) else "decode", row["avg_ts"])'
}

round=0
while [ "$round" -lt "$rounds" ]; do
  round=$((round + 1))
  ours decode 1 --tokens "$tokens" >>"$scratch/ours.decode"
  ours prefill "$prompt" >>"$scratch/ours.prefill"
  for gguf in "$@"; do
    theirs "$gguf" | while read -r what rate; do
      echo "$rate" >>"$scratch/$(basename "$gguf").$what"
    done
  done
done

python3 - "$scratch" "$@" <<'EOF'
import os
import statistics
import sys

scratch, ggufs = sys.argv[1], sys.argv[2:]


def rates(name, what):
    with open(os.path.join(scratch, f"{name}.{what}"), encoding="utf-8") as file:
        return [float(line) for line in file]


print(f"{'tokens/s':28} {'median':>8} {'least':>8} {'most':>8}   nibble is (median of the rounds' ratios)")
for what in ("decode", "prefill"):
    ours = rates("ours", what)
    for name in ["ours"] + [os.path.basename(gguf) for gguf in ggufs]:
        found = rates(name, what)
        ratio = statistics.median(a / b for a, b in zip(ours, found))
        label = "nibble" if name == "ours" else name
        print(f"{what + ' ' + label:28} {statistics.median(found):8.1f} {min(found):8.1f} "
              f"{max(found):8.1f}   {ratio:.2f}")
EOF
