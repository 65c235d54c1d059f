#include <algorithm>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/cli/common.h"
#include "graft/recipes/recipes.h"

namespace graft {
namespace {

constexpr size_t kShown = 6;  // values of a long result on the terminal
constexpr int64_t kLargestSize = 100000000;

void add_list(CLI::App& group) {
  auto flags = std::make_shared<CommonFlags>();
  auto* command = group.add_subcommand("list", "Every recipe, with the kernels it runs");
  add_common_flags(*command, *flags);
  command->footer("Example:\n  graft recipe list");
  command->callback([flags] {
    const Runtime runtime(*flags);
    Json list = Json::array();
    for (const RecipeInfo& r : recipes()) {
      if (flags->json) {
        list.push_back({{"name", r.name}, {"steps", r.steps}});
      } else {
        fmt::print("{:<20} {}\n", r.name, r.steps);
      }
    }
    if (flags->json) fmt::print("{}\n", Json{{"recipes", list}}.dump());
  });
}

void add_run(CLI::App& group) {
  struct Flags {
    CommonFlags common;
    std::string name;
    int64_t size = 0;  // 0: the example's own
  };
  auto flags = std::make_shared<Flags>();
  auto* command = group.add_subcommand("run", "Run a recipe on an example built in and print its result");
  command->add_option("name", flags->name, "One of graft recipe list")->required()->type_name("NAME");
  command->add_option("--size", flags->size, "Elements of the example's main input (default: the recipe's own)")
      ->check(CLI::Range(int64_t{1}, kLargestSize))
      ->type_name("N");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  graft recipe run scientific --size 500");
  command->callback([flags] {
    const RecipeInfo* recipe = find_recipe(flags->name);
    if (recipe == nullptr) {
      throw UsageError(
          fmt::format("recipe '{}' is unknown; graft recipe list shows what there is", printable(flags->name, 40)));
    }
    Runtime runtime(flags->common);
    const int64_t size = flags->size > 0 ? flags->size : recipe->size;
    const std::vector<RecipeValue> result = recipe->run(runtime.context(), size, flags->common.seed);
    const auto saving = recipe_saving(runtime.context(), recipe->name, size, flags->common.seed);
    if (flags->common.json) {
      Json values = Json::object();
      for (const RecipeValue& v : result) {
        values[std::string(v.name)] = v.values.size() == 1 ? Json(v.values[0]) : Json(v.values);
      }
      Json report = {{"recipe", recipe->name},
                     {"size", size},
                     {"seed", flags->common.seed},
                     {"result", values},
                     {"joined", nullptr}};
      if (saving) {
        report["joined"] = {{"kernels", saving->kernels},
                            {"bytes", saving->bytes},
                            {"bytes_apart", saving->bytes_apart},
                            {"ns", saving->ns},
                            {"ns_apart", saving->ns_apart}};
      }
      fmt::print("{}\n", report.dump());
      return;
    }
    fmt::print("{}: {}\n", recipe->name, recipe->steps);
    for (const RecipeValue& v : result) {
      const size_t shown = std::min(v.values.size(), kShown);
      fmt::print("  {:<20} {:.6g}", v.name,
                 fmt::join(v.values.begin(), v.values.begin() + static_cast<int64_t>(shown), " "));
      fmt::print("{}\n", v.values.size() > shown ? fmt::format(" … ({} values)", v.values.size()) : "");
    }
    if (saving) {
      fmt::print("  {} in one pass: {:.0f} % of the bytes, {:.2f} x the speed of one by one\n", saving->kernels,
                 100 * saving->bytes / saving->bytes_apart, saving->ns_apart / saving->ns);
    }
  });
}

}  // namespace

void add_recipe(CLI::App& app) {
  auto* group = app.add_subcommand("recipe", "Pipelines of kernels: list them, run one on its example");
  group->require_subcommand(1);
  add_list(*group);
  add_run(*group);
}

}  // namespace graft
