#include "server/command_line/machine_rates.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "loader/device_buffer.h"
#include "loader/staging_ring.h"
#include "loader/vram_budget.h"

namespace nibble {
namespace {

constexpr int64_t kReadBytes = 1_MiB;          // Fits a core's second-level cache.
constexpr int64_t kCopyBufferBytes = 256_MiB;  // Beyond the last-level cache of any one machine.
constexpr int64_t kDeviceCopyBytes = 256_MiB;

// A file that is open for reading, closed on destruction.
class OpenFile {
 public:
  static absl::StatusOr<std::unique_ptr<OpenFile>> Open(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info = {};
    if (fd < 0 || fstat(fd, &info) != 0) {
      const absl::Status status =
          absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot be read"));
      if (fd >= 0) {
        close(fd);
      }
      return status;
    }
    return std::unique_ptr<OpenFile>(new OpenFile(fd, info.st_size));
  }
  ~OpenFile() { close(fd_); }

  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int fd() const { return fd_; }
  int64_t bytes() const { return bytes_; }

 private:
  OpenFile(int fd, int64_t bytes) : fd_(fd), bytes_(bytes) {}

  const int fd_;
  const int64_t bytes_;
};

using OpenFiles = std::vector<std::unique_ptr<OpenFile>>;

absl::StatusOr<OpenFiles> OpenAll(const std::vector<std::string>& paths) {
  OpenFiles files;
  for (const std::string& path : paths) {
    absl::StatusOr<std::unique_ptr<OpenFile>> file = OpenFile::Open(path);
    if (!file.ok()) {
      return file.status();
    }
    files.push_back(*std::move(file));
  }
  return files;
}

struct Piece {
  int fd;
  int64_t offset;
  int64_t bytes;
};

std::vector<Piece> CutToPieces(const OpenFiles& files) {
  std::vector<Piece> pieces;
  for (const std::unique_ptr<OpenFile>& file : files) {
    for (int64_t offset = 0; offset < file->bytes(); offset += kReadBytes) {
      pieces.push_back({file->fd(), offset, std::min(kReadBytes, file->bytes() - offset)});
    }
  }
  return pieces;
}

// Runs `work(index)` on that many threads at once and waits for them.
template <typename Work>
void RunThreads(int thread_count, const Work& work) {
  std::vector<std::thread> threads;
  for (int index = 1; index < thread_count; ++index) {
    threads.emplace_back([&work, index] { work(index); });
  }
  work(0);
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace

absl::StatusOr<double> ResidentShare(const std::vector<std::string>& paths) {
  const absl::StatusOr<OpenFiles> files = OpenAll(paths);
  if (!files.ok()) {
    return files.status();
  }
  const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  int64_t resident = 0;
  int64_t total = 0;
  for (const std::unique_ptr<OpenFile>& file : *files) {
    if (file->bytes() == 0) {
      continue;
    }
    const auto bytes = static_cast<size_t>(file->bytes());
    std::vector<unsigned char> pages(static_cast<size_t>(CeilDivide(file->bytes(), page_bytes)));
    void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file->fd(), 0);
    if (mapped == MAP_FAILED) {
      return absl::ErrnoToStatus(errno, "a shard cannot be mapped to ask for its pages");
    }
    const int result = mincore(mapped, bytes, pages.data());
    munmap(mapped, bytes);
    if (result != 0) {
      return absl::ErrnoToStatus(errno, "mincore");
    }
    total += std::ssize(pages);
    resident += std::accumulate(pages.begin(), pages.end(), int64_t{0},
                                [](int64_t sum, unsigned char page) { return sum + (page & 1); });
  }
  return total == 0 ? 1 : static_cast<double>(resident) / static_cast<double>(total);
}

absl::StatusOr<absl::Duration> TimeRead(const std::vector<std::string>& paths, int thread_count) {
  const absl::StatusOr<OpenFiles> files = OpenAll(paths);
  if (!files.ok()) {
    return files.status();
  }
  const std::vector<Piece> pieces = CutToPieces(*files);
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  const absl::Time start = absl::Now();
  RunThreads(thread_count, [&](int) {
    std::vector<std::byte> buffer(kReadBytes);
    for (size_t index = next++; index < pieces.size(); index = next++) {
      const Piece& piece = pieces[index];
      const auto bytes = static_cast<size_t>(piece.bytes);
      // A short read at a place that exists means that somebody shortened the file.
      if (pread(piece.fd, buffer.data(), bytes, piece.offset) != static_cast<ssize_t>(bytes)) {
        failed = true;
      }
    }
  });
  const absl::Duration time = absl::Now() - start;
  if (failed) {
    return absl::DataLossError("the checkpoint could not be read to its end");
  }
  return time;
}

absl::StatusOr<absl::Duration> TimeMemoryCopy(int64_t bytes, int thread_count) {
  const int64_t buffer_bytes = std::min(kCopyBufferBytes / thread_count, bytes);
  std::vector<std::vector<std::byte>> buffers(static_cast<size_t>(2 * thread_count));
  for (std::vector<std::byte>& buffer : buffers) {
    buffer.assign(static_cast<size_t>(buffer_bytes), std::byte{1});  // Touches every page.
  }
  const int64_t share = CeilDivide(bytes, thread_count);
  const absl::Time start = absl::Now();
  RunThreads(thread_count, [&](int index) {
    const size_t pair = 2 * static_cast<size_t>(index);
    std::byte* source = buffers[pair].data();
    std::byte* target = buffers[pair + 1].data();
    for (int64_t done = 0; done < share; done += buffer_bytes) {
      std::memcpy(target, source, static_cast<size_t>(std::min(buffer_bytes, share - done)));
      // The compiler must not see that nobody reads the copy.
      asm volatile("" : : "r"(target) : "memory");
    }
  });
  return absl::Now() - start;
}

absl::StatusOr<absl::Duration> TimeDeviceCopy(Device& device, int64_t bytes) {
  const int64_t buffer_bytes = kDeviceCopyBytes;
  VramBudget budget(buffer_bytes);
  PurposeBytes needed;
  needed[Purpose::kStaging] = buffer_bytes;
  absl::StatusOr<VramBudget::Reservation> reservation = budget.Reserve("bench", needed);
  if (!reservation.ok()) {
    return reservation.status();
  }
  const absl::StatusOr<DeviceBuffer> target =
      DeviceBuffer::Allocate(device, *reservation, Purpose::kStaging, buffer_bytes);
  if (!target.ok()) {
    return target.status();
  }
  const absl::StatusOr<std::span<std::byte>> allocated = device.AllocateHost(buffer_bytes);
  if (!allocated.ok()) {
    return allocated.status();
  }
  const HostBuffer source(device, *allocated);
  const absl::StatusOr<std::unique_ptr<Queue>> queue = device.NewQueue();
  if (!queue.ok()) {
    return queue.status();
  }
  absl::Status status;
  const absl::Time start = absl::Now();
  for (int64_t done = 0; done < bytes && status.ok(); done += buffer_bytes) {
    const int64_t piece = std::min(buffer_bytes, bytes - done);
    status = (*queue)->CopyToDevice(source.bytes().first(static_cast<size_t>(piece)),
                                    target->span().Slice(0, piece));
  }
  const absl::Status waited = (*queue)->Synchronize();
  const absl::Duration time = absl::Now() - start;
  if (!status.ok() || !waited.ok()) {
    return status.ok() ? waited : status;
  }
  return time;
}

}  // namespace nibble
