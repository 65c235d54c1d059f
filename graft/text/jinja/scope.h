#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/text/jinja/syntax.h"

namespace graft::jinja {

// Variables of a block; names are looked up outwards. A handful each, so a look at all beats a hash.
class Scope : public Object {
 public:
  Scope() = default;
  explicit Scope(std::shared_ptr<Scope> parent) : parent_(std::move(parent)) {}

  const Value* own(Symbol symbol) const {
    for (const auto& [key, value] : variables_) {
      if (key == symbol) return &value;
    }
    return nullptr;
  }
  const Value* find(Symbol symbol) const {
    for (const Scope* s = this; s != nullptr; s = s->parent_.get()) {
      if (const Value* found = s->own(symbol)) return found;
    }
    return nullptr;
  }
  void set(Symbol symbol, Value value) {
    for (auto& [key, old] : variables_) {
      if (key == symbol) {
        old = std::move(value);
        return;
      }
    }
    variables_.emplace_back(symbol, std::move(value));
  }
  void clear() {
    variables_.clear();
    parent_.reset();
  }
  bool kept = false;  // the runtime holds it to the end

 private:
  std::shared_ptr<Scope> parent_;
  std::vector<std::pair<Symbol, Value>> variables_;
};

// What loop(items) of a recursive loop does.
class LoopCall {
 public:
  virtual ~LoopCall() = default;
  virtual Value call(Runtime& runtime, const Value& items) = 0;
};

// The variable `loop`.
class Loop : public Callable, public std::enable_shared_from_this<Loop> {
 public:
  Loop(std::vector<Value> values, int64_t level, std::unique_ptr<LoopCall> again)
      : values_(std::move(values)), level_(level), again_(std::move(again)) {}
  Value call(Runtime& runtime, Args& args) override;
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  std::string describe() const override;

  size_t size() const { return values_.size(); }
  const Value& item(size_t i) const { return values_[i]; }
  int item_depth() const {
    int depth_of_items = 0;
    for (const Value& v : values_) depth_of_items = std::max(depth_of_items, v.depth());
    return depth_of_items;
  }
  void clear() {
    values_.clear();
    again_.reset();
    last_.clear();
  }
  Value cycle(const Args& args) const;
  Value changed(Runtime& runtime, const Args& args);

  int64_t index = 0;

 private:
  std::vector<Value> values_;
  int64_t level_;
  std::unique_ptr<LoopCall> again_;
  std::vector<Value> last_;  // of changed()
  bool has_last_ = false;
};

}  // namespace graft::jinja
