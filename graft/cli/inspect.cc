#include "graft/formats/inspect.h"

#include "graft/cli/common.h"
#include "graft/train/metrics.h"

namespace graft {
namespace {

std::string shape_of(const Json& shape) {
  std::string text = "[";
  for (const Json& d : shape) text += (text.size() > 1 ? ", " : "") + d.dump();
  return text + "]";
}

void print_text(const Json& info) {
  const auto word = [&](const char* key) {
    return info.contains(key) ? info[key].is_string() ? info[key].get<std::string>() : info[key].dump() : "";
  };
  fmt::print("{}{}, {} parameters\n", word("kind"),
             info.contains("family") && info["family"].is_string() ? " of family " + word("family") : "",
             info.contains("parameters") ? count_text(info["parameters"].get<int64_t>()) : "?");
  for (const auto& [key, value] : info.items()) {
    if (key == "kind" || key == "family" || key == "parameters" || key == "tensors" || key == "odd" ||
        key == "modules") {
      continue;
    }
    fmt::print("  {:<12} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  if (info.contains("odd")) {
    for (const Json& odd : info["odd"]) {
      fmt::print("  odd: {}\n", odd.is_string() ? odd.get<std::string>() : odd.dump());
    }
  }
  if (!info.contains("tensors")) return;
  for (const Json& t : info["tensors"]) {
    fmt::print("{:<72} {:<6} {}\n", t["name"].get<std::string>(), t["dtype"].get<std::string>(), shape_of(t["shape"]));
  }
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto* command =
      app.add_subcommand("inspect", "Show what a model, adapter, checkpoint or tensor file holds, from headers only");
  struct Flags {
    CommonFlags common;
    std::string path;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("path", flags->path, "Folder or .safetensors file")->required()->type_name("PATH");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  graft inspect my-adapter");
  command->callback([flags] {
    const Runtime runtime(flags->common);
    const Json info = inspect_path(flags->path);
    if (flags->common.json) {
      fmt::print("{}\n", info.dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      print_text(info);
    }
  });
}

}  // namespace graft
