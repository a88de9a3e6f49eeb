// Double quantization on the host. Bit for bit the reference of scale_quantize_ref.h, for every
// input. Contract: scale_format.h.

#pragma once

#include <cstdint>

#include "kernels/scale_format.h"

namespace nibble {

// Returns: the mean of b scales in the order of kMeanLanes; 0 if b is 0.
float MeanScale(const float* scales,   // [b]
                int64_t scale_count);  // b

void QuantizeScales(const float* scales,   // [b]
                    int64_t scale_count,   // b
                    float offset,          //
                    uint8_t* scale_codes,  // [b]
                    float* absmax2);       // [ceil(b / 256)]

void DequantizeScales(const uint8_t* scale_codes,  // [b]
                      const float* absmax2,        // [ceil(b / 256)]
                      float offset,                //
                      const float* map,            // [256]
                      int64_t scale_count,         // b
                      float* scales);              // [b]

}  // namespace nibble
