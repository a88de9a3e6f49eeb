// The commands of `nibble`, one file each.

#pragma once

#include <vector>

#include "server/command_line/command.h"

namespace nibble {

Command ServeCommand();
Command PlanCommand();
Command LoadCommand();
Command UnloadCommand();
Command GenerateCommand();
Command ChatCommand();
Command ExportCommand();
Command PsCommand();
Command MemoryCommand();
Command SynthCommand();
Command BenchLoadCommand();
Command BenchQuantizeCommand();
Command BenchLinearCommand();
Command BenchDecodeCommand();
Command BenchPrefillCommand();
Command BenchServeCommand();
Command VersionCommand();

// In the order of the list of commands.
std::vector<Command> AllCommands();

}  // namespace nibble
