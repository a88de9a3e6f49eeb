// What a scale search costs one core and saves in squared error, beside plain quantizing in the
// same run.
//
//   scale_search_bench [SOURCE_MIB [ROUNDS]]      default 64 11
//
// "GB/s" counts the 16- or 32-bit source bytes. Processor time, medians, spread from 10 % to 90 %.

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>

#include "kernels/block_quantize.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/bytes.h"
#include "kernels/scale_search.h"
#include "tests/bench/interleaved_timer.h"

namespace nibble {
namespace {

struct Tensor {
  FloatType type;
  std::vector<std::byte> source;
  int64_t block_size = 0;
  std::vector<uint8_t> codes = {};
  std::vector<float> scales = {};

  int64_t element_count() const { return std::ssize(source) / BytesPerElement(type); }
};

struct Mode {
  const char* name;
  Codebook codebook;
  ScaleSearch search;
};
constexpr Mode kModes[] = {{"nf4", Codebook::kNf4, ScaleSearch::kNone},
                           {"nf4 positive", Codebook::kNf4, ScaleSearch::kPositive},
                           {"nf4 signed", Codebook::kNf4, ScaleSearch::kSigned},
                           {"fp4", Codebook::kFp4, ScaleSearch::kNone},
                           {"fp4 positive", Codebook::kFp4, ScaleSearch::kPositive}};

Tensor Drawn(FloatType type, int64_t count, const std::function<float()>& draw) {
  Tensor tensor = {type,
                   std::vector<std::byte>(static_cast<size_t>(count * BytesPerElement(type)))};
  for (int64_t index = 0; index < count; ++index) {
    StoreElement(type, draw(), tensor.source.data(), index);
  }
  return tensor;
}

void Quantize(Tensor& tensor, const Mode& mode) {
  const int64_t count = tensor.element_count();
  tensor.codes.resize(static_cast<size_t>(CodeBytes(count)));
  tensor.scales.resize(static_cast<size_t>(BlockCount(count, tensor.block_size)));
  if (mode.search == ScaleSearch::kNone) {
    QuantizeBlocks(mode.codebook, tensor.block_size, tensor.type, tensor.source.data(), count,
                   tensor.codes.data(), tensor.scales.data());
  } else {
    SearchBlockScales(mode.search, mode.codebook, tensor.block_size, tensor.type,
                      tensor.source.data(), count, tensor.codes.data(), tensor.scales.data());
  }
}

double SquaredError(Tensor& tensor, const Mode& mode) {
  Quantize(tensor, mode);
  const int64_t count = tensor.element_count();
  std::vector<float> values(static_cast<size_t>(count));
  DequantizeRef(mode.codebook, tensor.block_size, FloatType::kF32, tensor.codes.data(),
                tensor.scales.data(), count, reinterpret_cast<std::byte*>(values.data()));
  double sum = 0;
  for (int64_t index = 0; index < count; ++index) {
    const double error = double{LoadElement(tensor.type, tensor.source.data(), index)} -
                         double{values[static_cast<size_t>(index)]};
    sum += error * error;
  }
  return sum;
}

void PrintErrors() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::exponential_distribution<float> exponential(50.0f);
  std::uniform_real_distribution<float> uniform(-0.05f, 0.05f);
  std::student_t_distribution<float> student(4.0f);
  const std::pair<const char*, std::function<float()>> draws[] = {
      {"normal", [&] { return normal(random); }},
      {"laplace", [&] { return (random() % 2 == 0 ? 1.0f : -1.0f) * exponential(random); }},
      {"uniform", [&] { return uniform(random); }},
      {"student 4", [&] { return 0.01f * student(random); }}};
  std::printf("squared error less than plain      nf4 positive  nf4 signed  fp4 positive\n");
  for (const auto& [name, draw] : draws) {
    Tensor tensor = Drawn(FloatType::kBf16, 1 << 20, draw);
    for (const int64_t block_size : {32, 64, 128, 256, 1024, 4096}) {
      tensor.block_size = block_size;
      const double nf4 = SquaredError(tensor, kModes[0]);
      const double fp4 = SquaredError(tensor, kModes[3]);
      std::printf("%-10s block %4lld %25.2f %% %9.2f %% %11.2f %%\n", name,
                  static_cast<long long>(block_size),
                  100 * (1 - SquaredError(tensor, kModes[1]) / nf4),
                  100 * (1 - SquaredError(tensor, kModes[2]) / nf4),
                  100 * (1 - SquaredError(tensor, kModes[4]) / fp4));
    }
  }
}

void PrintRates(FloatType type, int64_t block_size, int64_t bytes, int rounds) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  Tensor tensor = Drawn(type, bytes / BytesPerElement(type), [&] { return normal(random); });
  tensor.block_size = block_size;
  std::vector<TimedWork> works;
  for (const Mode& mode : kModes) {
    works.push_back({mode.name, [&] { Quantize(tensor, mode); }});
  }
  TimeInterleaved(works, rounds, ThreadSeconds);
  for (size_t i = 0; i < works.size(); ++i) {
    const TimedWork& plain = works[i < 3 ? 0 : 3];
    std::printf("%-5s block %4lld  %-14s %6.2f GB/s  (%.2f to %.2f)  %.2f of plain\n",
                type == FloatType::kBf16  ? "bf16"
                : type == FloatType::kF16 ? "f16"
                                          : "f32",
                static_cast<long long>(block_size), works[i].name.c_str(),
                static_cast<double>(bytes) / works[i].MedianSeconds() * 1e-9,
                static_cast<double>(bytes) / works[i].SecondsAt(0.9) * 1e-9,
                static_cast<double>(bytes) / works[i].SecondsAt(0.1) * 1e-9,
                plain.MedianSeconds() / works[i].MedianSeconds());
  }
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  const int64_t mib = argc > 1 ? std::atoll(argv[1]) : 64;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 11;
  if (mib < 1 || mib > 4096 || rounds < 1) {
    std::fprintf(stderr, "usage: scale_search_bench [SOURCE_MIB [ROUNDS]]\n");
    return 2;
  }
  nibble::PrintErrors();
  std::printf("one core, %s, %lld MiB of source, median of %d\n", nibble::SimdLevelName(),
              static_cast<long long>(mib), rounds);
  const int64_t bytes = mib * nibble::operator""_MiB(1);
  for (const nibble::FloatType type :
       {nibble::FloatType::kBf16, nibble::FloatType::kF16, nibble::FloatType::kF32}) {
    nibble::PrintRates(type, 64, bytes, rounds);
  }
  nibble::PrintRates(nibble::FloatType::kBf16, 4096, bytes, rounds);
  return 0;
}
