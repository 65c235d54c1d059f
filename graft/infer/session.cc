#include "graft/infer/session.h"

#include "graft/base/error.h"

namespace graft {

Session::Session(Context& context, const SessionOptions& options)
    : context_(context),
      folder_(ModelFolder::open(options.model, supported_model_types())),
      tokenizer_(Tokenizer::load(options.model)) {
  tokenizer_.check_embedding_rows(folder_.config.vocab_size);
  std::vector<std::string> args;
  std::optional<AdapterRecord> record;
  if (!options.adapter.empty()) record = read_adapter_record(options.adapter);
  if (record) args = record->template_args;
  args.insert(args.end(), options.template_args.begin(), options.template_args.end());
  if (ChatFormat::exists(options.model)) {
    chat_ = ChatFormat::load(options.model);
    chat_->set_template_args(args);
  }
  raw_ = options.raw.value_or(record ? !record->chat : !chat_);
  GRAFT_CHECK_HINT(raw_ || chat_, "use --raw, or add chat_template.jinja to the folder", "{}: has no chat template",
                   options.model);
  model_ = Model::load(context_, folder_);
  if (!options.adapter.empty()) adapters_["default"] = AdapterWeights::load(context_, model_, options.adapter);
  EngineOptions engine;
  engine.compute = options.compute;
  engine.max_length = options.max_length;
  engine.max_sequences = options.max_sequences;
  if (!options.adapter.empty()) active_ = "default";
  engine_ = std::make_unique<Engine>(context_, model_, active_ ? &adapters_.at(*active_) : nullptr, engine);
}

std::vector<int32_t> Session::encode_prompt(const std::string& prompt, const std::string& system) const {
  if (raw_) return tokenizer_.encode_ids(prompt);
  Json messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  return encode_messages(messages);
}

std::vector<int32_t> Session::encode_messages(const Json& messages, const Json& tools) const {
  GRAFT_CHECK_HINT(chat_.has_value(), "give `prompt` instead of `messages`, or add chat_template.jinja to the folder",
                   "the model has no chat template");
  ChatOptions options;
  options.tools = tools;
  options.add_generation_prompt = true;
  return ChatFormat::encode(tokenizer_, chat_->prompt(messages, options)).ids;
}

void Session::load_adapter(const std::string& name, const std::string& path) {
  GRAFT_CHECK_HINT(adapters_.find(name) == adapters_.end(), "remove it first, or load under another name",
                   "adapter '{}' already exists", printable(name));
  adapters_.emplace(name, AdapterWeights::load(context_, model_, path));
}

void Session::unload_adapter(const std::string& name) {
  GRAFT_CHECK(adapters_.find(name) != adapters_.end(), "no adapter is called '{}'; loaded are: {}", printable(name),
              fmt::join(adapter_names(), ", "));
  if (active_ == name) deactivate_adapter();
  adapters_.erase(name);
}

void Session::activate_adapter(const std::string& name) {
  const auto it = adapters_.find(name);
  GRAFT_CHECK(it != adapters_.end(), "no adapter is called '{}'; loaded are: {}", printable(name),
              fmt::join(adapter_names(), ", "));
  engine_->set_adapter(&it->second);
  active_ = name;
}

void Session::deactivate_adapter() {
  engine_->set_adapter(nullptr);
  active_.reset();
}

std::vector<std::string> Session::adapter_names() const {
  std::vector<std::string> names;
  for (const auto& [name, adapter] : adapters_) names.push_back(name);
  return names;
}

}  // namespace graft
