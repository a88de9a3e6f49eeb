// Where keys, values and states of every layer lie within a model's KV memory.

#pragma once

#include <cstdint>
#include <vector>

#include "kernels/step_ops.h"
#include "server/engine/model_recipe.h"

namespace nibble {

// Of one layer: a cache if it attends, states if it is linear.
struct LayerMemory {
  KvCache cache;
  DeviceSpan convolution_state;  // fp32 [slots, taps - 1, channels]
  DeviceSpan delta_state;        // fp32 [slots, value heads, key size, value size]
};

// A pool of `page_count` pages in every attending layer.
int64_t KvPoolBytes(const ModelRecipe& recipe, KvType type, int64_t page_count);

// The states of `slot_count` sequences in every linear layer.
int64_t KvStateBytes(const ModelRecipe& recipe, int64_t slot_count);

// Requires: memory holds both of the above.
std::vector<LayerMemory> LayOutKvMemory(const ModelRecipe& recipe, KvType type, int64_t page_count,
                                        int64_t slot_count, DeviceSpan memory);

}  // namespace nibble
