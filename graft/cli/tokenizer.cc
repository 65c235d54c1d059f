#include <filesystem>
#include <optional>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/base/log.h"
#include "graft/cli/common.h"
#include "graft/formats/checkpoint.h"
#include "graft/formats/jsonl.h"
#include "graft/text/bpe_trainer.h"
#include "graft/train/metrics.h"
#include "graft/train/rows.h"

namespace graft {
namespace {

struct TokenizerTrainFlags {
  CommonFlags common;
  BpeTrainerConfig config;
  std::vector<std::string> files, special;
  std::string out, eos = "<|endoftext|>";
  bool bytes = false, overwrite = false;
};

// Everything a row says, whatever its format; messages without their template.
void add_row(BpeTrainer& trainer, const DataRow& row) {
  trainer.add(row.prompt);
  trainer.add(row.text);
  if (!row.chat) return;
  for (const Json& message : row.chat->messages) {
    if (message.contains("content") && message["content"].is_string()) {
      trainer.add(message["content"].get_ref<const std::string&>());
    }
  }
}

// .jsonl and .json hold rows as for `train`; any other file is one text.
void add_file(BpeTrainer& trainer, const std::string& path) {
  constexpr size_t kMaxTextBytes = size_t{1} << 33;
  const int64_t before = trainer.num_bytes();
  if (path.ends_with(".jsonl") || path.ends_with(".json")) {
    RowReader reader(path);
    for (JsonRow json; reader.next(json);) {
      DataRow row;
      const int64_t line = json.line;
      const auto fault = [&](std::string what, std::string hint) {
        reader.faults().add(line, std::move(what), std::move(hint));
      };
      if (parse_row(std::move(json.value), &row, fault)) add_row(trainer, row);
    }
    reader.faults().throw_if_any();
  } else {
    RowFaults faults(path);
    for (const JsonRow& row : parse_rows(read_file(path, kMaxTextBytes), "txt", path, faults)) {
      trainer.add(row.value["text"].get_ref<const std::string&>());
    }
  }
  GRAFT_CHECK_HINT(trainer.num_bytes() > before, "give a file with text",
                   "{}: is empty: there is no text to learn from", path);
}

LearnedBpe learn(const TokenizerTrainFlags& flags, BpeTrainer& trainer) {
  for (const std::string& file : flags.files) add_file(trainer, file);
  LearnedBpe bpe = trainer.train();
  if (flags.bytes) return bpe;
  const auto size = static_cast<int64_t>(bpe.tokens.size());
  if (size < flags.config.vocab_size) {
    const std::string what = fmt::format(
        "no {}pair of tokens stands in the {} byte{} of text {} or more", bpe.merges.empty() ? "" : "further ",
        count_text(trainer.num_bytes()), trainer.num_bytes() == 1 ? "" : "s",
        flags.config.min_frequency == 1 ? "once" : fmt::format("{} times", flags.config.min_frequency));
    GRAFT_CHECK_HINT(!bpe.merges.empty(), "give more text, or --bytes for a tokenizer without merges", "{}: {}",
                     flags.files[0], what);
    log_warning("{} tokens instead of {}: {}", count_text(size), count_text(flags.config.vocab_size), what);
  }
  return bpe;
}

void write_tokenizer(const TokenizerTrainFlags& flags, const LearnedBpe& bpe) {
  const bool there = path_exists(flags.out);
  std::optional<AtomicFolder> made;  // a new folder appears whole
  if (!there) made.emplace(flags.out);
  const std::string folder = made ? made->path() : flags.out;
  write_file(folder + "/tokenizer.json", bpe.tokenizer_json());
  const Json config = {{"add_prefix_space", false},
                       {"clean_up_tokenization_spaces", false},
                       {"eos_token", flags.eos},
                       {"tokenizer_class", "PreTrainedTokenizerFast"}};
  write_file(folder + "/tokenizer_config.json", config.dump(2) + "\n");
  if (made) made->commit();
}

void check_out_folder(const TokenizerTrainFlags& flags) {
  if (!path_exists(flags.out)) return;
  GRAFT_CHECK_HINT(is_directory(flags.out), "choose another --out", "{}: is a file, expected a folder", flags.out);
  std::error_code error;
  const bool empty = std::filesystem::is_empty(flags.out, error);
  GRAFT_CHECK_HINT(!error, "check the permissions of the folder", "{}: cannot be read: {}", flags.out, error.message());
  GRAFT_CHECK_HINT(empty || flags.overwrite, "use --overwrite, or another --out", "{}: is not empty", flags.out);
}

void run_tokenizer_train(TokenizerTrainFlags& flags) {
  const Runtime runtime(flags.common);  // --quiet and --verbose
  flags.config.special_tokens = {flags.eos};
  flags.config.special_tokens.insert(flags.config.special_tokens.end(), flags.special.begin(), flags.special.end());
  if (flags.bytes) flags.config.vocab_size = 256 + static_cast<int64_t>(flags.config.special_tokens.size());
  if (!flags.bytes && flags.config.vocab_size == 0) throw UsageError("--vocab-size missing: give it, or --bytes");
  if (!flags.bytes && flags.files.empty()) throw UsageError("no FILES: give text to learn from, or --bytes");
  try {
    flags.config.validate();
  } catch (const Error& e) {
    throw UsageError(e.what());
  }
  check_out_folder(flags);
  BpeTrainer trainer(flags.config);
  const LearnedBpe bpe = learn(flags, trainer);
  install_signal_handlers();
  write_tokenizer(flags, bpe);
  const double bytes_per_token =
      static_cast<double>(trainer.num_bytes()) / static_cast<double>(std::max<int64_t>(1, bpe.num_text_tokens));
  if (flags.common.json) {
    fmt::print("{}\n", Json{{"tokens", bpe.tokens.size()},
                            {"merges", bpe.merges.size()},
                            {"text_bytes", trainer.num_bytes()},
                            {"text_tokens", bpe.num_text_tokens},
                            {"out", flags.out}}
                           .dump());
  } else if (!flags.common.quiet) {
    fmt::print("{}: {} tokens, {} of them by merges", flags.out, count_text(static_cast<int64_t>(bpe.tokens.size())),
               count_text(static_cast<int64_t>(bpe.tokens.size()) - 256 - bpe.num_special));
    if (trainer.num_bytes() > 0) {
      fmt::print("; {} bytes of text are {} tokens, {:.2f} bytes each", count_text(trainer.num_bytes()),
                 count_text(bpe.num_text_tokens), bytes_per_token);
    }
    fmt::print("\n");
  }
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  auto* group = app.add_subcommand("tokenizer", "Make a tokenizer");
  group->require_subcommand(1);
  group->footer("Example:\n  graft tokenizer train stories.txt --vocab-size 2048 --out tokenizer");
  auto* command = group->add_subcommand("train", "Learn a byte-level BPE tokenizer from text");
  auto flags = std::make_shared<TokenizerTrainFlags>();
  command->add_option("files", flags->files, "Text files, or .jsonl and .json with rows as `train` reads them")
      ->type_name("FILES");
  command
      ->add_option("--vocab-size", flags->config.vocab_size,
                   "Tokens in all: special ones, the 256 bytes, and one a merge")
      ->type_name("N");
  command->add_flag("--bytes", flags->bytes, "The 256 bytes and the special tokens, no merges; FILES are only counted")
      ->excludes("--vocab-size");
  command->add_option("--out", flags->out, "Folder to create: tokenizer.json and tokenizer_config.json")
      ->required()
      ->type_name("DIR");
  command->add_option("--eos", flags->eos, "End token, id 0")->capture_default_str()->type_name("TOKEN");
  command->add_option("--special", flags->special, "Another special token, ids from 1 (repeatable)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("TOKEN");
  command
      ->add_option("--min-frequency", flags->config.min_frequency,
                   "Pairs that stand in the text less often become no token")
      ->capture_default_str()
      ->type_name("N");
  command->add_flag("--overwrite", flags->overwrite, "Write into a folder that is not empty");
  add_common_flags(*command, flags->common);
  command->footer(
      "Example:\n  graft tokenizer train stories.txt more.jsonl --vocab-size 2048 --out tokenizer\n"
      "  graft init --config config.json --tokenizer tokenizer --out fresh\n"
      "  graft train --method full --model fresh --data stories.txt --out trained");
  command->callback([flags] { run_tokenizer_train(*flags); });
}

}  // namespace graft
