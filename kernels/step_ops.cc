#include "kernels/step_ops.h"

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// Products of two counts below this fit in 63 bits; more rows, columns or heads than any model has.
constexpr int64_t kExtentMax = int64_t{1} << 30;
constexpr int64_t kHeadSizeMax = 1024;  // What kernels keep of a head on chip.
constexpr int64_t kTopKMax = 64;        // Experts of a token.
constexpr int64_t kExpertsMax = 1024;
constexpr int64_t kTapsMax = 16;

// Collects the first thing that is wrong.
class Checker {
 public:
  void Require(bool holds, const char* what) {
    if (!holds) {
      Fail(absl::StrCat(what, " does not hold"));
    }
  }

  void Extent(const char* what, int64_t value, int64_t max = kExtentMax) {
    if (value < 1 || value > max) {
      Fail(absl::StrCat(what, ": expected 1 to ", max, ", found ", value));
    }
  }

  // At least `bytes`, aligned: buffers of a step are as large as its largest use.
  void Span(const char* what, DeviceSpan span, int64_t bytes, uint64_t alignment = 4) {
    if (span.bytes() < bytes || span.address() % alignment != 0) {
      Fail(absl::StrCat(what, ": expected ", bytes, " bytes aligned to ", alignment, ", found ",
                        span.bytes(), " at ", span.address()));
    }
  }

  void Numbers(const char* what, DeviceSpan span, int64_t count) { Span(what, span, count * 4); }

  void Rows(const RowCount& rows) {
    Extent("rows", rows.bound);
    Numbers("live rows", rows.live, 1);
  }

  void Shape(const char* what, const Activations& a, int64_t rows, int64_t groups, int64_t width) {
    if (a.groups != groups || a.width != width) {
      Fail(absl::StrCat(what, ": expected [", groups, ", ", width, "] a row, found [", a.groups,
                        ", ", a.width, "]"));
    }
    Extent("rows", rows);
    Extent(what, a.groups);
    Extent(what, a.width);
    if (a.row_stride < 0 || a.group_stride < 0 || a.row_stride > kExtentMax ||
        a.group_stride > kExtentMax) {
      Fail(absl::StrCat(what, ": strides are beyond their limits"));
      return;
    }
    Numbers(what, a.span, (rows - 1) * a.row_stride + (a.groups - 1) * a.group_stride + a.width);
  }

  void Vector(const char* what, const WeightVector& vector, int64_t width) {
    const int64_t element_bytes = BytesPerElement(vector.type);
    Span(what, vector.span, width * element_bytes, static_cast<uint64_t>(element_bytes));
  }

  void Matrix(const MatrixShape& shape) {
    Extent("matrix rows", shape.rows);
    Extent("matrix columns", shape.columns);
    Require(!IsFourBit(shape.format) || IsBlockSize(shape.block_size), "a valid block size");
    Require(IsFourBit(shape.format) || !shape.double_quantized, "8-bit scales of 4 bits");
  }

  void Planes(const MatrixShape& shape, const MatrixPlanes& planes) {
    Require(planes.data != 0, "a matrix has data");
    Require(!IsFourBit(shape.format) || planes.scales != 0, "a matrix in 4 bits has scales");
    Require(!shape.double_quantized ||
                (planes.scale_maxima != 0 && planes.scale_mean != 0 && planes.scale_map != 0),
            "8-bit scales have maxima, a mean and a map");
  }

  void Cache(const KvCache& cache) {
    Extent("slots", cache.slot_count);
    Extent("key heads", cache.heads);
    Extent("head size", cache.head_size, kHeadSizeMax);
    const int64_t bytes =
        cache.slot_count * cache.heads * cache.head_size * BytesPerElement(cache.type);
    Span("key cache", cache.keys, bytes);
    Span("value cache", cache.values, bytes);
  }

  void Sequences(const StepSequences& sequences, const RowCount& rows) {
    Extent("sequences", sequences.bound);
    Numbers("live sequences", sequences.live, 1);
    Numbers("first rows", sequences.first_rows, sequences.bound);
    Numbers("row counts", sequences.row_counts, sequences.bound);
    Numbers("state slots", sequences.state_slots, sequences.bound);
    Numbers("positions", sequences.positions, rows.bound);
  }

  absl::Status status() const { return status_; }

 private:
  void Fail(const std::string& message) { status_.Update(absl::InvalidArgumentError(message)); }

  absl::Status status_;
};

}  // namespace

absl::Status CheckArgs(const EmbedArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Matrix(args.table.shape);
  check.Planes(args.table.shape, args.table.planes);
  check.Numbers("ids", args.ids, args.rows.bound);
  check.Shape("target", args.target, args.rows.bound, 1, args.table.shape.columns);
  return check.status();
}

absl::Status CheckArgs(const NormArgs& args) {
  Checker check;
  const Activations& source = args.source;
  check.Rows(args.rows);
  check.Shape("source", source, args.rows.bound, source.groups, source.width);
  check.Shape("target", args.target, args.rows.bound, source.groups, source.width);
  const int64_t element_bytes = BytesPerElement(args.weight.type);
  const bool shared = args.weight.span.bytes() == source.width * element_bytes;
  check.Vector("weight", args.weight, source.width * (shared ? 1 : source.groups));
  return check.status();
}

absl::Status CheckArgs(const LinearArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Matrix(args.weight.shape);
  check.Planes(args.weight.shape, args.weight.planes);
  if (!args.bias.span.empty()) {
    check.Vector("bias", args.bias, args.weight.shape.rows);
  }
  check.Shape("source", args.source, args.rows.bound, 1, args.weight.shape.columns);
  check.Shape("target", args.target, args.rows.bound, 1, args.weight.shape.rows);
  return check.status();
}

absl::Status CheckArgs(const RopeArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Extent("frequencies", args.frequency_count, kHeadSizeMax);
  check.Numbers("frequencies", args.frequencies, args.frequency_count);
  check.Numbers("positions", args.positions, args.rows.bound);
  check.Shape("heads", args.heads, args.rows.bound, args.heads.groups, args.heads.width);
  check.Require(2 * args.frequency_count <= args.heads.width, "a head holds what is turned");
  return check.status();
}

absl::Status CheckArgs(const StoreKvArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Cache(args.cache);
  check.Shape("keys", args.keys, args.rows.bound, args.cache.heads, args.cache.head_size);
  check.Shape("values", args.values, args.rows.bound, args.cache.heads, args.cache.head_size);
  check.Numbers("slots", args.slots, args.rows.bound);
  return check.status();
}

absl::Status CheckArgs(const AttentionArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Cache(args.cache);
  const int64_t heads = args.queries.groups;
  check.Shape("queries", args.queries, args.rows.bound, heads, args.cache.head_size);
  check.Shape("target", args.target, args.rows.bound, heads, args.cache.head_size);
  check.Extent("pages", args.pages_max);
  check.Extent("page tokens", args.page_tokens, kHeadSizeMax);
  if (check.status().ok()) {
    check.Require(heads % args.cache.heads == 0, "query heads are a multiple of key heads");
    check.Require((args.page_tokens & (args.page_tokens - 1)) == 0, "page tokens: a power of two");
    check.Require(args.window >= 0 && args.softcap >= 0, "window and softcap are not negative");
  }
  check.Numbers("page tables", args.page_tables, args.pages_max);
  check.Numbers("row sequences", args.row_sequences, args.rows.bound);
  check.Numbers("positions", args.positions, args.rows.bound);
  return check.status();
}

absl::Status CheckArgs(const GateArgs& args) {
  Checker check;
  const Activations& value = args.value;
  check.Rows(args.rows);
  check.Shape("value", value, args.rows.bound, value.groups, value.width);
  check.Shape("target", args.target, args.rows.bound, value.groups, value.width);
  if (args.gate.width == 1 && args.gate.groups == 1) {
    check.Shape("gate", args.gate, args.rows.bound, 1, 1);
  } else {
    check.Shape("gate", args.gate, args.rows.bound, value.groups, value.width);
  }
  return check.status();
}

absl::Status CheckArgs(const AddArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Shape("target", args.target, args.rows.bound, 1, args.target.width);
  check.Shape("source", args.source, args.rows.bound, 1, args.target.width);
  return check.status();
}

absl::Status CheckArgs(const GatherRowsArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Numbers("row indices", args.row_indices, args.rows.bound);
  check.Shape("target", args.target, args.rows.bound, 1, args.target.width);
  check.Shape("source", args.source, 1, 1, args.target.width);
  return check.status();
}

absl::Status CheckArgs(const ScaleLogitsArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Shape("logits", args.logits, args.rows.bound, 1, args.logits.width);
  return check.status();
}

absl::Status CheckArgs(const RouteArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Shape("logits", args.logits, args.rows.bound, 1, args.logits.width);
  check.Extent("experts", args.logits.width, kExpertsMax);
  check.Extent("experts of a token", args.top_k, kTopKMax);
  check.Require(args.top_k <= args.logits.width, "a token has at most all experts");
  check.Numbers("experts", args.experts, args.rows.bound * args.top_k);
  check.Numbers("weights", args.weights, args.rows.bound * args.top_k);
  return check.status();
}

absl::Status CheckArgs(const ExpertLinearArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Matrix(args.shape);
  check.Extent("experts", args.expert_count, kExpertsMax);
  check.Extent("experts of a token", args.top_k, kTopKMax);
  check.Span("expert table", args.table,
             args.expert_count * static_cast<int64_t>(sizeof(MatrixPlanes)), alignof(MatrixPlanes));
  check.Numbers("experts", args.experts, args.rows.bound * args.top_k);
  check.Shape("source", args.source, args.rows.bound, args.source.groups == 1 ? 1 : args.top_k,
              args.shape.columns);
  check.Shape("target", args.target, args.rows.bound, args.top_k, args.shape.rows);
  return check.status();
}

absl::Status CheckArgs(const CombineExpertsArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Extent("experts of a token", args.top_k, kTopKMax);
  check.Numbers("weights", args.weights, args.rows.bound * args.top_k);
  check.Shape("source", args.source, args.rows.bound, args.top_k, args.target.width);
  check.Shape("target", args.target, args.rows.bound, 1, args.target.width);
  return check.status();
}

absl::Status CheckArgs(const ShortConvolutionArgs& args) {
  Checker check;
  const int64_t channels = args.source.width;
  check.Rows(args.rows);
  check.Sequences(args.sequences, args.rows);
  check.Extent("taps", args.taps, kTapsMax);
  check.Require(args.taps >= 2, "a convolution has at least two taps");
  check.Shape("source", args.source, args.rows.bound, 1, channels);
  check.Shape("target", args.target, args.rows.bound, 1, channels);
  check.Vector("weight", args.weight, channels * args.taps);
  check.Extent("slots", args.slot_count);
  check.Numbers("state", args.state, args.slot_count * (args.taps - 1) * channels);
  return check.status();
}

absl::Status CheckArgs(const DeltaRuleArgs& args) {
  Checker check;
  const int64_t rows = args.rows.bound;
  check.Rows(args.rows);
  check.Sequences(args.sequences, args.rows);
  check.Extent("key heads", args.key_heads, kExpertsMax);
  check.Extent("value heads", args.value_heads, kExpertsMax);
  check.Extent("key size", args.key_size, kHeadSizeMax);
  check.Extent("value size", args.value_size, kHeadSizeMax);
  check.Extent("slots", args.slot_count);
  if (!check.status().ok()) {
    return check.status();
  }
  check.Require(args.value_heads % args.key_heads == 0, "value heads: a multiple of key heads");
  check.Shape("queries", args.queries, rows, args.key_heads, args.key_size);
  check.Shape("keys", args.keys, rows, args.key_heads, args.key_size);
  check.Shape("values", args.values, rows, args.value_heads, args.value_size);
  check.Shape("decay gate", args.decay_gate, rows, 1, args.value_heads);
  check.Shape("write gate", args.write_gate, rows, 1, args.value_heads);
  check.Vector("decay", args.decay, args.value_heads);
  check.Vector("bias", args.bias, args.value_heads);
  check.Shape("target", args.target, rows, args.value_heads, args.value_size);
  check.Numbers("state", args.state,
                args.slot_count * args.value_heads * args.key_size * args.value_size);
  return check.status();
}

absl::Status CheckArgs(const SampleArgs& args) {
  Checker check;
  check.Rows(args.rows);
  check.Shape("logits", args.logits, args.rows.bound, 1, args.logits.width);
  check.Span("samplers", args.samplers, args.rows.bound * static_cast<int64_t>(sizeof(SamplerRow)),
             alignof(SamplerRow));
  check.Span("adjustments", args.adjustments, 0);
  check.Span("masks", args.masks, 0);
  check.Span("results", args.results, args.rows.bound * static_cast<int64_t>(sizeof(SampledRow)),
             alignof(SampledRow));
  return check.status();
}

}  // namespace nibble
