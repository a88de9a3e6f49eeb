// What products of the forward pass cost on a GPU, beside its copy rate and bf16 cuBLAS in the same
// run.
//
//   linear_bench [bf16|fp32 [ROUNDS]]
//
// A measurement is a CUDA graph of many products, each with the next of so many matrices that none
// is still in the second-level cache; its time is read from events. $NIBBLE_CUBLAS names
// libcublas.so if the loader does not find it; without it those columns are empty. Time: under a
// minute on an H200.

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/bytes.h"
#include "kernels/step_kernels.h"
#include "tests/bench/gpu_timer.h"

namespace nibble {
namespace {

struct Patterns {
  std::vector<uint8_t> codes;
  std::vector<uint16_t> brains;  // bf16 in [-1, 1).
  std::vector<float> scales;
  std::vector<float> activations;
};

Patterns MakePatterns() {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Patterns patterns;
  patterns.codes.resize((1 << 22) + 13);
  for (uint8_t& code : patterns.codes) {
    code = static_cast<uint8_t>(random());
  }
  patterns.brains.resize((1 << 21) + 13);
  for (uint16_t& brain : patterns.brains) {
    const float value = uniform(random);
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    brain = static_cast<uint16_t>(bits >> 16);
  }
  patterns.scales.resize((1 << 18) + 13);
  patterns.activations.resize((1 << 18) + 13);
  for (float& scale : patterns.scales) {
    scale = uniform(random) * 0.02f + 0.03f;
  }
  for (float& activation : patterns.activations) {
    activation = uniform(random);
  }
  return patterns;
}

// bf16 products of cuBLAS, if there is one.
class Cublas {
 public:
  explicit Cublas(cudaStream_t stream, Memory& memory) {
    const char* const named = std::getenv("NIBBLE_CUBLAS");
    for (const char* name : {named, "libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
      if (library_ == nullptr && name != nullptr && *name != '\0') {
        library_ = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
      }
    }
    if (library_ == nullptr) {
      std::printf("no cuBLAS: %s\n", dlerror());
      return;
    }
    const auto create = Find<int (*)(void**)>("cublasCreate_v2");
    const auto set_stream = Find<int (*)(void*, cudaStream_t)>("cublasSetStream_v2");
    const auto set_workspace = Find<int (*)(void*, void*, size_t)>("cublasSetWorkspace_v2");
    multiply_ = Find<Multiply>("cublasGemmEx");
    if (create == nullptr || set_stream == nullptr || set_workspace == nullptr ||
        multiply_ == nullptr || create(&handle_) != 0 || set_stream(handle_, stream) != 0) {
      std::printf("no cuBLAS: it cannot be started\n");
      handle_ = nullptr;
      return;
    }
    // It would allocate while a graph is captured.
    const DeviceSpan workspace = memory.Cut(32_MiB);
    set_workspace(handle_, reinterpret_cast<void*>(workspace.address()), 32_MiB);
  }

  bool exists() const { return handle_ != nullptr; }

  // target [M, N] = source [M, K] times the transpose of weight [N, K], all bf16.
  void Linear(int m, int n, int k, uint64_t weight, uint64_t source, uint64_t target) {
    constexpr int kTransposed = 1;
    constexpr int kPlain = 0;
    constexpr int kBf16 = 14;        // CUDA_R_16BF
    constexpr int kCompute32F = 68;  // CUBLAS_COMPUTE_32F
    constexpr int kDefault = -1;     // CUBLAS_GEMM_DEFAULT
    const float one = 1;
    const float zero = 0;
    const int status =
        multiply_(handle_, kTransposed, kPlain, n, m, k, &one, reinterpret_cast<void*>(weight),
                  kBf16, k, reinterpret_cast<void*>(source), kBf16, k, &zero,
                  reinterpret_cast<void*>(target), kBf16, n, kCompute32F, kDefault);
    if (status != 0) {
      std::fprintf(stderr, "linear_bench: cublasGemmEx: status %d\n", status);
      std::exit(1);
    }
  }

 private:
  using Multiply = int (*)(void*, int, int, int, int, int, const void*, const void*, int, int,
                           const void*, int, int, const void*, void*, int, int, int, int);

  template <typename Function>
  Function Find(const char* name) const {
    return reinterpret_cast<Function>(dlsym(library_, name));
  }

  void* library_ = nullptr;
  void* handle_ = nullptr;
  Multiply multiply_ = nullptr;
};

// Bytes that products must read before a matrix comes again: several second-level caches.
constexpr int64_t kRotatedBytes = 512_MiB;
constexpr int kCopiesMax = 64;
constexpr int64_t kRows[] = {1, 2, 4, 8, 16, 32, 64, 128, 512};

int CopiesFor(int64_t bytes) {
  return static_cast<int>(std::clamp<int64_t>(kRotatedBytes / bytes + 1, 2, kCopiesMax));
}

int64_t BytesOf(const MatrixShape& shape) {
  if (!IsFourBit(shape.format)) {
    return shape.element_count() * 2;
  }
  return shape.element_count() / 2 + BlockCount(shape.element_count(), shape.block_size) * 4;
}

MatrixPlanes MakePlanes(const MatrixShape& shape, const Patterns& patterns, Memory& memory) {
  MatrixPlanes planes;
  if (!IsFourBit(shape.format)) {
    planes.data = memory.Fill(shape.element_count(), patterns.brains).address();
    return planes;
  }
  planes.data = memory.Fill(shape.element_count() / 2, patterns.codes).address();
  planes.scales =
      memory.Fill(BlockCount(shape.element_count(), shape.block_size), patterns.scales).address();
  return planes;
}

struct Bench {
  Timer& timer;
  Cublas& cublas;
  const Patterns& patterns;
  ProductOptions products;
  double copy_rate;  // TB/s

  void Print(const char* name, int64_t n, int64_t k, int64_t m, const Microseconds& time,
             int64_t bytes, const Microseconds* other) const {
    const double rate = static_cast<double>(bytes) / time.median * 1e-6;
    std::printf("%-8s %6lld x %5lld  M %4lld  %8.2f us (%.2f to %.2f)  %5.2f TB/s  %.2f of copy",
                name, static_cast<long long>(n), static_cast<long long>(k),
                static_cast<long long>(m), time.median, time.lowest, time.highest, rate,
                rate / copy_rate);
    if (other != nullptr) {
      std::printf("  cuBLAS %8.2f us  x %.2f", other->median, other->median / time.median);
    }
    std::printf("\n");
    std::fflush(stdout);
  }

  void Linear(const MatrixShape& shape) {
    Memory memory;
    const int copies = CopiesFor(BytesOf(shape));
    std::vector<MatrixPlanes> planes;
    for (int i = 0; i < copies; ++i) {
      planes.push_back(MakePlanes(shape, patterns, memory));
    }
    const int64_t rows_max = *std::max_element(std::begin(kRows), std::end(kRows));
    const DeviceSpan source = memory.Fill(rows_max * shape.columns, patterns.activations);
    const DeviceSpan target = memory.Cut(rows_max * shape.rows * 4);
    MatrixShape wide = shape;
    wide.format = MatrixFormat::kBf16;
    const int wide_copies = CopiesFor(BytesOf(wide));
    std::vector<MatrixPlanes> wide_planes;
    for (int i = 0; i < wide_copies && cublas.exists(); ++i) {
      wide_planes.push_back(MakePlanes(wide, patterns, memory));
    }
    const DeviceSpan wide_source = memory.Fill(rows_max * shape.columns, patterns.brains);
    for (const int64_t m : kRows) {
      LinearArgs args;
      args.rows = {m, memory.Fill(1, std::vector<int32_t>{static_cast<int32_t>(m)})};
      args.source = DenseRows(source, shape.columns);
      args.target = DenseRows(target, shape.rows);
      args.products = products;
      const Microseconds time = timer.Time(std::max(copies, 16), [&](int i) {
        args.weight = {shape, planes[static_cast<size_t>(i % copies)]};
        Check(LaunchLinear(args, timer.stream()), "LaunchLinear");
      });
      Microseconds other;
      if (cublas.exists()) {
        other = timer.Time(std::max(wide_copies, 16), [&](int i) {
          cublas.Linear(static_cast<int>(m), static_cast<int>(shape.rows),
                        static_cast<int>(shape.columns),
                        wide_planes[static_cast<size_t>(i % wide_copies)].data,
                        wide_source.address(), target.address());
        });
      }
      Print(IsFourBit(shape.format) ? "nf4" : "bf16", shape.rows, shape.columns, m, time,
            BytesOf(shape), cublas.exists() ? &other : nullptr);
    }
  }

  // Each row goes to `top_k` experts in turn; bytes are those of the experts that are used.
  void Experts(const MatrixShape& shape, int64_t expert_count, int64_t top_k) {
    Memory memory;
    const int copies = CopiesFor(BytesOf(shape) * expert_count);
    std::vector<DeviceSpan> tables;
    for (int i = 0; i < copies; ++i) {
      std::vector<MatrixPlanes> planes;
      for (int64_t expert = 0; expert < expert_count; ++expert) {
        planes.push_back(MakePlanes(shape, patterns, memory));
      }
      tables.push_back(memory.Fill(expert_count, planes));
    }
    for (const int64_t m : kRows) {
      std::vector<int32_t> experts;
      for (int64_t i = 0; i < m * top_k; ++i) {
        experts.push_back(static_cast<int32_t>(i * 37 % expert_count));
      }
      ExpertLinearArgs args;
      args.rows = {m, memory.Fill(1, std::vector<int32_t>{static_cast<int32_t>(m)})};
      args.shape = shape;
      args.expert_count = expert_count;
      args.top_k = top_k;
      args.experts = memory.Fill(m * top_k, experts);
      args.source = DenseRows(memory.Fill(m * shape.columns, patterns.activations), shape.columns);
      args.target = DenseGroups(memory.Cut(m * top_k * shape.rows * 4), top_k, shape.rows);
      args.products = products;
      const Microseconds time = timer.Time(std::max(copies, 16), [&](int i) {
        args.table = tables[static_cast<size_t>(i % copies)];
        Check(LaunchExpertLinear(args, timer.stream()), "LaunchExpertLinear");
      });
      Print("experts", shape.rows, shape.columns, m, time,
            BytesOf(shape) * std::min(m * top_k, expert_count), nullptr);
    }
  }
};

// Device-to-device copies of 1 GiB, bytes read and written.
double CopyRate(Timer& timer) {
  Memory memory;
  const DeviceSpan source = memory.Fill(1_GiB / 4, std::vector<float>(1 << 20, 1.0f));
  const DeviceSpan target = memory.Cut(1_GiB);
  const Microseconds time = timer.Time(4, [&](int) {
    Check(cudaMemcpyAsync(reinterpret_cast<void*>(target.address()),
                          reinterpret_cast<void*>(source.address()), 1_GiB,
                          cudaMemcpyDeviceToDevice, timer.stream()),
          "copy");
  });
  return 2.0 * static_cast<double>(1_GiB) / time.median * 1e-6;
}

void Run(const ProductOptions& products, int rounds) {
  for (const auto load : {LoadLinear, LoadLinearMma, LoadExpertLinear, LoadExpertLinearMma}) {
    Check(load(), "load");
  }
  cudaDeviceProp properties = {};
  Check(cudaGetDeviceProperties(&properties, 0), "device");
  Timer timer(rounds);
  Memory memory;
  Cublas cublas(timer.stream(), memory);
  const double copy_rate = CopyRate(timer);
  std::printf("%s, copy %.2f TB/s, median of %d (lowest to highest)\n", properties.name, copy_rate,
              rounds);
  Bench bench = {timer, cublas, MakePatterns(), products, copy_rate};
  constexpr MatrixFormat kNf4 = MatrixFormat::kNf4;
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{28672, 8192},
                                                                     {8192, 28672},
                                                                     {14336, 4096},
                                                                     {4096, 14336},
                                                                     {4096, 4096},
                                                                     {1024, 4096}}) {
    bench.Linear({kNf4, n, k, 64, false});
  }
  bench.Linear({MatrixFormat::kBf16, 128256, 4096, 64, false});
  bench.Experts({kNf4, 768, 2048, 64, false}, 128, 8);
  bench.Experts({kNf4, 2048, 768, 64, false}, 128, 8);
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  const bool is_fp32 = argc > 1 && std::strcmp(argv[1], "fp32") == 0;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 9;
  if (rounds < 1 || (argc > 1 && !is_fp32 && std::strcmp(argv[1], "bf16") != 0)) {
    std::fprintf(stderr, "usage: linear_bench [bf16|fp32 [ROUNDS]]\n");
    return 2;
  }
  nibble::Run({is_fp32 ? nibble::Arithmetic::kFp32 : nibble::Arithmetic::kBf16, false}, rounds);
  return 0;
}
