#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graft/base/json.h"

namespace graft {

// What is known after an update, in the names of Hugging Face logs.
struct ExpertMetrics {
  double cross_entropy = 0, aux_loss = 0, z_loss = 0;  // aux_loss without its coefficient
  double expert_share_max = 0;                         // the largest of all layers
  double expert_entropy = 0;                           // nats, mean over layers (ln E where even)
  int64_t dead_experts = 0;                            // of all layers, without a token in this update
  std::vector<double> share_max_of_layers = {};        // the busiest expert's share in each layer with experts
};
struct StepMetrics {
  int64_t step = 0;                         // updates done, from 1
  double epoch = 0;                         // epochs done
  double loss = 0;                          // mean over the update's trained tokens; with experts the total
  double learning_rate = 0, grad_norm = 0;  // the rate used; the norm before clipping
  int64_t num_tokens = 0;                   // all tokens read so far
  double tokens_per_second = 0, step_time = 0;
  std::optional<ExpertMetrics> experts;
};
struct EvalMetrics {
  int64_t step = 0;
  double epoch = 0;
  double eval_loss = 0;
  int64_t eval_tokens = 0;  // trained tokens
  double eval_runtime = 0;  // seconds
};
Json to_json(const StepMetrics& m);
Json to_json(const EvalMetrics& m);

// metrics.jsonl: a line per update and per evaluation, each written whole. A number that is not finite becomes null.
class MetricsLog {
 public:
  // Continues after `resumed_step` updates: later lines, and a last line that a crash cut off, are dropped; 0 starts
  // anew.
  MetricsLog(std::string path, int64_t resumed_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;
  void write(const StepMetrics& m) { line(to_json(m)); }
  void write(const EvalMetrics& m) { line(to_json(m)); }
  void sync();  // to the disk, before a checkpoint is named

 private:
  void line(const Json& json);
  std::string path_;
  int fd_ = -1;
};

// The lines of a metrics.jsonl that are whole; an empty list if there is no file.
std::vector<Json> read_metrics(const std::string& path);

// "step  120/600  loss 0.8123  lr 3.20e-04  grad norm 1.231  1,234 tokens/s  1.24 GB  3m 20s left"
struct Progress {
  StepMetrics metrics;
  int64_t num_steps = 0;
  int64_t memory_bytes = 0;
  double seconds_left = -1;  // below 0: not known yet
};
std::string progress_line(const Progress& progress);

// Seconds left, from the time of recent updates: a mean with weights that fall by 2 % per update, so that a slow first
// update is soon forgotten. Below 0 before two updates.
class TimeLeft {
 public:
  void add(double step_seconds);
  double seconds(int64_t steps_left) const;

 private:
  double sum_ = 0, weight_ = 0;
  int64_t count_ = 0;
};

std::string duration_text(double seconds);  // "12s", "3m 20s", "1h 02m", "2d 03h"
std::string memory_text(int64_t bytes);     // "1.24 GB", powers of 10
std::string count_text(int64_t count);      // "1,234,567"
std::string rows_text(int64_t count);       // "1 row", "1,234 rows"

}  // namespace graft
