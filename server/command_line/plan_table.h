// Plans and load reports as tables.

#pragma once

#include <nibble/v1/plan.pb.h>

#include <string>

namespace nibble {

// What a plan takes, what it makes of the tensors (grouped by what they are stored as and why),
// and, if it has a budget, whether it fits and what would help.
std::string RenderPlan(const v1::Plan& plan);

using PlannedTensors = google::protobuf::RepeatedPtrField<v1::PlannedTensor>;

// What the tensors add up to, grouped by what they are stored as and why.
std::string RenderGroups(const PlannedTensors& tensors);

// Every tensor: name, role, types, bytes, reason, and its error where it was measured.
std::string RenderTensors(const PlannedTensors& tensors);

}  // namespace nibble
