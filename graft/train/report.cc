#include "graft/train/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "graft/base/file.h"
#include "graft/train/html_page.h"
#include "graft/train/metrics.h"
#include "graft/train/report_page.h"

namespace graft {
namespace {

constexpr size_t kMaxCells = 240;    // of a heat map's row
constexpr size_t kMaxPoints = 2000;  // more than a screen has columns; the page stays small

double value_or_nan(const Json& line, const char* key) {
  const auto it = line.find(key);
  return it != line.end() && it->is_number() ? it->get<double>() : std::nan("");
}

// Seven digits: what a plot shows, and half the size.
Json short_number(double x) {
  return std::isfinite(x) ? Json::parse(fmt::format("{:.7g}", x), nullptr, false) : Json();
}

// The columns of the lines that hold `key`, each bucket of lines as one point: the last step, the mean of the rest.
Json columns_of(const std::vector<Json>& lines, const char* key, const std::vector<const char*>& names,
                size_t max_points) {
  std::vector<const Json*> chosen;
  for (const Json& line : lines) {
    if (line.contains(key)) chosen.push_back(&line);
  }
  const size_t bucket = std::max<size_t>(1, (chosen.size() + max_points - 1) / max_points);
  Json columns = Json::object();
  columns["step"] = Json::array();
  for (const char* name : names) {
    const bool there =
        std::any_of(chosen.begin(), chosen.end(), [&](const Json* line) { return line->contains(name); });
    if (there || std::string_view(name) == key) columns[name] = Json::array();
  }
  for (size_t begin = 0; begin < chosen.size(); begin += bucket) {
    const size_t end = std::min(begin + bucket, chosen.size());
    columns["step"].push_back((*chosen[end - 1])["step"]);
    for (const char* name : names) {
      if (!columns.contains(name)) continue;
      double sum = 0;
      int count = 0;
      for (size_t i = begin; i < end; ++i) {
        const double v = value_or_nan(*chosen[i], name);
        if (std::isfinite(v)) sum += v, ++count;
      }
      columns[name].push_back(short_number(count > 0 ? sum / count : std::nan("")));
    }
  }
  return columns;
}

// The busiest expert's share by layer and step, {"step": […], "layers": [[…]…]}, each bucket of lines as one mean; empty without experts.
Json loads_of(const std::vector<Json>& lines, size_t max_points) {
  std::vector<const Json*> chosen;
  for (const Json& line : lines) {
    const auto it = line.find("share_max_of_layers");
    if (it == line.end() || !it->is_array() || it->empty()) continue;
    const bool numbers = std::all_of(it->begin(), it->end(), [](const Json& v) { return v.is_number(); });
    if (numbers && (chosen.empty() || (*chosen[0])["share_max_of_layers"].size() == it->size()))
      chosen.push_back(&line);
  }
  Json loads = Json::object();
  if (chosen.empty()) return loads;
  const size_t layers = (*chosen[0])["share_max_of_layers"].size();
  const size_t bucket = (chosen.size() + max_points - 1) / max_points;
  loads["step"] = Json::array();
  loads["layers"] = Json(layers, Json::array());
  for (size_t begin = 0; begin < chosen.size(); begin += bucket) {
    const size_t end = std::min(begin + bucket, chosen.size());
    loads["step"].push_back((*chosen[end - 1])["step"]);
    for (size_t l = 0; l < layers; ++l) {
      double sum = 0;
      for (size_t i = begin; i < end; ++i) sum += (*chosen[i])["share_max_of_layers"][l].get<double>();
      loads["layers"][l].push_back(short_number(sum / static_cast<double>(end - begin)));
    }
  }
  return loads;
}

Json settings_of(const TrainConfig& config) {
  const TrainConfig defaults;
  Json groups = Json::array();
  for (const TrainField& field : train_fields()) {
    if ((field.use & kRecorded) == 0) continue;
    const std::string value = train_field_text(config, field);
    if (value.empty() || !train_field_in_force(config, field)) continue;
    if (groups.empty() || groups.back()["name"] != std::string(field.group)) {
      groups.push_back(Json{{"name", std::string(field.group)}, {"rows", Json::array()}});
    }
    const bool changed = value != train_field_text(defaults, field);
    std::string name(field.name);
    std::replace(name.begin(), name.end(), '_', ' ');
    groups.back()["rows"].push_back(Json::array({name, value, changed}));
  }
  return groups;
}

// The last part of a path, which may end in a slash.
std::string last_part(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

}  // namespace

Report make_report(const TrainConfig& config, std::vector<Json> metrics) {
  Report r;
  r.config = config;
  r.title = config.model.empty() ? std::string("Training run") : last_part(config.model);
  r.subtitle = config.method == "full" ? "All weights" : fmt::format("LoRA, rank {}, {}", config.rank, config.targets);
  if (!config.data.empty()) r.subtitle += " · " + last_part(config.data);
  const Json *last = nullptr, *best = nullptr;
  double seconds = 0;
  for (const Json& line : metrics) {
    if (line.contains("loss")) {
      last = &line;
      if (const double t = value_or_nan(line, "step_time"); std::isfinite(t)) seconds += t;
    }
    const double loss = value_or_nan(line, "eval_loss");
    if (std::isfinite(loss) && (best == nullptr || loss < value_or_nan(*best, "eval_loss"))) best = &line;
  }
  if (last != nullptr) {
    const double tokens = value_or_nan(*last, "num_tokens");
    r.summary.emplace_back("Updates", count_text((*last)["step"].get<int64_t>()));
    const double loss = value_or_nan(*last, "loss");
    r.summary.emplace_back("Last loss", std::isfinite(loss) ? fmt::format("{:.4f}", loss) : "not a number");
    if (best != nullptr) r.summary.emplace_back("Validation", fmt::format("{:.4f}", value_or_nan(*best, "eval_loss")));
    if (std::isfinite(tokens)) r.summary.emplace_back("Tokens", count_text(std::llround(tokens)));
    if (std::isfinite(tokens) && seconds > 0) {
      r.summary.emplace_back("Tokens/s", count_text(std::llround(tokens / seconds)));
    }
    r.summary.emplace_back("Training time", duration_text(seconds));
  }
  r.metrics = std::move(metrics);
  return r;
}

std::string report_html(const Report& r) {
  Json data = Json::object();
  data["title"] = r.title;
  data["subtitle"] = r.subtitle;
  data["summary"] = Json::array();
  for (const auto& [name, value] : r.summary) data["summary"].push_back(Json::array({name, value}));
  data["clip"] = r.config.clip;
  data["train"] = columns_of(r.metrics, "loss",
                             {"epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "cross_entropy",
                              "aux_loss", "z_loss", "expert_share_max", "expert_entropy", "dead_experts"},
                             kMaxPoints);
  data["loads"] = loads_of(r.metrics, kMaxCells);
  data["eval"] = columns_of(r.metrics, "eval_loss", {"eval_loss"}, kMaxPoints);
  data["settings"] = settings_of(r.config);
  return html_page(kReportPage, r.title + " – graft", data);
}

void write_report(const std::string& folder, const TrainConfig& config,
                  const std::vector<std::pair<std::string, std::string>>& more) {
  Report report = make_report(config, read_metrics(folder + "/metrics.jsonl"));
  report.summary.insert(report.summary.end(), more.begin(), more.end());
  write_file(folder + "/report.html", report_html(report));
}

}  // namespace graft
