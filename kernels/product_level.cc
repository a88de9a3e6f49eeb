#include "kernels/product_level.h"

#include <algorithm>
#include <atomic>

#include "kernels/check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nibble {
namespace {

#if defined(__x86_64__)

// Intel's manual, CPUID leaf 1: ECX bit 29.
bool HasHalfConversions() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx >> 29 & 1) != 0;
}

// The same, leaf 7.
struct ExtendedFeatures {
  bool has_fp16 = false;
  bool has_tiles = false;

  ExtendedFeatures() {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) {
      return;
    }
    has_fp16 = (edx >> 23 & 1) != 0;
    const bool tiles_of_bf16 = (edx >> 22 & 1) != 0 && (edx >> 24 & 1) != 0;
    has_tiles = tiles_of_bf16 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
                (eax >> 5 & 1) != 0;  // AVX512_BF16, which fills the tiles.
  }
};

// Linux keeps 8 KiB of tiles a thread only for processes that ask (Documentation/arch/x86/xstate).
bool MayUseTiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

ProductLevel BestLevel() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !HasHalfConversions()) {
    return ProductLevel::kPortable;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return ProductLevel::kAvx2;
  }
  const ExtendedFeatures features;
  if (!features.has_fp16) {
    return ProductLevel::kAvx512;
  }
  return features.has_tiles && MayUseTiles() ? ProductLevel::kAmx : ProductLevel::kFp16;
}

#else

ProductLevel BestLevel() { return ProductLevel::kPortable; }

#endif

ProductLevel SupportedLevel() {
  static const ProductLevel level = BestLevel();
  return level;
}

constexpr int kNoneForced = -1;
std::atomic<int> forced_level = kNoneForced;

}  // namespace

ProductLevel CurrentProductLevel() {
  const int forced = forced_level.load(std::memory_order_relaxed);
  return forced == kNoneForced ? SupportedLevel() : static_cast<ProductLevel>(forced);
}

std::vector<ProductLevel> SupportedProductLevels() {
  std::vector<ProductLevel> levels;
  for (const ProductLevel level :
       {ProductLevel::kPortable, ProductLevel::kAvx2, ProductLevel::kAvx512, ProductLevel::kFp16,
        ProductLevel::kAmx}) {
    if (level <= SupportedLevel()) {
      levels.push_back(level);
    }
  }
  return levels;
}

void ForceProductLevelForTest(std::optional<ProductLevel> level) {
  Check(!level || *level <= SupportedLevel(), "a level that this processor has");
  forced_level = level ? static_cast<int>(*level) : kNoneForced;
}

const char* ProductLevelName(ProductLevel level) {
  switch (level) {
    case ProductLevel::kPortable:
      return "portable";
    case ProductLevel::kAvx2:
      return "AVX2";
    case ProductLevel::kAvx512:
      return "AVX-512";
    case ProductLevel::kFp16:
      return "AVX-512 FP16";
    case ProductLevel::kAmx:
      return "AMX";
  }
  return "";
}

}  // namespace nibble
