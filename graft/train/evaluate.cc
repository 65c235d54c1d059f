#include "graft/train/evaluate.h"

#include <cmath>

#include "graft/base/error.h"
#include "graft/infer/generate.h"
#include "graft/models/adapter_record.h"
#include "graft/train/batch.h"
#include "graft/train/encode.h"
#include "graft/train/step.h"

namespace graft {
namespace {

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// The prompt of a row (all before the last trained run) and what is expected after it.
struct Question {
  std::vector<int32_t> prompt, answer;
};

Question question_of(const Dataset& data, int64_t i, const RowEncoder& encoder) {
  const Example example = data.example(i);
  size_t end = example.ids.size();
  while (end > 0 && !example.trains(end - 1)) --end;
  size_t begin = end;
  while (begin > 0 && example.trains(begin - 1)) --begin;
  Question q;
  q.prompt.assign(example.ids.begin(), example.ids.begin() + static_cast<ptrdiff_t>(begin));
  q.answer.assign(example.ids.begin() + static_cast<ptrdiff_t>(begin),
                  example.ids.begin() + static_cast<ptrdiff_t>(end));
  while (!q.answer.empty() && encoder.ends(q.answer.back())) q.answer.pop_back();
  return q;
}

double exact_match(Context& context, const Model& model, const AdapterWeights* adapter, const Dataset& data,
                   const RowEncoder& encoder, const std::vector<int64_t>& end_tokens, const EvalConfig& config) {
  EngineOptions options;
  options.compute = config.compute;
  options.max_sequences = 8;
  Engine engine(context, model, adapter, options);
  GenerateOptions generate_options;
  generate_options.max_tokens = config.max_tokens;
  generate_options.end_tokens = end_tokens;
  const int64_t total = config.limit > 0 ? std::min(config.limit, data.size()) : data.size();
  int64_t right = 0;
  for (int64_t first = 0; first < total; first += 64) {
    std::vector<std::vector<int32_t>> prompts;
    std::vector<std::string> wanted;
    for (int64_t i = first; i < std::min(first + 64, total); ++i) {
      Question q = question_of(data, i, encoder);
      GRAFT_CHECK(!q.prompt.empty(), "{}: the row has no prompt, exact match needs one", data.where(i));
      prompts.push_back(std::move(q.prompt));
      wanted.push_back(trimmed(encoder.tokenizer().decode(q.answer, true)));
    }
    const std::vector<Generated> answers = generate_batch(engine, &encoder.tokenizer(), prompts, generate_options);
    for (size_t i = 0; i < answers.size(); ++i) right += trimmed(answers[i].text) == wanted[i] ? 1 : 0;
    if (config.progress) config.progress(std::min(first + 64, total), total);
  }
  return static_cast<double>(right) / static_cast<double>(std::max<int64_t>(1, total));
}

}  // namespace

EvalResult evaluate(Context& context, const EvalConfig& config) {
  const ModelFolder folder = ModelFolder::open(config.model, supported_model_types());
  EncodeSettings settings;
  settings.loss_on = config.loss_on;
  settings.max_length = config.max_length;
  if (!config.adapter.empty()) {
    if (const auto record = read_adapter_record(config.adapter)) settings.template_args = record->template_args;
  }
  settings.template_args.insert(settings.template_args.end(), config.template_args.begin(), config.template_args.end());
  const DataPaths paths = find_data(config.data);
  std::optional<RowEncoder> encoder;  // pre-tokenised data needs no tokenizer
  if (!paths.pretokenised) encoder.emplace(config.model, settings);
  GRAFT_CHECK(!paths.pretokenised || !config.exact_match,
              "{}: exact match needs rows with a prompt, not pre-tokenised data", paths.train);
  EvalResult result;
  Dataset data;
  if (paths.pretokenised) {
    data = read_pretokenised(paths.train, folder.config.vocab_size, -100);
    result.rows = data.size();
  } else {
    EncodedData encoded = load_rows(paths.train, *encoder, context.pool());
    result.rows = encoded.num_rows;
    data = std::move(encoded.data);
  }
  GRAFT_CHECK(data.max_id() < folder.config.vocab_size, "{}: token id {} does not fit the model's vocabulary of {}",
              paths.train, data.max_id(), folder.config.vocab_size);
  Model model = Model::load(context, folder);
  std::optional<AdapterWeights> adapter;
  if (!config.adapter.empty()) adapter = AdapterWeights::load(context, model, config.adapter);

  BatchOptions batches;
  batches.batch_size = config.batch_size;
  batches.epochs = 1;
  batches.shuffle = false;
  Batcher batcher(data, batches);
  StepOptions options;
  options.compute = config.compute;
  options.train = false;
  TrainStep step(context, model, adapter ? &*adapter : nullptr, options, batcher.capacity());
  double weight = 0;
  for (int64_t i = 0; i < batcher.num_steps(); ++i) weight += batcher.update(i).weight;
  Batch batch;
  for (int64_t i = 0; i < batcher.num_steps(); ++i) {
    for (const auto& examples : batcher.update(i).micro_batches) {
      batcher.fill(examples, &batch);
      result.loss += step.evaluate(batch, weight);
    }
    if (config.progress) config.progress(i + 1, batcher.num_steps());
  }
  result.tokens = data.num_trained_tokens();
  result.perplexity = std::exp(result.loss);
  if (config.exact_match) {
    result.exact_match = exact_match(context, model, adapter ? &*adapter : nullptr, data, *encoder,
                                     stop_token_ids(folder.config, folder.generation), config);
  }
  return result;
}

}  // namespace graft
