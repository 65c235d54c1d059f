// TOML for TrainConfig: both directions go through the table of fields and their text form.

#include <fmt/format.h>
#include <toml++/toml.h>  // header-only: the shared library would keep a static build from linking

#include <sstream>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/strings.h"
#include "graft/train/config.h"

namespace graft {
namespace {

using T = TrainConfig;

std::string_view node_kind(const toml::node& node) {
  if (node.is_string()) return "a string";
  if (node.is_integer()) return "a whole number";
  if (node.is_floating_point()) return "a number";
  if (node.is_boolean()) return "true or false";
  if (node.is_array()) return "an array";
  if (node.is_table()) return "a table";
  return "a date or time";
}

// A scalar as the flag would take it; empty where it has none.
std::optional<std::string> scalar_text(const toml::node& node) {
  if (const auto* s = node.as_string()) return s->get();
  if (const auto* i = node.as_integer()) return fmt::format("{}", i->get());
  if (const auto* f = node.as_floating_point()) return fmt::format("{}", f->get());
  if (const auto* b = node.as_boolean()) return b->get() ? "true" : "false";
  return std::nullopt;
}

// What a field wants, or an empty view if the node may stand for it.
std::string_view wanted_kind(const TrainField& field, const toml::node& node) {
  const auto& m = field.member;
  if (std::holds_alternative<bool T::*>(m)) return node.is_boolean() ? "" : "true or false";
  if (std::holds_alternative<int64_t T::*>(m)) return node.is_integer() ? "" : "a whole number";
  if (std::holds_alternative<double T::*>(m) || std::holds_alternative<std::optional<double> T::*>(m)) {
    return node.is_number() || (node.is_string() && !field.words.empty()) ? "" : "a number";
  }
  if (std::holds_alternative<StepsOrShare T::*>(m)) {
    return node.is_integer() || node.is_string() ? "" : "a number of updates or a share like \"5%\"";
  }
  if (std::holds_alternative<ByteSize T::*>(m)) {
    return node.is_integer() || node.is_string() ? "" : "a size like \"8G\"";
  }
  if (std::holds_alternative<std::vector<std::string> T::*>(m)) {
    return node.is_string() || node.is_array() || node.is_table() ? "" : "a list of strings";
  }
  if (field.name == "layers") return node.is_string() || node.is_integer() || node.is_array() ? "" : "a string";
  return node.is_string() || (node.is_array() && (field.name == "targets" || field.name == "exclude")) ? ""
                                                                                                       : "a string";
}

std::vector<std::string> list_texts(const TrainField& field, const toml::node& node) {
  std::vector<std::string> texts;
  const auto add = [&](const toml::node& item, std::string prefix) {
    const auto text = scalar_text(item);
    GRAFT_CHECK(text, "{} holds {}, expected strings or numbers", field.name, node_kind(item));
    texts.push_back(prefix + *text);
  };
  if (const auto* array = node.as_array()) {
    for (const auto& item : *array) add(item, "");
  } else if (const auto* table = node.as_table()) {
    for (const auto& [key, item] : *table) add(item, std::string(key.str()) + "=");
  } else {
    add(node, "");
  }
  return texts;
}

// Of each pair one is in force; a flag for one drops the file's word on the other.
std::string_view alternative_of(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kPairs[] = {{"epochs", "steps"},
                                                                      {"batch_size", "batch_tokens"}};
  for (const auto& [a, b] : kPairs) {
    if (name == a) return b;
    if (name == b) return a;
  }
  return {};
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (u < 0x20 || u == 0x7F) {
      out += fmt::format("\\u{:04X}", u);
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string toml_double(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

// The value as TOML; empty where the field has none.
std::string toml_value(const TrainConfig& c, const TrainField& field) {
  struct Value {
    const TrainConfig& c;
    const TrainField& f;
    std::string operator()(bool T::*m) const { return c.*m ? "true" : "false"; }
    std::string operator()(int64_t T::*m) const { return fmt::format("{}", c.*m); }
    std::string operator()(double T::*m) const { return toml_double(c.*m); }
    std::string operator()(std::optional<double> T::*m) const { return c.*m ? toml_double(*(c.*m)) : std::string(); }
    std::string operator()(std::string T::*m) const { return toml_string(c.*m); }
    std::string operator()(std::optional<std::string> T::*m) const {
      return c.*m ? toml_string(*(c.*m)) : std::string();
    }
    std::string operator()(std::vector<std::string> T::*m) const {
      std::string out = "[";
      for (const std::string& item : c.*m) out += (out.size() > 1 ? ", " : "") + toml_string(item);
      return out + "]";
    }
    std::string operator()(StepsOrShare T::*m) const {
      return (c.*m).is_share ? toml_string(to_text(c.*m)) : to_text(c.*m);
    }
    std::string operator()(ByteSize T::*m) const { return toml_string(bytes_text((c.*m).bytes)); }
  };
  return std::visit(Value{c, field}, field.member);
}

}  // namespace

void parse_train_toml(TrainConfig& config, std::string_view text, std::string_view where) {
  toml::table table;
  try {
    table = toml::parse(text, where);
  } catch (const toml::parse_error& error) {
    fail("{}:{}: not TOML: {}", where, error.source().begin.line, error.description());
  }
  std::vector<std::string_view> known;
  for (const TrainField& field : train_fields()) {
    if ((field.use & kRecorded) != 0) known.push_back(field.name);
  }
  std::vector<std::string> faults;
  const std::vector<std::string> flags = config.given;
  const auto by_flag = [&](std::string_view name) {
    return std::find(flags.begin(), flags.end(), name) != flags.end();
  };
  for (const auto& [key, node] : table) {
    const auto line = key.source().begin.line;
    const TrainField* field = find_train_field(key.str());
    if (field == nullptr || (field->use & kRecorded) == 0) {
      std::string name(key.str());
      std::replace(name.begin(), name.end(), '-', '_');
      const std::string near = nearest_name(name, known);
      faults.push_back(fmt::format("{}:{}: unknown setting '{}'{}", where, line, printable(key.str()),
                                   near.empty() ? "" : fmt::format("; did you mean {}?", near)));
      continue;
    }
    if (by_flag(field->name)) continue;
    if (const std::string_view other = alternative_of(field->name); !other.empty() && by_flag(other)) continue;
    const std::string_view wanted = wanted_kind(*field, node);
    if (!wanted.empty()) {
      faults.push_back(fmt::format("{}:{}: {} is {}, expected {}", where, line, field->name, node_kind(node), wanted));
      continue;
    }
    try {
      if (node.is_array() || node.is_table() || std::holds_alternative<std::vector<std::string> T::*>(field->member)) {
        const std::vector<std::string> texts = list_texts(*field, node);
        if (const auto* list = std::get_if<std::vector<std::string> T::*>(&field->member)) {
          config.** list = texts;
          config.given.emplace_back(field->name);
        } else {
          set_train_field(config, *field, fmt::format("{}", fmt::join(texts, ",")));
        }
      } else {
        set_train_field(config, *field, *scalar_text(node));
      }
    } catch (const Error& error) {
      faults.push_back(fmt::format("{}:{}: {}", where, line, error.what()));
    }
  }
  if (!faults.empty()) fail("{}", fmt::join(faults, "\n"));
}

void read_train_toml(TrainConfig& config, const std::string& path) {
  parse_train_toml(config, read_file(path, size_t{1} << 20), path);
}

std::string write_train_toml(const TrainConfig& config) {
  std::string out = "# Settings of a run of graft train: graft train --config FILE repeats it.\n";
  std::string_view group;
  for (const TrainField& field : train_fields()) {
    if ((field.use & kRecorded) == 0) continue;
    if (!train_field_in_force(config, field)) continue;
    const std::string value = toml_value(config, field);
    if (value.empty()) continue;
    if (field.group != group) out += fmt::format("\n# {}\n", field.group);
    group = field.group;
    const bool brought = from_adapter(field) && !config.adapter.empty();
    out += fmt::format("{}{} = {}\n", brought ? "# from the adapter: " : "", field.name, value);
  }
  return out;
}

}  // namespace graft
