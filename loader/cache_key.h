// Which load an entry of the quantized cache stands for.

#pragma once

#include <string>

#include "loader/checkpoint.h"
#include "loader/load_plan.h"

namespace nibble {

// Everything that decides the bytes of a load's weights, as one line of JSON:
//
//   {"nibble_cache": 1, "config": DIGEST,
//    "shards": [{"name", "header": DIGEST, "bytes", "modified_ns", "changed_ns", "inode",
//    "device"}], "quantization": {...}, "plan": DIGEST, "device_kind": "any"}
//
// "nibble_cache" is the format's version, of entries and of what kernels make of the same bits.
// "plan" sums up what is read from where and what becomes of it, so that a rule of the policy that
// changes needs no new version. Nothing of serving is in it, nor min_quantized_ratio, which decides
// only whether there is a load. "device_kind" is "any" where host and CUDA give equal bytes, which
// is almost always; else it is the device's: with fp32 numbers to quantize their reciprocals may
// differ in the last bit, and the mean of double-quantized scales in the order of its sum.
struct CacheKey {
  std::string text;
  std::string entry_name;  // The digest of `text`: how the entry's directory is called.
};

// Requires: `plan` was made for `checkpoint`, and IsCacheable(plan).
CacheKey MakeCacheKey(const Checkpoint& checkpoint, const LoadPlan& plan);

// Whether reading the result of a load could stand for the load: something is quantized by it, and
// no statistics are wanted that need the source's elements.
bool IsCacheable(const LoadPlan& plan);

}  // namespace nibble
