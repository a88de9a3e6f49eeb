// How fast one core quantizes and dequantizes, beside memcpy of the same bytes in the same run.
//
//   quantize_bench [SOURCE_MIB [ROUNDS [LEVEL]]]      default 256 11 and the best level
//
// LEVEL is a SIMD level that this processor has, by Highway's name: AVX3 (AVX-512), AVX2, SSE4.
// "GB/s" counts the 16- or 32-bit bytes (of 8-bit floats those they become, of double quantization
// the scales'); "of memcpy" is the share of copying those bytes from and to memory; "in cache" is
// the rate on 256 KiB. Processor time, medians, spread from 10 % to 90 %.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>

#include "hwy/targets.h"
#include "kernels/block_quantize.h"
#include "kernels/block_quantize_ref.h"
#include "kernels/bytes.h"
#include "kernels/expand_f8.h"
#include "kernels/measure_error.h"
#include "kernels/scale_quantize.h"
#include "tests/bench/interleaved_timer.h"

namespace nibble {
namespace {

constexpr int64_t kBlockSize = 64;
constexpr int64_t kCachedBytes = 256_KiB;

struct Buffers {
  std::vector<std::byte> source;
  std::vector<std::byte> copy;
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};

const char* NameOf(FloatType type) {
  return type == FloatType::kBf16 ? "bf16" : type == FloatType::kF16 ? "f16" : "f32";
}

Buffers NormalData(FloatType type, int64_t bytes) {
  Buffers buffers;
  const int64_t count = bytes / BytesPerElement(type);
  buffers.source.resize(static_cast<size_t>(bytes));
  buffers.copy.resize(static_cast<size_t>(bytes));
  buffers.codes.resize(static_cast<size_t>(CodeBytes(count)));
  buffers.scales.resize(static_cast<size_t>(BlockCount(count, kBlockSize)));
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  const int64_t period = std::min<int64_t>(count, 1 << 20);
  for (int64_t index = 0; index < period; ++index) {
    StoreElement(type, normal(random), buffers.source.data(), index);
  }
  const int64_t period_bytes = period * BytesPerElement(type);
  for (int64_t at = period_bytes; at < bytes; at += period_bytes) {
    std::memcpy(buffers.source.data() + at, buffers.source.data(),
                static_cast<size_t>(std::min(period_bytes, bytes - at)));
  }
  return buffers;
}

void Quantize(Buffers& buffers, Codebook codebook, FloatType type, int64_t bytes) {
  QuantizeBlocks(codebook, kBlockSize, type, buffers.source.data(), bytes / BytesPerElement(type),
                 buffers.codes.data(), buffers.scales.data());
}

void Dequantize(Buffers& buffers, Codebook codebook, FloatType type, int64_t bytes) {
  DequantizeBlocks(codebook, kBlockSize, type, buffers.codes.data(), buffers.scales.data(),
                   bytes / BytesPerElement(type), buffers.copy.data());
}

// `work_bytes` of each work, whose share of memcpy's rate is the ratio of both.
void Print(const char* what, const std::vector<TimedWork>& works,
           const std::function<double(const TimedWork&)>& work_bytes) {
  const double memcpy_rate = work_bytes(works.front()) / works.front().MedianSeconds();
  for (const TimedWork& work : works) {
    const double bytes = work_bytes(work);
    std::printf("%-6s %-22s %7.2f GB/s  (%.2f to %.2f)", what, work.name.c_str(),
                bytes / work.MedianSeconds() * 1e-9, bytes / work.SecondsAt(0.9) * 1e-9,
                bytes / work.SecondsAt(0.1) * 1e-9);
    if (!work.name.ends_with("in cache")) {
      std::printf("  %.2f of memcpy", bytes / work.MedianSeconds() / memcpy_rate);
    }
    std::printf("\n");
  }
}

void Bench(FloatType type, int64_t bytes, int rounds) {
  Buffers buffers = NormalData(type, bytes);
  const int64_t cached_rounds = std::max<int64_t>(1, bytes / kCachedBytes / 4);
  std::vector<TimedWork> works;
  works.push_back({"memcpy", [&] {
                     std::memcpy(buffers.copy.data(), buffers.source.data(), buffers.copy.size());
                   }});
  for (const Codebook codebook : {Codebook::kNf4, Codebook::kFp4}) {
    const std::string name = codebook == Codebook::kNf4 ? "nf4" : "fp4";
    works.push_back(
        {name + " quantize", [&, codebook] { Quantize(buffers, codebook, type, bytes); }});
    works.push_back({name + " quantize in cache", [&, codebook] {
                       for (int64_t i = 0; i < cached_rounds; ++i) {
                         Quantize(buffers, codebook, type, kCachedBytes);
                       }
                     }});
    works.push_back(
        {name + " dequantize", [&, codebook] { Dequantize(buffers, codebook, type, bytes); }});
  }
  std::vector<ErrorSums> sums(static_cast<size_t>(ErrorChunkCount(bytes / BytesPerElement(type))));
  works.push_back({"nf4 measure error", [&] {
                     MeasureBlockError(Codebook::kNf4, kBlockSize, type, buffers.source.data(),
                                       buffers.codes.data(), buffers.scales.data(),
                                       bytes / BytesPerElement(type), sums.data());
                   }});
  works.push_back({"find non-finite", [&] {
                     FindFirstNonFinite(type, buffers.source.data(), bytes / BytesPerElement(type));
                   }});
  TimeInterleaved(works, rounds, ThreadSeconds);
  Print(NameOf(type), works, [&](const TimedWork& work) {
    return static_cast<double>(work.name.ends_with("in cache") ? cached_rounds * kCachedBytes
                                                               : bytes);
  });
}

// Double quantization of so many scales that they come from memory: those of 32 times `bytes` of
// bf16.
void BenchScales(int64_t bytes, int rounds) {
  const int64_t count = bytes / 4;
  Buffers buffers = NormalData(FloatType::kF32, bytes);
  std::vector<float> scales(static_cast<size_t>(count));
  std::memcpy(scales.data(), buffers.source.data(), buffers.source.size());
  std::vector<float> copy(scales.size());
  std::vector<uint8_t> codes(scales.size());
  std::vector<float> absmax2(static_cast<size_t>(ScaleBlockCount(count)));
  volatile float mean = 0;  // Keeps the sum from being left out.
  std::vector<TimedWork> works;
  works.push_back(
      {"memcpy", [&] { std::memcpy(copy.data(), scales.data(), scales.size() * sizeof(float)); }});
  works.push_back({"mean", [&] { mean = MeanScale(scales.data(), count); }});
  works.push_back({"quantize", [&] {
                     QuantizeScales(scales.data(), count, mean, codes.data(), absmax2.data());
                   }});
  works.push_back({"dequantize", [&] {
                     DequantizeScales(codes.data(), absmax2.data(), mean, kScaleMap.data(), count,
                                      copy.data());
                   }});
  TimeInterleaved(works, rounds, ThreadSeconds);
  Print("scales", works, [&](const TimedWork&) { return static_cast<double>(bytes); });
}

// 8-bit floats with a scale for each 128 x 128, as many as make `bytes` of fp32.
void BenchF8(F8Type type, int64_t bytes, int rounds) {
  const int64_t count = bytes / 4;
  const F8Range range = {type, FloatType::kF32, 0, count, 4096, 128, 128};
  const std::vector<float> scales(
      static_cast<size_t>(range.scale_row_count() * range.scale_columns()), 0.01f);
  std::vector<uint8_t> source(static_cast<size_t>(count));
  for (size_t i = 0; i < source.size(); ++i) {
    source[i] = static_cast<uint8_t>(i * 37 & 0xf7);
  }
  std::vector<float> target(source.size());
  std::vector<float> copy(source.size());
  std::vector<TimedWork> works;
  works.push_back(
      {"memcpy", [&] { std::memcpy(copy.data(), target.data(), static_cast<size_t>(bytes)); }});
  works.push_back({"expand", [&] {
                     ExpandF8Range(range, source.data(),
                                   reinterpret_cast<const std::byte*>(scales.data()),
                                   target.data());
                   }});
  TimeInterleaved(works, rounds, ThreadSeconds);
  Print(type == F8Type::kE4M3 ? "e4m3" : "e5m2", works,
        [&](const TimedWork&) { return static_cast<double>(bytes); });
}

// Returns: whether this processor and program have the level.
bool ForceLevel(const char* name) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (std::strcmp(hwy::TargetName(target), name) == 0) {
      hwy::SetSupportedTargetsForTest(target);
      return true;
    }
  }
  return false;
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  const int64_t mib = argc > 1 ? std::atoll(argv[1]) : 256;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 11;
  if (mib < 1 || mib > 4096 || rounds < 1 || (argc > 3 && !nibble::ForceLevel(argv[3]))) {
    std::fprintf(stderr, "usage: quantize_bench [SOURCE_MIB [ROUNDS [LEVEL]]]\n");
    return 2;
  }
  std::printf("one core, %s, %lld MiB of source, block %lld, median of %d\n",
              nibble::SimdLevelName(), static_cast<long long>(mib),
              static_cast<long long>(nibble::kBlockSize), rounds);
  for (const nibble::FloatType type :
       {nibble::FloatType::kBf16, nibble::FloatType::kF16, nibble::FloatType::kF32}) {
    nibble::Bench(type, mib * nibble::operator""_MiB(1), rounds);
  }
  for (const nibble::F8Type type : {nibble::F8Type::kE4M3, nibble::F8Type::kE5M2}) {
    nibble::BenchF8(type, mib * nibble::operator""_MiB(1), rounds);
  }
  nibble::BenchScales(mib * nibble::operator""_MiB(1), rounds);
  return 0;
}
