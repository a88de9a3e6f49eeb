// Mixture of experts on the host: rows are sorted by their experts, so that an expert's matrix is
// read once for all of its rows.

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/host_step_ops.h"
#include "kernels/row_products.h"

namespace nibble {
namespace {

// Of an expert's matrix: enough for threads to end together, each still hundreds of KiB as a rule.
constexpr int64_t kPiecesOfExpert = 4;

// The rows of a step that go to one expert.
struct ExpertRows {
  std::vector<const float*> sources;
  std::vector<float*> targets;
};

// An expert that has rows.
struct ExpertWork {
  int64_t expert;
  RowProducts products;
  int64_t prepared_offset;  // Of its prepared rows.
};

std::vector<ExpertRows> SortByExpert(const ExpertLinearArgs& args, int64_t row_count) {
  std::vector<ExpertRows> experts(static_cast<size_t>(args.expert_count));
  const auto* const indices = HostPointer<const int32_t>(args.experts);
  for (int64_t row = 0; row < row_count; ++row) {
    for (int64_t i = 0; i < args.top_k; ++i) {
      const int64_t expert = indices[row * args.top_k + i];
      Check(expert >= 0 && expert < args.expert_count, "an expert of the layer");
      ExpertRows& rows = experts[static_cast<size_t>(expert)];
      rows.sources.push_back(RowOf(args.source, row, args.source.groups == 1 ? 0 : i));
      rows.targets.push_back(RowOf(args.target, row, i));
    }
  }
  return experts;
}

// The largest of `values` that is not taken yet; of equal ones the first. NaN is below everything.
int64_t TakeLargest(std::vector<float>& values, float& value) {
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    if (values[i] > values[best] || std::isnan(values[best])) {
      best = std::isnan(values[i]) ? best : i;
    }
  }
  value = values[best];
  values[best] = -1;  // Below every probability.
  return static_cast<int64_t>(best);
}

void RouteRow(const RouteArgs& args, int64_t row) {
  const float* const logits = RowOf(args.logits, row);
  std::vector<float> shares(logits, logits + args.logits.width);
  const float largest = *std::max_element(shares.begin(), shares.end());
  float total = 0;
  for (float& share : shares) {
    share = std::exp(share - largest);
    total += share;
  }
  for (float& share : shares) {
    share /= total;
  }
  int32_t* const experts = HostPointer<int32_t>(args.experts) + row * args.top_k;
  float* const weights = HostPointer<float>(args.weights) + row * args.top_k;
  for (int64_t i = 0; i < args.top_k; ++i) {
    experts[i] = static_cast<int32_t>(TakeLargest(shares, weights[i]));
  }
  if (args.renormalize) {
    const float sum = std::accumulate(weights, weights + args.top_k, 0.0f);
    for (int64_t i = 0; i < args.top_k; ++i) {
      weights[i] /= sum;
    }
  }
}

}  // namespace

absl::Status HostStepOps::Route(Queue&, const RouteArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const int64_t row_count = LiveRows(args.rows);
  for (int64_t row = 0; row < row_count; ++row) {
    RouteRow(args, row);
  }
  return absl::OkStatus();
}

absl::Status HostStepOps::ExpertLinear(Queue&, const ExpertLinearArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const std::vector<ExpertRows> experts = SortByExpert(args, LiveRows(args.rows));
  // By what an expert gets on the average, whatever it gets.
  const ProductKernel kernel = ChooseProductKernel(
      args.shape, args.products, CeilDivide(args.rows.bound * args.top_k, args.expert_count));
  std::vector<ExpertWork> works;
  int64_t prepared_bytes = 0;
  for (size_t expert = 0; expert < experts.size(); ++expert) {
    const ExpertRows& rows = experts[expert];
    if (!rows.sources.empty()) {
      works.push_back({static_cast<int64_t>(expert),
                       RowProducts(args.shape, kernel, rows.sources, rows.targets),
                       prepared_bytes});
      prepared_bytes += RoundUp(works.back().products.prepared_bytes(), 64);
    }
  }
  std::byte* const prepared = PreparedMemory(prepared_bytes);
  pool_.ParallelFor(std::ssize(works), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const ExpertWork& work = works[static_cast<size_t>(i)];
      for (int64_t piece = 0; piece < work.products.piece_count(); ++piece) {
        work.products.Prepare(piece, prepared + work.prepared_offset);
      }
    }
  });
  const auto* const table = HostPointer<const MatrixPlanes>(args.table);
  const int64_t grain = CeilDivide(args.shape.rows, kPiecesOfExpert);
  pool_.ParallelFor(std::ssize(works) * kPiecesOfExpert, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const ExpertWork& work = works[static_cast<size_t>(item / kPiecesOfExpert)];
      const int64_t first = std::min(item % kPiecesOfExpert * grain, args.shape.rows);
      work.products.Multiply(table[work.expert], prepared + work.prepared_offset, first,
                             std::min(first + grain, args.shape.rows));
    }
  });
  return absl::OkStatus();
}

absl::Status HostStepOps::CombineExperts(Queue&, const CombineExpertsArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const auto* const weights = HostPointer<const float>(args.weights);
  const int64_t row_count = LiveRows(args.rows);
  for (int64_t row = 0; row < row_count; ++row) {
    float* const target = RowOf(args.target, row);
    std::fill_n(target, args.target.width, 0.0f);
    for (int64_t i = 0; i < args.top_k; ++i) {
      const float weight = weights[row * args.top_k + i];
      const float* const source = RowOf(args.source, row, i);
      for (int64_t k = 0; k < args.target.width; ++k) {
        target[k] += weight * source[k];
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble
