#include "graft/formats/adapter.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "graft/base/error.h"
#include "graft/base/log.h"
#include "graft/formats/json_fields.h"

namespace graft {
namespace {

std::vector<float> transpose(const std::vector<float>& x, int64_t rows, int64_t columns) {
  std::vector<float> y(x.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      y[static_cast<size_t>(j * rows + i)] = x[static_cast<size_t>(i * columns + j)];
    }
  }
  return y;
}

class Loader {
 public:
  Loader(const AdapterHeader& header, const LoadAdapterOptions& options)
      : header_(header), options_(options), file_(header.path) {}

  Adapter load() {
    Adapter adapter = check();
    broken_.throw_if_any(header_.path, "the adapter is damaged: train or download it again");
    faults_.throw_if_any(header_.path, "is it an adapter for this base model? --partial takes what fits");
    for (const std::string& line : relaxed_) log_warning("{}: {}", header_.path, line);
    GRAFT_CHECK(!adapter.tensors.empty() || !adapter.saved.empty(), "{}: no tensor of the adapter fits the model",
                header_.path);
    return adapter;
  }

  // What is wrong with names and shapes; no value is read.
  std::vector<std::string> faults() {
    values_ = false;
    check();
    return relaxed_;
  }

 private:
  Adapter check() {
    Adapter adapter;
    adapter.path = header_.path;
    adapter.config = header_.config;
    adapter.metadata = header_.file.metadata;
    const bool only_saved = header_.entries.empty();
    std::vector<LoraTarget> targets;
    if (!only_saved) {
      targets = options_.modules.empty()
                    ? adapter_targets(header_)
                    : resolve_targets(header_.config, options_.modules, config_where(), /*training=*/false);
    }
    std::set<std::string_view> chosen;
    for (const LoraTarget& target : targets) {
      chosen.insert(target.module.path);
      load_target(target, adapter);
    }
    for (const AdapterHeader::Entry& entry : header_.entries) {
      if (chosen.count(entry.module) > 0) continue;
      const TensorInfo* any = entry.a != nullptr ? entry.a : entry.b != nullptr ? entry.b : entry.magnitude;
      const bool in_base =
          options_.modules.empty() || std::any_of(options_.modules.begin(), options_.modules.end(),
                                                  [&](const BaseModule& m) { return m.path == entry.module; });
      add_fault(
          fmt::format("tensor '{}' is extra: {}", printable(any->name, 200),
                      in_base ? "target_modules and layers do not choose its module" : "the model has no such module"));
    }
    for (const std::string& name : header_.foreign) {
      add_fault(fmt::format("tensor '{}' is extra: it is not part of a LoRA adapter", printable(name, 200)));
    }
    load_saved(adapter);
    return adapter;
  }

  std::string config_where() const {
    if (!header_.has_config) return header_.path;
    return (std::filesystem::path(header_.path).parent_path() / "adapter_config.json").string();
  }
  void add_fault(std::string line) {
    if (options_.partial) {
      relaxed_.push_back(std::move(line));
    } else {
      faults_.add_line(std::move(line));
    }
  }

  // Name under which a missing tensor would be found.
  std::string missing_name(const LoraTarget& target, bool a) const {
    if (header_.layout != AdapterLayout::kPeft) return target.module.path + (a ? ".lora_a" : ".lora_b");
    const bool embedding = target.module.kind == ModuleKind::kEmbedding;
    return peft_name(target.module.path, embedding ? (a ? "lora_embedding_A" : "lora_embedding_B")
                                                   : (a ? "lora_A.weight" : "lora_B.weight"));
  }

  // Checks one tensor and reads it in PEFT's orientation [rows, columns]; a vector has columns 0.
  bool read(const TensorInfo& info, int64_t rows, int64_t columns, const std::string& reason,
            std::vector<float>& values) {
    const bool transposed = header_.layout != AdapterLayout::kPeft && columns > 0;
    std::vector<int64_t> shape = {rows};
    if (columns > 0) shape = transposed ? std::vector<int64_t>{columns, rows} : std::vector<int64_t>{rows, columns};
    if (info.shape != shape) {
      add_fault(fmt::format("tensor '{}' has shape {}, expected {} ({})", printable(info.name, 200),
                            printable(shape_text(info.shape)), shape_text(shape), reason));
      return false;
    }
    if (!values_) return true;
    values.resize(static_cast<size_t>(info.num_elements()));
    read_as_f32(file_.bytes(info), info.dtype, values.data(),
                fmt::format("{}: tensor '{}'", header_.path, printable(info.name, 200)));
    if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
      broken_.add("tensor '{}' holds NaN or infinity", printable(info.name, 200));
      return false;
    }
    if (transposed) values = transpose(values, columns, rows);
    return true;
  }

  void load_target(const LoraTarget& target, Adapter& adapter) {
    const auto entry = std::lower_bound(
        header_.entries.begin(), header_.entries.end(), target.module.path,
        [](const AdapterHeader::Entry& e, const std::string& path) { return natural_less(e.module, path); });
    const bool found = entry != header_.entries.end() && entry->module == target.module.path;
    bool whole = true;
    for (const bool a : {true, false}) {
      if (!found || (a ? entry->a : entry->b) == nullptr) {
        add_fault(fmt::format("tensor '{}' is missing", missing_name(target, a)));
        whole = false;
      }
    }
    if (!whole) return;
    AdapterTensor tensor{target.module.path,
                         entry->embedding,
                         target.rank,
                         target.module.in,
                         target.module.out,
                         target.alpha,
                         target.scaling,
                         {},
                         {},
                         {}};
    const std::string sizes =
        fmt::format("rank {} by the config, in {}, out {} by the {}", target.rank, target.module.in, target.module.out,
                    options_.modules.empty() ? "other tensors" : "model");
    whole = read(*entry->a, tensor.rank, tensor.in, sizes, tensor.a) && whole;
    whole = read(*entry->b, tensor.out, tensor.rank, sizes, tensor.b) && whole;
    if (header_.config.use_dora) {
      if (entry->magnitude == nullptr) {
        add_fault(fmt::format("tensor '{}' is missing, and the config says use_dora",
                              peft_name(target.module.path, "lora_magnitude_vector")));
        whole = false;
      } else {
        whole = read(*entry->magnitude, tensor.out, 0, sizes, tensor.magnitude) && whole;
      }
    } else if (entry->magnitude != nullptr) {
      add_fault(fmt::format("tensor '{}' is extra: the config does not say use_dora",
                            printable(entry->magnitude->name, 200)));
    }
    if (whole) adapter.tensors.push_back(std::move(tensor));
  }

  void load_saved(Adapter& adapter) {
    for (const AdapterHeader::Saved& saved : header_.saved) {
      SavedTensor tensor{saved.name, saved.tensor->shape, {}, saved.trained};
      if (!options_.base_tensors.empty()) {
        const auto of_base = [&](std::string_view name) {
          return std::find_if(options_.base_tensors.begin(), options_.base_tensors.end(),
                              [&](const ExpectedTensor& t) { return t.name == name; });
        };
        auto base = of_base(saved.name);
        // A tied head has no tensor of its own in the model: it is the embedding.
        if (base == options_.base_tensors.end() && saved.name == "lm_head.weight")
          base = of_base("model.embed_tokens.weight");
        if (base == options_.base_tensors.end()) {
          add_fault(fmt::format("tensor '{}' is extra: the model has no '{}'", printable(saved.tensor->name, 200),
                                printable(saved.name, 200)));
          continue;
        }
        if (base->shape != tensor.shape) {
          add_fault(fmt::format("tensor '{}' has shape {}, the model's is {}", printable(saved.tensor->name, 200),
                                printable(shape_text(tensor.shape)), shape_text(base->shape)));
          continue;
        }
      }
      if (!values_ || !saved.trained) continue;  // a copy of the base (PEFT's base_layer) is not needed
      tensor.values.resize(static_cast<size_t>(saved.tensor->num_elements()));
      read_as_f32(file_.bytes(*saved.tensor), saved.tensor->dtype, tensor.values.data(),
                  fmt::format("{}: tensor '{}'", header_.path, printable(saved.tensor->name, 200)));
      if (!std::all_of(tensor.values.begin(), tensor.values.end(), [](float x) { return std::isfinite(x); })) {
        broken_.add("tensor '{}' holds NaN or infinity", printable(saved.tensor->name, 200));
        continue;
      }
      adapter.saved.push_back(std::move(tensor));
    }
    for (const std::string& name : header_.config.modules_to_save) {
      const bool stored = std::any_of(header_.saved.begin(), header_.saved.end(), [&](const AdapterHeader::Saved& s) {
        return saves_module(std::span(&name, 1), s.name.substr(0, s.name.rfind('.')));
      });
      if (!stored) add_fault(fmt::format("modules_to_save names '{}', and no tensor of it is stored", printable(name)));
    }
  }

  const AdapterHeader& header_;
  const LoadAdapterOptions& options_;
  SafetensorsFile file_;
  Faults faults_, broken_;
  std::vector<std::string> relaxed_;
  bool values_ = true;
};

}  // namespace

const AdapterTensor* Adapter::find(std::string_view module) const {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [&](const AdapterTensor& t) { return t.module == module; });
  return found == tensors.end() ? nullptr : &*found;
}

int64_t Adapter::num_parameters() const {
  size_t n = 0;
  for (const AdapterTensor& tensor : tensors) n += tensor.a.size() + tensor.b.size() + tensor.magnitude.size();
  for (const SavedTensor& tensor : saved) n += tensor.trained ? tensor.values.size() : 0;
  return static_cast<int64_t>(n);
}

std::vector<LoraTarget> adapter_targets(const AdapterHeader& header) {
  std::vector<BaseModule> modules;
  for (const AdapterHeader::Entry& entry : header.entries) {
    BaseModule module{entry.module, entry.embedding ? ModuleKind::kEmbedding : ModuleKind::kLinear, 0, 0};
    const bool transposed = header.layout != AdapterLayout::kPeft;
    if (entry.a != nullptr && entry.a->shape.size() == 2) module.in = entry.a->shape[transposed ? 0 : 1];
    if (entry.b != nullptr && entry.b->shape.size() == 2) module.out = entry.b->shape[transposed ? 1 : 0];
    modules.push_back(std::move(module));
  }
  LoraConfig config = header.config;
  if (config.target_modules.all_linear) {  // kinds are not known here
    config.target_modules = {};
    for (const BaseModule& module : modules) config.target_modules.names.push_back(module.path);
  }
  return resolve_targets(config, modules, header.path, /*training=*/false);
}

std::vector<std::string> adapter_faults(const AdapterHeader& header, std::span<const BaseModule> modules) {
  const LoadAdapterOptions options{.modules = modules, .partial = true};
  return Loader(header, options).faults();
}

Adapter load_adapter(const std::string& path, const LoadAdapterOptions& options) {
  const AdapterHeader header = read_adapter_header(path);
  return Loader(header, options).load();
}

std::string peft_name(std::string_view module, std::string_view part) {
  return fmt::format("base_model.model.{}.{}", module, part);
}

std::string peft_name_saved(const SavedTensor& t) {
  if (t.trained) return "base_model.model." + t.name;
  const size_t dot = t.name.rfind('.');
  return fmt::format("base_model.model.{}.base_layer{}", t.name.substr(0, dot), t.name.substr(dot));
}

void write_adapter(const std::string& folder, const Adapter& adapter, std::string_view readme, DType dtype) {
  adapter.config.validate();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  GRAFT_CHECK(!error, "{}: cannot create the folder: {}", folder, error.message());
  std::vector<TensorToWrite> list;
  std::map<std::string, const std::vector<float>*> values;
  const auto add = [&](std::string name, std::vector<int64_t> shape, const std::vector<float>& from) {
    GRAFT_CHECK(num_elements(shape) == static_cast<int64_t>(from.size()),
                "adapter tensor '{}' has {} values for shape {}", name, from.size(), shape_text(shape));
    values[name] = &from;
    list.push_back({std::move(name), dtype, std::move(shape), {}});
  };
  for (const AdapterTensor& t : adapter.tensors) {
    add(peft_name_a(t), {t.rank, t.in}, t.a);
    add(peft_name_b(t), {t.out, t.rank}, t.b);
    if (!t.magnitude.empty()) add(peft_name_magnitude(t), {t.out}, t.magnitude);
  }
  for (const SavedTensor& t : adapter.saved) add(peft_name_saved(t), t.shape, t.values);

  SafetensorsWriter writer(folder + "/adapter_model.safetensors", list, adapter.metadata);
  std::vector<std::byte> bytes;
  for (const TensorInfo& info : writer.tensors()) {
    const std::vector<float>& from = *values.at(info.name);
    bytes.resize(info.num_bytes());
    write_from_f32(from.data(), static_cast<int64_t>(from.size()), dtype, bytes.data());
    writer.write(info.name, bytes);
  }
  writer.commit();
  if (!readme.empty()) write_file(folder + "/README.md", readme);
  write_file(folder + "/adapter_config.json", lora_config_json(adapter.config).dump(2) + "\n");
}

}  // namespace graft
