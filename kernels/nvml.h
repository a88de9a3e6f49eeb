// The one question that the CUDA runtime cannot answer: how much of a GPU's memory is this
// process's, context included.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace nibble {

// Device memory that this process holds on the GPU at `pci_bus_id` ("0000:3B:00.0"), as nvidia-smi
// shows it. Absent if the NVIDIA management library is missing or does not know, which is common in
// containers: it numbers processes as the host does.
//
// Thread-safe. Cost: a few milliseconds the first time.
std::optional<int64_t> NvmlProcessBytes(const std::string& pci_bus_id);

}  // namespace nibble
