#include "kernels/expand_f8_ref.h"

#include "kernels/block_quantize_ref.h"

namespace nibble {

void ExpandF8Ref(const F8Range& range, const uint8_t* source, const std::byte* scales,
                 float* target) {
  for (int64_t i = 0; i < range.element_count; ++i) {
    const int64_t row = (range.first_index + i) / range.columns;
    const int64_t column = (range.first_index + i) % range.columns;
    const int64_t scale_row = row / range.block_rows - range.first_scale_row();
    const int64_t scale_index = scale_row * range.scale_columns() + column / range.block_columns;
    const float scale = LoadElement(range.scale_type, scales, scale_index);
    target[i] = F8Value(range.type, source[i]) * scale;
  }
}

}  // namespace nibble
