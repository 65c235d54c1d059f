// `graft dump` against what PyTorch computed (fixtures/golden/KIND).
#include "graft/cli/common.h"
#include "graft/train/dump.h"
#include "tests/support/golden.h"

namespace graft::test {
namespace {

Tensors run_dump(Context& context, DumpConfig config) {
  const TempDir out;
  config.output = out / "out.safetensors";
  dump(context, config);
  return read_tensors(config.output);
}

DumpConfig config_of(const std::string& kind, const std::string& file, std::set<std::string> want) {
  DumpConfig c;
  c.model = fixtures() + "/models/" + kind;
  c.input = fixtures() + "/golden/" + kind + "/" + file + ".safetensors";
  c.want = std::move(want);
  return c;
}

// The fixtures' loss has the auxiliary term of experts.
DumpConfig with_aux(DumpConfig c, const Json& meta) {
  if (meta.contains("aux_coef")) c.aux_coef = meta.at("aux_coef");
  return c;
}

TEST(ParityDump, ForwardAndLossOfDecoders) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  for (const std::string& kind : decoder_kinds()) {
    const Tensors golden = read_tensors(fixtures() + "/golden/" + kind + "/forward.safetensors");
    const Json meta = read_json(fixtures() + "/golden/" + kind + "/meta.json");
    const Tensors ours = run_dump(
        machine.context, with_aux(config_of(kind, "forward", {"logits", "hidden", "nll", "loss", "router"}), meta));
    for (const auto& [name, want] : golden) {
      ASSERT_TRUE(ours.count(name)) << kind << " " << name;
      EXPECT_EQ(ours.at(name).shape, want.shape) << kind << " " << name;
      const bool router = name.starts_with("router_");
      const double bar = name == "token_nll" ? loss_bar(largest(want.values)) : kLogits;
      const std::string what = name == "token_nll" || name == "logits" ? name : router ? "router" : "hidden states";
      figures.check(what, kind + " " + name, distance(ours.at(name).values, want.values), bar);
    }
    const double loss = meta.at("loss");
    figures.check("loss", kind, std::fabs(ours.at("loss").values[0] - loss), loss_bar(loss));
  }
}

TEST(ParityDump, ChosenExperts) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  int layers = 0;
  for (const std::string& kind : decoder_kinds()) {
    const TempDir out;
    DumpConfig c = config_of(kind, "forward", {"router"});
    c.output = out / "out.safetensors";
    dump(machine.context, c);
    const SafetensorsFile golden(c.input), ours(c.output);
    for (const TensorInfo& info : golden.tensors()) {
      if (!info.name.starts_with("router_topk")) continue;
      figures.same("chosen experts", kind + " " + info.name, golden.read_i64(info.name) == ours.read_i64(info.name));
      ++layers;
    }
    EXPECT_EQ(ours.tensors().empty(), golden.find("router_topk.0") == nullptr) << kind;
  }
  EXPECT_GT(layers, 1);
}

TEST(ParityDump, GradientsOfDecoders) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  for (const std::string& kind : decoder_kinds()) {
    const Tensors golden = read_tensors(fixtures() + "/golden/" + kind + "/grads.safetensors");
    const Json meta = read_json(fixtures() + "/golden/" + kind + "/meta.json");
    const Tensors ours = run_dump(machine.context, with_aux(config_of(kind, "forward", {"grads"}), meta));
    EXPECT_EQ(ours.size(), golden.size()) << kind;
    for (const auto& [name, want] : golden) {
      ASSERT_TRUE(ours.count(name)) << kind << " " << name;
      EXPECT_EQ(ours.at(name).shape, want.shape) << kind << " " << name;
      figures.check("gradient", kind + " " + name, distance(ours.at(name).values, want.values),
                    gradient_bar(want.values));
    }
    const double norm = meta.at("grad_norm");
    figures.check("gradient norm, relative", kind, std::fabs(norm_of(ours) / norm - 1), kGradNorm);
  }
}

TEST(ParityDump, PaddedBatchOfDecoders) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  for (const std::string& kind : decoder_kinds()) {
    const Tensors golden = read_tensors(fixtures() + "/golden/" + kind + "/padded.safetensors");
    const Json all = read_json(fixtures() + "/golden/" + kind + "/meta.json"), meta = all.at("padded");
    Tensors ours = run_dump(machine.context, with_aux(config_of(kind, "padded", {"logits", "loss", "grads"}), all));
    figures.check("logits", kind, distance(ours.at("logits").values, golden.at("logits").values), kLogits);
    const double loss = meta.at("loss"), norm = meta.at("grad_norm");
    figures.check("loss", kind, std::fabs(ours.at("loss").values[0] - loss), loss_bar(loss));
    ours.erase("logits"), ours.erase("loss");
    figures.check("gradient norm, relative", kind, std::fabs(norm_of(ours) / norm - 1), kGradNorm);
  }
}

TEST(ParityDump, TrainedModelOfBfloat16) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  const TempDir inputs;
  const SafetensorsFile golden(fixtures() + "/golden/pystd-5m/forward.safetensors");
  for (const TensorInfo& info : golden.tensors()) {
    const std::string suffix = ".input_ids";
    if (!info.name.ends_with(suffix)) continue;
    const std::string text = info.name.substr(0, info.name.size() - suffix.size());
    DumpConfig c;
    c.model = fixtures() + "/models/pystd-5m";
    c.input = inputs / (text + ".safetensors");
    write_i64(c.input, {{"input_ids", {info.shape, golden.read_i64(info.name)}}});
    figures.check("logits", text,
                  distance(run_dump(machine.context, c).at("logits").values, golden.read_f32(text + ".logits")),
                  kLogitsTrained);
  }
}

// bf16 activations and products: no further from float32 than 1.5 times what PyTorch's own bfloat16 run is.
TEST(ParityDump, Bfloat16Compute) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  for (const std::string& kind : decoder_kinds()) {
    const Tensors golden = read_tensors(fixtures() + "/golden/" + kind + "/forward.safetensors");
    const Json meta = read_json(fixtures() + "/golden/" + kind + "/meta.json");
    DumpConfig c = config_of(kind, "forward", {"logits"});
    c.compute = Compute::kBF16;
    const std::vector<float> got = run_dump(machine.context, c).at("logits").values, &want = golden.at("logits").values;
    ASSERT_EQ(got.size(), want.size());
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i) sum += std::fabs(static_cast<double>(got[i]) - want[i]);
    const double mean = sum / static_cast<double>(got.size());
    figures.check("mean logit difference", kind, mean, 1.5 * meta.at("bfloat16_run").at("mean_abs_diff").get<double>());
  }
}

TEST(ParityDump, SamplingFilters) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  Figures figures;
  for (const std::string& kind : decoder_kinds()) {
    const Tensors golden = read_tensors(fixtures() + "/golden/" + kind + "/sampling.safetensors");
    const Json settings = read_json(fixtures() + "/golden/" + kind + "/meta.json").at("sampling");
    for (const auto& [name, s] : settings.items()) {
      DumpConfig c = config_of(kind, "sampling", {"sampling"});
      c.sampling.temperature = s.value("temperature", 1.0);
      c.sampling.top_k = s.value("top_k", int64_t{0});
      c.sampling.top_p = s.value("top_p", 1.0);
      c.sampling.min_p = s.value("min_p", 0.0);
      c.sampling.repetition_penalty = s.value("repetition_penalty", 1.0);
      figures.check("log-probability", kind + " " + name,
                    distance(run_dump(machine.context, c).at("logprobs").values, golden.at(name).values), 1e-6);
    }
  }
}

// What the mask leaves out never shows: padding on the left, rows without a token and labels at the first position change no bit of the rest.
TEST(Dump, PaddingAndIgnoredLabelsNeverShow) {
  Machine machine;
  const TempDir dir;
  const int64_t pad = 3, length = 9, seq = 12;
  std::vector<int64_t> plain, plain_labels, ids(3 * seq, 0), mask(3 * seq, 0), labels(3 * seq, -100);
  for (int64_t t = 0; t < length; ++t) {
    const int64_t id = (t * 7 + 5) % 64;
    plain.push_back(id), plain_labels.push_back(t % 4 == 2 ? -100 : id);
    const auto place = static_cast<size_t>(
        2 * seq + pad + t);  // row 0 stays empty, row 1 has one token without a label, row 2 is padded on the left
    ids[place] = id, mask[place] = 1, labels[place] = plain_labels.back();
  }
  ids[seq] = 11, mask[seq] = 1, labels[seq] = 1000000;  // the label of a first token is never used, whatever it says
  plain_labels[0] = -100;
  DumpConfig c;
  c.model = "tests/data/tiny";
  c.want = {"logits", "nll", "loss", "grads"};
  c.input = dir / "plain.safetensors";
  write_i64(c.input, {{"input_ids", {{1, length}, plain}}, {"labels", {{1, length}, plain_labels}}});
  const Tensors want = run_dump(machine.context, c);
  c.input = dir / "padded.safetensors";
  write_i64(c.input,
            {{"input_ids", {{3, seq}, ids}}, {"labels", {{3, seq}, labels}}, {"attention_mask", {{3, seq}, mask}}});
  const Tensors got = run_dump(machine.context, c);
  EXPECT_EQ(got.at("loss").values, want.at("loss").values);
  const auto vocab = want.at("logits").values.size() / length;
  for (int64_t t = 0; t < length; ++t) {
    const auto from = want.at("logits").values.begin() + static_cast<ptrdiff_t>(vocab * static_cast<size_t>(t));
    const auto to =
        got.at("logits").values.begin() + static_cast<ptrdiff_t>(vocab * static_cast<size_t>(2 * seq + pad + t));
    EXPECT_TRUE(std::equal(from, from + static_cast<ptrdiff_t>(vocab), to)) << t;
    if (t == 0) continue;
    EXPECT_EQ(got.at("token_nll").values[static_cast<size_t>(2 * (seq - 1) + pad + t - 1)],
              want.at("token_nll").values[static_cast<size_t>(t - 1)]);
  }
  EXPECT_EQ(
      largest({got.at("logits").values.begin(), got.at("logits").values.begin() + static_cast<ptrdiff_t>(vocab * seq)}),
      0);
  for (const auto& [name, tensor] : want) {
    // Sums over tokens follow their order in the micro-batch, where another token stands before: f32 rounding.
    if (!name.starts_with("model.")) continue;
    EXPECT_LE(distance(got.at(name).values, tensor.values), gradient_bar(tensor.values)) << name;
  }
}

// A place left out in the middle keeps its position, as in transformers, which computed the figures in f64.
TEST(Dump, PositionsCountThePlacesLeftOut) {
  Machine machine;
  const TempDir dir;
  const std::vector<int64_t> ids = {5, 12, 19, 26, 33, 40};
  DumpConfig c;
  c.model = "tests/data/tiny";
  c.input = dir / "in.safetensors";
  c.want = {"logits", "nll", "loss"};
  write_i64(
      c.input,
      {{"input_ids", {{1, 6}, ids}}, {"labels", {{1, 6}, ids}}, {"attention_mask", {{1, 6}, {1, 1, 0, 1, 1, 1}}}});
  const Tensors got = run_dump(machine.context, c);
  const std::vector<float>& logits = got.at("logits").values;
  const auto last = logits.begin() + static_cast<ptrdiff_t>(logits.size() / 6 * 5);
  EXPECT_LE(distance({last, last + 4}, {0.2574363f, 1.1572343f, -1.1312937f, -1.2924208f}), kLogits);
  // The label left out and the one after it do not count.
  EXPECT_LE(distance(got.at("token_nll").values, {6.63905f, 0, 0, 7.2492796f, 5.7935444f}), loss_bar(7.2));
  EXPECT_NEAR(got.at("loss").values[0], (6.63905 + 7.2492796 + 5.7935444) / 3, loss_bar(7.2));
}

TEST(Dump, AWindowThatWouldCountPlacesLeftOutIsRefused) {
  GRAFT_NEEDS_FIXTURES();
  Machine machine;
  const TempDir dir;
  DumpConfig c;
  c.model = fixtures() + "/models/mistral";  // a window of 12
  c.input = dir / "in.safetensors";
  const std::vector<int64_t> ids(16, 7);
  std::vector<int64_t> mask(16, 1);
  mask[3] = 0, mask[12] = mask[13] = mask[14] = mask[15] = 0;
  write_i64(c.input, {{"input_ids", {{1, 16}, ids}}, {"attention_mask", {{1, 16}, mask}}});
  EXPECT_NO_THROW(run_dump(machine.context, c));  // 12 places: no window ends
  mask[12] = 1;
  write_i64(c.input, {{"input_ids", {{1, 16}, ids}}, {"attention_mask", {{1, 16}, mask}}});
  EXPECT_THROW(run_dump(machine.context, c), Error);
}

TEST(Dump, SaysWhatIsWrong) {
  Machine machine;
  const TempDir dir;
  const auto message = [&](DumpConfig c) -> std::string {
    c.model = "tests/data/tiny";
    c.output = dir / "out.safetensors";
    try {
      dump(machine.context, c);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  DumpConfig c;
  c.input = dir / "in.safetensors";
  write_i64(c.input, {{"input_ids", {{1, 3}, {1, 2, 3}}}, {"labels", {{1, 3}, {1, -100, -100}}}});
  c.want = {"loss"};
  EXPECT_NE(message(c).find("all tokens are ignored"), std::string::npos);
  c.want = {"words"};
  EXPECT_NE(message(c).find("words"), std::string::npos);
  c.want = {"sampling"};
  EXPECT_NE(message(c).find("logits"), std::string::npos);
  write_i64(c.input, {{"input_ids", {{1, 3}, {1, 2, 1 << 20}}}});
  c.want = {"logits"};
  EXPECT_NE(message(c).find("input_ids[0, 2]"), std::string::npos);
  write_i64(c.input, {{"input_ids", {{1, 3}, {1, 2, 3}}}, {"attention_mask", {{1, 3}, {0, 0, 0}}}});
  EXPECT_NE(message(c).find("no token is left"), std::string::npos);
  write_i64(c.input, {{"input_ids", {{1, 3}, {1, 2, 3}}}, {"position_ids", {{1, 3}, {0, 1, 0}}}});
  EXPECT_NE(message(c).find("position_ids"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "out.safetensors"));
}

}  // namespace
}  // namespace graft::test
