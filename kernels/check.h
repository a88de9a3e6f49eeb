// Ends the process when an invariant that memory safety rests on is broken.

#pragma once

#include <cstdio>
#include <cstdlib>

namespace nibble {

// Ends the process if `holds` is false. For invariants whose violation would corrupt memory; on in
// every build. (clang 14 has no std::source_location with this library, hence the builtins.)
inline void Check(bool holds, const char* what, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  if (holds) [[likely]] {
    return;
  }
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what);
  std::abort();
}

}  // namespace nibble
