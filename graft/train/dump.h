#pragma once

#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "graft/infer/sampler.h"
#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"

namespace graft {

// What a model computes on given inputs, as a file: the tool to compare any two engines.
struct DumpConfig {
  std::string model, adapter, input, output;
  std::set<std::string> want = {"logits"};  // logits, hidden, nll, loss, grads; or sampling
  std::string method;                       // lora or full; empty: lora with an adapter
  Compute compute = Compute::kF32;
  std::optional<double> aux_coef = {};      // of the routers' load balancing loss; not given: as train
  std::string aux_mode = "auto";            // auto | layers | joint
  std::function<void()> before_write = {};  // called when all is computed
  SamplingOptions sampling;                 // of "sampling"; temperature 0 leaves one candidate
};

// What may be wanted: logits, hidden, nll, loss, grads, router (of layers with experts: dense models have none), embeddings (of an embedder), sampling.
std::span<const std::string_view> dump_wants();

// input: `input_ids` I64 [batch, seq], optional `attention_mask` (0 = not there) and `labels` (-100 = not trained; the label at t is predicted from
// t - 1). output: `logits` [batch, seq, vocab] and `hidden.N` [batch, seq, hidden], 0 where masked; `token_nll` [batch, seq - 1], 0 where not trained;
// `loss` [1]; gradients of the loss under their tensor's name (PEFT's with an adapter).
// A row's positions count from its first token on, places of the mask's zeros included, as in transformers. A label where the mask is 0, or whose t - 1
// is, is not trained.
// "router": of each layer N with experts `router_logits.N` [batch * seq, experts], `router_topk.N` I64 and `router_weights.N` [batch * seq, top_k]: the
// chosen experts by falling probability and what their outputs are weighted with; 0 where masked.
// "sampling" stands alone and runs no model: input `logits` [vocab] and perhaps `history` I64 [tokens] (what repetition penalties see); output
// `logprobs` [vocab] after every step of process_logits, -infinity where removed.
void dump(Context& context, const DumpConfig& config);

}  // namespace graft
