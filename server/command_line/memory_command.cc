#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

using Align = TextTable::Align;

std::string Memory(uint64_t bytes) { return FormatMemory(static_cast<int64_t>(bytes)); }

// The budget and what is taken of it.
std::string RenderTotals(const v1::DeviceMemory& device) {
  TextTable table({Align::kLeft, Align::kRight, Align::kRight});
  const auto add = [&](const char* what, uint64_t bytes) {
    table.AddRow(
        {what, Memory(bytes), absl::StrCat(FormatExact(static_cast<int64_t>(bytes)), " bytes")});
  };
  add("budget", device.budget_bytes());
  add("reserved", device.reserved_bytes());
  add("allocated", device.allocated_bytes());
  add("available", device.available_bytes());
  add("highest reserved", device.peak_reserved_bytes());
  add("highest allocated", device.peak_allocated_bytes());
  return table.Render("  ");
}

std::string RenderPurposes(const v1::DeviceMemory& device) {
  TextTable table({Align::kLeft, Align::kRight, Align::kRight});
  table.AddRow({"PURPOSE", "RESERVED", "ALLOCATED"});
  for (const v1::PurposeMemory& purpose : device.purposes()) {
    table.AddRow(
        {purpose.purpose(), Memory(purpose.reserved_bytes()), Memory(purpose.allocated_bytes())});
  }
  table.AddRow({"total", Memory(device.reserved_bytes()), Memory(device.allocated_bytes())});
  return table.Render("  ");
}

std::string RenderModels(const v1::DeviceMemory& device) {
  if (device.models().empty()) {
    return "  no models\n";
  }
  TextTable table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight,
                   Align::kRight, Align::kRight});
  table.AddRow({"MODEL", "WEIGHTS", "KV CACHE", "WORKSPACE", "STAGING", "RESERVED", "ALLOCATED"});
  v1::ModelMemory total;
  const auto add = [&](const std::string& name, const v1::ModelMemory& memory) {
    table.AddRow({name, Memory(memory.weights_bytes()), Memory(memory.kv_cache_bytes()),
                  Memory(memory.workspace_bytes()), Memory(memory.staging_bytes()),
                  Memory(memory.weights_bytes() + memory.kv_cache_bytes() +
                         memory.workspace_bytes() + memory.staging_bytes()),
                  Memory(memory.allocated_bytes())});
  };
  for (const v1::ModelMemory& model : device.models()) {
    add(model.model(), model);
    total.set_weights_bytes(total.weights_bytes() + model.weights_bytes());
    total.set_kv_cache_bytes(total.kv_cache_bytes() + model.kv_cache_bytes());
    total.set_workspace_bytes(total.workspace_bytes() + model.workspace_bytes());
    total.set_staging_bytes(total.staging_bytes() + model.staging_bytes());
    total.set_allocated_bytes(total.allocated_bytes() + model.allocated_bytes());
  }
  add("total", total);
  return table.Render("  ");
}

// What the system says, beside what the ledger counts.
std::string RenderSystem(const v1::GetMemoryResponse& response, const v1::DeviceMemory& device) {
  return absl::StrCat("  the system says: device total ", Memory(device.total_bytes()), ", free ",
                      Memory(device.free_bytes()),
                      device.has_process_bytes()
                          ? absl::StrCat(", this process ", Memory(device.process_bytes()))
                          : "",
                      "; host RSS ", Memory(response.host().rss_bytes()), ", pinned ",
                      Memory(response.host().pinned_bytes()), "\n");
}

int RunMemory(const ClientOptions& options) {
  Client client(options);
  grpc::ClientContext context;
  v1::GetMemoryResponse response;
  const absl::Status status = client.Outcome(client.memory().GetMemory(&context, {}, &response));
  if (!status.ok()) {
    return ReportFailure(status);
  }
  if (options.json) {
    return PrintJson(response);
  }
  for (const v1::DeviceMemory& device : response.devices()) {
    std::printf("%s (%s)\n%s\n%s\n%s\n%s", device.device().c_str(), device.kind().c_str(),
                RenderTotals(device).c_str(), RenderPurposes(device).c_str(),
                RenderModels(device).c_str(), RenderSystem(response, device).c_str());
  }
  return kExitDone;
}

}  // namespace

Command MemoryCommand() {
  auto options = std::make_shared<ClientOptions>();
  Command command;
  command.name = "memory";
  command.summary = "shows where every byte of the budget is";
  command.description =
      "Shows the device memory of the daemon, by purpose and by model. Reserved is what was "
      "promised to a load before it began, allocated is what was taken from the device under that "
      "promise; both come from the ledger that enforces the budget. The last line is what the "
      "system says, to check them against. Sizes are powers of 1024.";
  command.examples = {"nibble memory", "nibble memory --json | jq '.devices[0].available_bytes'"};
  command.groups = {ClientSettings(options.get())};
  command.run = [options] { return RunMemory(*options); };
  return command;
}

}  // namespace nibble
