#include "server/engine/kv_memory.h"

#include "server/engine/memory_layout.h"
#include "server/engine/serving_sizes.h"

namespace nibble {
namespace {

// Of one plane (keys or values) of one layer.
int64_t PlaneBytes(const ModelRecipe& recipe, KvType type, int64_t page_count) {
  return page_count * kPageTokens * recipe.key_value_head_count * recipe.head_size *
         BytesPerElement(type);
}

int64_t ConvolutionNumbers(const ModelRecipe& recipe) {
  return (recipe.linear_taps - 1) * recipe.linear_channels();
}

int64_t DeltaNumbers(const ModelRecipe& recipe) {
  return recipe.linear_value_heads * recipe.linear_key_size * recipe.linear_value_size;
}

}  // namespace

int64_t PageBytes(const ModelRecipe& recipe, KvType type) {
  return 2 * recipe.attention_layer_count() * PlaneBytes(recipe, type, 1);
}

int64_t KvPoolBytes(const ModelRecipe& recipe, KvType type, int64_t page_count) {
  MemoryLayout layout;
  for (int64_t plane = 0; plane < 2 * recipe.attention_layer_count(); ++plane) {
    layout.Take(PlaneBytes(recipe, type, page_count));
  }
  return layout.bytes();
}

int64_t KvStateBytes(const ModelRecipe& recipe, int64_t slot_count) {
  MemoryLayout layout;
  for (int64_t layer = 0; layer < recipe.linear_layer_count(); ++layer) {
    layout.TakeFloats(slot_count * ConvolutionNumbers(recipe));
    layout.TakeFloats(slot_count * DeltaNumbers(recipe));
  }
  return layout.bytes();
}

std::vector<LayerMemory> LayOutKvMemory(const ModelRecipe& recipe, KvType type, int64_t page_count,
                                        int64_t slot_count, DeviceSpan memory) {
  MemoryLayout layout(memory);
  std::vector<LayerMemory> layers;
  for (const LayerRecipe& recipe_layer : recipe.layers) {
    LayerMemory layer;
    if (recipe_layer.linear_attention) {
      layer.convolution_state = layout.TakeFloats(slot_count * ConvolutionNumbers(recipe));
      layer.delta_state = layout.TakeFloats(slot_count * DeltaNumbers(recipe));
    } else {
      const int64_t bytes = PlaneBytes(recipe, type, page_count);
      layer.cache = {type,
                     page_count * kPageTokens,
                     recipe.key_value_head_count,
                     recipe.head_size,
                     layout.Take(bytes),
                     layout.Take(bytes)};
    }
    layers.push_back(layer);
  }
  return layers;
}

}  // namespace nibble
