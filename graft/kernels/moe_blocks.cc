// The products of all experts by the blocks of gemm_nt.cc and gemm_grad.cc: one meeting of the threads for a call, tasks
// of 64 outputs by some rows of one expert. Rows that are read by token are gathered into the shared scratch as they are
// packed; where a product is scattered to tokens, a task takes a range of tokens through all experts, ascending.

#include <array>
#include <cassert>
#include <cstring>

#include "graft/kernels/gemm_blocks.h"
#include "graft/kernels/moe_table.h"

namespace graft {
namespace {

using namespace blocked;

constexpr size_t kMaxSources = 16;                 // of one call
constexpr int64_t kLeastRows = 2 * kGemmTileRows;  // of a task, where rows are cut for the threads' sake

int64_t summed_of(const ExpertSource<float>& source, const Operand<float>& w) {
  return source.transposed ? w.out_features() : w.in_features();
}
int64_t outputs_of(const ExpertSource<float>& source, const Operand<float>& w) {
  return source.transposed ? w.in_features() : w.out_features();
}

// What is copied into the shared scratch: sorted rows [begin, end) of a pass, `stride` floats apart, at `offset`.
struct PackedRows {
  const float* x;
  int64_t x_stride, columns, stride, offset;
  bool by_token, rounded;
};

class Packer {
 public:
  // Where the rows of x will lie: an index for `rows_at`, the same for the same rows; -1: where they are.
  int add(View<const float, 2> x, bool by_token, bool rounded) {
    for (size_t i = 0; i < count_; ++i) {
      if (packed_[i].x == x.data() && packed_[i].by_token == by_token && packed_[i].rounded == rounded) {
        return static_cast<int>(i);
      }
    }
    const int64_t bytes = packed_row_bytes(x.extent(1) * static_cast<int64_t>(sizeof(float)));
    packed_[count_] = {x.data(), x.stride(0), x.extent(1), bytes / 4, 0, by_token, rounded};
    row_bytes_ += bytes;
    return static_cast<int>(count_++);
  }
  int64_t pass_rows(int64_t rows) const {
    return count_ == 0 ? rows : std::min(rows, std::max(kGemmBlock, kPackBytes / row_bytes_));
  }
  size_t bytes(int64_t rows) const { return static_cast<size_t>(row_bytes_ * pass_rows(rows)); }

  void pack(Context& context, const ExpertRows& rows, int64_t begin, int64_t end) {
    if (count_ == 0) return;
    begin_ = begin;
    for (size_t i = 0, offset = 0; i < count_; ++i) {
      packed_[i].offset = static_cast<int64_t>(offset);
      offset += static_cast<size_t>(packed_[i].stride * (end - begin));
    }
    float* const shared = context.shared<float>();
    context.pool().parallel(ceil_div(end - begin, 16), [&](int64_t task, int) {
      for (int64_t row = begin + task * 16; row < std::min(end, begin + task * 16 + 16); ++row) {
        for (size_t i = 0; i < count_; ++i) {
          const PackedRows& p = packed_[i];
          float* const to = shared + p.offset + (row - begin) * p.stride;
          std::copy_n(p.x + (p.by_token ? rows.token(row) : row) * p.x_stride, p.columns, to);
          if (p.rounded) round_to_bf16(to, p.columns);
        }
      }
    });
  }
  // Sorted rows from `row` on.
  Rows rows_at(Context& context, int index, View<const float, 2> x, int64_t row) const {
    if (index < 0) return {x.row(row), x.stride(0)};
    const PackedRows& p = packed_[static_cast<size_t>(index)];
    return {context.shared<float>() + p.offset + (row - begin_) * p.stride, p.stride};
  }

 private:
  std::array<PackedRows, kMaxSources> packed_;
  size_t count_ = 0;
  int64_t row_bytes_ = 0, begin_ = 0;
};

// Sums of `rows` rows of x by one source for outputs [o0, o0 + count), written to c or added to it.
void source_sums(const GemmTable& table, const ExpertSource<float>& source, const Operand<float>& w, const Rows& x,
                 int64_t rows, int64_t o0, int64_t count, bool add, float* scratch, const Sums& c) {
  const int64_t summed = summed_of(source, w), lanes = lanes_of(count);
  const bool rounded = source.compute == Compute::kBF16;
  if (summed == 0 && !add) std::fill_n(c.data, rows * kGemmPanel, 0.0f);
  // Few rows: 16-bit weights are widened in registers, on their way from memory.
  const bool direct =
      !source.transposed && rows <= kGemmTileRows && is_16_bit(w) && !(rounded && stored_as(w, DType::kF16));
  for (int64_t k0 = 0; k0 < summed; k0 += kGemmBlock) {
    const int64_t n = std::min(kGemmBlock, summed - k0);
    const bool on = add || k0 > 0;
    if (direct) {
      table.panels(static_cast<int>(rows), 1, stored_as(w, DType::kBF16), x.data + k0, x.stride,
                   pairs_at(*w.weight, o0 / kGemmPanel, k0 / 2), 0, n, c.data, on);
      continue;
    }
    const Block b = source.transposed ? place_nn(table, w, k0, n, o0, count, rounded, scratch)
                                      : block_nt(table, w, o0, count, k0, n, rounded, scratch, lanes);
    multiply(table, {x.data + k0, x.stride}, rows, lanes, b, n, c, on);
  }
}

// One product of a call: its tasks and where its sources' rows lie.
struct ProductPlan {
  const ExpertProduct<float>* product;
  std::array<int, kMaxSources> packed;  // Packer's index of each source
  int64_t blocks;                       // of 64 outputs
  int64_t row_block, ranges;            // rows of a task, or ranges of tokens
  int64_t tasks;                        // of a pass
};

class Products {
 public:
  Products(Context& context, const GemmTable& table, const MoeTable<float>& moe, const ExpertRows& rows)
      : context_(context), table_(table), moe_(moe), rows_(rows) {}

  // Rows of expert e in the pass.
  std::pair<int64_t, int64_t> range(int64_t e) const {
    return {std::max<int64_t>(pass_begin_, rows_.offsets[static_cast<size_t>(e)]),
            std::min<int64_t>(pass_end_, rows_.offsets[static_cast<size_t>(e) + 1])};
  }
  void set_pass(int64_t begin, int64_t end) {
    pass_begin_ = begin, pass_end_ = end;
    const auto at = [&](int64_t row) {  // the expert that holds a row
      return std::upper_bound(rows_.offsets.begin(), rows_.offsets.end(), static_cast<int32_t>(row)) -
             rows_.offsets.begin() - 1;
    };
    first_expert_ = at(begin), last_expert_ = at(end - 1) + 1;
  }

  int64_t count_tasks(const ProductPlan& plan) const {
    if (plan.product->by_token) return plan.blocks * plan.ranges;
    int64_t parts = 0;
    for (int64_t e = first_expert_; e < last_expert_; ++e) {
      const auto [begin, end] = range(e);
      parts += ceil_div(std::max<int64_t>(0, end - begin), plan.row_block);
    }
    return parts * plan.blocks;
  }

  // A task of a product by sorted rows: experts one after the other, their blocks of outputs, their rows.
  void stored(const ProductPlan& plan, const Packer& packer, int64_t task, int worker) const {
    for (int64_t e = first_expert_; e < last_expert_; ++e) {
      const auto [begin, end] = range(e);
      const int64_t parts = ceil_div(std::max<int64_t>(0, end - begin), plan.row_block);
      if (task >= parts * plan.blocks) {
        task -= parts * plan.blocks;
        continue;
      }
      const int64_t row = begin + task % parts * plan.row_block;
      run(plan, packer, e, row, std::min(end, row + plan.row_block) - row, task / parts * kGemmPanel, worker);
      return;
    }
  }

  // A task of a product by token: the tokens of a range, all experts.
  void scattered(const ProductPlan& plan, const Packer& packer, int64_t task, int worker) const {
    const int64_t part = task % plan.ranges, o0 = task / plan.ranges * kGemmPanel;
    const int64_t first = rows_.tokens * part / plan.ranges, last = rows_.tokens * (part + 1) / plan.ranges;
    for (int64_t e = first_expert_; e < last_expert_; ++e) {
      const auto [begin, end] = range(e);
      const auto row_of = [&, from = begin, to = end](int64_t token) {  // an expert's rows ascend by token
        int64_t low = from, high = to;
        while (low < high) {
          const int64_t middle = (low + high) / 2;
          rows_.token(middle) < token ? low = middle + 1 : high = middle;
        }
        return low;
      };
      const int64_t from = row_of(first), to = row_of(last);
      for (int64_t row = from; row < to; row += kMaxRowBlock) {
        run(plan, packer, e, row, std::min(kMaxRowBlock, to - row), o0, worker);
      }
    }
  }

 private:
  void run(const ProductPlan& plan, const Packer& packer, int64_t expert, int64_t row, int64_t count, int64_t o0,
           int worker) const {
    const ExpertProduct<float>& product = *plan.product;
    const auto e = static_cast<size_t>(expert);
    float* const scratch = context_.worker<float>(worker);
    float* const c = scratch + 2 * kBlockFloats;
    const int64_t written =
        std::min(kGemmPanel, outputs_of(product.sources[0], product.sources[0].w[e]) - o0);  // others may have more
    if (written <= 0) return;
    bool held = false, stored = false;  // c holds sums; y does
    for (size_t s = 0; s < product.sources.size(); ++s) {
      const ExpertSource<float>& source = product.sources[s];
      const Operand<float>& w = source.w[e];
      const int64_t columns = std::min(kGemmPanel, outputs_of(source, w) - o0);
      held = held && source.continues;
      const Rows x = packer.rows_at(context_, plan.packed[s], source.x, row);
      const bool goes_on = s + 1 < product.sources.size() && product.sources[s + 1].continues;
      const int64_t summed = summed_of(source, w);
      // A chain of its own that nothing follows: the sums are y, or are added to it.
      if (columns == written && !held && !goes_on && !product.by_token && product.scales.empty() && summed > 0 &&
          (!stored || summed <= kGemmBlock) && whole_lanes(written) && !is_16_bit(w)) {
        const Sums y(product.y.row(row) + o0, product.y.stride(0));
        source_sums(table_, source, w, x, count, o0, columns, stored, scratch, y);
        stored = true;
        continue;
      }
      if (columns > 0) {
        source_sums(table_, source, w, x, count, o0, columns, held, scratch, c);
        held = true;
      }
      if (!held || goes_on) continue;
      if (product.by_token) {
        moe_.scatter(c, kGemmPanel, count, rows_.rows.data() + row, rows_.top_k,
                     product.weights.empty() ? nullptr : product.weights.data(), product.y.data() + o0,
                     product.y.stride(0), written);
      } else {
        float* const y = product.y.row(row) + o0;
        table_.finish(c, kGemmPanel, count, written, product.scales.empty() ? 1.0f : product.scales[e], nullptr,
                      stored ? y : nullptr, product.y.stride(0), y, product.y.stride(0));
        stored = true;
      }
    }
  }

  Context& context_;
  const GemmTable& table_;
  const MoeTable<float>& moe_;
  const ExpertRows& rows_;
  int64_t pass_begin_ = 0, pass_end_ = 0, first_expert_ = 0, last_expert_ = 0;
};

bool takes(const Operand<float>& w) { return w.weight == nullptr || w.weight->type() != DType::kF64; }

int64_t experts_with_rows(const ExpertRows& rows) {
  int64_t n = 0;
  for (size_t e = 0; e + 1 < rows.offsets.size(); ++e) n += rows.offsets[e + 1] > rows.offsets[e] ? 1 : 0;
  return n;
}

bool enough(Context& context, size_t shared) {
  const ScratchNeed have = context.reserved(), need = expert_scratch(1, 0, 0);
  const bool all = have.shared >= shared && have.per_worker >= need.per_worker;
  assert(all && "Context::reserve(expert_scratch(...)) is missing");
  return all;
}

// Rows of a task where `blocks` tasks are there without cutting rows.
int64_t rows_of_task(Context& context, int64_t rows, int64_t blocks) {
  const int64_t wanted = context.num_threads() == 1 ? 1 : int64_t{kTasksPerThread} * context.num_threads();
  const int64_t parts = ceil_div(wanted, std::max<int64_t>(1, blocks));
  return std::clamp(ceil_div(ceil_div(rows, parts), kGemmTileRows) * kGemmTileRows, kLeastRows, kMaxRowBlock);
}

}  // namespace

bool blocked_products(Context& context, const ExpertRows& rows,
                      std::span<const ExpertProduct<float>> products) noexcept {
  const GemmTable* table = gemm_simd();
  const MoeTable<float>* moe = moe_simd();
  if (table == nullptr || moe == nullptr || products.size() > kMaxSources) return false;
  const int64_t count = rows.count(), used = experts_with_rows(rows);
  Packer packer;
  std::array<ProductPlan, kMaxSources> plans;
  size_t sources = 0;
  int64_t all_blocks = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const ExpertProduct<float>& product = products[i];
    ProductPlan& plan = plans[i];
    plan.product = &product;
    plan.blocks = ceil_div(product.y.extent(1), kGemmPanel);
    all_blocks += plan.blocks;
    sources += product.sources.size();
    if (product.y.stride(1) != 1 || sources > kMaxSources) return false;
    for (size_t s = 0; s < product.sources.size(); ++s) {
      const ExpertSource<float>& source = product.sources[s];
      if (source.x.stride(1) != 1) return false;
      for (const Operand<float>& w : source.w) {
        if (!takes(w)) return false;
      }
      const bool rounded = source.compute == Compute::kBF16;
      const bool pack =
          source.by_token || rounded || plan_rows(ceil_div(count, used), source.x.stride(0), plan.blocks).packed;
      plan.packed[s] = pack ? packer.add(source.x, source.by_token, rounded) : -1;
    }
  }
  if (!enough(context, packer.bytes(count))) return false;
  for (size_t i = 0; i < products.size(); ++i) {
    plans[i].row_block = rows_of_task(context, ceil_div(count, used), all_blocks * used);
    const int64_t wanted = context.num_threads() == 1 ? 1 : int64_t{kTasksPerThread} * context.num_threads();
    plans[i].ranges =
        std::clamp<int64_t>(ceil_div(wanted, all_blocks), 1, std::max<int64_t>(1, rows.tokens / kLeastRows));
  }
  Products run(context, *table, *moe, rows);
  const int64_t pass_rows = packer.pass_rows(count);
  for (int64_t pass = 0; pass < count; pass += pass_rows) {
    const int64_t end = std::min(count, pass + pass_rows);
    packer.pack(context, rows, pass, end);
    run.set_pass(pass, end);
    int64_t tasks = 0;
    for (size_t i = 0; i < products.size(); ++i) tasks += plans[i].tasks = run.count_tasks(plans[i]);
    context.pool().parallel(tasks, [&](int64_t task, int worker) {
      for (size_t i = 0; i < products.size(); ++i) {
        if (task >= plans[i].tasks) {
          task -= plans[i].tasks;
          continue;
        }
        products[i].by_token ? run.scattered(plans[i], packer, task, worker)
                             : run.stored(plans[i], packer, task, worker);
        return;
      }
    });
  }
  return true;
}

bool blocked_gradients(Context& context, const ExpertRows& rows,
                       std::span<const ExpertGradient<float>> gradients) noexcept {
  const GemmTable* table = gemm_simd();
  if (table == nullptr || gradients.size() > kMaxSources) return false;
  const int64_t count = rows.count(), used = experts_with_rows(rows);
  Packer packer;
  struct Plan {
    int packed;
    int64_t blocks, height, parts;  // tasks of an expert: blocks of columns by parts of `height` rows of dw
    int64_t tasks;
  };
  std::array<Plan, kMaxSources> plans;
  int64_t all_blocks = 0;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const ExpertGradient<float>& g = gradients[i];
    if (g.a.stride(1) != 1 || g.b.stride(1) != 1) return false;
    int64_t widest = 0, tallest = 0;
    for (const View<float, 2>& dw : g.dw) {
      if (dw.data() != nullptr && dw.stride(1) != 1) return false;
      widest = std::max(widest, dw.extent(1)), tallest = std::max(tallest, dw.extent(0));
    }
    plans[i] = {g.a_by_token ? packer.add(g.a, true, false) : -1, ceil_div(widest, kGemmPanel), tallest, 1, 0};
    all_blocks += plans[i].blocks;
  }
  if (!enough(context, packer.bytes(count))) return false;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const int64_t tallest = plans[i].height;
    plans[i].height = rows_of_task(context, tallest, all_blocks * used);
    plans[i].parts = ceil_div(tallest, plans[i].height);
  }
  // Passes end where a block of 512 of an expert's rows does.
  const int64_t pass_rows = packer.pass_rows(count);
  for (int64_t pass = 0, end = 0; pass < count; pass = end) {
    end = count;
    if (pass + pass_rows < count) {
      const auto next =
          std::upper_bound(rows.offsets.begin(), rows.offsets.end(), static_cast<int32_t>(pass + pass_rows));
      const int64_t begin = std::max<int64_t>(*(next - 1), 0);  // of the expert that the limit falls into
      end = begin + (pass + pass_rows - begin) / kGemmBlock * kGemmBlock;
    }
    packer.pack(context, rows, pass, end);
    int64_t tasks = 0;
    for (size_t i = 0; i < gradients.size(); ++i) {
      tasks += plans[i].tasks = rows.experts() * plans[i].blocks * plans[i].parts;
    }
    context.pool().parallel(tasks, [&](int64_t task, int worker) {
      size_t i = 0;
      while (task >= plans[i].tasks) task -= plans[i++].tasks;
      const ExpertGradient<float>& g = gradients[i];
      const Plan& plan = plans[i];
      const int64_t e = task / (plan.blocks * plan.parts);
      task %= plan.blocks * plan.parts;
      const View<float, 2>& dw = g.dw[static_cast<size_t>(e)];
      const int64_t begin = std::max<int64_t>(pass, rows.offsets[static_cast<size_t>(e)]);
      const int64_t last = std::min<int64_t>(end, rows.offsets[static_cast<size_t>(e) + 1]);
      const int64_t k0 = task / plan.parts * kGemmPanel, row = task % plan.parts * plan.height;
      if (begin >= last || dw.data() == nullptr || k0 >= dw.extent(1) || row >= dw.extent(0)) return;
      const int64_t columns = std::min(kGemmPanel, dw.extent(1) - k0), lanes = lanes_of(columns);
      const int64_t height = std::min(plan.height, dw.extent(0) - row);
      float* const block = context.worker<float>(worker);
      float* const c = block + kBlockFloats;  // one tile
      const bool direct = whole_lanes(columns);
      for (int64_t t0 = begin; t0 < last; t0 += kGemmBlock) {
        const int64_t n = std::min(kGemmBlock, last - t0);
        for (int64_t t = 0; t < n; ++t) {
          const float* from = g.b.row(g.b_by_token ? rows.token(t0 + t) : t0 + t) + k0;
          std::memcpy(block + t * kGemmPanel, from, static_cast<size_t>(columns) * sizeof(float));
        }
        const Rows a = packer.rows_at(context, plan.packed, g.a, t0);
        for_each_tile(height, kGemmTileRows, [&](int64_t at, int tile_rows) {
          float* const to = dw.row(row + at) + k0;
          const Sums sums = direct ? Sums(to, dw.stride(0)) : Sums(c);
          if (direct) Touched{to, dw.stride(0), columns}.ask(0, tile_rows);
          for (int64_t j = 0; j < lanes; j += 32) {
            table->tile_transposed(tile_rows, static_cast<int>(std::min<int64_t>(32, lanes - j)), a.data + row + at,
                                   a.stride, block + j, kGemmPanel, n, sums.data + j, sums.stride,
                                   direct ? GemmSums::kAdd : GemmSums::kWrite);
          }
          if (direct) return;
          table->finish(c, kGemmPanel, tile_rows, columns, 1.0f, nullptr, to, dw.stride(0), to, dw.stride(0));
        });
      }
    });
  }
  return true;
}

}  // namespace graft
