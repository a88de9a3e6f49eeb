// From 8-bit floats to fp32 on the host. Bit for bit the reference of expand_f8_ref.h, for every
// input, but for which NaN a NaN is. Contract: f8_format.h.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/f8_format.h"

namespace nibble {

// `scales` need not be aligned, `target` to 4 bytes.
void ExpandF8Range(const F8Range& range,
                   const uint8_t* source,    // [element_count]
                   const std::byte* scales,  // scale_type [scale_row_count, scale_columns]
                   float* target);           // [element_count]

}  // namespace nibble
