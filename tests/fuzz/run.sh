#!/usr/bin/env bash
# Runs the libFuzzer targets of build/fuzz (preset `fuzz`), one after the other at low priority:
#   tests/fuzz/run.sh SECONDS [TARGET...]
# Targets: safetensors_header index config quant_state quantized_checkpoint cache_manifest tokenizer_json
# chat_template json_schema.
# Starts from the test data, keeps what it learns in build/fuzz/corpus, and leaves an input that
# fails in build/fuzz/findings. Time: SECONDS for each target.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ $# -lt 1 ]]; then
  echo "usage: tests/fuzz/run.sh SECONDS [safetensors_header|index|config|quant_state|quantized_checkpoint|cache_manifest|tokenizer_json|chat_template|json_schema]..." >&2
  exit 2
fi
seconds=$1
shift
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
  targets=(safetensors_header index config quant_state quantized_checkpoint cache_manifest tokenizer_json chat_template json_schema)
fi

seed() {  # seed TARGET CORPUS: copies the test data that suits the target.
  local file
  if [[ $1 == cache_manifest ]]; then
    # One of a tensor with two planes, and the checksums of its two pieces.
    printf 'key\n{"files":[{"name":"m.safetensors","bytes":100,"rest":"%032d"}],"tensors":[{"name":"w","parts":[{"data":[0,8,32],"scales":[0,40,4],"scale_mean":1}]}]}\n%s' \
      0 abcdefgh12345678 >"$2/seed-manifest"
    return
  fi
  if [[ $1 == chat_template ]]; then
    # The small templates of the language tests, one a file.
    python3 -c '
import json, pathlib, sys
groups = json.load(open("tests/data/chat_templates/language_cases.json", encoding="utf-8"))["groups"]
for name, cases in groups.items():
    for index, case in enumerate(cases):
        pathlib.Path(sys.argv[1], f"seed-{name}-{index}").write_text(case["template"], encoding="utf-8")
' "$2"
  fi
  case $1 in
    safetensors_header) find tests/data/safetensors -name '*.safetensors' -size -64k ;;
    index) find tests/data -name 'model.safetensors.index.json' ;;
    config) find tests/data -name config.json ;;
    chat_template) find tests/data/chat_templates -name '*.jinja' ;;
    quant_state | quantized_checkpoint | tokenizer_json | json_schema) find "tests/fuzz/seeds/$1" -type f ;;
    *) echo "run.sh: no such target: $1" >&2; return 2 ;;
  esac | while read -r file; do
    cp -- "$file" "$2/seed-$(sha256sum "$file" | cut -c1-16)"
  done
}

for target in "${targets[@]}"; do
  corpus=build/fuzz/corpus/$target
  mkdir -p "$corpus" build/fuzz/findings
  seed "$target" "$corpus"
  nice -n 10 "build/fuzz/bin/${target}_fuzz" "$corpus" \
    -dict="tests/fuzz/dictionaries/$target.dict" \
    -artifact_prefix="build/fuzz/findings/$target-" \
    -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 \
    -print_final_stats=1
done
