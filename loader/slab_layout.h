// Where each part of a model's weights lies in its slab.
//
// The slab is a run of groups; a group holds what one kernel reads together. Within it first come
// the data of its parts (codes, or kept elements), then their scales, so that each plane is one
// run:
//
//   | q codes | k codes | v codes | q scales | k scales | v scales | o codes | o scales | ...
//   | e0 gate codes | e0 up codes | e1 gate codes | ... | e0 gate scales | e0 up scales | ...
//
// Behind all groups stand the maps and means of double-quantized scales. Every piece but a mean
// starts on traits.alignment_bytes. Groups: a layer's query, key, value; gate, up; the
// same of all its experts; the downs of all its experts; linear attention's inputs; every other
// tensor by itself.

#pragma once

#include <cstdint>
#include <vector>

#include "loader/load_plan.h"

namespace nibble {

// Places the parts of `plan.tensors` and sets what follows from the places: device_bytes of each
// tensor and plan.weights_bytes.
//
// Requires: the formats are decided, the parts are cut, and the source is under 2^60 bytes.
void LayOutSlab(LoadPlan& plan);

// Sets plan.scale_scratch_bytes and plan.staging_bytes from the parts and the configured staging.
//
// Requires: the formats are decided and the parts are cut.
void SizeStaging(LoadPlan& plan);

}  // namespace nibble
