#include "graft/infer/session.h"

#include "graft/base/error.h"

namespace graft {

Session::Session(Context& context, const SessionOptions& options)
    : context_(context),
      folder_(ModelFolder::open(options.model, supported_model_types())),
      tokenizer_(Tokenizer::load(options.model)),
      options_(options) {
  tokenizer_.check_embedding_rows(folder_.config.vocab_size);
  if (ChatFormat::exists(options.model)) chat_ = ChatFormat::load(options.model);
  if (!options.adapter.empty()) records_["default"] = read_adapter_record(options.adapter);
  follow(options.adapter.empty() ? std::nullopt : records_.at("default"));
  model_ = Model::load(context_, folder_);
  if (!options.adapter.empty()) adapters_["default"] = AdapterWeights::load(context_, model_, options.adapter);
  EngineOptions engine;
  engine.compute = options.compute;
  engine.max_length = options.max_length;
  engine.max_sequences = options.max_sequences;
  if (!options.adapter.empty()) active_ = "default";
  engine_ = std::make_unique<Engine>(context_, model_, active_ ? &adapters_.at(*active_) : nullptr, engine);
}

void Session::follow(const std::optional<AdapterRecord>& record) {
  const bool raw = options_.raw.value_or(record ? !record->chat : !chat_);
  GRAFT_CHECK_HINT(raw || chat_, "use --raw, or add chat_template.jinja to the folder", "{}: has no chat template",
                   options_.model);
  raw_ = raw;
  static const std::vector<std::string> kNone;
  const std::vector<std::string>& own = record ? record->template_args : kNone;
  if (!chat_ || (args_set_ && own == own_args_)) return;  // a switch between adapters of one kind allocates nothing
  own_args_ = own, args_set_ = true;
  std::vector<std::string> args = own;
  args.insert(args.end(), options_.template_args.begin(), options_.template_args.end());
  chat_->set_template_args(args);
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
  auto record = read_adapter_record(path);
  adapters_.emplace(name, AdapterWeights::load(context_, model_, path));
  records_[name] = std::move(record);
}

void Session::unload_adapter(const std::string& name) {
  GRAFT_CHECK(adapters_.find(name) != adapters_.end(), "no adapter is called '{}'; loaded are: {}", printable(name),
              fmt::join(adapter_names(), ", "));
  if (active_ == name) deactivate_adapter();
  adapters_.erase(name);
  records_.erase(name);
}

void Session::activate_adapter(const std::string& name) {
  const auto it = adapters_.find(name);
  GRAFT_CHECK(it != adapters_.end(), "no adapter is called '{}'; loaded are: {}", printable(name),
              fmt::join(adapter_names(), ", "));
  follow(records_.at(name));
  engine_->set_adapter(&it->second);
  active_ = name;
}

void Session::deactivate_adapter() {
  engine_->set_adapter(nullptr);
  active_.reset();
  follow(std::nullopt);
}

std::vector<std::string> Session::adapter_names() const {
  std::vector<std::string> names;
  for (const auto& [name, adapter] : adapters_) names.push_back(name);
  return names;
}

}  // namespace graft
