#include "graft/text/jinja/functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "graft/base/error.h"
#include "graft/text/jinja/operations.h"
#include "graft/text/jinja/scope.h"

namespace graft::jinja {
namespace {

using Plain = Value (*)(Runtime&, Args&);

class Function : public Callable {
 public:
  Function(std::string_view name, Plain function) : name_(name), function_(function) {}
  Value call(Runtime& runtime, Args& args) override { return function_(runtime, args); }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  std::string describe() const override { return fmt::format("<function {}>", name_); }

 private:
  std::string_view name_;
  Plain function_;
};

Value make_range(Runtime& runtime, Args& args) {
  if (!args.named.empty()) throw Fault{"range() takes no keyword arguments"};
  if (args.positional.empty() || args.positional.size() > 3) {
    throw Fault{fmt::format("range expected 1 to 3 arguments, got {}", args.positional.size())};
  }
  for (const Value& v : args.positional) {
    if (v.is(Kind::big)) throw Fault{"range too big: the limit is 100000 numbers"};
  }
  const auto at = [&](size_t i) { return as_index(args.positional[i], "an argument of range()"); };
  if (args.positional.size() == 1) return runtime.range(0, at(0), 1);
  const int64_t step = args.positional.size() == 3 ? at(2) : 1;
  if (step == 0) throw Fault{"range() arg 3 must not be zero"};
  return runtime.range(at(0), at(1), step);
}

// dict(mapping or pairs, name=value …)
std::shared_ptr<Dict> build_dict(Runtime& runtime, const Args& args) {
  if (args.positional.size() > 1) throw Fault{"dict expected at most 1 argument"};
  auto out = std::make_shared<Dict>();
  const auto set = [&](const Value& key, const Value& value) {
    if (!hashable(key)) throw Fault{fmt::format("unhashable type: '{}'", type_name(key))};
    runtime.step(1 + static_cast<int64_t>(key.is_string() ? 0 : out->entries.size() >> 3));
    out->set(key, value);
  };
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is_undefined()) fail_undefined(from);
    if (from.is(Kind::dict)) {
      for (const auto& [key, value] : from.dict().entries) set(key, value);
    } else {
      for (const Value& pair : iterate(runtime, from)) {
        const std::vector<Value> both = iterate(runtime, pair);
        if (both.size() != 2) {
          throw Fault{fmt::format("dictionary update sequence element has length {}; 2 is required", both.size())};
        }
        set(both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) set(runtime.string(name), value);
  return out;
}

Value make_dict(Runtime& runtime, Args& args) { return runtime.dict(build_dict(runtime, args)); }

Value dict_fromkeys(Runtime& runtime, Args& args) {
  const auto given = bind("fromkeys", args, {"iterable", "value"}, 1);
  Args pairs;
  std::vector<Value> values;
  for (const Value& key : iterate(runtime, *given[0])) {
    values.push_back(runtime.tuple({key, given[1] == nullptr ? Value() : *given[1]}));
  }
  pairs.positional.push_back(runtime.list(std::move(values)));
  return make_dict(runtime, pairs);
}

Value make_namespace(Runtime& runtime, Args& args) {
  const auto dict = build_dict(runtime, args);
  std::vector<std::pair<std::string, Value>> attributes;
  for (const auto& [key, value] : dict->entries) {
    if (!key.is_string()) throw Fault{"a namespace's attributes need names"};
    attributes.emplace_back(key.str(), value);
  }
  return runtime.space(std::move(attributes));
}

Value raise_exception(Runtime& runtime, Args& args) {
  TextBuilder message;
  print(runtime, message, *bind("raise_exception", args, {"message"}, 1)[0]);
  throw Raised{message.bytes()};
}

Value strftime_now(Runtime& runtime, Args& args) {
  const Value& format = *bind("strftime_now", args, {"format"}, 1)[0];
  if (format.is_undefined()) fail_undefined(format);
  if (!format.is_string()) throw Fault{fmt::format("strftime_now() needs a string, not {}", type_name(format))};
  const auto seconds = static_cast<time_t>(runtime.now);
  std::tm when{};
  if (runtime.now_given ? gmtime_r(&seconds, &when) == nullptr : localtime_r(&seconds, &when) == nullptr) {
    throw Fault{"the clock is out of range"};
  }
  const std::string& s = format.str();
  runtime.step(static_cast<int64_t>(s.size()));
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '%' || i + 1 >= s.size()) {
      out += s[i];
      continue;
    }
    std::string directive(1, s[i++]);
    if ((s[i] == '-' || s[i] == '_' || s[i] == '^') && i + 1 < s.size()) directive += s[i++];
    directive += s[i];
    static constexpr std::string_view kKnown = "aAbBcCdDeFGgHhIjklmMnprRsStTuUVwWxXyYzZ%";
    if (s[i] == 'f') {
      out += "000000";
    } else if (kKnown.find(s[i]) == std::string_view::npos) {
      out += directive;
    } else {
      char buffer[128];
      out.append(buffer, std::strftime(buffer, sizeof buffer, directive.c_str(), &when));
    }
  }
  return runtime.derived(std::move(out), format.text());
}

class Cycler : public Callable {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  Value call(Runtime&, Args&) override { throw Fault{"'Cycler' object is not callable"}; }
  bool can_call() const override { return false; }
  std::string describe() const override { return "<Cycler>"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  const Value& current() const { return items_[at_]; }
  Value next() {
    const Value value = current();
    at_ = (at_ + 1) % items_.size();
    return value;
  }
  void reset() { at_ = 0; }

 private:
  std::vector<Value> items_;
  size_t at_ = 0;
};

class CyclerMethod : public Callable {
 public:
  CyclerMethod(Cycler& cycler, std::shared_ptr<Callable> keep, bool reset)
      : cycler_(cycler), keep_(std::move(keep)), reset_(reset) {}
  Value call(Runtime&, Args& args) override {
    bind("a method of a cycler", args, {});
    if (!reset_) return cycler_.next();
    cycler_.reset();
    return Value();
  }
  std::string describe() const override { return "<bound method of Cycler>"; }

 private:
  Cycler& cycler_;
  std::shared_ptr<Callable> keep_;
  bool reset_;
};

class SharedCycler : public Cycler, public std::enable_shared_from_this<SharedCycler> {
 public:
  using Cycler::Cycler;
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override {
    if (name == "current") return current();
    if (name != "next" && name != "reset") return std::nullopt;
    return runtime.callable(std::make_shared<CyclerMethod>(*this, shared_from_this(), name == "reset"), depth);
  }
};

std::optional<Value> Cycler::attribute(Runtime&, std::string_view) { return std::nullopt; }

int deepest(const std::vector<Value>& values) {
  int depth = 0;
  for (const Value& v : values) depth = std::max(depth, v.depth());
  return depth;
}

Value make_cycler(Runtime& runtime, Args& args) {
  if (args.positional.empty() || !args.named.empty()) throw Fault{"cycler() needs at least one item"};
  const int depth = deepest(args.positional);
  const size_t bytes = args.positional.size() * sizeof(Value);
  return runtime.callable(std::make_shared<SharedCycler>(std::move(args.positional)), depth, bytes);
}

class Joiner : public Callable {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  Value call(Runtime& runtime, Args& args) override {
    bind("a joiner", args, {});
    if (used_) return separator_;
    used_ = true;
    return runtime.string(std::string());
  }
  std::string describe() const override { return "<Joiner>"; }

 private:
  Value separator_;
  bool used_ = false;
};

Value make_joiner(Runtime& runtime, Args& args) {
  const auto given = bind("joiner", args, {"sep"});
  const Value separator = given[0] == nullptr ? runtime.string(", ") : *given[0];
  return runtime.callable(std::make_shared<Joiner>(separator), separator.depth());
}

Value lipsum(Runtime&, Args&) { throw Fault{"lipsum() is not supported: a prompt of random text has no use"}; }

std::optional<Value> Function::attribute(Runtime& runtime, std::string_view name) {
  if (name_ == "dict" && name == "fromkeys") {
    return runtime.callable(std::make_shared<Function>("fromkeys", dict_fromkeys));
  }
  return std::nullopt;
}

// loop.cycle and loop.changed
class LoopMethod : public Callable {
 public:
  LoopMethod(std::shared_ptr<Loop> loop, bool cycle) : loop_(std::move(loop)), cycle_(cycle) {}
  Value call(Runtime& runtime, Args& args) override {
    return cycle_ ? loop_->cycle(args) : loop_->changed(runtime, args);
  }
  std::string describe() const override { return "<bound method of LoopContext>"; }

 private:
  std::shared_ptr<Loop> loop_;
  bool cycle_;
};

}  // namespace

Value Loop::call(Runtime& runtime, Args& args) {
  if (again_ == nullptr) throw Fault{"the loop must have the 'recursive' marker to be called"};
  return again_->call(runtime, *bind("loop", args, {"iterable"}, 1)[0]);
}

std::optional<Value> Loop::attribute(Runtime& runtime, std::string_view name) {
  const auto count = static_cast<int64_t>(values_.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == count);
  if (name == "length") return Value(count);
  if (name == "revindex") return Value(count - index);
  if (name == "revindex0") return Value(count - index - 1);
  if (name == "depth") return Value(level_ + 1);
  if (name == "depth0") return Value(level_);
  if (name == "previtem") {
    return index > 0 ? values_[static_cast<size_t>(index) - 1] : runtime.undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index + 1 < count ? values_[static_cast<size_t>(index) + 1] : runtime.undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") {
    return runtime.callable(std::make_shared<LoopMethod>(shared_from_this(), name == "cycle"), depth);
  }
  return std::nullopt;
}

std::string Loop::describe() const { return fmt::format("<LoopContext {}/{}>", index + 1, values_.size()); }

Value Loop::cycle(const Args& args) const {
  if (args.positional.empty()) throw Fault{"loop.cycle() needs at least one value"};
  return args.positional[static_cast<size_t>(index) % args.positional.size()];
}

Value Loop::changed(Runtime& runtime, const Args& args) {
  bool same = has_last_ && last_.size() == args.positional.size();
  for (size_t i = 0; same && i < last_.size(); ++i) same = equal(runtime, last_[i], args.positional[i]);
  if (!has_last_) {  // it may be given itself
    runtime.keep(shared_from_this(), [](Object& object) { static_cast<Loop&>(object).clear(); });
  }
  has_last_ = true;
  last_ = args.positional;
  return Value(!same);
}

std::vector<std::pair<std::string, Value>> make_globals(Runtime& runtime) {
  static constexpr std::pair<const char*, Plain> kFunctions[] = {{"range", make_range},
                                                                 {"dict", make_dict},
                                                                 {"namespace", make_namespace},
                                                                 {"raise_exception", raise_exception},
                                                                 {"cycler", make_cycler},
                                                                 {"joiner", make_joiner},
                                                                 {"lipsum", lipsum},
                                                                 {"strftime_now", strftime_now}};
  std::vector<std::pair<std::string, Value>> out;
  for (const auto& [name, function] : kFunctions) {
    out.emplace_back(name, runtime.callable(std::make_shared<Function>(name, function)));
  }
  return out;
}

}  // namespace graft::jinja
