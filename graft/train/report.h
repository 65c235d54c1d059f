#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/base/json.h"
#include "graft/train/config.h"

namespace graft {

// report.html: one page without any other file, light and dark, narrow and wide, read with keyboard and screen reader:
// loss (raw, smoothed, validation), learning rate, gradient norm and speed over the updates, the run's figures and its
// settings.
struct Report {
  std::string title, subtitle;
  std::vector<std::pair<std::string, std::string>> summary;  // name, value: the tiles
  std::vector<Json> metrics;                                 // lines of metrics.jsonl
  TrainConfig config;                                        // resolved
};

// The figures of a run, from its metrics: steps, loss, validation, tokens, speed; the caller adds memory and time.
Report make_report(const TrainConfig& config, std::vector<Json> metrics);
std::string report_html(const Report& report);
// Atomically, from DIR/metrics.jsonl. `more` are further tiles.
void write_report(const std::string& folder, const TrainConfig& config,
                  const std::vector<std::pair<std::string, std::string>>& more = {});

}  // namespace graft
