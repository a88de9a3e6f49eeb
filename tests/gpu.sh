#!/usr/bin/env bash
# What only a machine with a GPU can test, from a bundle (deploy/bundle.sh --gpu-tests).
#
#   tests/gpu.sh [SECTION...]     default: device sanitizer bench
#
#   device      the device test bodies and the golden data, on the host and on the GPU
#   sanitizer   compute-sanitizer, memcheck and racecheck, on the kernels
#   bench       quantizing and dequantizing beside copies, loading llama-8b from memory
#   35b         dense-35b and qwen3.5-35b-a3b, real data in a tmpfs: a budget of exactly plan.peak +
#               runtime, then 32 GB; the card is sampled, the process never exceeds its budget
#   mix         sixteen clients load, generate, cancel and unload small models at random for MIX_SECONDS
#               (60); afterwards ledger and card are as before
#
# BUNDLE (default bundle/, build/bundle/ or what build/bundle.tgz unpacks to) says where the programs are; LARGE_DIR where the 35B data
# may go (default: a tmpfs of 100 GB that is mounted for the run, which needs root). Needs bash and
# nvidia-smi. Time: under 9 minutes a section.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "gpu.sh: $*" >&2
  exit 1
}

bundle=${BUNDLE:-bundle}
[[ -d "$bundle" ]] || bundle=build/bundle
[[ -d "$bundle" || ! -e "$bundle.tgz" ]] || tar -C build -xzf "$bundle.tgz"
[[ -x "$bundle/bin/gpu_tests" ]] || fail "no bundle in bundle/ or build/bundle: deploy/bundle.sh --gpu-tests"
bin=$(cd "$bundle/bin" && pwd)
nibble=$bin/nibble
export NIBBLE_TEST_DATA=$PWD/tests/data
work=$(mktemp -d)
daemon_pid=
sampler_pid=
mounted=

clean_up() {
  [[ -z "$sampler_pid" ]] || kill "$sampler_pid" 2> /dev/null || true
  [[ -z "$daemon_pid" ]] || { kill "$daemon_pid" 2> /dev/null && wait "$daemon_pid"; } || true
  [[ -z "$mounted" ]] || umount "$mounted" || true
  rm -rf "$work"
}
trap clean_up EXIT

# field NAME < JSON: the first number of that name, quoted or not.
field() { grep -o "\"$1\": *\"\?[0-9.e+-]*" | head -1 | grep -o '[0-9.e+-]*$'; }

gpu_mib() { nvidia-smi --id=0 --query-gpu="memory.$1" --format=csv,noheader,nounits | head -1; }

section_device() {
  "$bin/gpu_tests" --gtest_brief=1
}

# Without the tests whose errors are the point (a refused allocation, a broken context), and without
# the one that launches thousands of kernels for their values' sake.
section_sanitizer() {
  local sanitizer
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null) \
    || fail "compute-sanitizer is missing; it is part of the CUDA toolkit"
  local filter='Cuda/BlockQuantizeTest.*:Cuda/ExpandF8Test.*:Cuda/Golden*QuantTest.*:Cuda/*ScaleTest.*:Cuda/MeasureErrorTest.*:Cuda/ScaleQuantizeTest.*:Cuda/ScaleSearchTest.*:Cuda/LinearTest.*:Cuda/LinearProductsTest.*:Cuda/ExpertsTest.*:Cuda/AttentionTest.*:Cuda/StoreKvTest.*:Cuda/DeltaRuleTest.*:Cuda/ConvolutionTest.*:Cuda/LayerOpsTest.*:Cuda/SampleTest.*:-*EveryMantissa*:*AtEveryExponent*'
  for tool in memcheck racecheck; do
    "$sanitizer" --tool "$tool" --error-exitcode 1 "$bin/gpu_tests" --gtest_brief=1 --gtest_filter="$filter"
  done
}

section_bench() {
  "$bin/quantize_bench"
  "$bin/linear_bench" bf16 9
  "$bin/step_bench" bf16 9
  for device in host cuda:0; do
    "$nibble" bench quantize --device "$device"
  done
  local memory
  memory=$(large_dir 20)
  TMPDIR=$memory "$nibble" bench load --shape llama-8b --device cuda:0
}

# A directory in memory with room for GIB.
large_dir() {
  local gib=$1
  if [[ -n "${LARGE_DIR:-}" ]]; then
    echo "$LARGE_DIR"
    return
  fi
  if (($(df --output=avail -BG /dev/shm | tail -1 | tr -dc 0-9) >= gib)); then
    mkdir -p /dev/shm/nibble-gpu
    echo /dev/shm/nibble-gpu
    return
  fi
  fail "no $gib GiB of memory for files: set LARGE_DIR, or run section 35b as root"
}

mount_tmpfs() {
  mkdir -p "$work/large"
  if [[ -z "${LARGE_DIR:-}" ]] && mount -t tmpfs -o size=100g tmpfs "$work/large" 2> /dev/null; then
    mounted=$work/large
    LARGE_DIR=$work/large
  fi
}

start_daemon() {  # start_daemon BUDGET_BYTES ROOT
  "$nibble" serve --device cuda:0 --vram-budget "$1" --model-root "$2" --listen 127.0.0.1:50551 \
    --http-listen off > "$work/daemon.log" 2>&1 &
  daemon_pid=$!
  export NIBBLE_ADDRESS=127.0.0.1:50551
  for _ in $(seq 150); do
    if "$nibble" memory --json > /dev/null 2>&1; then
      return
    fi
    kill -0 "$daemon_pid" 2> /dev/null || break
    sleep 0.2
  done
  cat "$work/daemon.log" >&2
  fail "the daemon did not start"
}

stop_daemon() {
  kill -TERM "$daemon_pid"
  wait "$daemon_pid" || fail "the daemon did not stop cleanly: $(tail -3 "$work/daemon.log")"
  daemon_pid=
}

# Loads and unloads once and compares the card with the budget; with `answers` the model also has its
# KV cache and generates.
load_within() {  # load_within SHAPE DIR BUDGET_BYTES [answers]
  local shape=$1 directory=$2 budget_bytes=$3
  local flags=(--weights-only)
  [[ "${4:-}" == answers ]] && flags=()
  local idle_mib warm_mib after_mib used_mib budget_mib
  idle_mib=$(gpu_mib used)
  nvidia-smi --id=0 --query-gpu=memory.used --format=csv,noheader,nounits -lms 50 > "$work/samples" &
  sampler_pid=$!
  start_daemon "$budget_bytes" "$(dirname "$directory")"
  warm_mib=$(gpu_mib free)
  "$nibble" load "$shape" "$directory" "${flags[@]}" --json > "$work/model.json"
  local loaded_mib
  loaded_mib=$(gpu_mib free)
  [[ "${4:-}" == answers ]] && generate "$shape"
  "$nibble" unload "$shape" > /dev/null
  after_mib=$(gpu_mib free)
  stop_daemon
  sleep 0.2  # A last sample.
  kill "$sampler_pid" && wait "$sampler_pid" 2> /dev/null || true
  sampler_pid=

  used_mib=$(($(sort -n "$work/samples" | tail -1) - idle_mib))
  budget_mib=$((budget_bytes >> 20))
  local seconds source_bytes resident_bytes
  seconds=$(field load_seconds < "$work/model.json")
  source_bytes=$(field source_bytes < "$work/model.json")
  resident_bytes=$(field resident_bytes < "$work/model.json")
  awk -v shape="$shape" -v s="$seconds" -v b="$source_bytes" -v used="$used_mib" -v budget="$budget_mib" \
    -v resident="$resident_bytes" -v drop="$((warm_mib - loaded_mib))" -v lost="$((warm_mib - after_mib))" 'BEGIN {
      printf "%s: %.2f s, %.1f GB/s; card at most %d of %d MiB; resident %.0f MiB, the card gave %d; unloaded: %d MiB missing\n",
        shape, s, b / s / 1e9, used, budget, resident / 1048576, drop, lost }'
  (($(wc -l < "$work/samples") > 10)) || fail "$shape: the card was not sampled"
  ((used_mib <= budget_mib)) || fail "$shape: the process took $used_mib MiB of the card, its budget is $budget_mib"
  ((warm_mib - loaded_mib == resident_bytes >> 20)) || fail "$shape: resident are $((resident_bytes >> 20)) MiB, the card gave $((warm_mib - loaded_mib))"
  ((after_mib >= warm_mib)) || fail "$shape: $((warm_mib - after_mib)) MiB did not come back"
}

# 64 tokens of nonsense, one sequence.
generate() {  # generate MODEL
  local begin tokens
  begin=$(date +%s%N)
  "$nibble" generate "$1" "one two three four" --max-tokens 64 --temperature 1 --seed 1 --json > "$work/answer.json"
  tokens=$(grep -o '"generated_tokens": *"[0-9]*"' "$work/answer.json" | tail -1 | tr -dc 0-9)
  ((tokens > 0)) || fail "$1: no token was generated"
  echo "$1: generated $tokens tokens in $((($(date +%s%N) - begin) / 1000000)) ms"
}

section_35b() {
  mount_tmpfs
  local root runtime_bytes=$((1 << 30))
  root=$(large_dir 75)
  for shape in dense-35b qwen3.5-35b-a3b; do
    local directory=$root/$shape
    local begin=$SECONDS
    "$nibble" synth "$shape" "$directory" > /dev/null
    echo "$shape: written in $((SECONDS - begin)) s"
    local peak_bytes
    peak_bytes=$("$nibble" plan "$directory" --device cuda --weights-only --json | field peak_bytes)
    load_within "$shape" "$directory" $((peak_bytes + runtime_bytes))
    load_within "$shape" "$directory" 32000000000
    load_within "$shape" "$directory" 32000000000 answers
    rm -rf "$directory"
  done
}

# What one client of the mix does until END. Says what was answered in another way than it may be.
mix_client() {  # mix_client SEED END
  RANDOM=$1
  local names=(NF4 FP4 AS_STORED nothing)
  local name source code
  while (($(date +%s) < $2)); do
    name=${names[RANDOM % ${#names[@]}]}
    source=demo-model
    [[ $name != nothing ]] || source=models/cohere/nothing
    code=0
    case $((RANDOM % 8)) in
      0 | 1) timeout "$((RANDOM % 3 + 1))" "$nibble" load "$name" "$source" --format "${name/nothing/NF4}" ;;
      2) "$nibble" unload "$name" --drain-timeout "$((RANDOM % 2))s" ;;
      3) timeout -s INT 0.2 "$nibble" generate "$name" "Once upon a time" --max-tokens 500 ;;
      4) "$nibble" ps ;;
      *) "$nibble" generate "$name" "Leo took a green key" --max-tokens "$((RANDOM % 60 + 1))" --seed "$RANDOM" ;;
    esac > /dev/null 2> "$work/mix.$1" || code=$?
    case $code in
      0 | 124 | 130) echo "$code" ;;
      1) grep -oE '^[A-Z_]+: ' "$work/mix.$1" | tail -1 ;;
      *) echo "exit $code: $(head -1 "$work/mix.$1")" ;;
    esac
  done
}

section_mix() {
  local end clients=() client
  start_daemon 8000000000 "$PWD/tests/data"
  local before_mib
  before_mib=$(gpu_mib used)
  end=$(($(date +%s) + ${MIX_SECONDS:-60}))
  for client in $(seq 16); do
    mix_client "$client" "$end" > "$work/answers.$client" &
    clients+=($!)
  done
  wait "${clients[@]}"
  sort "$work"/answers.* | uniq -c | sort -rn
  ! grep -hE '^(exit|INTERNAL|UNKNOWN|DATA_LOSS)' "$work"/answers.* || fail "a client got what nobody may get"
  for client in NF4 FP4 AS_STORED; do
    "$nibble" unload "$client" > /dev/null 2>&1 || true
  done
  local left
  left=$("$nibble" memory --json | grep -c '"model":' || true)
  ((left == 0)) || fail "$left models are left in the ledger"
  local after_mib
  after_mib=$(gpu_mib used)
  echo "the card: $before_mib MiB before, $after_mib after"
  # Modules and queues are there from the start; what the driver keeps of graphs may stay.
  ((after_mib - before_mib <= 64)) || fail "the card did not get everything back"
  ! grep 'level=error' "$work/daemon.log" || fail "the daemon logged errors"
  stop_daemon
}

command -v nvidia-smi > /dev/null || fail "no nvidia-smi: this machine has no NVIDIA driver"
nvidia-smi --id=0 --query-gpu=name,driver_version,memory.total --format=csv,noheader
(($# > 0)) || set -- device sanitizer bench
for section in "$@"; do
  declare -F "section_$section" > /dev/null || fail "no section $section"
  echo "== $section"
  begin=$SECONDS
  "section_$section"
  echo "== $section: done in $((SECONDS - begin)) s"
done
