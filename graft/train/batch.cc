#include "graft/train/batch.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "graft/base/error.h"
#include "graft/base/random.h"

namespace graft {
namespace {

// Uniform in [0, n) from 64 random bits; the bias is below n / 2^64.
int64_t draw_below(uint64_t bits, int64_t n) {
  const auto range = static_cast<uint64_t>(n);
  const uint64_t low = (bits & 0xFFFFFFFFu) * (range & 0xFFFFFFFFu), mid1 = (bits >> 32) * (range & 0xFFFFFFFFu),
                 mid2 = (bits & 0xFFFFFFFFu) * (range >> 32), high = (bits >> 32) * (range >> 32);
  const uint64_t carry = ((low >> 32) + (mid1 & 0xFFFFFFFFu) + (mid2 & 0xFFFFFFFFu)) >> 32;
  return static_cast<int64_t>(high + (mid1 >> 32) + (mid2 >> 32) + carry);
}

}  // namespace

BatchOptions batch_options(const TrainConfig& c) {
  return {c.batch_size, c.batch_tokens, c.accumulate,
          c.epochs,     c.steps,        c.pack,
          c.max_length, !c.no_shuffle,  static_cast<uint64_t>(c.seed)};
}

Batcher::Batcher(const Dataset& data, const BatchOptions& options) : data_(data), options_(options) {
  GRAFT_CHECK(!data.empty(), "no rows to train on");
  GRAFT_CHECK(options.batch_size >= 1 && options.accumulate >= 1 && options.epochs >= 1 && options.steps >= 0,
              "batch_size is {}, accumulate {}, epochs {}, steps {}: expected at least 1 (steps 0)", options.batch_size,
              options.accumulate, options.epochs, options.steps);
  if (options_.max_length == 0) options_.max_length = data.longest();
  // Epochs that differ only in their order have the same number of updates, unless sizes decide where a batch ends.
  const bool sizes_count = options_.pack || options_.batch_tokens > 0;
  epochs_alike_ = !options_.shuffle || !sizes_count || data.fixed_batch() > 0;
  // The run is gone through once: the largest micro-batch must be known before the start.
  for (int64_t epoch = 0;; ++epoch) {
    if (options_.steps > 0 ? num_steps_ >= options_.steps : epoch >= options_.epochs) break;
    if (epoch == 0 || options_.shuffle) plan_epoch(epoch);
    if (!epochs_alike_) first_step_.push_back(num_steps_);
    const int64_t left = options_.steps > 0 ? options_.steps - num_steps_ : epoch_.num_steps();
    const int64_t steps = std::min(left, epoch_.num_steps());
    const int64_t num_micro = epoch_.updates[static_cast<size_t>(steps)];
    for (size_t m = 0; m < static_cast<size_t>(num_micro); ++m) {
      BatchCapacity size;
      for (int64_t k = epoch_.micro[m]; k < epoch_.micro[m + 1]; ++k) {
        const Example e = data_.example(epoch_.order[static_cast<size_t>(k)]);
        size.tokens += static_cast<int64_t>(e.ids.size());
        size.labels += std::count_if(e.target_weights.begin(), e.target_weights.end(), [](float w) { return w > 0; });
        ++size.sequences;
        capacity_.longest = std::max(capacity_.longest, static_cast<int64_t>(e.ids.size()));
      }
      capacity_.tokens = std::max(capacity_.tokens, size.tokens);
      capacity_.labels = std::max(capacity_.labels, size.labels);
      capacity_.sequences = std::max(capacity_.sequences, size.sequences);
    }
    num_steps_ += steps;
    if (!options_.shuffle) {  // every epoch is this one
      num_steps_ = options_.steps > 0 ? options_.steps : options_.epochs * epoch_.num_steps();
      break;
    }
  }
}

void Batcher::plan_epoch(int64_t number) {
  const int64_t same = options_.shuffle ? number : 0;
  if (epoch_.number == same) return;
  epoch_.number = same;
  const int64_t fixed = data_.fixed_batch();
  // Units that are shuffled: rows, or whole batches of pre-tokenised data.
  const int64_t units = fixed > 0 ? data_.size() / fixed : data_.size();
  std::vector<int64_t> order(static_cast<size_t>(units));
  std::iota(order.begin(), order.end(), 0);
  if (options_.shuffle) {
    const RandomStream stream(options_.seed, stream_hash("shuffle"));
    for (int64_t i = units - 1; i > 0; --i) {
      const auto block = stream.block(static_cast<uint64_t>(i), static_cast<uint64_t>(number));
      std::swap(order[static_cast<size_t>(i)],
                order[static_cast<size_t>(draw_below((uint64_t{block[0]} << 32) | block[1], i + 1))]);
    }
  }
  epoch_.micro.assign(1, 0);
  if (fixed > 0) {
    epoch_.order.clear();
    for (const int64_t unit : order) {
      for (int64_t r = 0; r < fixed; ++r) epoch_.order.push_back(unit * fixed + r);
      epoch_.micro.push_back(static_cast<int64_t>(epoch_.order.size()));
    }
  } else {
    epoch_.order = std::move(order);
    std::vector<int64_t> slots;  // offsets into order
    if (options_.pack) {
      pack_order(&slots);
    } else {
      slots.resize(static_cast<size_t>(units) + 1);
      std::iota(slots.begin(), slots.end(), 0);
    }
    int64_t in_batch = 0, tokens = 0;
    for (size_t s = 0; s + 1 < slots.size(); ++s) {
      int64_t slot_tokens = 0;
      for (int64_t k = slots[s]; k < slots[s + 1]; ++k) {
        slot_tokens += data_.length(epoch_.order[static_cast<size_t>(k)]);
      }
      const bool full =
          options_.batch_tokens > 0 ? tokens + slot_tokens > options_.batch_tokens : in_batch == options_.batch_size;
      if (in_batch > 0 && full) {
        epoch_.micro.push_back(slots[s]);
        in_batch = tokens = 0;
      }
      ++in_batch;
      tokens += slot_tokens;
    }
    epoch_.micro.push_back(slots.back());
  }
  const auto num_micro = static_cast<int64_t>(epoch_.micro.size()) - 1;
  epoch_.updates.assign(1, 0);
  for (int64_t m = 0; m < num_micro; m += options_.accumulate) {
    epoch_.updates.push_back(std::min(m + options_.accumulate, num_micro));
  }
}

// Best fit: each row, in the shuffled order, goes to the fullest slot that still holds it. Rewrites the order slot by
// slot.
void Batcher::pack_order(std::vector<int64_t>* slots) {
  std::vector<std::vector<int64_t>> packed;
  std::map<std::pair<int64_t, size_t>, bool>
      open;  // (room, slot), ascending: the fullest that fits, the oldest of equals
  for (const int64_t example : epoch_.order) {
    const int64_t length = data_.length(example);
    const auto best = open.lower_bound({length, 0});
    size_t slot = packed.size();
    int64_t room = options_.max_length;
    if (best != open.end()) {
      room = best->first.first;
      slot = best->first.second;
      open.erase(best);
    } else {
      packed.emplace_back();
    }
    packed[slot].push_back(example);
    if (room > length) open[{room - length, slot}] = true;
  }
  epoch_.order.clear();
  slots->assign(1, 0);
  for (const auto& slot : packed) {
    epoch_.order.insert(epoch_.order.end(), slot.begin(), slot.end());
    slots->push_back(static_cast<int64_t>(epoch_.order.size()));
  }
}

int64_t Batcher::steps_of_epoch(int64_t epoch) {
  plan_epoch(epoch);
  return epoch_.num_steps();
}

const Update& Batcher::update(int64_t step) {
  GRAFT_CHECK(step >= 0 && step < num_steps_, "step {} of a run of {}", step, num_steps_);
  int64_t epoch = 0, within = step;
  if (epochs_alike_) {
    plan_epoch(0);
    const int64_t per_epoch = epoch_.num_steps();
    epoch = step / per_epoch;
    within = step % per_epoch;
  } else {
    epoch = std::upper_bound(first_step_.begin(), first_step_.end(), step) - first_step_.begin() - 1;
    within = step - first_step_[static_cast<size_t>(epoch)];
  }
  plan_epoch(epoch);
  update_.step = step;
  update_.epoch = epoch;
  update_.micro_batches.clear();
  update_.weight = 0;
  update_.num_tokens = update_.num_labels = 0;
  const int64_t first = epoch_.updates[static_cast<size_t>(within)],
                last = epoch_.updates[static_cast<size_t>(within) + 1];
  for (int64_t m = first; m < last; ++m) {
    const auto begin = static_cast<size_t>(epoch_.micro[static_cast<size_t>(m)]),
               end = static_cast<size_t>(epoch_.micro[static_cast<size_t>(m) + 1]);
    const auto examples = std::span<const int64_t>(epoch_.order).subspan(begin, end - begin);
    double weight = 0;
    for (const int64_t i : examples) {
      const Example e = data_.example(i);
      update_.num_tokens += static_cast<int64_t>(e.ids.size());
      for (const float w : e.target_weights) {
        if (!(w > 0)) continue;
        weight += static_cast<double>(w);
        ++update_.num_labels;
      }
    }
    update_.weight += weight;
    update_.micro_batches.push_back(examples);
  }
  update_.epoch_after =
      static_cast<double>(epoch) + static_cast<double>(within + 1) / static_cast<double>(epoch_.num_steps());
  return update_;
}

void Batcher::fill(std::span<const int64_t> examples, Batch* batch) const {
  Batch& b = *batch;
  const auto clear = [](auto& v, int64_t capacity) {
    v.clear();
    v.reserve(static_cast<size_t>(capacity));
  };
  clear(b.ids, capacity_.tokens);
  clear(b.positions, capacity_.tokens);
  clear(b.sequence_offsets, capacity_.sequences + 1);
  clear(b.label_rows, capacity_.labels);
  clear(b.labels, capacity_.labels);
  clear(b.label_weights, capacity_.labels);
  clear(b.rows, capacity_.sequences);
  b.weight = 0;
  b.sequence_offsets.push_back(0);
  for (const int64_t i : examples) {
    const Example e = data_.example(i);
    const auto base = static_cast<int32_t>(b.ids.size()), n = static_cast<int32_t>(e.ids.size());
    b.ids.insert(b.ids.end(), e.ids.begin(), e.ids.end());
    for (int32_t t = 0; t < n; ++t) {
      b.positions.push_back(t);
      const float weight = e.target_weights[static_cast<size_t>(t)];
      if (!(weight > 0)) continue;
      b.label_rows.push_back(base + t);
      b.labels.push_back(data_.target(i, t));
      b.label_weights.push_back(weight);
      b.weight += static_cast<double>(weight);
    }
    b.sequence_offsets.push_back(base + n);
    b.rows.push_back(e.row);
  }
}

}  // namespace graft
