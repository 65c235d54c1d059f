#include "graft/text/jinja/interpreter.h"

#include <algorithm>

#include "graft/base/error.h"
#include "graft/text/jinja/scope.h"

namespace graft::jinja {
namespace {

// Levels of the tree that are open at once, and calls of macros. Both fit a thread's stack with room to spare.
constexpr int kMaxDepth = 1200;
constexpr int kMaxCalls = 120;

enum class Flow : uint8_t { normal, stop, next };

class Interpreter;

class Macro : public Callable {
 public:
  Macro(Interpreter& interpreter, const Stmt& stmt, std::shared_ptr<Scope> scope)
      : interpreter_(interpreter), stmt_(stmt), scope_(std::move(scope)) {}
  Value call(Runtime& runtime, Args& args) override;
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override {
    if (name == "name") return runtime.string(stmt_.name);
    if (name == "arguments") {
      std::vector<Value> names;
      for (const auto& [parameter, symbol] : stmt_.signature.parameters) names.push_back(runtime.string(parameter));
      return runtime.tuple(std::move(names));
    }
    if (name == "catch_kwargs") return Value(stmt_.signature.uses_kwargs);
    if (name == "catch_varargs") return Value(stmt_.signature.uses_varargs);
    if (name == "caller") return Value(stmt_.signature.uses_caller);
    return std::nullopt;
  }
  std::string describe() const override { return fmt::format("<Macro '{}'>", stmt_.name); }

 private:
  void bind_parameters(Scope& scope, Runtime& runtime, Args& args) const;

  Interpreter& interpreter_;
  const Stmt& stmt_;
  std::shared_ptr<Scope> scope_;
};

class Interpreter {
 public:
  Interpreter(const Template& source, Runtime& runtime) : template_(source), runtime_(runtime) {}

  RenderResult run(const std::vector<std::pair<std::string, Value>>& variables) {
    TextBuilder out;
    out_ = &out;
    scope_ = std::make_shared<Scope>();
    const auto define = [&](const std::pair<std::string, Value>& v) {
      const auto it = std::find(template_.symbols.begin(), template_.symbols.end(), v.first);
      if (it != template_.symbols.end()) {
        scope_->set(static_cast<Symbol>(it - template_.symbols.begin()), v.second);
      }
    };
    for (const auto& v : make_globals(runtime_)) define(v);
    for (const auto& v : variables) define(v);
    try {
      execute(template_.body);
    } catch (const Fault& fault) {
      fail("{}:{}: {}", template_.where, line_, fault.message);
    } catch (const Raised& raised) {
      throw Error(raised.message,
                  fmt::format("the chat template itself refuses this input ({}:{})", template_.where, line_));
    }
    return {std::move(out.bytes()), std::move(out.marks())};
  }

  Value evaluate(const Expr& e);
  const Template& source() const { return template_; }

  // Runs a body in a scope of its own and gives what it prints.
  Value capture(const Body& body, std::shared_ptr<Scope> scope) {
    TextBuilder buffer;
    const Swap<TextBuilder*> to_buffer(out_, &buffer);
    const Swap<int64_t> open(open_bytes_, open_bytes_);
    const Swap<std::shared_ptr<Scope>> inside(scope_, std::move(scope));
    execute(body);
    return runtime_.string(std::move(buffer));
  }
  Value call_macro(const Body& body, std::shared_ptr<Scope> scope) {
    if (calls_ >= kMaxCalls) {
      throw Fault{fmt::format("macros call each other past the recursion limit of {}", kMaxCalls)};
    }
    const Swap<int> deeper(calls_, calls_ + 1);
    return capture(body, std::move(scope));
  }
  Value evaluate_in(const Expr& e, const std::shared_ptr<Scope>& scope) {
    const Swap<std::shared_ptr<Scope>> inside(scope_, scope);
    return evaluate(e);
  }
  Value run_loop_again(const Stmt& s, const Value& items, const std::shared_ptr<Scope>& scope, int64_t depth) {
    TextBuilder buffer;
    const Swap<TextBuilder*> to_buffer(out_, &buffer);
    const Swap<int64_t> open(open_bytes_, open_bytes_);
    const Swap<std::shared_ptr<Scope>> inside(scope_, scope);
    if (calls_ >= kMaxCalls) throw Fault{fmt::format("a loop calls itself past the recursion limit of {}", kMaxCalls)};
    const Swap<int> deeper(calls_, calls_ + 1);
    loop(s, items, depth);
    return runtime_.string(std::move(buffer));
  }

 private:
  template <typename T>
  struct Swap {  // a new value until the end of the block
    Swap(T& slot, T value) : slot_(slot), old_(std::exchange(slot, std::move(value))) {}
    ~Swap() { slot_ = std::move(old_); }
    T& slot_;
    T old_;
  };
  struct Level {
    explicit Level(int& depth) : depth_(depth) {
      if (++depth_ > kMaxDepth) {
        --depth_;
        throw Fault{fmt::format("the template recurses past the depth limit of {} levels", kMaxDepth)};
      }
    }
    ~Level() { --depth_; }
    int& depth_;
  };

  std::shared_ptr<Scope> inner() const { return std::make_shared<Scope>(scope_); }

  void put(const Value& value) {
    const size_t before = out_->size();
    print(runtime_, *out_, value);
    open_bytes_ += static_cast<int64_t>(out_->size() - before);
    if (open_bytes_ > runtime_.limits.output_bytes) {
      throw Fault{fmt::format("the output passes the size limit of {} MiB", runtime_.limits.output_bytes >> 20)};
    }
  }

  Flow execute(const Body& body) {
    const Level level(depth_);
    for (const auto& s : body) {
      if (const Flow flow = execute(*s); flow != Flow::normal) return flow;
    }
    return Flow::normal;
  }
  Flow execute(const Stmt& s);
  void loop(const Stmt& s, const Value& items, int64_t depth);
  void assign(const Target& target, const Value& value, Scope& scope);
  Value filtered(const Expr& e, const Value& block);
  Value logical(const Expr& e);
  Value compare(const Expr& e);
  Value invoke(const Expr& e);
  Args arguments(const Arguments& from);
  bool apply_test(const Expr& e);
  std::shared_ptr<Macro> make_macro(const Stmt& s) {
    if (!scope_->kept) {  // it may come to hold the macro that holds it
      scope_->kept = true;
      runtime_.keep(scope_, [](Object& object) {
        auto& scope = static_cast<Scope&>(object);
        scope.clear();
      });
    }
    return std::make_shared<Macro>(*this, s, scope_);
  }

  const Template& template_;
  Runtime& runtime_;
  TextBuilder* out_ = nullptr;
  std::shared_ptr<Scope> scope_;
  int32_t line_ = 1;
  int depth_ = 0, calls_ = 0;
  int64_t open_bytes_ = 0;  // in all buffers that are being written
};

Value Macro::call(Runtime& runtime, Args& args) {
  auto scope = std::make_shared<Scope>(scope_);
  bind_parameters(*scope, runtime, args);
  const auto& signature = stmt_.signature;
  const size_t first_default = signature.parameters.size() - signature.defaults.size();
  for (size_t i = first_default; i < signature.parameters.size(); ++i) {
    const Symbol symbol = signature.parameters[i].second;
    if (scope->own(symbol) == nullptr) {
      scope->set(symbol, interpreter_.evaluate_in(*signature.defaults[i - first_default], scope));
    }
  }
  for (const auto& [name, symbol] : signature.parameters) {
    if (scope->own(symbol) == nullptr) {
      scope->set(symbol, runtime.undefined(fmt::format("parameter '{}' was not provided", name)));
    }
  }
  return interpreter_.call_macro(stmt_.body, std::move(scope));
}

void Macro::bind_parameters(Scope& scope, Runtime& runtime, Args& args) const {
  const auto& [parameters, defaults, uses_varargs, uses_kwargs, uses_caller] = stmt_.signature;
  const Template& source = interpreter_.source();
  for (size_t i = 0; i < parameters.size() && i < args.positional.size(); ++i) {
    scope.set(parameters[i].second, args.positional[i]);
  }
  auto rest = std::make_shared<Dict>();
  for (auto& [name, value] : args.named) {
    const auto it =
        std::find_if(parameters.begin(), parameters.end(), [&, &key = name](const auto& p) { return p.first == key; });
    if (it != parameters.end() && scope.own(it->second) == nullptr) {
      scope.set(it->second, value);
    } else if (name == "caller" && uses_caller) {
      scope.set(source.caller, value);
    } else if (uses_kwargs) {
      rest->set(runtime.string(name), value);
    } else {
      throw Fault{fmt::format("macro '{}' takes no keyword argument '{}'", stmt_.name, printable(name))};
    }
  }
  if (uses_caller && stmt_.kind == StmtKind::macro && scope.own(source.caller) == nullptr) {
    scope.set(source.caller, runtime.undefined("no caller defined"));
  }
  if (uses_kwargs) scope.set(source.kwargs, runtime.dict(std::move(rest)));
  if (uses_varargs) {
    const auto used = static_cast<std::ptrdiff_t>(std::min(parameters.size(), args.positional.size()));
    scope.set(source.varargs, runtime.tuple({args.positional.begin() + used, args.positional.end()}));
  } else if (args.positional.size() > parameters.size()) {
    throw Fault{fmt::format("macro '{}' takes not more than {} argument(s), {} given", stmt_.name, parameters.size(),
                            args.positional.size())};
  }
}

Flow Interpreter::execute(const Stmt& s) {
  const Level level(depth_);
  runtime_.step();
  line_ = s.line;
  switch (s.kind) {
    case StmtKind::text: put(s.value); return Flow::normal;
    case StmtKind::print: put(evaluate(*s.expr)); return Flow::normal;
    case StmtKind::branch:
      for (const auto& [condition, body] : s.branches) {
        if (condition == nullptr || truthy(evaluate(*condition))) return execute(body);
      }
      return Flow::normal;
    case StmtKind::loop: loop(s, evaluate(*s.expr), 0); return Flow::normal;
    case StmtKind::assign: assign(s.target, evaluate(*s.expr), *scope_); return Flow::normal;
    case StmtKind::assign_block: {
      Value value = capture(s.body, inner());
      if (s.expr != nullptr) value = filtered(*s.expr, value);
      assign(s.target, value, *scope_);
      return Flow::normal;
    }
    case StmtKind::with: {
      auto scope = inner();
      for (size_t i = 0; i < s.targets.size(); ++i) assign(s.targets[i], evaluate(*s.exprs[i]), *scope);
      const Swap<std::shared_ptr<Scope>> inside(scope_, std::move(scope));
      return execute(s.body);
    }
    case StmtKind::macro: scope_->set(s.symbol, runtime_.callable(make_macro(s))); return Flow::normal;
    case StmtKind::call_block: {
      const Value function = evaluate(*s.expr->items[0]);
      Args args = arguments(s.expr->arguments);
      args.named.emplace_back("caller", runtime_.callable(make_macro(s)));
      line_ = s.line;
      put(call(runtime_, function, args));
      return Flow::normal;
    }
    case StmtKind::filter_block: {
      put(filtered(*s.expr, capture(s.body, inner())));
      return Flow::normal;
    }
    case StmtKind::generation: {
      const size_t begin = out_->size();
      {
        const Swap<std::shared_ptr<Scope>> inside(scope_, inner());
        execute(s.body);
      }
      out_->mark(begin, out_->size(), kGeneration);
      return Flow::normal;
    }
    case StmtKind::stop: return Flow::stop;
    case StmtKind::next: return Flow::next;
  }
  return Flow::normal;
}

class LoopAgain : public LoopCall {
 public:
  LoopAgain(Interpreter& interpreter, const Stmt& stmt, std::shared_ptr<Scope> scope, int64_t depth)
      : interpreter_(interpreter), stmt_(stmt), scope_(std::move(scope)), depth_(depth) {}
  Value call(Runtime&, const Value& items) override {
    return interpreter_.run_loop_again(stmt_, items, scope_, depth_ + 1);
  }

 private:
  Interpreter& interpreter_;
  const Stmt& stmt_;
  std::shared_ptr<Scope> scope_;
  int64_t depth_;
};

void Interpreter::loop(const Stmt& s, const Value& items, int64_t depth) {
  std::vector<Value> values = iterate(runtime_, items);
  if (s.condition != nullptr) {
    std::vector<Value> chosen;
    for (const Value& value : values) {
      auto scope = inner();
      assign(s.target, value, *scope);
      const Swap<std::shared_ptr<Scope>> inside(scope_, std::move(scope));
      if (truthy(evaluate(*s.condition))) chosen.push_back(value);
    }
    values = std::move(chosen);
  }
  if (values.empty()) {
    const Swap<std::shared_ptr<Scope>> inside(scope_, inner());
    execute(s.otherwise);
    return;
  }
  std::unique_ptr<LoopCall> again;
  if (s.recursive) again = std::make_unique<LoopAgain>(*this, s, scope_, depth);
  auto state = std::make_shared<Loop>(std::move(values), depth, std::move(again));
  const Value loop_value = runtime_.callable(state, state->item_depth(), state->size() * sizeof(Value));
  if (s.recursive) {
    runtime_.keep(state, [](Object& object) { static_cast<Loop&>(object).clear(); });
  }
  for (size_t i = 0; i < state->size(); ++i) {
    runtime_.step(4);  // a scope is made
    state->index = static_cast<int64_t>(i);
    auto scope = inner();
    scope->set(template_.loop, loop_value);
    assign(s.target, state->item(i), *scope);
    const Swap<std::shared_ptr<Scope>> inside(scope_, std::move(scope));
    if (execute(s.body) == Flow::stop) return;
  }
}

void Interpreter::assign(const Target& target, const Value& value, Scope& scope) {
  if (!target.attribute.empty()) {
    const Value* space = scope_->find(target.symbol);
    if (space == nullptr || !space->is(Kind::space)) {
      throw Fault{
          fmt::format("cannot assign attribute '{}' of '{}': it is no namespace", target.attribute, target.name)};
    }
    runtime_.set_attribute(space->space(), target.attribute, value);
  } else if (target.parts.empty()) {
    scope.set(target.symbol, value);
  } else {
    if (value.is_undefined()) fail_undefined(value);
    const std::vector<Value> values = iterate(runtime_, value);
    if (values.size() != target.parts.size()) {
      throw Fault{fmt::format("{} values to unpack, expected {}", values.size(), target.parts.size())};
    }
    for (size_t i = 0; i < values.size(); ++i) assign(target.parts[i], values[i], scope);
  }
}

Args Interpreter::arguments(const Arguments& from) {
  Args out;
  for (const auto& e : from.positional) out.positional.push_back(evaluate(*e));
  for (const auto& [name, e] : from.named) out.named.emplace_back(name, evaluate(*e));
  if (from.list != nullptr) {
    constexpr int64_t kMaxArguments = 10000;
    for (Value& v : iterate(runtime_, evaluate(*from.list))) out.positional.push_back(std::move(v));
    if (out.positional.size() > kMaxArguments) throw Fault{"more than the limit of 10000 arguments"};
  }
  if (from.dict != nullptr) {
    const Value more = evaluate(*from.dict);
    if (!more.is(Kind::dict)) {
      throw Fault{fmt::format("the argument after ** must be a mapping, not {}", type_name(more))};
    }
    for (const auto& [key, value] : more.dict().entries) {
      if (!key.is_string()) throw Fault{"keywords must be strings"};
      out.named.emplace_back(key.str(), value);
    }
  }
  return out;
}

Value Interpreter::filtered(const Expr& e, const Value& block) {
  const Level level(depth_);
  if (e.kind != ExprKind::filter) return evaluate(e);
  const Value value = e.items[0] == nullptr ? block : filtered(*e.items[0], block);
  const Args args = arguments(e.arguments);
  line_ = e.line;
  runtime_.step();
  if (e.filter == nullptr) throw Fault{fmt::format("there is no filter '{}'", printable(e.text))};
  return e.filter(runtime_, value, args);
}

bool Interpreter::apply_test(const Expr& e) {
  const Value value = evaluate(*e.items[0]);
  const Args args = arguments(e.arguments);
  line_ = e.line;
  if (e.test == nullptr) throw Fault{fmt::format("there is no test '{}'", printable(e.text))};
  return e.test(runtime_, value, args);
}

Value Interpreter::compare(const Expr& e) {
  Value left = evaluate(*e.items[0]);
  for (size_t i = 0; i < e.comparisons.size(); ++i) {
    Value right = evaluate(*e.items[i + 1]);
    line_ = e.line;
    bool holds = false;
    switch (e.comparisons[i]) {
      case Comparison::eq: holds = equal(runtime_, left, right); break;
      case Comparison::ne: holds = !equal(runtime_, left, right); break;
      case Comparison::lt: holds = less(runtime_, left, right, "<"); break;
      case Comparison::gt: holds = less(runtime_, right, left, ">"); break;
      case Comparison::le: holds = less(runtime_, left, right, "<=") || equal(runtime_, left, right); break;
      case Comparison::ge: holds = less(runtime_, right, left, ">=") || equal(runtime_, left, right); break;
      case Comparison::in: holds = contains(runtime_, right, left); break;
      case Comparison::not_in: holds = !contains(runtime_, right, left); break;
    }
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::invoke(const Expr& e) {
  const Value function = evaluate(*e.items[0]);
  Args args = arguments(e.arguments);
  line_ = e.line;
  return call(runtime_, function, args);
}

Value Interpreter::evaluate(const Expr& e) {
  const Level level(depth_);
  runtime_.step();
  switch (e.kind) {
    case ExprKind::constant: return e.value;
    case ExprKind::name: {
      if (const Value* found = scope_->find(e.symbol)) return *found;
      return runtime_.undefined(fmt::format("'{}' is undefined", e.text));
    }
    case ExprKind::list:
    case ExprKind::tuple: {
      std::vector<Value> values;
      for (const auto& part : e.items) values.push_back(evaluate(*part));
      return runtime_.items(e.kind == ExprKind::list ? Kind::list : Kind::tuple, std::move(values));
    }
    case ExprKind::dict: {
      auto dict = std::make_shared<Dict>();
      for (size_t i = 0; i + 1 < e.items.size(); i += 2) {
        const Value key = evaluate(*e.items[i]);
        if (!hashable(key)) throw Fault{fmt::format("unhashable type: '{}'", type_name(key))};
        dict->set(key, evaluate(*e.items[i + 1]));
      }
      return runtime_.dict(std::move(dict));
    }
    case ExprKind::attribute: {
      const Value object = evaluate(*e.items[0]);
      line_ = e.line;
      return attribute(runtime_, object, e.value);
    }
    case ExprKind::item: {
      const Value object = evaluate(*e.items[0]), key = evaluate(*e.items[1]);
      line_ = e.line;
      return item(runtime_, object, key);
    }
    case ExprKind::slice: {
      const auto part = [&](size_t i) { return e.items[i] == nullptr ? Value() : evaluate(*e.items[i]); };
      const Value object = part(0), start = part(1), stop = part(2), step = part(3);
      line_ = e.line;
      return slice(runtime_, object, start, stop, step);
    }
    case ExprKind::call: return invoke(e);
    case ExprKind::filter: return filtered(e, Value());
    case ExprKind::test: return Value(apply_test(e));
    case ExprKind::negate: return negate(runtime_, evaluate(*e.items[0]));
    case ExprKind::plus: {
      Value value = evaluate(*e.items[0]);
      if (value.is_undefined()) fail_undefined(value);
      if (!value.is_number()) throw Fault{fmt::format("bad operand type for unary +: '{}'", type_name(value))};
      return value.is(Kind::boolean) ? Value(value.integer()) : value;
    }
    case ExprKind::logical_not: return Value(!truthy(evaluate(*e.items[0])));
    case ExprKind::logical_and: {
      Value left = evaluate(*e.items[0]);
      return truthy(left) ? evaluate(*e.items[1]) : left;
    }
    case ExprKind::logical_or: {
      Value left = evaluate(*e.items[0]);
      return truthy(left) ? left : evaluate(*e.items[1]);
    }
    case ExprKind::arithmetic: {
      const Value left = evaluate(*e.items[0]), right = evaluate(*e.items[1]);
      line_ = e.line;
      return arithmetic(runtime_, e.op, left, right);
    }
    case ExprKind::concat: {
      std::vector<Value> parts;  // first all values, so that no half-made text waits while another is made
      for (const auto& part : e.items) parts.push_back(evaluate(*part));
      TextBuilder text;
      for (const Value& part : parts) print(runtime_, text, part);
      return runtime_.string(std::move(text));
    }
    case ExprKind::compare: return compare(e);
    case ExprKind::conditional:
      if (truthy(evaluate(*e.items[1]))) return evaluate(*e.items[0]);
      if (e.items[2] != nullptr) return evaluate(*e.items[2]);
      return runtime_.undefined("the condition of an 'if' without 'else' does not hold: the value is undefined");
  }
  return Value();
}

}  // namespace

Value from_json(Runtime& runtime, const Json& json, const int32_t* source, int depth) {
  if (depth >= runtime.limits.container_depth) {
    throw Fault{fmt::format("the input is nested deeper than the limit of {}", runtime.limits.container_depth)};
  }
  const auto text = [&](const std::string& bytes) {
    TextBuilder out;
    out.literal(bytes);
    if (source != nullptr && !bytes.empty()) out.mark(0, bytes.size(), *source);
    return runtime.string(std::move(out));
  };
  switch (json.type()) {
    case Json::value_t::boolean: return Value(json.get<bool>());
    case Json::value_t::number_integer: return Value(json.get<int64_t>());
    case Json::value_t::number_unsigned: {
      const auto n = json.get<uint64_t>();
      return n <= INT64_MAX ? Value(static_cast<int64_t>(n)) : parse_integer(runtime, std::to_string(n));
    }
    case Json::value_t::number_float: return Value(json.get<double>());
    case Json::value_t::string: return text(json.get_ref<const std::string&>());
    case Json::value_t::binary: {
      const auto& digits = json.get_binary();
      return parse_integer(runtime, {reinterpret_cast<const char*>(digits.data()), digits.size()});
    }
    case Json::value_t::array: {
      std::vector<Value> values;
      values.reserve(json.size());
      for (const Json& v : json) values.push_back(from_json(runtime, v, source, depth + 1));
      return runtime.list(std::move(values));
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      dict->entries.reserve(json.size());
      for (const auto& [key, v] : json.items()) dict->set(text(key), from_json(runtime, v, source, depth + 1));
      return runtime.dict(std::move(dict));
    }
    default: return Value();
  }
}

RenderResult run(const Template& source, Runtime& runtime,
                 const std::vector<std::pair<std::string, Value>>& variables) {
  return Interpreter(source, runtime).run(variables);
}

}  // namespace graft::jinja
