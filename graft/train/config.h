#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace graft {

// "100" steps, or "5%" of the run's steps.
struct StepsOrShare {
  int64_t steps = 0;
  double share = 0;  // in [0, 1]; used when is_share
  bool is_share = false;
  int64_t of(int64_t total) const;  // a share is rounded to the nearest step
  bool operator==(const StepsOrShare&) const = default;
};
StepsOrShare parse_steps_or_share(std::string_view text);  // throws Error
std::string to_text(const StepsOrShare& value);

// "8G", "512MiB", "1.5g", "1000000": bytes; K, M, G, T are powers of 1024.
int64_t parse_bytes(std::string_view text);  // throws Error
std::string bytes_text(int64_t bytes);       // the shortest exact form that parse_bytes reads back: "8G"
struct ByteSize {
  int64_t bytes = 0;
  bool operator==(const ByteSize&) const = default;
};

// Every setting of `graft train`. Fields are named as the flags, with underscores; a TOML file holds the same names.
// Where the run's default depends on the model or the data, the value here says "not given" (see each field) and the
// run writes what it resolved to config.toml.
struct TrainConfig {
  // What and where
  std::string model, data, out;
  std::string method = "lora";  // lora | full
  std::string adapter;  // PEFT folder whose weights and shape (rank, alpha, targets, …) this run continues from
  std::string valid;    // a file, "5%" of the rows, or empty
  std::vector<std::string> template_arg;  // K=V, for the chat template

  // LoRA (lora.md section 1)
  int64_t rank = 8;
  double alpha = 16.0;
  double dropout = 0.0;
  std::string dropout_at = "input";  // input | rank
  bool rslora = false;               // scale alpha / sqrt(rank)
  bool dora = false;
  std::string targets = "q_proj,v_proj";  // names, "all-linear", or a regular expression
  std::string exclude;
  std::string layers;                      // "0-11" or "0,2,5"; empty: all
  std::vector<std::string> rank_pattern;   // K=V
  std::vector<std::string> alpha_pattern;  // K=V
  std::vector<std::string> modules_to_save;
  std::string init = "kaiming";     // kaiming | gaussian | gaussian_rank | gaussian_in
  bool partial = false;             // an adapter may lack tensors
  std::string save_dtype = "keep";  // keep | f32 | bf16 | f16, for method full

  // Optimizer (lora.md section 5) and schedule (section 6)
  std::string optimizer = "adamw";
  double lr = 1e-4;
  std::string schedule = "constant";
  int64_t schedule_steps = 0;  // 0: the run's steps
  StepsOrShare warmup;
  int64_t warmup_from = 0;                                   // 1 evaluates the whole schedule at s + 1
  StepsOrShare decay_steps{.share = 0.1, .is_share = true};  // wsd: length of the last, falling part
  double power = 1.0;                                        // polynomial
  double min_lr = 0.0;
  double weight_decay = 0.01;
  bool decay_all = false;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double clip = 1.0;  // 0: off
  double label_smoothing = 0.0;
  int64_t ignore_index = -100;
  std::optional<double> aux_coef, z_coef;  // not given: what the model's config says
  std::string aux_mode = "auto";           // auto | layers | joint

  // Data
  int64_t epochs = 3;
  int64_t steps = 0;         // 0: epochs decide
  int64_t batch_size = 4;    // sequences of a micro-batch
  int64_t batch_tokens = 0;  // instead of batch_size: tokens of a micro-batch; 0: not used
  int64_t accumulate = 1;
  int64_t max_length = 0;  // 0: the model's maximum
  std::string too_long = "error";
  bool pack = false;
  std::string loss_on = "auto";
  bool no_shuffle = false;

  // Run
  int64_t eval_every = 0;  // 0: each epoch
  int64_t save_every = 200;
  int64_t keep = 2;
  int64_t early_stop = 0;  // evaluations without a better loss; 0: off
  std::string recompute = "auto";
  ByteSize memory_limit;  // 0: none
  int64_t threads = 0;    // 0: cores this process may use
  int64_t seed = 0;
  std::string dtype = "auto";
  bool quiet = false, verbose = false;

  // What only this start of the program does; never recorded
  std::optional<std::string> resume;  // folder; empty text: the newest checkpoint of `out`
  bool overwrite = false;
  bool dry_run = false;
  bool json = false;
  std::string config;  // TOML file that flags were laid over

  // Names of the fields that a flag or the TOML file set, in order.
  std::vector<std::string> given;
  bool is_given(std::string_view name) const;

  // One Error names every fault: field, value, expected. `check_required` asks for model, data and out.
  void validate(bool check_required = true) const;
};

// Where a field may appear.
enum FieldUse : uint8_t {
  kRecorded = 1,     // written to config.toml and accepted in a TOML file
  kChangeable = 2,   // may differ when a run is resumed
  kFromAdapter = 4,  // comes from --adapter; giving both is a usage error
};

// Numbers outside are refused, NaN too.
struct FieldRange {
  double low = -1e300, high = 1e300;
  bool low_open = false, high_open = false;
};

using TrainMember = std::variant<bool TrainConfig::*, int64_t TrainConfig::*, double TrainConfig::*,
                                 std::optional<double> TrainConfig::*, std::string TrainConfig::*,
                                 std::optional<std::string> TrainConfig::*, std::vector<std::string> TrainConfig::*,
                                 StepsOrShare TrainConfig::*, ByteSize TrainConfig::*>;

struct TrainField {
  std::string_view name;   // batch_size; its flag is --batch-size
  std::string_view value;  // what the flag takes, for the help: "N", "DIR"; empty for a switch
  std::string_view help;
  std::string_view group;  // heading in the help and in config.toml
  TrainMember member;
  uint8_t use = kRecorded;
  FieldRange range = {};
  std::string_view choices = {};  // "lora|full"
  std::string_view words = {};    // words that stand for a number: "off=0"
};

// The one list from which flags, TOML reading and TOML writing are made.
std::span<const TrainField> train_fields();
const TrainField* find_train_field(std::string_view name);  // null if there is none
// Of epochs and steps, and of batch_size and batch_tokens, one decides.
bool train_field_in_force(const TrainConfig& config, const TrainField& field);
std::string flag_name(const TrainField& field);  // "--batch-size"
// Fields that `graft train` takes only from --adapter; "rank", "alpha", …
bool from_adapter(const TrainField& field);

// Sets a field from the text of a flag and notes it in `given`. Throws Error with field, value and what was expected.
// A list is split at commas; giving it again appends (the first time, its default is dropped).
void set_train_field(TrainConfig& config, const TrainField& field, std::string_view text);
std::string train_field_text(const TrainConfig& config, const TrainField& field);  // what set_train_field reads back

// Lays a TOML file under the flags: fields in `config.given` keep their value. All faults (syntax with its line,
// unknown keys with the nearest known one, wrong types, values) are in one Error.
void read_train_toml(TrainConfig& config, const std::string& path);
void parse_train_toml(TrainConfig& config, std::string_view text, std::string_view where);
// The complete recorded settings; parse_train_toml of it gives the same settings. Ends with a newline.
std::string write_train_toml(const TrainConfig& config);

// A resumed run: the settings of `saved`, with what `now` gives of the fields that may change, and with `now`'s
// unrecorded fields. A given field that differs otherwise is refused by name, all of them in one Error.
TrainConfig resume_train_config(const TrainConfig& saved, const TrainConfig& now);

}  // namespace graft
