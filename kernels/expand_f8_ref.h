// The obviously right, slow version of expanding 8-bit floats. Contract: f8_format.h.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/f8_format.h"

namespace nibble {

void ExpandF8Ref(const F8Range& range,
                 const uint8_t* source,    // [element_count]
                 const std::byte* scales,  // scale_type [scale_row_count, scale_columns]
                 float* target);           // [element_count]

}  // namespace nibble
