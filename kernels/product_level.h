// Which instructions the fast products of the host use (row_products.h). Highway, which chooses for
// everything else, knows neither tiles nor 16-entry lookups of floats.

#pragma once

#include <optional>
#include <vector>

namespace nibble {

enum class ProductLevel {
  kPortable,  // None: rows are expanded and multiplied at Highway's level.
  kAvx2,      // AVX2, FMA and F16C.
  kAvx512,    // AVX-512 F, BW, DQ and VL.
  kFp16,      // And FP16.
  kAmx,       // And BF16 with tiles, which the system lets this process use.
};

// The best level of this processor, or the one that a test forces.
ProductLevel CurrentProductLevel();

// All levels of this processor, the portable one first.
std::vector<ProductLevel> SupportedProductLevels();

// None: no level is forced. Not while anything is multiplied.
//
// Requires: the processor has the level.
void ForceProductLevelForTest(std::optional<ProductLevel> level);

const char* ProductLevelName(ProductLevel level);

}  // namespace nibble
