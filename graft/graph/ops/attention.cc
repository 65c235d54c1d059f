#include "graft/kernels/attention.h"

#include <algorithm>

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"

namespace graft {
namespace {

template <typename T>
View<T, 3> heads(View<T, 2> x, int64_t head_dim) {
  return View<T, 3>(x.data(), x.extent(0), x.extent(1) / head_dim, head_dim);
}

// Descriptors of one run; kept per thread and reserved by prepare, so that running allocates nothing.
template <typename T>
struct Descriptors {
  std::vector<KeyRange<T>> ranges;
  std::vector<AttentionSequence<T>> sequences;
  void resize(size_t n) {
    ranges.resize(n);
    sequences.resize(n);
  }
  void reserve(size_t n) {
    ranges.reserve(n);
    sequences.reserve(n);
  }
};
template <typename T>
Descriptors<T>& descriptors() {
  thread_local Descriptors<T> d;
  return d;
}

void prepare(const Graph& g, const Node&, const RunSizes& capacity) {
  const auto n = static_cast<size_t>(capacity.sequences);
  g.dtype() == DType::kF64 ? descriptors<double>().reserve(n) : descriptors<float>().reserve(n);
}

template <typename T>
void describe_own_rows(const Run& run, const Node& node, View<const T, 3> k, View<const T, 3> v, Descriptors<T>& d) {
  const auto offsets = run.span<const int32_t>(node.inputs[3]);
  d.resize(static_cast<size_t>(run.sizes().sequences));
  for (size_t s = 0; s < d.sequences.size(); ++s) {
    const int64_t begin = offsets[s], length = offsets[s + 1] - begin;
    KeyRange<T> range;
    range.length = length;
    range.k = k.row(begin), range.k_token_stride = k.stride(0), range.k_head_stride = k.stride(1);
    range.v = v.row(begin), range.v_token_stride = v.stride(0), range.v_head_stride = v.stride(1);
    d.ranges[s] = range;
    d.sequences[s] = {begin, length, 0, std::span<const KeyRange<T>>(&d.ranges[s], 1)};
  }
}

// Appends the new rows to each sequence's cache; attention then reads the cache alone.
void describe_cache(const Run& run, const AttentionAttr& attr, View<const float, 3> k, View<const float, 3> v,
                    Descriptors<float>& d) {
  const auto cache = run.inputs().cache;
  d.resize(cache.size());
  for (size_t s = 0; s < cache.size(); ++s) {
    const CachedSequence& c = cache[s];
    float* key_blocks = c.key_blocks[static_cast<size_t>(attr.layer)];
    float* value_rows = c.value_rows[static_cast<size_t>(attr.layer)];
    const auto rows = [&](View<const float, 3> x) {
      return View<const float, 3>(x.row(c.row_begin), {c.num_rows, x.extent(1), x.extent(2)}, x.strides());
    };
    append_to_cache<float>(run.context(), rows(k), rows(v), c.position_begin, key_blocks, value_rows);
    KeyRange<float> range;
    range.length = c.position_begin + c.num_rows;
    range.key_blocks = true;
    range.k = key_blocks, range.v = value_rows;
    range.v_token_stride = attr.num_kv_heads * attr.head_dim, range.v_head_stride = attr.head_dim;
    d.ranges[s] = range;
    d.sequences[s] = {c.row_begin, c.num_rows, c.position_begin, std::span<const KeyRange<float>>(&d.ranges[s], 1)};
  }
}

template <typename T>
void run_attention(const Run& run, const Node& node) {
  const AttentionAttr& attr = node.attr<AttentionAttr>();
  const auto k = heads(run.view<const T>(node.inputs[1]), attr.head_dim);
  const auto v = heads(run.view<const T>(node.inputs[2]), attr.head_dim);
  Descriptors<T>& d = descriptors<T>();
  if constexpr (std::is_same_v<T, float>) {
    run.inputs().cache.empty() ? describe_own_rows<T>(run, node, k, v, d) : describe_cache(run, attr, k, v, d);
  } else {
    describe_own_rows<T>(run, node, k, v, d);
  }
  AttentionArgs<T> args;
  args.sequences = d.sequences;
  args.num_heads = attr.num_heads, args.num_kv_heads = attr.num_kv_heads, args.head_dim = attr.head_dim;
  args.window = attr.window, args.scale = attr.scale;
  args.q = heads(run.view<const T>(node.inputs[0]), attr.head_dim);
  args.o = heads(run.view<T>(node.outputs[0]), attr.head_dim);
  args.lse = View<T, 2>(run.span<T>(node.outputs[1]).data(), args.q.extent(0), attr.num_heads);
  attention<T>(run.context(), args);
}

// inputs: q, k, v, offsets, o, lse, do; outputs: dq, dk, dv
template <typename T>
void run_backward(const Run& run, const Node& node) {
  const AttentionAttr& attr = node.attr<AttentionAttr>();
  const auto in = [&](size_t i) { return heads(run.view<const T>(node.inputs[i]), attr.head_dim); };
  const auto out = [&](size_t i) { return heads(run.view<T>(node.outputs[i]), attr.head_dim); };
  AttentionBackwardArgs<T> args;
  args.sequence_offsets = run.span<const int32_t>(node.inputs[3]);
  args.num_heads = attr.num_heads, args.num_kv_heads = attr.num_kv_heads, args.head_dim = attr.head_dim;
  args.window = attr.window, args.scale = attr.scale;
  args.q = in(0), args.k = in(1), args.v = in(2), args.o = in(4), args.d_o = in(6);
  args.lse = run.span<const T>(node.inputs[5]);
  args.dq = out(0), args.dk = out(1), args.dv = out(2);
  attention_backward<T>(run.context(), args);
}

double attention_flops(const Graph&, const Node& node, const RunSizes& sizes) {
  const AttentionAttr& attr = node.attr<AttentionAttr>();
  const double keys =
      static_cast<double>(attr.window > 0 ? std::min(attr.window, sizes.max_length) : sizes.max_length) / 2;
  return 4.0 * static_cast<double>(sizes.tokens) * keys * static_cast<double>(attr.num_heads * attr.head_dim);
}

const Op kAttentionBackward = {
    .name = "attention_backward",
    .run = typed<run_backward<float>, run_backward<double>>,
    .scratch =
        [](const Graph&, const Node& node, const RunSizes& capacity, int threads) {
          const AttentionAttr& a = node.attr<AttentionAttr>();
          return attention_backward_scratch(threads, a.num_heads, a.num_kv_heads, a.head_dim, capacity.tokens,
                                            capacity.max_length);
        },
    .flops = [](const Graph& g, const Node& node,
                const RunSizes& sizes) { return 2.5 * attention_flops(g, node, sizes); },
};

void gradient(GradientBuilder& b, const Node& node) {
  const Value d_o = b.gradient(node.outputs[0]);
  if (!d_o) return;
  Graph& g = b.graph();
  const std::vector<Value> grads =
      g.add_node(
           kAttentionBackward,
           {node.inputs[0], node.inputs[1], node.inputs[2], node.inputs[3], node.outputs[0], node.outputs[1], d_o},
           node.attributes, {g.shape(node.inputs[0]), g.shape(node.inputs[1]), g.shape(node.inputs[2])})
          .outputs;
  for (size_t i = 0; i < 3; ++i) {
    if (b.needs(node.inputs[i])) b.add(node.inputs[i], grads[i]);
  }
}

const Op kAttention = {
    .name = "attention",
    .run = typed<run_attention<float>, run_attention<double>>,
    .gradient = gradient,
    .scratch =
        [](const Graph&, const Node& node, const RunSizes& capacity, int threads) {
          const AttentionAttr& a = node.attr<AttentionAttr>();
          return attention_scratch(threads, a.num_heads, a.num_kv_heads, a.head_dim, capacity.tokens,
                                   capacity.max_length);
        },
    .flops = attention_flops,
    .prepare = prepare,
};

}  // namespace

Value attention(Graph& g, Value q, Value k, Value v, Value sequence_offsets, const AttentionAttr& attr) {
  GRAFT_CHECK(g.shape(q).columns == attr.num_heads * attr.head_dim &&
                  g.shape(k).columns == attr.num_kv_heads * attr.head_dim && g.shape(v) == g.shape(k) &&
                  attr.num_kv_heads > 0 && attr.num_heads % attr.num_kv_heads == 0,
              "attention: q {}, k {}, v {} do not fit {} heads, {} key/value heads of {}", to_string(g.shape(q)),
              to_string(g.shape(k)), to_string(g.shape(v)), attr.num_heads, attr.num_kv_heads, attr.head_dim);
  Shape kv = g.shape(q);
  kv.columns = g.shape(k).columns;
  GRAFT_CHECK(g.shape(k) == kv, "attention: k is {}, expected {} for q {}", to_string(g.shape(k)), to_string(kv),
              to_string(g.shape(q)));
  g.set_rule(sequence_offsets, {.kind = IndexRule::Kind::kOffsets, .rows = g.shape(q).kind});
  Shape lse = g.shape(q);
  lse.columns = attr.num_heads;
  return g.add_node(kAttention, {q, k, v, sequence_offsets}, attr, {g.shape(q), lse}, "attention").outputs[0];
}

}  // namespace graft
