#include "server/command_line/commands.h"

namespace nibble {

std::vector<Command> AllCommands() {
  return {ServeCommand(),       PlanCommand(),        LoadCommand(),         UnloadCommand(),
          PsCommand(),          MemoryCommand(),      GenerateCommand(),     ChatCommand(),
          ExportCommand(),      SynthCommand(),       BenchLoadCommand(),    BenchQuantizeCommand(),
          BenchLinearCommand(), BenchDecodeCommand(), BenchPrefillCommand(), BenchServeCommand(),
          VersionCommand()};
}

}  // namespace nibble
