#include "kernels/host_step_ops.h"

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "kernels/matrix_rows.h"
#include "kernels/row_products.h"
#include "kernels/sampling.h"
#include "kernels/silu.h"

namespace nibble {
namespace {

// Rows of cheap work that a thread takes at once: fewer cost more to hand out than to do.
constexpr int64_t kRowGrain = 8;

// Numbers of a gate that a thread takes at once.
constexpr int64_t kGatePiece = 1024;

float Activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::kGeluTanh: {
      constexpr float kSqrt2OverPi = 0.7978845608028654f;
      return 0.5f * x * (1 + std::tanh(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
    }
  }
  return x;
}

// Normalizes one group; `first_weight` is the index of its first weight.
void NormalizeGroup(const NormArgs& args, const float* source, int64_t first_weight,
                    float* target) {
  const int64_t width = args.source.width;
  float mean = 0;
  if (args.kind == NormKind::kLayer) {
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) {
      sum += double{source[i]};
    }
    mean = static_cast<float>(sum / static_cast<double>(width));
  }
  double squares = 0;
  for (int64_t i = 0; i < width; ++i) {
    const double x = double{source[i]} - double{mean};
    squares += x * x;
  }
  const float variance = static_cast<float>(squares / static_cast<double>(width));
  const float factor = 1 / std::sqrt(variance + args.epsilon);
  const float offset = args.kind == NormKind::kZeroCentredRms ? 1.0f : 0.0f;
  for (int64_t i = 0; i < width; ++i) {
    target[i] = (source[i] - mean) * factor * (offset + ReadElement(args.weight, first_weight + i));
  }
}

}  // namespace

absl::Status HostStepOps::Embed(Queue&, const EmbedArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const auto* const ids = HostPointer<const int32_t>(args.ids);
  const MatrixShape& shape = args.table.shape;
  pool_.ParallelFor(LiveRows(args.rows), kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      float* const target = RowOf(args.target, row);
      if (ids[row] < 0 || ids[row] >= shape.rows) {
        std::fill_n(target, shape.columns, std::numeric_limits<float>::quiet_NaN());
        continue;
      }
      ReadElements(args.table, ids[row] * shape.columns, shape.columns, target);
      for (int64_t i = 0; i < shape.columns; ++i) {
        target[i] *= args.scale;
      }
    }
  });
  return absl::OkStatus();
}

absl::Status HostStepOps::Norm(Queue&, const NormArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const int64_t width = args.source.width;
  const bool shared = args.weight.span.bytes() == width * BytesPerElement(args.weight.type);
  pool_.ParallelFor(LiveRows(args.rows), kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      for (int64_t group = 0; group < args.source.groups; ++group) {
        NormalizeGroup(args, RowOf(args.source, row, group), shared ? 0 : group * width,
                       RowOf(args.target, row, group));
      }
    }
  });
  return absl::OkStatus();
}

absl::Status HostStepOps::Linear(Queue&, const LinearArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const int64_t row_count = LiveRows(args.rows);
  std::vector<const float*> sources(static_cast<size_t>(row_count));
  std::vector<float*> targets(static_cast<size_t>(row_count));
  for (int64_t row = 0; row < row_count; ++row) {
    sources[static_cast<size_t>(row)] = RowOf(args.source, row);
    targets[static_cast<size_t>(row)] = RowOf(args.target, row);
  }
  if (row_count == 0) {
    return absl::OkStatus();
  }
  const MatrixShape& shape = args.weight.shape;
  const RowProducts products(shape, ChooseProductKernel(shape, args.products, args.rows.bound),
                             sources, targets);
  std::byte* const prepared = PreparedMemory(products.prepared_bytes());
  pool_.ParallelFor(products.piece_count(), 1, [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      products.Prepare(piece, prepared);
    }
  });
  const int64_t grain = products.Grain(pool_.thread_count());
  pool_.ParallelFor(shape.rows, grain, [&](int64_t first, int64_t last) {
    products.Multiply(args.weight.planes, prepared, first, last);
    if (args.bias.span.empty()) {
      return;
    }
    for (int64_t n = first; n < last; ++n) {
      const float bias = ReadElement(args.bias, n);
      for (float* const target : targets) {
        target[n] += bias;
      }
    }
  });
  return absl::OkStatus();
}

absl::Status HostStepOps::Rope(Queue&, const RopeArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const auto* const positions = HostPointer<const int32_t>(args.positions);
  const auto* const frequencies = HostPointer<const float>(args.frequencies);
  const int64_t count = args.frequency_count;
  const int64_t step = args.interleaved ? 2 : 1;          // From pair to pair.
  const int64_t distance = args.interleaved ? 1 : count;  // From one of a pair to the other.
  pool_.ParallelFor(LiveRows(args.rows), kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      for (int64_t i = 0; i < count; ++i) {
        const float angle = static_cast<float>(positions[row]) * frequencies[i];
        const float cosine = std::cos(angle) * args.magnitude;
        const float sine = std::sin(angle) * args.magnitude;
        for (int64_t group = 0; group < args.heads.groups; ++group) {
          float* const head = RowOf(args.heads, row, group);
          float& one = head[i * step];
          float& other = head[i * step + distance];
          const float turned = one * cosine - other * sine;
          other = other * cosine + one * sine;
          one = turned;
        }
      }
    }
  });
  return absl::OkStatus();
}

absl::Status HostStepOps::Gate(Queue&, const GateArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const bool one_gate = args.gate.width == 1 && args.gate.groups == 1;
  const int64_t groups = args.value.groups;
  const int64_t pieces = CeilDivide(args.value.width, kGatePiece);  // Of a group.
  const int64_t count = LiveRows(args.rows) * groups * pieces;
  pool_.ParallelFor(count, std::max(kRowGrain / pieces, int64_t{1}),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t item = begin; item < end; ++item) {
                        const int64_t row = item / pieces / groups;
                        const int64_t group = item / pieces % groups;
                        const int64_t first = item % pieces * kGatePiece;
                        const int64_t width = std::min(kGatePiece, args.value.width - first);
                        const float* const value = RowOf(args.value, row, group) + first;
                        float* const target = RowOf(args.target, row, group) + first;
                        const float* const gate =
                            RowOf(args.gate, row, one_gate ? 0 : group) + (one_gate ? 0 : first);
                        if (one_gate) {
                          const float factor = Activate(args.activation, *gate);
                          for (int64_t i = 0; i < width; ++i) {
                            target[i] = factor * value[i];
                          }
                        } else if (args.activation == Activation::kSilu) {
                          GateBySilu(gate, value, width, target);
                        } else {
                          for (int64_t i = 0; i < width; ++i) {
                            target[i] = Activate(args.activation, gate[i]) * value[i];
                          }
                        }
                      }
                    });
  return absl::OkStatus();
}

absl::Status HostStepOps::Add(Queue&, const AddArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const int64_t row_count = LiveRows(args.rows);
  for (int64_t row = 0; row < row_count; ++row) {
    const float* const source = RowOf(args.source, row);
    float* const target = RowOf(args.target, row);
    for (int64_t i = 0; i < args.target.width; ++i) {
      target[i] += source[i];
    }
  }
  return absl::OkStatus();
}

absl::Status HostStepOps::GatherRows(Queue&, const GatherRowsArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const auto* const indices = HostPointer<const int32_t>(args.row_indices);
  const int64_t row_count = LiveRows(args.rows);
  for (int64_t row = 0; row < row_count; ++row) {
    const int64_t needed = indices[row] * args.source.row_stride + args.target.width;
    Check(indices[row] >= 0 && needed * 4 <= args.source.span.bytes(), "a row of the source");
    std::copy_n(RowOf(args.source, indices[row]), args.target.width, RowOf(args.target, row));
  }
  return absl::OkStatus();
}

absl::Status HostStepOps::ScaleLogits(Queue&, const ScaleLogitsArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  pool_.ParallelFor(LiveRows(args.rows), 1, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      float* const logits = RowOf(args.logits, row);
      for (int64_t i = 0; i < args.logits.width; ++i) {
        const float x = logits[i] * args.scale;
        logits[i] = args.softcap == 0 ? x : args.softcap * std::tanh(x / args.softcap);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status HostStepOps::Sample(Queue&, const SampleArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const auto* const samplers = HostPointer<const SamplerRow>(args.samplers);
  const std::span<const LogitAdjustment> adjustments(
      HostPointer<const LogitAdjustment>(args.adjustments),
      static_cast<size_t>(args.adjustments.bytes()) / sizeof(LogitAdjustment));
  const int64_t mask_words = CeilDivide(args.logits.width, int64_t{32});
  const int64_t mask_count = args.masks.bytes() / (mask_words * 4);
  pool_.ParallelFor(LiveRows(args.rows), 1, [&](int64_t first, int64_t last) {
    std::vector<float> scratch;
    for (int64_t row = first; row < last; ++row) {
      const SamplerRow& sampler = samplers[row];
      Check(sampler.mask_index < mask_count, "a mask of the step");
      const uint32_t* const mask =
          sampler.mask_index < 0
              ? nullptr
              : HostPointer<const uint32_t>(args.masks) + sampler.mask_index * mask_words;
      HostPointer<SampledRow>(args.results)[row] = SampleLogits(
          sampler,
          adjustments.subspan(static_cast<size_t>(sampler.first_adjustment),
                              static_cast<size_t>(sampler.adjustment_count)),
          mask, {RowOf(args.logits, row), static_cast<size_t>(args.logits.width)}, scratch);
    }
  });
  return absl::OkStatus();
}

}  // namespace nibble
