#include "server/system_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace nibble {
namespace {

int64_t RssBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  if (statm >> pages >> pages) {  // Resident pages are the second number.
    return pages * sysconf(_SC_PAGESIZE);
  }
  return 0;
}

// The number that `path` holds; no limit if it holds none ("max"), or does not exist.
int64_t ReadLimit(const std::string& path) {
  std::ifstream file(path);
  int64_t bytes = 0;
  return file >> bytes && bytes >= 0 ? bytes : std::numeric_limits<int64_t>::max();
}

// The lowest limit of a control group and all those around it: each of them binds.
int64_t GroupLimit(const std::string& mount, std::string group, absl::string_view file) {
  int64_t limit_bytes = std::numeric_limits<int64_t>::max();
  while (true) {
    limit_bytes = std::min(limit_bytes, ReadLimit(absl::StrCat(mount, group, "/", file)));
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) {
      return limit_bytes;
    }
    group.resize(slash);
  }
}

// Lines of /proc/self/cgroup are "id:controllers:path"; version 2 has one, "0::path".
int64_t ControlGroupLimit(const std::string& root) {
  std::ifstream groups(absl::StrCat(root, "/proc/self/cgroup"));
  int64_t limit_bytes = std::numeric_limits<int64_t>::max();
  std::string line;
  while (std::getline(groups, line)) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) {
      continue;
    }
    const std::string group = fields[2] == "/" ? "" : fields[2];
    if (fields[1].empty()) {
      limit_bytes = std::min(limit_bytes,
                             GroupLimit(absl::StrCat(root, "/sys/fs/cgroup"), group, "memory.max"));
    } else if (absl::StrContains(absl::StrCat(",", fields[1], ","), ",memory,")) {
      limit_bytes = std::min(limit_bytes, GroupLimit(absl::StrCat(root, "/sys/fs/cgroup/memory"),
                                                     group, "memory.limit_in_bytes"));
    }
  }
  return limit_bytes;
}

}  // namespace

MemorySample SampleMemory(const Device& device, const ModelRegistry& registry) {
  MemorySample sample;
  sample.device = device.name();
  sample.kind = device.description();
  if (const absl::StatusOr<Device::Memory> memory = device.QueryMemory(); memory.ok()) {
    sample.memory = *memory;
  } else {
    registry.CheckDevice();
  }
  sample.rss_bytes = RssBytes();
  sample.pinned_bytes = device.host_bytes();
  return sample;
}

absl::StatusOr<int64_t> AvailableHostBytes(const std::string& root) {
  const std::string path = absl::StrCat(root, "/proc/meminfo");
  std::ifstream meminfo(path);
  std::string line;
  while (std::getline(meminfo, line)) {
    std::istringstream words(line);
    std::string name;
    int64_t kibibytes = 0;
    if (words >> name >> kibibytes && name == "MemAvailable:") {
      return std::min(kibibytes * 1024, ControlGroupLimit(root));
    }
  }
  return absl::InternalError(absl::StrCat(path, ": expected a line MemAvailable, found none"));
}

}  // namespace nibble
