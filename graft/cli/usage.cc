#include "graft/cli/usage.h"

#include <fmt/format.h>

#include <algorithm>

#include "graft/base/error.h"
#include "graft/base/strings.h"

namespace graft {
namespace {

CLI::App& innermost(CLI::App& app) {
  const auto parsed = app.get_subcommands();
  return parsed.empty() ? app : innermost(*parsed.back());
}

std::vector<std::string_view> flag_names(const CLI::App& command) {
  std::vector<std::string_view> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(name);
  }
  return names;
}

std::string unknown(const CLI::App& command, const std::string& argument) {
  if (argument.starts_with("-")) {
    const std::string flag = argument.substr(0, argument.find('='));
    const std::string name = flag.substr(std::min(flag.find_first_not_of('-'), flag.size()));
    const std::string near = nearest_name(name, flag_names(command));
    return fmt::format("unknown flag '{}'{}", printable(argument),
                       near.empty() ? "" : fmt::format("; did you mean --{}?", near));
  }
  std::vector<std::string_view> commands;
  for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; })) {
    commands.push_back(sub->get_name());
  }
  if (commands.empty()) return fmt::format("unexpected argument '{}'", printable(argument));
  const std::string near = nearest_name(argument, commands);
  return fmt::format("unknown command '{}'{}", printable(argument),
                     near.empty() ? "" : fmt::format("; did you mean {}?", near));
}

}  // namespace

std::string command_path(const CLI::App& app) {
  const auto parsed = app.get_subcommands();
  return app.get_name() + (parsed.empty() ? "" : " " + command_path(*parsed.back()));
}

std::vector<std::string> usage_faults(CLI::App& app, const CLI::ParseError& first) {
  std::vector<std::string> faults;
  const auto add = [&](const std::string& fault) {
    if (!fault.empty() && std::find(faults.begin(), faults.end(), fault) == faults.end()) faults.push_back(fault);
  };
  CLI::App& command = innermost(app);
  const std::vector<std::string> rest = app.remaining(true);
  const bool generic = dynamic_cast<const CLI::ExtrasError*>(&first) != nullptr ||
                       (dynamic_cast<const CLI::RequiredError*>(&first) != nullptr && !rest.empty());
  if (!generic) add(first.what());
  for (CLI::Option* option : command.get_options()) {
    if (option->count() == 0) {
      if (option->get_required()) add(CLI::RequiredError(option->get_name()).what());
      continue;
    }
    if (option == command.get_help_ptr()) continue;
    try {
      option->run_callback();
    } catch (const CLI::ParseError& e) {
      add(e.what());
    }
  }
  for (const std::string& argument : rest) {
    if (argument != "--") add(unknown(command, argument));
  }
  if (faults.empty()) add(first.what());
  return faults;
}

}  // namespace graft
