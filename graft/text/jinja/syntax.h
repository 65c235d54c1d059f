#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "graft/text/jinja/functions.h"
#include "graft/text/jinja/operations.h"

// The tree of a template. Nothing in it changes after parsing.
namespace graft::jinja {

using Symbol = uint32_t;

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<std::unique_ptr<Stmt>>;

enum class ExprKind : uint8_t {
  constant,     // value
  name,         // symbol, text
  list,         // items
  tuple,        // items
  dict,         // items: key, value, key, value …
  attribute,    // items[0].text
  item,         // items[0][items[1]]
  slice,        // items[0][items[1]:items[2]:items[3]], null where nothing stands
  call,         // items[0](arguments)
  filter,       // items[0]|text(arguments)
  test,         // items[0] is text(arguments)
  negate,       // -items[0]
  plus,         // +items[0]
  logical_not,  // not items[0]
  logical_and,
  logical_or,
  arithmetic,   // items[0] op items[1]
  concat,       // items joined by ~
  compare,      // items[0] comparisons[0] items[1] comparisons[1] items[2] …
  conditional,  // items[0] if items[1] else items[2] (may be null)
};

enum class Comparison : uint8_t { eq, ne, lt, le, gt, ge, in, not_in };

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr list, dict;  // *list, **dict
};

struct Expr {
  ExprKind kind;
  Operator op = Operator::add;
  int32_t line = 0;
  int32_t depth = 1;
  Symbol symbol = 0;
  std::string text;
  Value value;
  std::vector<ExprPtr> items;
  std::vector<Comparison> comparisons;
  Arguments arguments;
  FilterFunction filter = nullptr;  // null: unknown, an error only if it is reached
  TestFunction test = nullptr;
};

struct Target {  // what may stand left of = and between for and in
  Symbol symbol = 0;
  std::string name, attribute;  // attribute: a namespace's
  std::vector<Target> parts;    // a tuple
};

struct Signature {
  std::vector<std::pair<std::string, Symbol>> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};

enum class StmtKind : uint8_t {
  text,          // value
  print,         // expr
  branch,        // branches; body of the last without expr is else
  loop,          // target in expr if condition: body, otherwise
  assign,        // target = expr
  assign_block,  // target = body, filters in expr (over a null item) or null
  with,          // targets = exprs: body
  macro,         // symbol, signature, body
  call_block,    // expr (a call) with caller(signature): body
  filter_block,  // expr (filters over a null item): body
  generation,    // body
  stop,          // break
  next,          // continue
};

struct Stmt {
  StmtKind kind;
  int32_t line = 0;
  bool recursive = false;
  Symbol symbol = 0;
  std::string name;
  Value value;
  ExprPtr expr, condition;
  Target target;
  std::vector<Target> targets;
  std::vector<ExprPtr> exprs;
  std::vector<std::pair<ExprPtr, Body>> branches;
  Signature signature;
  Body body, otherwise;
};

struct Template {
  std::string where;
  Body body;
  std::vector<std::string> symbols;  // name of each
  bool marks_generation = false;
  Symbol loop = 0, caller = 0, varargs = 0, kwargs = 0;
};

// Throws graft::Error "WHERE:LINE: …" for bad syntax, unknown tags, filters and tests, and nesting beyond the limit.
Template parse(std::string_view source, const std::string& where);

}  // namespace graft::jinja
