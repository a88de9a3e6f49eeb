#!/usr/bin/env bash
# Makes a directory that runs on any x86-64 Linux with glibc >= 2.36 and from any place: bin/ and the
# libraries it needs in lib/, found by $ORIGIN. Containers and users without root take it.
#
#   deploy/bundle.sh [--gpu-tests] [--build DIR] [OUT]
#
#   --gpu-tests   also gpu_tests and the benchmarks of kernels, for tests/gpu.sh on a machine with a GPU;
#                 packed as OUT.tgz too, which together with the tree must stay under 60 MiB
#   --build DIR   where the programs were built (default build/release)
#   OUT           default build/bundle; replaced
#
# Needs patchelf, objdump and strip. Time: seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/release
out=build/bundle
programs=(nibble)
limit_bytes=0
while (($# > 0)); do
  case "$1" in
    --gpu-tests)
      programs=(nibble gpu_tests linear_bench step_bench quantize_bench)
      limit_bytes=$((60 << 20))
      ;;
    --build)
      build=${2:?"--build needs a directory"}
      shift
      ;;
    -h | --help)
      sed -n '2,14p' "$0" | sed 's/^# \{0,1\}//'
      exit 0
      ;;
    -*)
      echo "bundle.sh: unknown option $1" >&2
      exit 2
      ;;
    *) out=$1 ;;
  esac
  shift
done
for tool in patchelf objdump strip; do
  command -v "$tool" > /dev/null || { echo "bundle.sh: $tool is missing: apt-get install patchelf binutils" >&2; exit 1; }
done

# What belongs to glibc must be the target's own: it goes with its kernel and its loader.
is_glibc() {
  case "$1" in
    linux-vdso.so.* | ld-linux* | libc.so.* | libm.so.* | libmvec.so.* | libpthread.so.* | libdl.so.* | librt.so.* | \
      libresolv.so.* | libutil.so.* | libanl.so.* | libnsl.so.* | libnss_*) return 0 ;;
  esac
  return 1
}

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
for program in "${programs[@]}"; do
  if [[ ! -x "$build/bin/$program" ]]; then
    echo "bundle.sh: $build/bin/$program is not built: cmake --preset release && cmake --build $build --target $program" >&2
    exit 1
  fi
  install -m 755 "$build/bin/$program" "$out/bin/$program"
  missing=$(ldd "$build/bin/$program" | grep 'not found' || true)
  if [[ -n "$missing" ]]; then
    echo "bundle.sh: $program: $missing" >&2
    exit 1
  fi
  while read -r name path; do
    if ! is_glibc "$name" && [[ ! -e "$out/lib/$name" ]]; then
      install -m 644 "$path" "$out/lib/$name"
    fi
  done < <(ldd "$build/bin/$program" | awk '$2 == "=>" {print $1, $3}')
done

find "$out" -type f -exec strip --strip-unneeded {} +
# A library's search path does not serve the libraries that it needs, so each has its own.
find "$out/bin" -type f -exec patchelf --set-rpath '$ORIGIN/../lib' {} \;
find "$out/lib" -type f -exec patchelf --set-rpath '$ORIGIN' {} \;

glibc=$(find "$out" -type f -exec objdump -T {} + 2> /dev/null | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -1)
if [[ "$(printf '%s\n' GLIBC_2.36 "$glibc" | sort -V | tail -1)" != GLIBC_2.36 ]]; then
  echo "bundle.sh: needs $glibc, promised is GLIBC_2.36; build on Debian 12" >&2
  exit 1
fi
bundle_bytes=$(du -sb "$out" | cut -f1)
echo "bundle.sh: $out: ${programs[*]}, $(find "$out/lib" -type f | wc -l) libraries, $((bundle_bytes >> 20)) MiB, needs $glibc"
if ((limit_bytes > 0)); then
  tar -C "$(dirname "$out")" -czf "$out.tgz" "$(basename "$out")"
  packed_bytes=$(stat -c %s "$out.tgz")
  tree_bytes=$(git ls-files -z | xargs -0 -r stat -c %s 2> /dev/null | awk '{sum += $1} END {print sum + 0}')
  if ((tree_bytes + packed_bytes >= limit_bytes)); then
    echo "bundle.sh: tree $((tree_bytes >> 20)) MiB and $out.tgz $((packed_bytes >> 20)) MiB are not under 60 MiB" >&2
    exit 1
  fi
fi
