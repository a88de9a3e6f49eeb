// A time as Python's strftime shows it, for prompts that say what day it is.

#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/engine/chat/run.h"

namespace nibble::jinja {

// The names of days and months are English.
//
// Errors: in the run, if it becomes too long. A field that is none stays as it is.
std::string FormatTime(Run& run, absl::string_view format, absl::Time time, absl::TimeZone zone);

}  // namespace nibble::jinja
