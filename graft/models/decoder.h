#pragma once

#include <map>
#include <string>
#include <vector>

#include "graft/formats/lora_config.h"
#include "graft/formats/model_config.h"
#include "graft/formats/model_folder.h"
#include "graft/graph/graph.h"
#include "graft/graph/ops.h"
#include "graft/kernels/gemm.h"
#include "graft/nn/linear.h"

namespace graft {

// A linear layer that an adapter may target: "model.layers.0.self_attn.q_proj", [out, in].
struct LinearModule {
  std::string path;
  int64_t out_features = 0, in_features = 0;
  ModuleKind kind = ModuleKind::kLinear;  // "all-linear" takes linear layers and experts
};

// One adapter as the graph sees it: which modules it adapts and how. Its tensors are bound by name:
//   PATH.lora_A [rank, in], PATH.lora_B [out, rank], PATH.lora_magnitude_vector [out, 1], and PATH.weight of saved modules.
// Of the embedding, A is held by token: lora_A [vocab, rank], lora_B [hidden, rank].
struct AdapterSites {
  struct Module {
    std::string path;
    int64_t rank = 0;
    double scaling = 1;
    bool dora = false;
  };
  std::vector<Module> modules;
  std::vector<std::string>
      saved_modules;  // modules_to_save: full copies, "lm_head", "model.embed_tokens", "model.norm"
  const Module* find(std::string_view path) const;
  bool saves(std::string_view path) const;
};

enum class DecoderOutput {
  kLogits,      // logits of every token
  kLastLogits,  // logits of the rows that label_rows names (the last token of each sequence)
  kLoss,        // nll and loss of the label rows
  kTrain,       // the same with gradients
};

struct DecoderOptions {
  DType dtype = DType::kF32;  // kF64 in tests
  Compute compute = Compute::kF32;
  DecoderOutput output = DecoderOutput::kLogits;
  bool train_base = false;             // full fine-tuning: every base parameter is trained
  bool base_rows = false;              // the model has its matrices in rows (ModelLoadOptions)
  bool train_adapter = false;          // the adapter of slot 0 is trained
  std::vector<AdapterSites> adapters;  // one per slot
  bool adapter_rows = false;           // adapter_offsets names the rows of each slot
  bool keep_hidden = false;            // hidden.0 … hidden.N stay readable
  double dropout = 0;
  bool dropout_at_rank = false;
  uint64_t seed = 0;
  double label_smoothing = 0;
  int64_t head_chunk_rows = 64;
  // Experts: what the routers add to the loss (ops.h, router_loss), and whether their values stay readable.
  double aux_coef = 0, z_coef = 0;
  bool aux_joint = false;
  bool keep_routers = false;
};

// The router of one layer with experts.
struct RouterValues {
  int64_t layer = 0;
  Routing routing;
};

// A decoder as a graph and the values to bind. Parameters are named as in the model's files.
struct DecoderGraph {
  Graph graph;
  Value ids, positions;      // i32 [tokens]
  Value sequence_offsets;    // i32 [sequences + 1]
  Value adapter_offsets;     // i32 [slots + 1], with adapter_rows
  Value row_keys;            // u64 [tokens], with dropout
  Value label_rows, labels;  // i32 [labels]
  Value label_weights;       // f64 [labels]
  Value loss;                // f64 [1], written by the run
  Value nll;                 // [labels, 1]
  Value logits;              // [tokens or labels, vocab]
  std::vector<Value> hidden;
  std::vector<RouterValues> routers;                             // of the layers with experts
  Value router_scale, router_values;                             // f64, with a loss and experts: see router_loss
  std::map<std::string, Value> parameters;                       // base, by the name in the files
  std::vector<std::map<std::string, Value>> adapter_parameters;  // per slot: "PATH.lora_A", …
};

// What a model family is: names of its weights and its graph. A new family is one file with one of these.
struct Family {
  std::string_view model_type;
  std::vector<ExpectedTensor> (*tensors)(const ModelConfig& config);
  std::vector<LinearModule> (*modules)(const ModelConfig& config);
  DecoderGraph (*build)(const ModelConfig& config, const DecoderOptions& options);
};
const Family& family_of(const ModelConfig& config);  // Error with the list of known ones
std::vector<std::string_view> supported_model_types();

// The layout that all families share: pre-norm layers of grouped-query attention and SwiGLU, or experts in its place.
//   h = x + o_proj(attention(norm(x)));  y = h + down(silu(gate(n)) * up(n)), n = norm(h)
std::vector<ExpectedTensor> decoder_tensors(const ModelConfig& config);
std::vector<LinearModule> decoder_modules(const ModelConfig& config);
DecoderGraph build_decoder(const ModelConfig& config, const DecoderOptions& options);

}  // namespace graft
