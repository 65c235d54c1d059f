#pragma once

#include <vector>

#include "graft/graph/graph.h"
#include "graft/kernels/gemm.h"

// Every op the graph has, as a function that appends it and returns its outputs. What an op computes stands in its kernel's
// header; each lives in graph/ops/NAME.cc with its shape rule, gradient rule and cost.

namespace graft {

// y = a + b, both [rows, columns].
Value add(Graph& g, Value a, Value b);

// y[t] = table[ids[t]]: ids i32 [tokens], table a weight or bound [vocab, hidden]. The row `frozen` gets no gradient here,
// as under PyTorch's padding_idx; -1: all rows do.
Value embedding(Graph& g, Value ids, Value table, int32_t frozen = -1);

// RMSNorm over groups of columns / groups features: groups > 1 norms every head by itself. weight [columns / groups].
Value rms_norm(Graph& g, Value x, Value weight, double eps, int64_t groups = 1);

// One adapter of one projection: A [rank, in], B [out, rank]; y += scaling * (x A^T) B^T.
struct AdapterPair {
  Value a, b;
  double scaling = 1;
};

// h = scaling * x A^T for the adapters of projections that share x, side by side: [rows, sum of ranks]. adapters[target][slot]: slot s holds rows
// adapter_offsets[s] … adapter_offsets[s + 1] (i32 [slots + 1]; without offsets there is one slot with all rows). Slots of a target may differ in
// rank: the target takes the widest, and what a slot or a row has no adapter for is 0.
// The gradient that readers of h hand back is that of x A^T: times the scaling.
Value lora_down(Graph& g, Value x, const std::vector<std::vector<AdapterPair>>& adapters, Value adapter_offsets);

// y_i = x W_i^T + h_i B_i^T + bias_i + residual_i for projections that share x.
struct Projection {
  Value weight;                       // a weight or bound [out, in]
  Value bias;                         // bound [out, 1] or none
  Value residual;                     // [rows, out] or none
  std::vector<AdapterPair> adapters;  // per slot, or empty
};
std::vector<Value> projections(Graph& g, Compute compute, Value x, const std::vector<Projection>& outputs, Value h,
                               Value adapter_offsets);

// y = x + scaling * A[ids] B^T: the adapter of an embedding. A is held by token, [vocab, rank] (PEFT's lora_embedding_A transposed), B [hidden, rank].
// `frozen` as above, of A.
Value lora_embedding(Graph& g, Value ids, Value x, const AdapterPair& adapter, int32_t frozen = -1);

// norm[o] = ||W[o] + scaling B[o] A||, no gradient (DoRA holds it constant).
Value dora_norm(Graph& g, Value weight, const AdapterPair& adapter);
// norm[o] = ||table[:, o] + scaling (A B^T)[:, o]|| of an embedding's adapter (A by token), no gradient: [hidden, 1].
Value dora_column_norm(Graph& g, Value table, const AdapterPair& adapter);
// y = z * magnitude / norm + bias; magnitude, norm, bias [columns, 1]; bias may be none.
Value column_scale(Graph& g, Value z, Value magnitude, Value norm, Value bias);

// Inverted dropout; the draw is named by the stream's name, the update and row_keys (u64 [tokens]).
Value dropout(Graph& g, Value x, Value row_keys, double p, uint64_t seed, const std::string& stream);

// Rotary embedding of x [tokens, heads * head_dim] by positions i32 [tokens]; the table comes with the run.
Value rope(Graph& g, Value x, Value positions, int64_t head_dim, bool interleaved);

// Ragged causal attention. q [tokens, heads * head_dim], k and v [tokens, kv_heads * head_dim], sequence_offsets i32 [sequences + 1]. With a cache
// in the run, k and v are appended to it and attention reads it.
struct AttentionAttr {
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0, window = 0, layer = 0;
  double scale = 0;
};
Value attention(Graph& g, Value q, Value k, Value v, Value sequence_offsets, const AttentionAttr& attr);

// silu(gate) * up.
Value swiglu(Graph& g, Value gate, Value up);

// y = x * sigmoid(z) + residual, a gate z [rows, 1] for each row (Qwen2-MoE's shared expert); residual may be none.
Value row_gate(Graph& g, Value x, Value z, Value residual);

// The router of a mixture of experts (kernels/moe_route.h) on its logits [tokens, experts]. With a capacity factor c > 0 an expert takes at
// most ceil(c * tokens * top_k / experts) tokens.
struct RouteAttr {
  int64_t top_k = 1;
  bool renormalize = true;
  double capacity_factor = 0;
};
struct Routing {
  Value logits, weights;         // [tokens, experts], [tokens, top_k]
  Value experts, offsets, rows;  // i32 [tokens, top_k], [experts + 1, 1], [tokens, top_k]
  Value
      statistics;  // [2 experts + 2, 1]: mean p, mean lse^2, share of assignments dropped, share of assignments (no gradient)
};
Routing route(Graph& g, Value logits, const RouteAttr& attr);

// What a run adds to its loss for the routers of all layers, by their statistics. With f_e an expert's share of the assignments and P_e its mean p:
//   layers: aux = sum over layers of E sum_e f_e P_e (moe.md 2.8); joint: E K sum_e mean_l(f_e) mean_l(P_e), transformers' load_balancing_loss_func
//   z = sum over layers of mean lse^2
// values f64, written: aux, z, mean share dropped, then f of each layer. The gradients, with `train`, are of scale * (aux_coef * aux + z_coef * z),
// scale f64 [1] bound: a micro-batch's share of its update. f is a constant.
struct RouterLossAttr {
  static constexpr size_t kAux = 0, kZ = 1, kDropped = 2, kShares = 3;
  int64_t num_experts = 1, top_k = 1;
  double aux_coef = 0, z_coef = 0;
  bool joint = false, train = false;
};
void router_loss(Graph& g, const std::vector<Value>& statistics, Value scale, Value values, const RouterLossAttr& attr);

// y = residual + sum over a token's experts, ascending, of w * down(silu(gate(x)) * up(x)), as products of all experts at once
// (kernels/moe_gemm.h). Adapters of experts may differ in rank and be missing.
struct ExpertProjection {
  Value weight;
  AdapterPair adapter;
};
struct ExpertWeights {
  ExpertProjection gate, up, down;
};
Value experts(Graph& g, Compute compute, Value x, const Routing& routing, const std::vector<ExpertWeights>& weights,
              Value residual);

// y[i] = x[rows[i]]: rows i32 [labels], ascending.
Value gather_rows(Graph& g, Value x, Value rows);

// Output head and cross-entropy (kernels/loss.h). x [labels, hidden]; labels i32, weights f64; loss: bound f64 [1], written. With `train` the
// gradient starts here. h: the head's LoRA rows or none; magnitude and norm [vocab, 1]: the head's DoRA, or none.
// Returns nll [labels, 1].
struct HeadLossAttr {
  double label_smoothing = 0;
  Compute compute = Compute::kF32;
  int64_t chunk_rows = 64;
  bool train = false;
  double lora_scaling = 1;
};
Value head_loss(Graph& g, Value x, Value head, Value labels, Value weights, Value loss, Value h, Value lora_b,
                const HeadLossAttr& attr, Value magnitude = {}, Value norm = {});

}  // namespace graft
