#include "tests/support/faulty_new.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace nibble {
namespace {

std::atomic<int64_t> large_count = 0;
std::atomic<int64_t> failing_number = 0;
std::atomic<size_t> largest_bytes = 0;

// Counts an allocation; false if it is to fail.
bool Admit(size_t bytes) {
  size_t largest = largest_bytes;
  while (bytes > largest && !largest_bytes.compare_exchange_weak(largest, bytes)) {
  }
  return bytes < kLargeAllocationBytes || ++large_count != failing_number;
}

// Null if there is none, or if it is its turn to fail.
void* Allocate(size_t bytes) noexcept {
  return Admit(bytes) ? std::malloc(bytes == 0 ? 1 : bytes) : nullptr;
}

void* AllocateOrThrow(size_t bytes) {
  void* const memory = Allocate(bytes);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

}  // namespace

void FailLargeAllocation(int64_t number) {
  failing_number = 0;
  large_count = 0;
  largest_bytes = 0;
  failing_number = number;
}

bool LargeAllocationHasFailed() { return failing_number > 0 && large_count >= failing_number; }

size_t LargestAllocationBytes() { return largest_bytes; }

}  // namespace nibble

// All forms but the aligned ones: a sanitizer has each of its own, of which none calls another.
void* operator new(std::size_t bytes) { return nibble::AllocateOrThrow(bytes); }
void* operator new[](std::size_t bytes) { return nibble::AllocateOrThrow(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return nibble::Allocate(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return nibble::Allocate(bytes);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
