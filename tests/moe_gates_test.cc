// The gradient gates of moe.md, section 4: the whole model in f64 against central differences, and the gates themselves against faults that
// published implementations have. A fault is put into the graph after it is built, so that the program holds no switch for it.
#include <functional>

#include "graft/base/file.h"
#include "graft/base/random.h"
#include "graft/graph/plan.h"
#include "graft/kernels/optimizer.h"
#include "graft/models/init.h"
#include "graft/models/model.h"
#include "tests/support/golden.h"

namespace graft::test {
namespace {

// ---- faults ----

void run_zeros(const Run& run, const Node& node) {
  for (const Value out : node.outputs) {
    const auto values = run.span<double>(out);
    std::fill(values.begin(), values.end(), 0.0);
  }
}
void run_copy(const Run& run, const Node& node) {
  const auto from = run.span<const double>(node.inputs[0]);
  std::copy(from.begin(), from.end(), run.span<double>(node.outputs[0]).begin());
}
void run_sum(const Run& run, const Node& node) {
  const auto a = run.span<const double>(node.inputs[0]), b = run.span<const double>(node.inputs[1]);
  const auto y = run.span<double>(node.outputs[0]);
  for (size_t i = 0; i < y.size(); ++i) y[i] = a[i] + b[i];
}
// RMSNorm's backward with r to the fourth. inputs: dy, x, weight, rrms, residual or none, dweight or none.
void run_extra_r(const Run& run, const Node& node) {
  const auto dy = run.view<const double>(node.inputs[0]), x = run.view<const double>(node.inputs[1]);
  const auto weight = run.span<const double>(node.inputs[2]), rrms = run.span<const double>(node.inputs[3]);
  const auto residual = run.view<const double>(node.inputs[4]);
  const auto dx = run.view<double>(node.outputs[0]);
  const auto dweight = run.span<double>(node.inputs[5]);
  const int64_t n = x.extent(1);
  for (int64_t i = 0; i < x.extent(0); ++i) {
    const double r = rrms[static_cast<size_t>(i)];
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) {
      sum += weight[static_cast<size_t>(j)] * dy(i, j) * x(i, j);
      if (!dweight.empty()) dweight[static_cast<size_t>(j)] += dy(i, j) * x(i, j) * r;
    }
    for (int64_t j = 0; j < n; ++j) {
      const double passing = residual.data() == nullptr ? 0 : residual(i, j);
      const double g = weight[static_cast<size_t>(j)] * dy(i, j);
      dx(i, j) = passing + r * g - x(i, j) * (r * r * r * r / static_cast<double>(n)) * sum;
    }
  }
}

const Op kZeros = {.name = "zeros", .run = run_zeros}, kCopy = {.name = "copy", .run = run_copy},
         kSum = {.name = "sum", .run = run_sum}, kExtraR = {.name = "extra_r", .run = run_extra_r};

enum Fault : unsigned {
  kNormFirst = 1,
  kNoInverseRope = 2,
  kNoRouterGradient = 4,
  kCubeTooMany = 8,
  kNoAuxGradient = 16
};

// How many places a fault changed: none would prove nothing.
int inject(Graph& g, unsigned faults) {
  int changed = 0;
  for (Node& node : g.nodes()) {
    if (!node.backward) continue;
    const std::string op = node.op->name;
    if (op == "rope" && (faults & kNoInverseRope) != 0) node.op = &kCopy, ++changed;
    if (op == "route_backward" && (faults & kNoRouterGradient) != 0) node.op = &kZeros, ++changed;
    if (op == "route_backward" && (faults & kNoAuxGradient) != 0) node.inputs[5] = Value{}, ++changed;
    if (op == "rms_norm_backward" && (faults & kCubeTooMany) != 0) node.op = &kExtraR, node.in_place.clear(), ++changed;
  }
  if ((faults & kNormFirst) == 0) return changed;
  // dx = dh + Sub^T(Norm^T(dh)): what a sub-layer's backward reads goes through its norm first.
  const auto is_norm = [](const Node& node) {
    const std::string op = node.op->name;
    return node.backward && node.inputs.size() == 6 && node.inputs[4] && (op == "rms_norm_backward" || op == "extra_r");
  };
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    if (!is_norm(g.nodes()[i])) continue;
    const Value dh = g.nodes()[i].inputs[4];
    size_t first = i;
    for (size_t k = i; k-- > 0;) {
      const auto& inputs = g.nodes()[k].inputs;
      if (g.nodes()[k].backward && std::find(inputs.begin(), inputs.end(), dh) != inputs.end()) first = k;
    }
    const Value through = g.activation(g.shape(dh), g.dtype(), "norm first");
    Node norm = g.nodes()[i];
    norm.inputs[0] = dh, norm.inputs[4] = Value{}, norm.outputs = {through}, norm.in_place.clear();
    for (size_t k = first; k < i; ++k) {
      for (Value& input : g.nodes()[k].inputs) {
        if (input == dh) input = through;
      }
    }
    Node& sum = g.nodes()[i];
    sum.op = &kSum, sum.inputs = {sum.inputs[0], dh}, sum.in_place.clear();
    g.nodes().insert(g.nodes().begin() + static_cast<ptrdiff_t>(first), std::move(norm));
    ++i, ++changed;
  }
  return changed;
}

// ---- the model in f64 ----

struct Variant {
  std::string name;
  int64_t hidden, heads, kv_heads, head_dim, experts, top_k, width, vocab, batch, seq;
  bool interleaved, tied;
  double ntk = 1, smoothing = 0;
  bool ignored = false;  // some targets are
};

class Exact {
 public:
  Exact(const Variant& v, uint64_t seed, unsigned faults) {
    Json json = {{"model_type", "graft_moe"},
                 {"vocab_size", v.vocab},
                 {"hidden_size", v.hidden},
                 {"intermediate_size", v.width},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", v.heads},
                 {"num_key_value_heads", v.kv_heads},
                 {"head_dim", v.head_dim},
                 {"num_local_experts", v.experts},
                 {"num_experts_per_tok", v.top_k},
                 {"rope_interleaved", v.interleaved},
                 {"tie_word_embeddings", v.tied},
                 {"rope_theta", 10000.0},
                 {"max_position_embeddings", 64}};
    if (v.ntk > 1) json["rope_scaling"] = {{"rope_type", "ntk"}, {"factor", v.ntk}};
    write_file(dir_ / "config.json", json.dump());
    InitConfig init;
    init.config = dir_ / "config.json", init.out = dir_ / "model", init.seed = seed;
    init_model(machine_.context, init);
    ModelLoadOptions load;
    load.f64 = true;
    model_ = Model::load(machine_.context, ModelFolder::open(dir_ / "model", supported_model_types()), load);
    DecoderOptions options;
    options.dtype = DType::kF64, options.output = DecoderOutput::kTrain, options.train_base = true;
    options.label_smoothing = v.smoothing;
    options.aux_coef = aux_coef_, options.z_coef = z_coef_;
    graph_ = model_.family().build(model_.config(), options);
    changed_ = inject(graph_.graph, faults);
    for (int64_t s = 0; s < v.batch; ++s) {
      offsets_.push_back(static_cast<int32_t>(s * v.seq));
      for (int64_t t = 0; t < v.seq; ++t) {
        const int64_t i = s * v.seq + t;
        ids_.push_back(static_cast<int32_t>(i % v.vocab)), positions_.push_back(static_cast<int32_t>(t));
        if (v.ignored && i % 4 == 1) continue;
        label_rows_.push_back(static_cast<int32_t>(i)), labels_.push_back(static_cast<int32_t>((i + 1) % v.vocab));
      }
    }
    offsets_.push_back(static_cast<int32_t>(v.batch * v.seq));
    weights_.assign(labels_.size(), 1.0 / static_cast<double>(labels_.size()));
    PlanOptions plan;
    plan.capacity = {v.batch * v.seq, static_cast<int64_t>(labels_.size()), v.batch, v.seq};
    plan.num_threads = machine_.context.num_threads();
    plan_ = Plan::compile(graph_.graph, plan);
    plan_.prepare(machine_.context);
    model_.bind(plan_, graph_);
    for (const auto& [name, value] : graph_.parameters) {
      const Value gradient = graph_.graph.info(value).gradient;
      auto& memory = gradients_[name];
      memory.resize(static_cast<size_t>(graph_.graph.shape(value).elements(plan.capacity)));
      plan_.bind(gradient, memory.data());
    }
    plan_.bind(graph_.ids, ids_.data()), plan_.bind(graph_.positions, positions_.data());
    plan_.bind(graph_.sequence_offsets, offsets_.data()), plan_.bind(graph_.label_rows, label_rows_.data());
    plan_.bind(graph_.labels, labels_.data()), plan_.bind(graph_.label_weights, weights_.data());
    plan_.bind(graph_.loss, &loss_);
    routers_.resize(static_cast<size_t>(graph_.graph.shape(graph_.router_values).fixed_rows));
    plan_.bind(graph_.router_values, routers_.data()), plan_.bind(graph_.router_scale, &one_);
    rope_ = model_.rope_table(v.seq);
    inputs_.sizes = plan.capacity, inputs_.rope = &rope_;
  }

  double run() {
    for (auto& [name, gradient] : gradients_) std::fill(gradient.begin(), gradient.end(), 0.0);
    plan_.run(machine_.context, inputs_);
    return loss_ + aux_coef_ * routers_[0] + z_coef_ * routers_[1];
  }
  std::span<double> values(const std::string& name) {  // f64 matrices lie in rows
    Parameter& p = model_.parameters().at(name);
    return p.is_matrix() ? std::span<double>(static_cast<double*>(p.weight.mutable_data()), gradients_.at(name).size())
                         : p.vector.as<double>();
  }
  const std::map<std::string, std::vector<double>>& gradients() const { return gradients_; }
  int changed() const { return changed_; }

 private:
  TempDir dir_;
  Machine machine_;
  Model model_;
  DecoderGraph graph_;
  Plan plan_;
  RopeTable rope_;
  RunInputs inputs_;
  std::vector<int32_t> ids_, positions_, offsets_, label_rows_, labels_;
  std::vector<double> weights_, routers_;
  std::map<std::string, std::vector<double>> gradients_;
  double loss_ = 0, one_ = 1;
  const double aux_coef_ = 0.01, z_coef_ = 0.001;
  int changed_ = 0;
};

// The gate: the largest error of a tensor's gradient along a random direction, beside what a random direction is expected to give.
double worst_difference(const Variant& v, unsigned faults, std::string* where = nullptr) {
  Exact model(v, 42, faults);
  EXPECT_TRUE(faults == 0 || model.changed() > 0) << v.name;
  EXPECT_TRUE(std::isfinite(model.run()));
  const auto gradients = model.gradients();
  double worst = 0;
  for (const auto& [name, gradient] : gradients) {
    const std::span<double> values = model.values(name);
    const std::vector<double> kept(values.begin(), values.end());
    const RandomStream stream(9, stream_hash(name));
    double want = 0, squares = 0;
    for (size_t i = 0; i < gradient.size(); ++i) {
      want += gradient[i] * (stream.uniform53(i) * 2 - 1), squares += gradient[i] * gradient[i];
    }
    const double h = 1e-5;
    const auto at = [&](double step) {
      for (size_t i = 0; i < kept.size(); ++i) values[i] = kept[i] + step * (stream.uniform53(i) * 2 - 1);
      return model.run();
    };
    const double difference = (at(h) - at(-h)) / (2 * h);
    std::copy(kept.begin(), kept.end(), values.begin());
    // An expert without tokens has no gradient, and no difference.
    const double scale = std::max({std::fabs(difference), std::sqrt(squares / 3), 1e-9});
    const double error = std::fabs(difference - want) / scale;
    if (error > worst) {
      worst = error;
      if (where != nullptr) *where = v.name + " " + name;
    }
  }
  return worst;
}

// moe.md: the four variants its formulas were checked on.
const std::vector<Variant>& variants() {
  static const std::vector<Variant> list = {
      {"MQA, neighbours, untied", 24, 4, 1, 6, 5, 2, 20, 37, 2, 7, true, false},
      {"GQA, halves, tied, NTK", 24, 4, 2, 6, 5, 2, 20, 37, 2, 7, false, true, 8},
      {"GQA, neighbours, untied, NTK, smoothing", 24, 4, 2, 6, 5, 2, 20, 37, 2, 7, true, false, 8, 0.1},
      {"MHA, halves, tied, smoothing, ignored targets", 24, 4, 4, 6, 5, 2, 20, 37, 2, 7, false, true, 1, 0.1, true}};
  return list;
}

TEST(MoeGates, WholeModelAgainstDifferences) {
  Figures figures;
  for (const Variant& v : variants()) {
    std::string where = v.name;
    const double worst = worst_difference(v, 0, &where);
    // moe.md asks for 1e-6; its own check reached 3.1e-7 with the same step.
    figures.check("gradient against central differences, relative", where, worst, 1e-6);
  }
}

TEST(MoeGates, EveryFaultIsCaught) {
  const std::pair<std::string, unsigned> faults[] = {{"norm before sub-layer", kNormFirst},
                                                     {"no inverse rotation", kNoInverseRope},
                                                     {"no router gradient", kNoRouterGradient},
                                                     {"a fourth r", kCubeTooMany},
                                                     {"no auxiliary gradient", kNoAuxGradient}};
  for (const auto& [name, fault] : faults) {
    for (const Variant& v : variants()) {
      // A thousand times the gate's bar: what a fault leaves is no rounding.
      EXPECT_GT(worst_difference(v, fault), 1e-3) << name << ", " << v.name;
    }
  }
}

double cosine(const std::map<std::string, std::vector<double>>& a,
              const std::map<std::string, std::vector<double>>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (const auto& [name, x] : a) {
    const auto& y = b.at(name);
    for (size_t i = 0; i < x.size(); ++i) ab += x[i] * y[i], aa += x[i] * x[i], bb += y[i] * y[i];
  }
  return ab / std::sqrt(aa * bb);
}

// How far each fault turns the gradient of the tiny model; moe.md's figures are of other draws of the same model.
TEST(MoeGates, CosinesOfTheFaults) {
  const Variant tiny = {"tiny", 64, 4, 1, 16, 4, 2, 256, 1000, 2, 8, true, false};
  Exact right(tiny, 42, 0);
  right.run();
  const unsigned three = kNormFirst | kNoInverseRope | kNoRouterGradient;
  const std::tuple<std::string, unsigned, double> faults[] = {{"norm before sub-layer", kNormFirst, 0.70},
                                                              {"no inverse rotation", kNoInverseRope, 0.90},
                                                              {"no router gradient", kNoRouterGradient, 0.89},
                                                              {"a fourth r", kCubeTooMany, 0.89},
                                                              {"the first three", three, 0.56},
                                                              {"all four", three | kCubeTooMany, 0.38}};
  for (const auto& [name, fault, listed] : faults) {
    Exact wrong(tiny, 42, fault);
    wrong.run();
    const double got = cosine(right.gradients(), wrong.gradients());
    RecordProperty("figure: cosine, " + name, fmt::format("{:.2f}, listed {:.2f}", got, listed));
    EXPECT_LT(got, 0.99) << name;
    EXPECT_NEAR(got, listed, 0.15) << name;  // the spread of the draw
  }
}

TEST(MoeGates, DecayInsideTheRootIsCaught) {
  Machine machine;
  const AdamWStep step = {1e-3, 0.9, 0.95, 1e-8, 0.1, 1, 1.0};
  const std::vector<double> gradient = {1e-3, -2e-5, 3e-7, 0.5};
  std::vector<double> parameter = {0.5, -0.25, 1, 2}, m(4), v(4);
  const std::vector<double> before = parameter;
  adamw<double>(machine.context, step, gradient, parameter, m, v);
  const auto after = [&](size_t i, bool inside) {  // the first step: m̂ = g, v̂ = g^2
    const double g = gradient[i], root = inside ? std::sqrt(g * g + step.eps) : std::fabs(g) + step.eps;
    return before[i] - step.lr * (g / root + step.weight_decay * before[i]);
  };
  double right = 0, wrong = 0;
  for (size_t i = 0; i < 4; ++i) {
    right = std::max(right, std::fabs(parameter[i] - after(i, false)));
    wrong = std::max(wrong, std::fabs(parameter[i] - after(i, true)));
  }
  EXPECT_LE(right, 1e-12);  // a few roundings of numbers of order one
  EXPECT_GT(wrong, 1e-4);   // most of a step, where the gradient is below 1e-4
}

}  // namespace
}  // namespace graft::test
