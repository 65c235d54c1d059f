#include "graft/models/merge.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/adapter.h"
#include "graft/formats/checkpoint.h"
#include "graft/formats/model_folder.h"
#include "graft/kernels/dora.h"
#include "graft/models/adapter.h"
#include "graft/models/export.h"

namespace graft {
namespace {

struct Part {
  const AdapterTensor* tensor;
  double weight;
  std::vector<float> column_factors = {};  // DoRA of an embedding: magnitude / norm per feature
};

// One tensor of the merged model.
struct Merged {
  std::string source;  // the base tensor it comes from
  std::vector<Part> parts;
  const SavedTensor* saved = nullptr;
};

class Merger {
 public:
  Merger(Context& context, const MergeConfig& config) : context_(context), config_(config) {}

  MergeReport run() {
    folder_ = ModelFolder::open(config_.model, supported_model_types());
    folder_.tensors.check(family_of(folder_.config).tensors(folder_.config));
    load_adapters();
    collect();
    check_out();
    // Written aside and moved: a merge that fails leaves --out as it was. Inside a folder that is there, which may be a file system of its own.
    const bool there = path_exists(config_.out);
    AtomicFolder folder(there ? config_.out + "/merge" : config_.out);
    const MergeReport report = write(folder.path());
    there ? move_files(folder.path()) : folder.commit();
    return report;
  }

 private:
  void check_out() const {
    namespace fs = std::filesystem;
    if (!path_exists(config_.out)) return;
    GRAFT_CHECK_HINT(is_directory(config_.out), "choose another --out", "{}: is a file, expected a folder",
                     config_.out);
    std::error_code error;
    const auto same = [&](const std::string& path) { return fs::equivalent(path, config_.out, error) && !error; };
    bool input = same(config_.model);
    for (const auto& [path, weight] : config_.adapters) input = input || same(path);
    GRAFT_CHECK_HINT(!input, "choose another --out", "{}: is what is merged; it would be overwritten while it is read",
                     config_.out);
    const bool empty = fs::is_empty(config_.out, error);
    GRAFT_CHECK_HINT(!error, "check the permissions of the folder", "{}: cannot be read: {}", config_.out,
                     error.message());
    GRAFT_CHECK_HINT(empty || config_.overwrite, "use --overwrite, or another --out", "{}: is not empty", config_.out);
  }

  // The weights last, then shards of an older model go.
  void move_files(const std::string& from) const {
    namespace fs = std::filesystem;
    const auto is_weights = [](const std::string& name) {
      const bool shard =
          name.starts_with("model-") && name.find("-of-") != std::string::npos && name.ends_with(".safetensors");
      return shard || name == "model.safetensors" || name == "model.safetensors.index.json";
    };
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(from)) names.insert(entry.path().filename().string());
    for (const bool weights : {false, true}) {
      for (const std::string& name : names) {
        if (is_weights(name) == weights) fs::rename(from + "/" + name, config_.out + "/" + name);
      }
    }
    std::vector<fs::path> old;
    for (const auto& entry : fs::directory_iterator(config_.out)) {
      const std::string name = entry.path().filename().string();
      if (is_weights(name) && names.count(name) == 0) old.push_back(entry.path());
    }
    for (const fs::path& path : old) fs::remove(path);
  }

  void load_adapters() {
    const std::vector<BaseModule> modules = base_modules(folder_.config);
    const std::vector<ExpectedTensor> tensors = family_of(folder_.config).tensors(folder_.config);
    LoadAdapterOptions options;
    options.modules = modules;
    options.base_tensors = tensors;
    for (const auto& [path, weight] : config_.adapters) {
      adapters_.push_back(load_adapter(path, options));
      for (AdapterTensor& t : adapters_.back().tensors) {
        if (!t.embedding) continue;
        // (B A)^T = A^T B^T: the table's rows are tokens.
        std::vector<float> by_token = transposed(t.a, t.rank, t.in);
        t.a = transposed(t.b, t.out, t.rank);
        t.b = std::move(by_token);
        std::swap(t.in, t.out);
      }
    }
  }

  void collect() {
    for (const TensorInfo& info : folder_.tensors.tensors()) tensors_[info.name].source = info.name;
    // A tied head is the embedding, whatever else the file may hold under its name; one that an adapter changes gets its own tensor.
    const bool tied = folder_.config.tie_word_embeddings;
    const auto slot = [&](const std::string& name) -> Merged& {
      if (name == "lm_head.weight" && tied) {
        unties_ = true;
        tensors_[name].source = "model.embed_tokens.weight";
      }
      return tensors_.at(name);
    };
    for (size_t i = 0; i < adapters_.size(); ++i) {
      const double weight = config_.adapters[i].second;
      for (const AdapterTensor& t : adapters_[i].tensors) {
        slot(t.module + ".weight").parts.push_back({&t, weight, {}});
      }
      for (const SavedTensor& t : adapters_[i].saved) {
        if (!t.trained) continue;
        Merged& merged = slot(t.name);
        GRAFT_CHECK(merged.saved == nullptr && weight == 1.0,
                    "{}: '{}' is saved whole (modules_to_save) and takes one adapter of weight 1", adapters_[i].path,
                    t.name);
        merged.saved = &t;
      }
      // An adapter on a tied embedding leaves the head with the base's, as in PEFT.
      const Merged& table = tensors_.at("model.embed_tokens.weight");
      if (tied && !unties_ && (table.saved != nullptr || !table.parts.empty())) slot("lm_head.weight");
    }
  }

  // Rows [first, first + count) of a base tensor as f32.
  void read_rows(const TensorInfo& base, int64_t first, int64_t count, int64_t columns, std::vector<float>& w) const {
    const size_t element = static_cast<size_t>(dtype_bits(base.dtype)) / 8, size = static_cast<size_t>(count * columns);
    w.resize(size);
    read_as_f32(folder_.tensors.bytes(base).subspan(static_cast<size_t>(first * columns) * element, size * element),
                base.dtype, w.data(), base.name);
  }

  // DoRA of an embedding needs the norms of the whole table before its first row.
  void find_column_factors(const TensorInfo& base, Merged& m, int64_t block) {
    for (Part& part : m.parts) {
      const AdapterTensor& t = *part.tensor;
      if (!t.embedding || t.magnitude.empty()) continue;
      std::vector<double> sums(static_cast<size_t>(t.in));
      std::vector<float> w;
      for (int64_t first = 0; first < t.out; first += block) {
        const int64_t count = std::min(block, t.out - first);
        read_rows(base, first, count, t.in, w);
        const View<float, 2> rows(w.data(), count, t.in);
        merge_rows(context_, rows, View<const float, 2>(t.a.data(), t.rank, t.in),
                   View<const float, 2>(t.b.data() + first * t.rank, count, t.rank), static_cast<float>(t.scaling), {},
                   rows);
        for (size_t i = 0; i < w.size(); ++i)
          sums[i % sums.size()] += static_cast<double>(w[i]) * static_cast<double>(w[i]);
      }
      for (size_t i = 0; i < sums.size(); ++i)
        part.column_factors.push_back(t.magnitude[i] / static_cast<float>(std::sqrt(sums[i])));
    }
  }

  DType dtype_of(const Merged& m) const { return saved_dtype(config_.dtype, folder_.tensors.at(m.source).dtype); }

  MergeReport write(const std::string& out) {
    MergeReport report;
    std::vector<TensorToWrite> list;
    for (const auto& [name, m] : tensors_) list.push_back({name, dtype_of(m), folder_.tensors.at(m.source).shape, {}});
    ModelWriter writer(out, list, config_.shard_bytes);
    for (const TensorInfo& info : writer.tensors()) {
      if (config_.progress) config_.progress();
      Merged& m = tensors_.at(info.name);
      const TensorInfo& base = folder_.tensors.at(m.source);
      if (m.parts.empty() && m.saved == nullptr && base.dtype == info.dtype) {
        writer.write(info.name, folder_.tensors.bytes(base));
        ++report.num_copied;
      } else {
        m.parts.empty() && m.saved == nullptr ? ++report.num_copied : ++report.num_merged;
        write_changed(writer, info, base, m);
      }
      report.bytes += static_cast<uint64_t>(info.num_elements() * dtype_bits(info.dtype) / 8);
      folder_.tensors.drop(base);
    }
    writer.commit();
    copy_side_files(config_.model, out);
    Json config = folder_.config.raw;
    if (config_.dtype != "keep") config = config_with_dtype(config, saved_dtype(config_.dtype, DType::kF32));
    if (unties_) config["tie_word_embeddings"] = false;
    if (unties_ || config_.dtype != "keep") write_file(out + "/config.json", config.dump(2) + "\n");
    return report;
  }

  void write_changed(ModelWriter& writer, const TensorInfo& info, const TensorInfo& base, Merged& m) {
    const int64_t rows = base.shape.empty() ? 1 : base.shape[0];
    const int64_t columns = base.shape.size() == 2 ? base.shape[1] : base.num_elements() / std::max<int64_t>(1, rows);
    const int64_t block =
        std::clamp<int64_t>((int64_t{1} << 20) / std::max<int64_t>(1, columns), 1, std::max<int64_t>(1, rows));
    find_column_factors(base, m, block);
    std::vector<float> w, work;
    std::vector<std::byte> bytes;
    for (int64_t first = 0; first < rows; first += block) {
      const int64_t count = std::min(block, rows - first);
      if (config_.progress) config_.progress();
      const auto size = static_cast<size_t>(count * columns);
      if (m.saved != nullptr) {
        w.assign(m.saved->values.data() + first * columns, m.saved->values.data() + first * columns + size);
      } else {
        read_rows(base, first, count, columns, w);
      }
      for (const Part& part : m.parts) add_part(part, first, count, columns, w, work);
      bytes.resize(size * static_cast<size_t>(dtype_bits(info.dtype)) / 8);
      write_from_f32(w.data(), static_cast<int64_t>(size), info.dtype, bytes.data());
      writer.write(info.name, bytes);
    }
  }

  void add_part(const Part& part, int64_t first, int64_t count, int64_t columns, std::vector<float>& w,
                std::vector<float>& work) {
    const AdapterTensor& t = *part.tensor;
    const View<const float, 2> a(t.a.data(), t.rank, t.in), b(t.b.data() + first * t.rank, count, t.rank);
    const View<float, 2> rows(w.data(), count, columns);
    context_.reserve(matmul_scratch(context_.num_threads(), count, t.rank, t.in));
    context_.reserve(dora_norm_scratch(context_.num_threads(), t.in, t.rank));
    if (t.magnitude.empty()) {
      merge_rows(context_, rows, a, b, static_cast<float>(t.scaling * part.weight), {}, rows);
      return;
    }
    const std::span<const float> magnitude =
        t.embedding ? std::span<const float>()
                    : std::span(t.magnitude).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    work.resize(w.size());
    merge_rows(context_, rows, a, b, static_cast<float>(t.scaling), magnitude,
               View<float, 2>(work.data(), count, columns));
    for (size_t i = 0; t.embedding && i < work.size(); ++i)
      work[i] *= part.column_factors[i % part.column_factors.size()];
    const auto weight = static_cast<float>(part.weight);
    for (size_t i = 0; i < w.size(); ++i) w[i] = weight == 1.0f ? work[i] : w[i] + weight * (work[i] - w[i]);
  }

  Context& context_;
  const MergeConfig& config_;
  ModelFolder folder_;
  std::vector<Adapter> adapters_;
  std::map<std::string, Merged> tensors_;
  bool unties_ = false;
};

}  // namespace

MergeReport merge(Context& context, const MergeConfig& config) { return Merger(context, config).run(); }

}  // namespace graft
