#include "graft/train/metrics.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/strings.h"

namespace graft {
namespace {

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

// A whole line of a metrics file, or null.
Json parse_line(std::string_view line) {
  Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  return json.is_object() && json.contains("step") && json["step"].is_number_integer() ? json : Json();
}

std::string read_if_there(const std::string& path) { return path_exists(path) ? read_file(path) : std::string(); }

}  // namespace

Json to_json(const StepMetrics& m) {
  Json json = {{"step", m.step},
               {"epoch", number(m.epoch)},
               {"loss", number(m.loss)},
               {"learning_rate", number(m.learning_rate)},
               {"grad_norm", number(m.grad_norm)},
               {"num_tokens", m.num_tokens},
               {"tokens_per_second", number(m.tokens_per_second)},
               {"step_time", number(m.step_time)}};
  if (m.experts) {
    json["cross_entropy"] = number(m.experts->cross_entropy);
    json["aux_loss"] = number(m.experts->aux_loss);
    json["z_loss"] = number(m.experts->z_loss);
    json["expert_share_max"] = number(m.experts->expert_share_max);
    json["expert_entropy"] = number(m.experts->expert_entropy);
    json["dead_experts"] = m.experts->dead_experts;
    json["share_max_of_layers"] = m.experts->share_max_of_layers;
  }
  return json;
}

Json to_json(const EvalMetrics& m) {
  return {{"step", m.step},
          {"epoch", number(m.epoch)},
          {"eval_loss", number(m.eval_loss)},
          {"eval_tokens", m.eval_tokens},
          {"eval_runtime", number(m.eval_runtime)}};
}

MetricsLog::MetricsLog(std::string path, int64_t resumed_step) : path_(std::move(path)) {
  std::string kept;
  if (resumed_step > 0) {
    const std::string text = read_if_there(path_);
    size_t begin = 0;
    for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string_view one = std::string_view(text).substr(begin, end - begin);
      const Json json = parse_line(one);
      if (!json.is_null() && json["step"].get<int64_t>() <= resumed_step) kept.append(one).push_back('\n');
    }
  }
  write_file(path_, kept);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  GRAFT_CHECK(fd_ >= 0, "{}: cannot open: {}", path_, std::strerror(errno));
}

MetricsLog::~MetricsLog() {
  if (fd_ >= 0) ::close(fd_);
}

void MetricsLog::line(const Json& json) {
  const std::string text = json.dump() + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    GRAFT_CHECK(n >= 0, "{}: cannot write: {}", path_, std::strerror(errno));
    done += static_cast<size_t>(n);
  }
}

void MetricsLog::sync() { GRAFT_CHECK(::fdatasync(fd_) == 0, "{}: cannot write: {}", path_, std::strerror(errno)); }

std::vector<Json> read_metrics(const std::string& path) {
  std::vector<Json> lines;
  const std::string text = read_if_there(path);
  for (const std::string_view one : split(text, '\n')) {
    if (Json json = parse_line(one); !json.is_null()) lines.push_back(std::move(json));
  }
  return lines;
}

std::string progress_line(const Progress& p) {
  const StepMetrics& m = p.metrics;
  const std::string total = fmt::format("{}", p.num_steps);
  std::string line = fmt::format("step {:>{}}/{}  loss {:.4f}  lr {:.2e}  grad norm {:.3f}  {:>6} tokens/s  {}", m.step,
                                 total.size(), total, m.loss, m.learning_rate, m.grad_norm,
                                 count_text(std::llround(std::isfinite(m.tokens_per_second) ? m.tokens_per_second : 0)),
                                 memory_text(p.memory_bytes));
  if (p.seconds_left >= 0) line += fmt::format("  {} left", duration_text(p.seconds_left));
  return line;
}

void TimeLeft::add(double step_seconds) {
  constexpr double kKeep = 0.98;
  sum_ = sum_ * kKeep + step_seconds;
  weight_ = weight_ * kKeep + 1;
  ++count_;
}

double TimeLeft::seconds(int64_t steps_left) const {
  return count_ < 2 ? -1 : sum_ / weight_ * static_cast<double>(steps_left);
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e10) return "?";
  const int64_t s = std::llround(seconds);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m {:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h {:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d {:02}h", s / 86400, s % 86400 / 3600);
}

std::string memory_text(int64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (bytes < 1000) return fmt::format("{} B", bytes);
  if (bytes < 1000000) return fmt::format("{:.0f} kB", b / 1e3);
  if (bytes < 1000000000) return fmt::format("{:.0f} MB", b / 1e6);
  return fmt::format("{:.2f} GB", b / 1e9);
}

std::string count_text(int64_t count) {
  const std::string digits = fmt::format("{}", count < 0 ? -count : count);
  std::string text(count < 0 ? 1 : 0, '-');
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string rows_text(int64_t count) { return fmt::format("{} {}", count_text(count), count == 1 ? "row" : "rows"); }

}  // namespace graft
