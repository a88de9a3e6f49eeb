// The program `nibble`: daemon and client in one.

#include "server/command_line/commands.h"

int main(int argc, char** argv) {
  return nibble::RunCommandLine(nibble::AllCommands(), argc, argv);
}
