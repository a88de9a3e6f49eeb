#include "kernels/nvml.h"

#include <dlfcn.h>
#include <unistd.h>

#include <vector>

namespace nibble {
namespace {

// Declared here from NVML's documentation, so that neither building nor running needs the library.
using NvmlDevice = struct NvmlDeviceOpaque*;
struct NvmlProcess {  // nvmlProcessInfo_t of the calls that end in _v3.
  unsigned int pid;
  unsigned long long used_bytes;  // All ones: not available.
  unsigned int gpu_instance;
  unsigned int compute_instance;
};
constexpr int kNvmlSuccess = 0;
constexpr int kNvmlInsufficientSize = 7;
constexpr unsigned int kProcessesMax = 4096;

struct Nvml {
  int (*init)();
  int (*device_by_bus_id)(const char* bus_id, NvmlDevice* device);
  int (*compute_processes)(NvmlDevice device, unsigned int* count, NvmlProcess* processes);
  bool ready = false;

  Nvml() {
    void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      return;
    }
    init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
    device_by_bus_id = reinterpret_cast<int (*)(const char*, NvmlDevice*)>(
        dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
    compute_processes = reinterpret_cast<int (*)(NvmlDevice, unsigned int*, NvmlProcess*)>(
        dlsym(library, "nvmlDeviceGetComputeRunningProcesses_v3"));
    ready = init != nullptr && device_by_bus_id != nullptr && compute_processes != nullptr &&
            init() == kNvmlSuccess;
  }
};

// Processes come and go between the question for the count and that for the list, so it is asked
// with room to spare.
std::vector<NvmlProcess> ListProcesses(const Nvml& nvml, NvmlDevice device) {
  for (unsigned int room = 64; room <= kProcessesMax; room *= 4) {
    std::vector<NvmlProcess> processes(room);
    unsigned int count = room;
    const int result = nvml.compute_processes(device, &count, processes.data());
    if (result == kNvmlSuccess) {
      processes.resize(count);
      return processes;
    }
    if (result != kNvmlInsufficientSize) {
      break;
    }
  }
  return {};
}

}  // namespace

std::optional<int64_t> NvmlProcessBytes(const std::string& pci_bus_id) {
  static const Nvml nvml;
  NvmlDevice device = nullptr;
  if (!nvml.ready || nvml.device_by_bus_id(pci_bus_id.c_str(), &device) != kNvmlSuccess) {
    return std::nullopt;
  }
  for (const NvmlProcess& process : ListProcesses(nvml, device)) {
    if (process.pid == static_cast<unsigned int>(getpid()) && process.used_bytes != ~0ULL) {
      return static_cast<int64_t>(process.used_bytes);
    }
  }
  return std::nullopt;
}

}  // namespace nibble
