#include "graft/models/adapter.h"

#include <algorithm>
#include <cmath>

#include "graft/base/error.h"
#include "graft/base/random.h"
#include "graft/formats/adapter.h"
#include "graft/kernels/dora.h"
#include "graft/kernels/random_fill.h"

namespace graft {
namespace {

// Draws of tensor `name`: kaiming is torch's kaiming_uniform_(a = sqrt 5), U(-1/sqrt(in), 1/sqrt(in)); the others are normal.
void draw_a(Context& context, AdapterMatrix& a, std::string_view init, uint64_t seed, const std::string& name) {
  const RandomStream stream(seed, stream_hash(name));
  const double in = static_cast<double>(a.columns), rank = static_cast<double>(a.rows);
  if (init == "kaiming") {
    const double bound = 1.0 / std::sqrt(in);
    fill_uniform<float>(context, stream, -bound, bound, a.values());
  } else {
    const double std = init == "gaussian"        ? 1.0 / rank
                       : init == "gaussian_rank" ? 1.0 / std::sqrt(rank)
                                                 : 1.0 / std::sqrt(in);
    fill_normal<float>(context, stream, std, a.values());
  }
}

AdapterMatrix copy_of(Context& context, const Parameter& p) {
  AdapterMatrix m(p.shape[0], p.is_matrix() ? p.shape[1] : 1, !p.is_matrix());
  p.copy(context, 0, p.shape[0], m.values().data());
  return m;
}

// The base tensor behind a module to save; a tied head is the embedding.
const Parameter& base_of(const Model& model, const std::string& path) {
  const auto& parameters = model.parameters();
  auto it = parameters.find(path + ".weight");
  if (it == parameters.end() && path == "lm_head") it = parameters.find("model.embed_tokens.weight");
  GRAFT_CHECK(it != parameters.end(), "modules_to_save: the model has no '{}'", printable(path));
  return it->second;
}

constexpr std::string_view kEmbedding = "model.embed_tokens";

std::vector<float> to_vector(const AdapterMatrix& m) { return {m.values().begin(), m.values().end()}; }

AdapterMatrix from_vector(const std::vector<float>& values, int64_t rows, int64_t columns, bool vector = false) {
  AdapterMatrix m(rows, columns, vector);
  std::copy(values.begin(), values.end(), m.values().begin());
  return m;
}

std::vector<std::string> saved_paths(const LoraConfig& config, const ModelConfig& model) {
  std::vector<std::string> paths;
  std::vector<std::string> known = {"lm_head"};
  for (const ExpectedTensor& t : family_of(model).tensors(model)) {
    if (t.name.ends_with(".weight")) known.push_back(t.name.substr(0, t.name.size() - 7));
  }
  for (const std::string& path : known) {
    if (saves_module(config.modules_to_save, path) && std::find(paths.begin(), paths.end(), path) == paths.end()) {
      paths.push_back(path);
    }
  }
  for (const std::string& path : paths) {
    GRAFT_CHECK(path == "lm_head" || path == "model.embed_tokens" || path.ends_with("norm"),
                "modules_to_save: '{}' is not supported, expected lm_head, embed_tokens or norms", path);
  }
  return paths;
}

}  // namespace

std::vector<float> transposed(const std::vector<float>& m, int64_t rows, int64_t columns) {
  std::vector<float> out(m.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      out[static_cast<size_t>(j * rows + i)] = m[static_cast<size_t>(i * columns + j)];
    }
  }
  return out;
}

std::vector<BaseModule> base_modules(const ModelConfig& config) {
  std::vector<BaseModule> modules;
  for (const LinearModule& m : family_of(config).modules(config)) {
    modules.push_back({m.path, m.kind, m.in_features, m.out_features});
  }
  modules.push_back({"model.embed_tokens", ModuleKind::kEmbedding, config.vocab_size, config.hidden_size});
  return modules;
}

AdapterSites adapter_sites(const LoraConfig& config, const ModelConfig& model, std::string_view where, bool training) {
  AdapterSites sites;
  const std::vector<BaseModule> modules = base_modules(model);
  for (const LoraTarget& target : resolve_targets(config, modules, where, training)) {
    sites.modules.push_back({target.module.path, target.rank, target.scaling, config.use_dora});
  }
  sites.saved_modules = saved_paths(config, model);
  return sites;
}

AdapterWeights AdapterWeights::create(Context& context, const Model& model, const LoraConfig& config,
                                      std::string_view init, uint64_t seed) {
  AdapterWeights w;
  w.config = config;
  w.sites = adapter_sites(config, model.config(), "LoRA config", true);
  std::map<std::string, LinearModule> modules;
  for (const LinearModule& m : model.family().modules(model.config())) modules[m.path] = m;
  for (const AdapterSites::Module& site : w.sites.modules) {
    if (site.path == kEmbedding) {  // as PEFT: A = 0, B normal
      AdapterMatrix a(model.config().vocab_size, site.rank), b(model.config().hidden_size, site.rank);
      fill_normal<float>(context, RandomStream(seed, stream_hash(site.path + ".lora_B")), 1.0,
                         b.values().first(static_cast<size_t>(b.rows * b.columns)));
      if (site.dora) {
        AdapterMatrix magnitude(b.rows, 1, true);
        const Operand<float> base = base_of(model, site.path).operand();
        context.reserve(dora_column_norm_scratch(b.rows, site.rank));
        dora_column_norm<float>(context, base, View<const float, 2>(a.values().data(), a.rows, a.columns),
                                View<const float, 2>(b.values().data(), b.rows, b.columns), 0.0f, magnitude.values());
        w.tensors[site.path + ".lora_magnitude_vector"] = std::move(magnitude);
      }
      w.tensors[site.path + ".lora_A"] = std::move(a);
      w.tensors[site.path + ".lora_B"] = std::move(b);
      continue;
    }
    const LinearModule& module = modules.at(site.path);
    AdapterMatrix a(site.rank, module.in_features), b(module.out_features, site.rank);
    draw_a(context, a, init, seed, site.path + ".lora_A");
    if (site.dora) {
      AdapterMatrix magnitude(module.out_features, 1, true);
      const Operand<float> base = base_of(model, site.path).operand();
      context.reserve(dora_norm_scratch(context.num_threads(), module.in_features, site.rank));
      dora_norm<float>(context, base, View<const float, 2>(a.values().data(), a.rows, a.columns),
                       View<const float, 2>(b.values().data(), b.rows, b.columns), 0.0f, magnitude.values());
      w.tensors[site.path + ".lora_magnitude_vector"] = std::move(magnitude);
    }
    w.tensors[site.path + ".lora_A"] = std::move(a);
    w.tensors[site.path + ".lora_B"] = std::move(b);
  }
  for (const std::string& path : w.sites.saved_modules) {
    w.tensors[path + ".weight"] = copy_of(context, base_of(model, path));
  }
  return w;
}

AdapterWeights AdapterWeights::load(Context& context, const Model& model, const std::string& path, bool partial) {
  const std::vector<BaseModule> modules = base_modules(model.config());
  const std::vector<ExpectedTensor> tensors = model.family().tensors(model.config());
  LoadAdapterOptions options;
  options.modules = modules;
  options.base_tensors = tensors;
  options.partial = partial;
  Adapter adapter = load_adapter(path, options);
  AdapterWeights w;
  w.config = adapter.config;
  for (const AdapterTensor& t : adapter.tensors) {
    w.sites.modules.push_back({t.module, t.rank, t.scaling, !t.magnitude.empty()});
    w.tensors[t.module + ".lora_A"] =
        t.embedding ? from_vector(transposed(t.a, t.rank, t.in), t.in, t.rank) : from_vector(t.a, t.rank, t.in);
    w.tensors[t.module + ".lora_B"] = from_vector(t.b, t.out, t.rank);
    if (!t.magnitude.empty()) w.tensors[t.module + ".lora_magnitude_vector"] = from_vector(t.magnitude, t.out, 1, true);
  }
  for (const SavedTensor& t : adapter.saved) {
    if (!t.trained || !t.name.ends_with(".weight")) continue;
    const std::string module = t.name.substr(0, t.name.size() - 7);
    w.sites.saved_modules.push_back(module);
    const bool vector = t.shape.size() == 1;
    w.tensors[t.name] = from_vector(t.values, t.shape[0], vector ? 1 : t.shape[1], vector);
  }
  if (partial) {  // what the file does not bring stays the base's
    for (const std::string& saved : saved_paths(w.config, model.config())) {
      if (w.sites.saves(saved)) continue;
      w.sites.saved_modules.push_back(saved);
      w.tensors[saved + ".weight"] = copy_of(context, base_of(model, saved));
    }
  }
  return w;
}

void AdapterWeights::save(const std::string& folder, const std::map<std::string, std::string>& metadata) const {
  Adapter adapter;
  adapter.config = config;
  adapter.metadata = metadata;
  for (const AdapterSites::Module& site : sites.modules) {
    const AdapterMatrix &a = tensors.at(site.path + ".lora_A"), &b = tensors.at(site.path + ".lora_B");
    AdapterTensor t;
    t.module = site.path;
    t.embedding = site.path == kEmbedding;
    t.rank = site.rank, t.in = t.embedding ? a.rows : a.columns, t.out = b.rows;
    t.scaling = site.scaling;
    t.a = t.embedding ? transposed(to_vector(a), a.rows, a.columns) : to_vector(a);
    t.b = to_vector(b);
    if (site.dora) t.magnitude = to_vector(tensors.at(site.path + ".lora_magnitude_vector"));
    adapter.tensors.push_back(std::move(t));
  }
  for (const std::string& path : sites.saved_modules) {
    const AdapterMatrix& m = tensors.at(path + ".weight");
    adapter.saved.push_back({path + ".weight",
                             m.is_vector ? std::vector<int64_t>{m.rows} : std::vector<int64_t>{m.rows, m.columns},
                             to_vector(m), true});
  }
  write_adapter(folder, adapter);
}

void AdapterWeights::bind(Plan& plan, const DecoderGraph& graph, size_t slot) const {
  // Both in the order of names: switching adapters is a walk over pointers, not hundreds of searches.
  auto tensor = tensors.begin();
  for (const auto& [name, value] : graph.adapter_parameters.at(slot)) {
    while (tensor != tensors.end() && tensor->first != name) ++tensor;
    GRAFT_CHECK(tensor != tensors.end(), "the adapter has no tensor '{}'", name);
    plan.bind(value, tensor->second.data.data());
  }
}

int64_t AdapterWeights::num_parameters() const {
  int64_t n = 0;
  for (const auto& [name, m] : tensors) n += m.rows * m.columns;
  return n;
}

}  // namespace graft
