// The obviously right, slow version of double quantization: what every fast one is tested against.
// Contract: scale_format.h.

#pragma once

#include <cstdint>

#include "kernels/scale_format.h"

namespace nibble {

float MeanScaleRef(const float* scales,   // [b]
                   int64_t scale_count);  // b

void QuantizeScalesRef(const float* scales,   // [b]
                       int64_t scale_count,   // b
                       float offset,          //
                       uint8_t* scale_codes,  // [b]
                       float* absmax2);       // [ceil(b / 256)]

void DequantizeScalesRef(const uint8_t* scale_codes,  // [b]
                         const float* absmax2,        // [ceil(b / 256)]
                         float offset,                //
                         const float* map,            // [256]
                         int64_t scale_count,         // b
                         float* scales);              // [b]

}  // namespace nibble
