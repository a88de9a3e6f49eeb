// Host memory whose n-th large allocation fails: with it a test can let every one of a load fail in
// turn, as FaultyDevice does with calls of a device. Linking this replaces operator new of the
// whole executable.

#pragma once

#include <cstddef>
#include <cstdint>

namespace nibble {

// From here on an allocation is counted. What a checkpoint's headers decide the size of gets there
// quickly; what a daemon does anyway stays below.
inline constexpr size_t kLargeAllocationBytes = 64 << 10;

// Counts from 0 again and lets the `number`-th large allocation from now, on whichever thread,
// throw std::bad_alloc (1 is the next one); 0: none. Thread-safe, as are those below.
void FailLargeAllocation(int64_t number);

// Whether the chosen one has been asked for.
bool LargeAllocationHasFailed();

// The most bytes that were asked for at once since the last FailLargeAllocation().
size_t LargestAllocationBytes();

}  // namespace nibble
