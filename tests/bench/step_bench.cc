// Where a decode step of a model of llama-8b's shapes goes: each operation by itself, a layer and a
// whole step, in microseconds.
//
//   step_bench [bf16|fp32 [ROUNDS]]
//
// An operation is timed in a CUDA graph of 50 of them, so that what lies between two counts; the
// products read the next of eight layers' matrices each time, as attention does its cache. Time:
// half a minute on an H200.

#include <cuda_runtime_api.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "kernels/bytes.h"
#include "kernels/step_kernels.h"
#include "tests/bench/gpu_timer.h"

namespace nibble {
namespace {

constexpr int64_t kHidden = 4096;
constexpr int64_t kHeads = 32;
constexpr int64_t kKeyHeads = 8;
constexpr int64_t kHeadSize = 128;
constexpr int64_t kIntermediate = 14336;
constexpr int64_t kVocabulary = 128256;
constexpr int64_t kPageTokens = 16;
constexpr int kLayers = 32;
constexpr int kStoredLayers = 8;  // 0.9 GB in 4 bits: far more than a second-level cache.
constexpr int kRepetitions = 50;
constexpr int64_t kKeySize = kKeyHeads * kHeadSize;

template <typename T>
std::vector<T> RandomPattern(size_t count, float low, float high) {
  std::mt19937 random(static_cast<uint32_t>(count));
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<T> values(count);
  for (T& value : values) {
    value = static_cast<T>(uniform(random));
  }
  return values;
}

struct LayerMatrices {
  Matrix query, key, value, output, gate, up, down;
};

// The weights of a model, some of whose layers are the same.
struct Weights {
  explicit Weights(Memory& memory)
      : codes(RandomPattern<uint8_t>((1 << 22) + 13, 0, 255)),
        scales(RandomPattern<float>((1 << 18) + 13, 0.01f, 0.05f)) {
    for (LayerMatrices& layer : layers) {
      layer.query = FourBit(kHidden, kHidden, memory);
      layer.key = FourBit(kKeySize, kHidden, memory);
      layer.value = FourBit(kKeySize, kHidden, memory);
      layer.output = FourBit(kHidden, kHidden, memory);
      layer.gate = FourBit(kIntermediate, kHidden, memory);
      layer.up = FourBit(kIntermediate, kHidden, memory);
      layer.down = FourBit(kHidden, kIntermediate, memory);
    }
    // bf16 0x3c3c is 0.0115.
    const DeviceSpan wide = memory.Cut(kVocabulary * kHidden * 2);
    Check(cudaMemset(reinterpret_cast<void*>(wide.address()), 0x3c,
                     static_cast<size_t>(wide.bytes())),
          "cudaMemset");
    head.shape = {MatrixFormat::kBf16, kVocabulary, kHidden, 64, false};
    head.planes.data = wide.address();
    norm = {FloatType::kF32, memory.Fill(kHidden, std::vector<float>{1.0f})};
  }

  Matrix FourBit(int64_t n, int64_t k, Memory& memory) const {
    Matrix matrix;
    matrix.shape = {MatrixFormat::kNf4, n, k, 64, false};
    matrix.planes.data = memory.Fill(n * k / 2, codes).address();
    matrix.planes.scales = memory.Fill(n * k / 64, scales).address();
    return matrix;
  }

  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::array<LayerMatrices, kStoredLayers> layers;
  Matrix head;
  WeightVector norm;
};

class StepBench {
 public:
  StepBench(Timer& timer, const Weights& weights, const ProductOptions& products, int64_t bound,
            int64_t context)
      : timer_(timer), weights_(weights), products_(products), bound_(bound), context_(context) {
    const std::vector<float> numbers = RandomPattern<float>((1 << 18) + 13, -1, 1);
    const auto rows = [&](int64_t width) { return memory_.Fill(bound * width, numbers); };
    hidden_ = rows(kHidden);
    normed_ = rows(kHidden);
    mixed_ = rows(kHidden);
    queries_ = rows(kHidden);
    attended_ = rows(kHidden);
    keys_ = rows(kKeySize);
    values_ = rows(kKeySize);
    gate_ = rows(kIntermediate);
    up_ = rows(kIntermediate);
    logits_ = rows(kVocabulary);
    sampled_ = rows(kVocabulary);
    rows_ = {bound, memory_.Fill(1, std::vector<int32_t>{static_cast<int32_t>(bound)})};
    frequencies_ = memory_.Fill(kHeadSize / 2, std::vector<float>{1.0f, 0.1f, 0.01f, 0.001f});
    std::vector<int32_t> indices;
    for (int64_t row = 0; row < bound; ++row) {
      indices.push_back(static_cast<int32_t>(row));
    }
    indices_ = memory_.Fill(bound, indices);
    positions_ = memory_.Fill(bound, std::vector<int32_t>{static_cast<int32_t>(context - 1)});
    std::vector<int32_t> pages;
    for (int64_t page = 0; page < bound * context / kPageTokens; ++page) {
      pages.push_back(static_cast<int32_t>(page));
    }
    pages_ = memory_.Fill(std::ssize(pages), pages);
    std::vector<int32_t> slots;
    for (int64_t row = 0; row < bound; ++row) {
      slots.push_back(static_cast<int32_t>((row + 1) * context - 1));
    }
    slots_ = memory_.Fill(bound, slots);
    results_ = memory_.Cut(bound * int64_t{sizeof(SampledRow)});
    for (KvCache& cache : caches_) {
      cache = {KvType::kF16, bound * context, kKeyHeads, kHeadSize, Cache(), Cache()};
    }
  }

  void Operations() {
    std::printf("bound %lld, context %lld\n", static_cast<long long>(bound_),
                static_cast<long long>(context_));
    Print("embed", [this](int) { Embed(); });
    Print("norm", [this](int) { Check(LaunchNorm(NormOf(), stream()), "norm"); });
    Print("add", [this](int) { Check(LaunchAdd(AddOf(), stream()), "add"); });
    Print("add and norm", [this](int) { AddNorm(); });
    Print("query product", [this](int i) { Linear(Layer(i).query, normed_, queries_); });
    Print("query, key, value products", [this](int i) { QueryKeyValue(i); });
    Print("rope of queries",
          [this](int) { Check(LaunchRope(RopeOf(queries_, kHeads), stream()), "rope"); });
    Print("store keys and values",
          [this](int i) { Check(LaunchStoreKv(StoreOf(i), stream()), "store"); });
    Print("rope and store", [this](int i) { RopeStore(i); });
    Print("attention", [this](int i) { Attention(i); });
    Print("output product", [this](int i) { Linear(Layer(i).output, attended_, mixed_); });
    Print("gate and up products", [this](int i) { GateUp(i); });
    Print("gate", [this](int) { Gate(); });
    Print("down product", [this](int i) { Linear(Layer(i).down, gate_, mixed_); });
    Print("gather rows", [this](int) { Gather(); });
    Print("head product", [this](int) { Linear(weights_.head, normed_, logits_); });
    SamplerRow sampler;
    const auto sample = [this](int) { Sample(); };
    Upload(sampler);
    Print("sample the largest", sample);
    sampler.temperature = 0.8f;
    Upload(sampler);
    Print("sample by temperature", sample);
    sampler.top_p = 0.95f;
    Upload(sampler);
    Print("sample by top_p", sample);
  }

  void Steps() {
    Upload(SamplerRow());
    Print("a layer", [this](int i) { QueueLayer(i); });
    Print("a step", 4, [this](int) {
      Embed();
      Check(LaunchNorm(NormOf(), stream()), "norm");
      for (int i = 0; i < kLayers; ++i) {
        QueueLayer(i);
      }
      Gather();
      Check(LaunchNorm(NormOf(), stream()), "norm");
      Linear(weights_.head, normed_, logits_);
      Sample();
    });
  }

 private:
  cudaStream_t stream() const { return timer_.stream(); }
  static size_t Stored(int i) { return static_cast<size_t>(i % kStoredLayers); }
  const LayerMatrices& Layer(int i) const { return weights_.layers[Stored(i)]; }

  // f16 0x2c2c is 0.065.
  DeviceSpan Cache() {
    const DeviceSpan span = memory_.Cut(bound_ * context_ * kKeySize * 2);
    Check(cudaMemset(reinterpret_cast<void*>(span.address()), 0x2c,
                     static_cast<size_t>(span.bytes())),
          "cudaMemset");
    return span;
  }

  void Upload(const SamplerRow& sampler) {
    samplers_ = memory_.Fill(bound_, std::vector<SamplerRow>{sampler});
  }

  void Print(const char* name, const std::function<void(int)>& work) {
    Print(name, kRepetitions, work);
  }
  void Print(const char* name, int count, const std::function<void(int)>& work) {
    const Microseconds time = timer_.Time(count, work);
    std::printf("  %-28s %9.2f us (%.2f to %.2f)\n", name, time.median, time.lowest, time.highest);
    std::fflush(stdout);
  }

  void QueueLayer(int i) {
    QueryKeyValue(i);
    RopeStore(i);
    Attention(i);
    Linear(Layer(i).output, attended_, mixed_);
    AddNorm();
    GateUp(i);
    Gate();
    Linear(Layer(i).down, gate_, mixed_);
    AddNorm();
  }

  NormArgs NormOf() const {
    return {.rows = rows_,
            .kind = NormKind::kRms,
            .epsilon = 1e-5f,
            .weight = weights_.norm,
            .source = DenseRows(hidden_, kHidden),
            .target = DenseRows(normed_, kHidden)};
  }
  AddArgs AddOf() const {
    return {
        .rows = rows_, .source = DenseRows(mixed_, kHidden), .target = DenseRows(hidden_, kHidden)};
  }
  RopeArgs RopeOf(DeviceSpan heads, int64_t count) const {
    return {.rows = rows_,
            .positions = positions_,
            .frequencies = frequencies_,
            .frequency_count = kHeadSize / 2,
            .heads = DenseGroups(heads, count, kHeadSize)};
  }
  StoreKvArgs StoreOf(int i) const {
    return {.rows = rows_,
            .keys = DenseGroups(keys_, kKeyHeads, kHeadSize),
            .values = DenseGroups(values_, kKeyHeads, kHeadSize),
            .slots = slots_,
            .cache = caches_[Stored(i)]};
  }
  LinearArgs LinearOf(const Matrix& matrix, DeviceSpan source, DeviceSpan target) const {
    return {.rows = rows_,
            .weight = matrix,
            .bias = {},
            .source = DenseRows(source, matrix.shape.columns),
            .target = DenseRows(target, matrix.shape.rows),
            .products = products_};
  }

  void Embed() {
    Check(LaunchEmbed({.rows = rows_,
                       .table = weights_.head,
                       .ids = indices_,
                       .target = DenseRows(hidden_, kHidden)},
                      stream()),
          "embed");
  }
  void AddNorm() { Check(LaunchAddNorm({AddOf(), NormOf()}, stream()), "add and norm"); }
  void Linear(const Matrix& matrix, DeviceSpan source, DeviceSpan target) {
    Check(LaunchLinear(LinearOf(matrix, source, target), stream()), "product");
  }
  void QueryKeyValue(int i) {
    Check(LaunchLinearSet(std::array{LinearOf(Layer(i).query, normed_, queries_),
                                     LinearOf(Layer(i).key, normed_, keys_),
                                     LinearOf(Layer(i).value, normed_, values_)},
                          stream()),
          "products");
  }
  void GateUp(int i) {
    Check(LaunchLinearSet(std::array{LinearOf(Layer(i).gate, normed_, gate_),
                                     LinearOf(Layer(i).up, normed_, up_)},
                          stream()),
          "products");
  }
  void RopeStore(int i) {
    Check(LaunchRopeStoreKv({RopeOf(queries_, kHeads), RopeOf(keys_, kKeyHeads), StoreOf(i)},
                            stream()),
          "rope and store");
  }
  void Attention(int i) {
    Check(LaunchAttention({.rows = rows_,
                           .queries = DenseGroups(queries_, kHeads, kHeadSize),
                           .cache = caches_[Stored(i)],
                           .page_tokens = kPageTokens,
                           .pages_max = context_ / kPageTokens,
                           .page_tables = pages_,
                           .row_sequences = indices_,
                           .positions = positions_,
                           .scale = 0.088f,
                           .target = DenseGroups(attended_, kHeads, kHeadSize)},
                          stream()),
          "attention");
  }
  void Gate() {
    Check(LaunchGate({.rows = rows_,
                      .gate = DenseRows(gate_, kIntermediate),
                      .value = DenseRows(up_, kIntermediate),
                      .target = DenseRows(gate_, kIntermediate)},
                     stream()),
          "gate");
  }
  void Gather() {
    Check(LaunchGatherRows({.rows = rows_,
                            .row_indices = indices_,
                            .source = DenseRows(hidden_, kHidden),
                            .target = DenseRows(normed_, kHidden)},
                           stream()),
          "gather");
  }
  void Sample() {
    Check(LaunchSample({.rows = rows_,
                        .logits = DenseRows(sampled_, kVocabulary),
                        .samplers = samplers_,
                        .adjustments = {},
                        .masks = {},
                        .results = results_},
                       stream()),
          "sample");
  }

  Timer& timer_;
  const Weights& weights_;
  const ProductOptions products_;
  const int64_t bound_;
  const int64_t context_;
  Memory memory_;
  RowCount rows_;
  DeviceSpan hidden_, normed_, mixed_, queries_, attended_, keys_, values_, gate_, up_, logits_,
      sampled_;
  DeviceSpan frequencies_, indices_, positions_, pages_, slots_, samplers_, results_;
  std::array<KvCache, kStoredLayers> caches_;
};

void Run(const ProductOptions& products, int rounds) {
  for (const auto load : {LoadStepElementwise, LoadEmbedNorm, LoadWideNorm, LoadLinear,
                          LoadLinearMma, LoadStoreKv, LoadPagedAttention, LoadSample}) {
    Check(load(), "load");
  }
  cudaDeviceProp properties = {};
  Check(cudaGetDeviceProperties(&properties, 0), "device");
  std::printf("%s, median of %d (lowest to highest)\n", properties.name, rounds);
  Timer timer(rounds);
  Memory memory;
  const Weights weights(memory);
  for (const int64_t bound : {1, 8, 32}) {
    for (const int64_t context : {512, 4096}) {
      StepBench bench(timer, weights, products, bound, context);
      bench.Operations();
      bench.Steps();
    }
  }
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  const bool is_fp32 = argc > 1 && std::strcmp(argv[1], "fp32") == 0;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 9;
  if (rounds < 1 || (argc > 1 && !is_fp32 && std::strcmp(argv[1], "bf16") != 0)) {
    std::fprintf(stderr, "usage: step_bench [bf16|fp32 [ROUNDS]]\n");
    return 2;
  }
  nibble::Run({is_fp32 ? nibble::Arithmetic::kFp32 : nibble::Arithmetic::kBf16, false}, rounds);
  return 0;
}
