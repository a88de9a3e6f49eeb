// Plans and load reports as tables.

#pragma once

#include <nibble/v1/plan.pb.h>

#include <string>

namespace nibble {

// What a plan takes, what it makes of the tensors (grouped by what they are stored as and why),
// and, if it has a budget, whether it fits and what would help.
std::string RenderPlan(const v1::Plan& plan);

using PlannedTensors = google::protobuf::RepeatedPtrField<v1::PlannedTensor>;

// Every tensor: name, role, types, bytes, reason.
std::string RenderTensors(const PlannedTensors& tensors);

}  // namespace nibble
