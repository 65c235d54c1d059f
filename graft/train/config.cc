#include "graft/train/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>

#include "graft/base/error.h"
#include "graft/base/strings.h"

namespace graft {
namespace {

using T = TrainConfig;
constexpr FieldRange kAny{}, kPositive{.low = 0, .low_open = true}, kNotNegative{.low = 0},
    kCount{.low = 1, .high = 1e15}, kCountOrOff{.low = 0, .high = 1e15},
    kBelowOne{.low = 0, .high = 1, .high_open = true};
constexpr uint8_t kRun = kRecorded | kChangeable, kShape = kRecorded | kFromAdapter, kNow = kChangeable;

constexpr std::string_view kData = "data", kLora = "adapter", kOptimizer = "optimizer", kSchedule = "schedule",
                           kExperts = "experts", kSteps = "steps", kRunning = "run";

// clang-format off
constexpr TrainField kFields[] = {
    {"model", "MODEL", "Hugging Face folder of the model to train", kData, &T::model},
    {"data", "DATA", ".jsonl or .json file, folder with train.jsonl, text file, or pre-tokenised .safetensors", kData, &T::data},
    {"out", "DIR", "Folder to create", kData, &T::out, kRun},
    {"valid", "FILE|P%", "Validation rows: a file, or a share of the rows, chosen by the seed", kData, &T::valid},
    {"max_length", "N", "Longest row in tokens (default: the model's maximum)", kData, &T::max_length, kRecorded, kCountOrOff},
    {"too_long", "", "Rows beyond --max-length: error (found before the start), truncate, drop, or split texts into rows; a .txt file is always split unless cut or dropped", kData, &T::too_long, kRecorded, kAny, "error|truncate|drop|split"},
    {"loss_on", "", "Tokens to train: auto is completion, assistant or all by the row format", kData, &T::loss_on, kRecorded, kAny, "auto|completion|assistant|last|all"},
    {"pack", "", "Fill each sequence slot up to --max-length with several rows, which never see each other", kData, &T::pack},
    {"no_shuffle", "", "Take the rows in file order", kData, &T::no_shuffle},
    {"template_arg", "K=V", "Variable for the chat template, e.g. enable_thinking=false (repeatable)", kData, &T::template_arg},
    {"ignore_index", "ID", "Label that is not trained, in pre-tokenised data", kData, &T::ignore_index},

    {"method", "", "Train a LoRA adapter or all weights", kLora, &T::method, kRecorded, kAny, "lora|full"},
    {"adapter", "DIR", "Continue from the weights of this adapter; its rank, alpha and targets are kept", kLora, &T::adapter},
    {"rank", "N", "Rank r of the adapter: A is [r, in], B is [out, r]", kLora, &T::rank, kShape, kCount},
    {"alpha", "X", "The update is scaled by alpha / rank", kLora, &T::alpha, kShape, kPositive},
    {"dropout", "P", "Share of the adapter's input dropped while training", kLora, &T::dropout, kRecorded, kBelowOne},
    {"dropout_at", "", "Drop inputs of A, or the rank activations", kLora, &T::dropout_at, kRecorded, kAny, "input|rank"},
    {"rslora", "", "Scale by alpha / sqrt(rank)", kLora, &T::rslora, kShape},
    {"dora", "", "Weight-decomposed adapter: trains a magnitude per output too", kLora, &T::dora, kShape},
    {"targets", "LIST", "Layers to adapt: names, all-linear, or a regular expression", kLora, &T::targets, kShape},
    {"exclude", "LIST", "Layers to leave out: names or a regular expression", kLora, &T::exclude, kShape},
    {"layers", "RANGE", "Decoder layers to adapt, e.g. 0-11 (default: all)", kLora, &T::layers, kShape},
    {"rank_pattern", "K=V", "Rank of modules whose name ends in K (repeatable)", kLora, &T::rank_pattern, kShape},
    {"alpha_pattern", "K=V", "Alpha of modules whose name ends in K (repeatable)", kLora, &T::alpha_pattern, kShape},
    {"modules_to_save", "LIST", "Modules trained whole and saved with the adapter", kLora, &T::modules_to_save, kShape},
    {"init", "", "Start of A: U(-1/sqrt(in), 1/sqrt(in)), or normal with std 1/r, 1/sqrt(r), 1/sqrt(in)", kLora, &T::init, kRecorded, kAny, "kaiming|gaussian|gaussian_rank|gaussian_in"},
    {"partial", "", "Accept an --adapter that lacks tensors or holds others", kLora, &T::partial},
    {"save_dtype", "", "Type of the weights that --method full writes", kLora, &T::save_dtype, kRecorded, kAny, "keep|f32|bf16|f16"},

    {"optimizer", "", "AdamW or plain gradient descent", kOptimizer, &T::optimizer, kRecorded, kAny, "adamw|sgd"},
    {"lr", "X", "Learning rate (its maximum)", kOptimizer, &T::lr, kRecorded, kPositive},
    {"weight_decay", "X", "Decoupled weight decay", kOptimizer, &T::weight_decay, kRecorded, kNotNegative},
    {"decay_all", "", "Decay norms and biases too", kOptimizer, &T::decay_all},
    {"beta1", "X", "AdamW: decay of the mean of gradients", kOptimizer, &T::beta1, kRecorded, kBelowOne},
    {"beta2", "X", "AdamW: decay of the mean of squared gradients", kOptimizer, &T::beta2, kRecorded, kBelowOne},
    {"eps", "X", "AdamW: added to the root of the second moment", kOptimizer, &T::eps, kRecorded, kPositive},
    {"clip", "X", "Largest L2 norm of all gradients together, or off", kOptimizer, &T::clip, kRecorded, kNotNegative, {}, "off=0"},
    {"label_smoothing", "X", "Share of the target spread over the vocabulary", kOptimizer, &T::label_smoothing, kRecorded, kBelowOne},

    {"schedule", "", "Course of the learning rate", kSchedule, &T::schedule, kRecorded, kAny, "constant|linear|cosine|wsd|polynomial|inverse_sqrt"},
    {"schedule_steps", "N", "Length of the schedule (default: the run's steps)", kSchedule, &T::schedule_steps, kRecorded, kCountOrOff},
    {"warmup", "N|P%", "Updates in which the rate rises to --lr", kSchedule, &T::warmup},
    {"warmup_from", "0|1", "1 evaluates the schedule at s + 1, so that the first update is not zero", kSchedule, &T::warmup_from, kRecorded, {.low = 0, .high = 1}},
    {"decay_steps", "N|P%", "wsd: length of the falling part at the end", kSchedule, &T::decay_steps},
    {"power", "X", "polynomial: exponent", kSchedule, &T::power, kRecorded, kPositive},
    {"min_lr", "X", "Rate at the end of the schedule", kSchedule, &T::min_lr, kRecorded, kNotNegative},

    {"aux_coef", "X", "Coefficient of the load balancing loss (default: the model's config)", kExperts, &T::aux_coef, kRecorded, kNotNegative},
    {"aux_mode", "", "Load balancing per layer, or over all layers together; auto is the family's own", kExperts, &T::aux_mode, kRecorded, kAny, "auto|layers|joint"},
    {"z_coef", "X", "Coefficient of the router's z loss (default: the model's config)", kExperts, &T::z_coef, kRecorded, kNotNegative},

    {"epochs", "N", "Times that every row is used", kSteps, &T::epochs, kRecorded, {.low = 1, .high = 1e9}},
    {"steps", "N", "Updates to do, instead of --epochs", kSteps, &T::steps, kRecorded, kCountOrOff},
    {"batch_size", "N", "Sequences of a micro-batch", kSteps, &T::batch_size, kRecorded, {.low = 1, .high = 1e9}},
    {"batch_tokens", "N", "Tokens of a micro-batch, instead of --batch-size", kSteps, &T::batch_tokens, kRecorded, {.low = 0, .high = 1e9}},
    {"accumulate", "N", "Micro-batches of an update, weighted by their tokens", kSteps, &T::accumulate, kRecorded, {.low = 1, .high = 1e9}},

    {"eval_every", "N", "Updates between evaluations on --valid (default: each epoch)", kRunning, &T::eval_every, kRun, kCountOrOff},
    {"save_every", "N", "Updates between checkpoints (0: only at the end)", kRunning, &T::save_every, kRun, kCountOrOff},
    {"keep", "N", "Checkpoints to keep; the best is never dropped", kRunning, &T::keep, kRun, {.low = 1, .high = 1e9}},
    {"early_stop", "N", "Stop after N evaluations without a better loss, and keep the best", kRunning, &T::early_stop, kRecorded, kCountOrOff},
    {"recompute", "auto|none|every:N", "Recompute activations in the backward pass to save memory", kRunning, &T::recompute},
    {"memory_limit", "SIZE", "Refuse a run whose forecast is above, e.g. 8G", kRunning, &T::memory_limit, kRun},
    {"threads", "N", "Threads (default: the cores this process may use)", kRunning, &T::threads, kRun, {.low = 0, .high = 4096}},
    {"seed", "N", "Seed of everything random", kRunning, &T::seed, kRecorded, {.low = 0, .high = 9.2233720368547748e18}},
    {"dtype", "", "Compute and activation type; auto takes the fastest at training quality", kRunning, &T::dtype, kRecorded, kAny, "auto|f32|bf16"},
    {"quiet", "", "Print no progress", kRunning, &T::quiet, kRun},
    {"verbose", "", "Print what is decided along the way", kRunning, &T::verbose, kRun},

    {"resume", "[DIR]", "Continue from a checkpoint (default: the newest in --out)", kRunning, &T::resume, kNow},
    {"overwrite", "", "Remove what graft wrote to --out before", kRunning, &T::overwrite, kNow},
    {"dry_run", "", "Say what would happen: rows, tokens, memory, time", kRunning, &T::dry_run, kNow},
    {"json", "", "Print one JSON object at the end", kRunning, &T::json, kNow},
    {"config", "FILE.toml", "Settings from a file; flags win", kRunning, &T::config, kNow},
};
// clang-format on

std::string shown(double value) {
  return value == std::floor(value) && std::fabs(value) < 1e15 ? fmt::format("{:.0f}", value)
                                                               : fmt::format("{}", value);
}

std::string range_text(const FieldRange& r) {
  const bool low = r.low > -1e299, high = r.high < 1e14;
  if (low && high) {
    return fmt::format("{}{}, {}{}", r.low_open ? '(' : '[', shown(r.low), shown(r.high), r.high_open ? ')' : ']');
  }
  if (low) return fmt::format("{} {}", r.low_open ? ">" : ">=", shown(r.low));
  return "a finite number";
}

bool in_range(double x, const FieldRange& r) {
  return (r.low_open ? x > r.low : x >= r.low) && (r.high_open ? x < r.high : x <= r.high) && std::isfinite(x);
}

bool is_choice(std::string_view value, std::string_view choices) {
  for (const std::string_view choice : split(choices, '|')) {
    if (choice == value) return true;
  }
  return false;
}

std::string choices_text(std::string_view choices) {
  std::string text;
  for (const std::string_view c : split(choices, '|')) text += fmt::format("{}{}", text.empty() ? "" : ", ", c);
  return text;
}

[[noreturn]] void bad_value(const TrainField& field, std::string_view text, std::string_view expected) {
  fail("{} is {}, expected {}", field.name, printable(text), expected);
}

template <typename N>
std::optional<N> parse_number(std::string_view text) {
  N value{};
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return value;
}

std::optional<std::string_view> word_value(const TrainField& field, std::string_view text) {
  for (const std::string_view pair : split(field.words, ',')) {
    const size_t equal = pair.find('=');
    if (equal != std::string_view::npos && pair.substr(0, equal) == text) return pair.substr(equal + 1);
  }
  return std::nullopt;
}

double parse_double(const TrainField& field, std::string_view text) {
  if (const auto word = word_value(field, text)) text = *word;
  const auto value = parse_number<double>(text);
  if (!value || !in_range(*value, field.range)) {
    bad_value(field, text, range_text(field.range) + (field.words.empty() ? "" : " or off"));
  }
  return *value;
}

int64_t parse_int(const TrainField& field, std::string_view text) {
  const auto value = parse_number<int64_t>(text);
  if (!value || !in_range(static_cast<double>(*value), field.range)) {
    bad_value(field, text,
              "a whole number" + (field.range.low > -1e299 ? " " + range_text(field.range) : std::string()));
  }
  return *value;
}

bool parse_bool(const TrainField& field, std::string_view text) {
  if (text == "true" || text == "1" || text.empty()) return true;
  if (text == "false" || text == "0") return false;
  bad_value(field, text, "true or false");
}

std::string number_text(double value) { return fmt::format("{}", value); }  // shortest that reads back

// Puts the field's name before what a parser says.
template <typename F>
auto named(const TrainField& field, F parse) {
  try {
    return parse();
  } catch (const Error& error) {
    fail("{}: {}", field.name, error.what());
  }
}

bool is_share_text(std::string_view text) { return !text.empty() && text.back() == '%'; }

// Paths that lead to the same place are the same setting.
bool same_text(const TrainField& field, const std::string& a, const std::string& b) {
  if (a == b) return true;
  if (field.name == "dtype") return a == "auto" || b == "auto";
  if (field.name != "model" && field.name != "data" && field.name != "adapter" && field.name != "valid") return false;
  std::error_code error;
  using std::filesystem::absolute, std::filesystem::weakly_canonical;
  return weakly_canonical(absolute(a, error), error) == weakly_canonical(absolute(b, error), error) && !error;
}

}  // namespace

int64_t StepsOrShare::of(int64_t total) const {
  return is_share ? static_cast<int64_t>(std::llround(share * static_cast<double>(total))) : steps;
}

StepsOrShare parse_steps_or_share(std::string_view text) {
  StepsOrShare result;
  if (is_share_text(text)) {
    const auto percent = parse_number<double>(text.substr(0, text.size() - 1));
    GRAFT_CHECK(percent && *percent >= 0 && *percent <= 100, "'{}' is not a share from 0% to 100%", printable(text));
    result.is_share = true;
    result.share = *percent / 100;
    return result;
  }
  const auto steps = parse_number<int64_t>(text);
  GRAFT_CHECK(steps && *steps >= 0 && *steps <= 1000000000000000,
              "'{}' is neither a number of updates nor a share like 5%", printable(text));
  result.steps = *steps;
  return result;
}

std::string to_text(const StepsOrShare& value) {
  if (!value.is_share) return fmt::format("{}", value.steps);
  // The nearest short decimal: 0.07 * 100 is 7.000000000000001.
  for (int digits = 0; digits < 15; ++digits) {
    const std::string text = fmt::format("{:.{}f}", value.share * 100, digits);
    if (*parse_number<double>(text) / 100 == value.share) return text + "%";
  }
  return fmt::format("{}%", value.share * 100);
}

int64_t parse_bytes(std::string_view text) {
  const std::string_view whole = text;
  double factor = 1;
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::string_view rest = lower;
  if (rest.ends_with("ib")) {
    rest.remove_suffix(2);
    GRAFT_CHECK(!rest.empty() && std::string_view("kmgt").find(rest.back()) != std::string_view::npos,
                "'{}' is not a size like 8G, 512M or 1000000", printable(whole));
  } else if (rest.ends_with("b")) {
    rest.remove_suffix(1);
  }
  if (!rest.empty()) {
    const size_t unit = std::string_view("kmgt").find(rest.back());
    if (unit != std::string_view::npos) {
      factor = std::ldexp(1.0, 10 * static_cast<int>(unit + 1));
      rest.remove_suffix(1);
    }
  }
  const auto value = parse_number<double>(rest);
  GRAFT_CHECK(value && *value >= 0 && *value * factor < 9e18, "'{}' is not a size like 8G, 512M or 1000000",
              printable(whole));
  return static_cast<int64_t>(*value * factor);
}

std::string bytes_text(int64_t bytes) {
  constexpr std::string_view kUnits = "KMGT";
  for (int i = 3; i >= 0; --i) {
    const int64_t unit = int64_t{1} << (10 * (i + 1));
    if (bytes >= unit && bytes % unit == 0) return fmt::format("{}{}", bytes / unit, kUnits[static_cast<size_t>(i)]);
  }
  return fmt::format("{}", bytes);
}

std::span<const TrainField> train_fields() { return kFields; }

const TrainField* find_train_field(std::string_view name) {
  for (const TrainField& field : kFields) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

bool train_field_in_force(const TrainConfig& config, const TrainField& field) {
  if (field.name == "epochs") return config.steps == 0;
  if (field.name == "steps") return config.steps > 0;
  if (field.name == "batch_size") return config.batch_tokens == 0;
  if (field.name == "batch_tokens") return config.batch_tokens > 0;
  return true;
}

std::string flag_name(const TrainField& field) {
  std::string flag = "--" + std::string(field.name);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

bool from_adapter(const TrainField& field) { return (field.use & kFromAdapter) != 0; }

bool TrainConfig::is_given(std::string_view name) const {
  return std::find(given.begin(), given.end(), name) != given.end();
}

void set_train_field(TrainConfig& config, const TrainField& field, std::string_view text) {
  const bool again = config.is_given(field.name);
  struct Setter {
    TrainConfig& c;
    const TrainField& f;
    std::string_view text;
    bool again;
    void operator()(bool T::*m) const { c.*m = parse_bool(f, text); }
    void operator()(int64_t T::*m) const { c.*m = parse_int(f, text); }
    void operator()(double T::*m) const { c.*m = parse_double(f, text); }
    void operator()(std::optional<double> T::*m) const { c.*m = parse_double(f, text); }
    void operator()(std::string T::*m) const {
      if (!f.choices.empty() && !is_choice(text, f.choices)) bad_value(f, text, "one of " + choices_text(f.choices));
      c.*m = std::string(text);
    }
    void operator()(std::optional<std::string> T::*m) const { c.*m = std::string(text); }
    void operator()(std::vector<std::string> T::*m) const {
      if (!again) (c.*m).clear();
      // a template argument's value may hold commas
      if (f.name == "template_arg") {
        (c.*m).emplace_back(text);
        return;
      }
      for (const std::string_view part : split(text, ',')) {
        if (!part.empty()) (c.*m).emplace_back(part);
      }
    }
    void operator()(StepsOrShare T::*m) const {
      c.*m = named(f, [&] { return parse_steps_or_share(text); });
    }
    void operator()(ByteSize T::*m) const {
      c.*m = named(f, [&] { return ByteSize{parse_bytes(text)}; });
    }
  };
  std::visit(Setter{config, field, text, again}, field.member);
  if (!again) config.given.emplace_back(field.name);
}

std::string train_field_text(const TrainConfig& config, const TrainField& field) {
  struct Text {
    const TrainConfig& c;
    std::string operator()(bool T::*m) const { return c.*m ? "true" : "false"; }
    std::string operator()(int64_t T::*m) const { return fmt::format("{}", c.*m); }
    std::string operator()(double T::*m) const { return number_text(c.*m); }
    std::string operator()(std::optional<double> T::*m) const { return c.*m ? number_text(*(c.*m)) : std::string(); }
    std::string operator()(std::string T::*m) const { return c.*m; }
    std::string operator()(std::optional<std::string> T::*m) const { return (c.*m).value_or(""); }
    std::string operator()(std::vector<std::string> T::*m) const { return fmt::format("{}", fmt::join(c.*m, ",")); }
    std::string operator()(StepsOrShare T::*m) const { return to_text(c.*m); }
    std::string operator()(ByteSize T::*m) const { return bytes_text((c.*m).bytes); }
  };
  return std::visit(Text{config}, field.member);
}

void TrainConfig::validate(bool check_required) const {
  std::vector<std::string> faults;
  for (const TrainField& field : kFields) {
    const auto refuse = [&](std::string_view value, const std::string& expected) {
      faults.push_back(fmt::format("{} is {}, expected {}", field.name, value, expected));
    };
    if (const auto* m = std::get_if<int64_t T::*>(&field.member)) {
      if (!in_range(static_cast<double>(this->**m), field.range)) {
        refuse(fmt::format("{}", this->**m), range_text(field.range));
      }
    } else if (const auto* d = std::get_if<double T::*>(&field.member)) {
      if (!in_range(this->**d, field.range)) refuse(number_text(this->**d), range_text(field.range));
    } else if (const auto* o = std::get_if<std::optional<double> T::*>(&field.member)) {
      if (this->**o && !in_range(*(this->**o), field.range)) refuse(number_text(*(this->**o)), range_text(field.range));
    } else if (const auto* s = std::get_if<std::string T::*>(&field.member)) {
      if (!field.choices.empty() && !is_choice(this->**s, field.choices)) {
        refuse(printable(this->**s), "one of " + choices_text(field.choices));
      }
    }
  }
  const auto add = [&](std::string fault) { faults.push_back(std::move(fault)); };
  if (check_required) {
    for (const std::string_view name : {"model", "data", "out"}) {
      const TrainField* field = find_train_field(name);
      if (train_field_text(*this, *field).empty()) add(fmt::format("{} is missing: give {}", name, flag_name(*field)));
    }
  }
  if (schedule != "constant" && schedule != "inverse_sqrt" && !(min_lr < lr)) {
    add(fmt::format("min_lr is {}, expected less than lr, {}", min_lr, lr));
  }
  const auto schedule_length = schedule_steps > 0 ? schedule_steps : steps;
  if (schedule_length > 0 && schedule != "constant" && schedule != "inverse_sqrt") {
    const int64_t w = warmup.of(schedule_length);
    if (w >= schedule_length) {
      add(fmt::format("warmup is {}, expected fewer than the schedule's {} steps", to_text(warmup), schedule_length));
    } else if (schedule == "wsd" && w + decay_steps.of(schedule_length) > schedule_length) {
      add(fmt::format("warmup {} and decay_steps {} are together longer than the schedule's {} steps", to_text(warmup),
                      to_text(decay_steps), schedule_length));
    }
  }
  if (is_given("epochs") && is_given("steps") && steps > 0) {
    add("epochs and steps are both given, expected one of them");
  }
  if (is_given("batch_size") && batch_tokens > 0) {
    add("batch_size and batch_tokens are both given, expected one of them");
  }
  if (method == "lora" && targets.empty()) add("targets is empty, expected names, all-linear or a regular expression");
  if (method == "full" && !adapter.empty()) add("adapter is given with method full, expected method lora");
  if (quiet && verbose) add("quiet and verbose are both given, expected one of them");
  if (overwrite && resume) add("overwrite and resume are both given, expected one of them");
  if (!adapter.empty()) {
    for (const TrainField& field : kFields) {
      if (from_adapter(field) && is_given(field.name)) {
        add(fmt::format("{} is given with --adapter, which brings its own", field.name));
      }
    }
  }
  if (recompute != "auto" && recompute != "none") {
    const bool every = recompute.starts_with("every:");
    const auto n = every ? parse_number<int64_t>(std::string_view(recompute).substr(6)) : std::nullopt;
    if (!n || *n < 1) {
      add(fmt::format("recompute is {}, expected auto, none or every:N with N >= 1", printable(recompute)));
    }
  }
  if (is_share_text(valid)) {
    const auto percent = parse_number<double>(std::string_view(valid).substr(0, valid.size() - 1));
    if (!percent || !(*percent > 0 && *percent < 100)) {
      add(fmt::format("valid is {}, expected a file or a share above 0% and below 100%", printable(valid)));
    }
  }
  for (const auto& [name, list, integers] :
       {std::tuple{"rank_pattern", &rank_pattern, true}, std::tuple{"alpha_pattern", &alpha_pattern, false},
        std::tuple{"template_arg", &template_arg, false}}) {
    const bool numbers = list != &template_arg;
    for (const std::string& entry : *list) {
      const size_t equal = numbers ? entry.rfind('=') : entry.find('=');
      const std::string_view value = equal == std::string::npos ? "" : std::string_view(entry).substr(equal + 1);
      const auto number = parse_number<double>(value);
      const bool good =
          equal != std::string::npos && equal > 0 &&
          (!numbers || (number && *number > 0 && (!integers || (*number == std::floor(*number) && *number < 1e9))));
      if (!good) {
        add(fmt::format("{} has '{}', expected NAME={}", name, printable(entry),
                        !numbers   ? "VALUE"
                        : integers ? "RANK"
                                   : "ALPHA"));
      }
    }
  }
  if (faults.empty()) return;
  if (faults.size() == 1) fail("train settings: {}", faults[0]);
  fail("train settings:\n  {}", fmt::join(faults, "\n  "));
}

TrainConfig resume_train_config(const TrainConfig& saved, const TrainConfig& now) {
  TrainConfig result = saved;
  std::vector<std::string> changed;
  for (const TrainField& field : kFields) {
    const bool recorded = (field.use & kRecorded) != 0;
    const auto copy = [&] { std::visit([&](auto member) { result.*member = now.*member; }, field.member); };
    if (!recorded) {
      copy();
    } else if (now.is_given(field.name)) {
      if ((field.use & kChangeable) != 0) {
        copy();
      } else if (!same_text(field, train_field_text(saved, field), train_field_text(now, field))) {
        changed.push_back(fmt::format("{} was {}, is {}", field.name, printable(train_field_text(saved, field)),
                                      printable(train_field_text(now, field))));
      }
    }
  }
  // Only one of two alternatives is ever in force.
  result.given = now.given;
  if (changed.empty()) return result;
  fail_hint("resume with the settings of the first start (config.toml has them), or start anew in another --out",
            "a resumed run keeps its settings:\n  {}", fmt::join(changed, "\n  "));
}

}  // namespace graft
