#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/base/json.h"
#include "graft/infer/engine.h"
#include "graft/infer/generate.h"
#include "graft/models/adapter_record.h"
#include "graft/text/chat.h"
#include "graft/text/tokenizer.h"

namespace graft {

struct SessionOptions {
  std::string model, adapter;
  Compute compute = Compute::kF32;
  int64_t max_sequences = 1, max_length = 0;
  std::vector<std::string> template_args;  // K=V; win over what the adapter records
  std::optional<bool> raw;  // not given: as the adapter was trained, else the template where there is one
};

// Everything that answering needs: model, tokenizer, template, an engine, and adapters by name.
class Session {
 public:
  Session(Context& context, const SessionOptions& options);

  Engine& engine() { return *engine_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const GenerationConfig& generation() const { return folder_.generation; }
  const ModelConfig& config() const { return folder_.config; }
  std::vector<int64_t> end_tokens() const { return stop_token_ids(folder_.config, folder_.generation); }
  bool raw() const { return raw_; }
  bool has_template() const { return chat_.has_value(); }

  // A prompt as ids: raw text, or one user message (with an optional system message) through the template.
  std::vector<int32_t> encode_prompt(const std::string& prompt, const std::string& system) const;
  // A dialogue, ending with the opening of the assistant's answer.
  std::vector<int32_t> encode_messages(const Json& messages, const Json& tools = {}) const;

  // Adapters by name (spec lora.md 9): loading does not activate. raw() and the template's arguments follow the active one. Errors: a name that exists, one that is unknown.
  void load_adapter(const std::string& name, const std::string& path);
  void unload_adapter(const std::string& name);  // deactivates first
  void activate_adapter(const std::string& name);
  void deactivate_adapter();
  std::vector<std::string> adapter_names() const;  // sorted
  const std::optional<std::string>& active_adapter() const { return active_; }

 private:
  Context& context_;
  ModelFolder folder_;
  Model model_;
  Tokenizer tokenizer_;
  std::optional<ChatFormat> chat_;
  // What an adapter was trained on decides how it is asked, unless the options do.
  void follow(const std::optional<AdapterRecord>& record);

  SessionOptions options_;
  std::map<std::string, AdapterWeights> adapters_;
  std::map<std::string, std::optional<AdapterRecord>> records_;
  std::optional<std::string> active_;
  std::unique_ptr<Engine> engine_;
  bool raw_ = false;
  std::vector<std::string> own_args_;  // template arguments of the adapter in force
  bool args_set_ = false;
};

}  // namespace graft
