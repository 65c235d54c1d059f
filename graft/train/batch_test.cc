#include "graft/train/batch.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <set>

#include "graft/base/error.h"
#include "graft/formats/safetensors.h"
#include "tests/support/bad_case.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

// Rows of the given lengths; the last half of each is trained.
Dataset rows_of(const std::vector<int64_t>& lengths) {
  Dataset data;
  const int32_t file = data.add_file("d.jsonl");
  for (size_t i = 0; i < lengths.size(); ++i) {
    const auto n = static_cast<size_t>(lengths[i]);
    std::vector<int32_t> ids(n);
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(100 * i));
    std::vector<float> weights(n, 0.0f);
    for (size_t t = n / 2; t + 1 < n; ++t) weights[t] = 1;
    data.add(ids, weights, static_cast<int64_t>(i), file, static_cast<int64_t>(i + 1));
  }
  return data;
}

TEST(Batcher, StepsFollowTheFormulaAndEveryRowComesOncePerEpoch) {
  for (const int64_t rows : {1, 7, 8, 9, 100}) {
    const Dataset data = rows_of(std::vector<int64_t>(static_cast<size_t>(rows), 4));
    for (const int64_t batch : {1, 4, 8}) {
      for (const int64_t accumulate : {1, 3}) {
        for (const bool shuffle : {false, true}) {
          Batcher b(data, {.batch_size = batch, .accumulate = accumulate, .epochs = 2, .shuffle = shuffle, .seed = 5});
          const int64_t per_epoch = (rows + batch * accumulate - 1) / (batch * accumulate);
          ASSERT_EQ(b.num_steps(), 2 * per_epoch);
          std::vector<int64_t> seen;
          for (int64_t step = 0; step < per_epoch; ++step) {
            const Update& u = b.update(step);
            EXPECT_EQ(u.epoch, 0);
            EXPECT_LE(static_cast<int64_t>(u.micro_batches.size()), accumulate);
            for (const auto& micro : u.micro_batches) {
              EXPECT_LE(static_cast<int64_t>(micro.size()), batch);
              EXPECT_FALSE(micro.empty());
              seen.insert(seen.end(), micro.begin(), micro.end());
            }
          }
          EXPECT_TRUE(shuffle || std::is_sorted(seen.begin(), seen.end()));
          std::sort(seen.begin(), seen.end());
          for (int64_t i = 0; i < rows; ++i) ASSERT_EQ(seen[static_cast<size_t>(i)], i);
          EXPECT_EQ(static_cast<int64_t>(seen.size()), rows);
          EXPECT_EQ(b.update(per_epoch).epoch, 1);
          EXPECT_DOUBLE_EQ(b.update(2 * per_epoch - 1).epoch_after, 2.0);
        }
      }
    }
  }
}

TEST(Batcher, ShuffleDependsOnSeedAndEpochOnlyAndAnyStepCanBeAskedFor) {
  const Dataset data = rows_of(std::vector<int64_t>(50, 3));
  const auto order = [&](uint64_t seed, int64_t epoch) {
    Batcher b(data, {.batch_size = 50, .epochs = 3, .seed = seed});
    const auto micro = b.update(epoch).micro_batches[0];
    return std::vector<int64_t>(micro.begin(), micro.end());
  };
  EXPECT_EQ(order(1, 0), order(1, 0));
  EXPECT_EQ(order(1, 2), order(1, 2));
  EXPECT_NE(order(1, 0), order(1, 1));
  EXPECT_NE(order(1, 0), order(2, 0));
  const std::vector<int64_t> first = order(1, 0);
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));

  Batcher forward(data, {.batch_size = 4, .epochs = 3, .seed = 9}),
      backward(data, {.batch_size = 4, .epochs = 3, .seed = 9});
  std::vector<std::vector<int64_t>> a(39), b(39);
  const auto rows = [](Batcher& x, int64_t step) {
    std::vector<int64_t> all;
    for (const auto& m : x.update(step).micro_batches) all.insert(all.end(), m.begin(), m.end());
    return all;
  };
  for (int64_t s = 0; s < 39; ++s) a[static_cast<size_t>(s)] = rows(forward, s);
  for (int64_t s = 38; s >= 0; --s) b[static_cast<size_t>(s)] = rows(backward, s);
  EXPECT_EQ(a, b);
}

TEST(Batcher, EveryOrderIsAsLikelyAsAnother) {
  const Dataset data = rows_of({3, 3, 3});
  std::map<std::vector<int64_t>, int> count;
  Batcher b(data, {.batch_size = 3, .epochs = 6000, .seed = 1});
  for (int64_t e = 0; e < 6000; ++e) {
    const auto m = b.update(e).micro_batches[0];
    ++count[std::vector<int64_t>(m.begin(), m.end())];
  }
  ASSERT_EQ(count.size(), 6u);
  for (const auto& [order, n] : count) EXPECT_NEAR(n, 1000, 150);  // five standard deviations of 29
}

TEST(Batcher, BatchIsRaggedWithoutPadding) {
  const Dataset data = rows_of({4, 1, 6});
  Batcher b(data, {.batch_size = 3, .epochs = 1, .shuffle = false});
  Batch batch;
  b.fill(b.update(0).micro_batches[0], &batch);
  EXPECT_EQ(batch.ids, (std::vector<int32_t>{0, 1, 2, 3, 100, 200, 201, 202, 203, 204, 205}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 3, 0, 0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(batch.sequence_offsets, (std::vector<int32_t>{0, 4, 5, 11}));
  EXPECT_EQ(batch.label_rows, (std::vector<int32_t>{2, 8, 9}));
  EXPECT_EQ(batch.labels, (std::vector<int32_t>{3, 204, 205}));
  EXPECT_EQ(batch.rows, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(batch.weight, 3);
  EXPECT_EQ(b.capacity().tokens, 11);
  EXPECT_EQ(b.capacity().labels, 3);
  EXPECT_EQ(b.capacity().sequences, 3);
  EXPECT_EQ(b.capacity().longest, 6);
  const int32_t* before = batch.ids.data();
  b.fill(b.update(0).micro_batches[0], &batch);
  EXPECT_EQ(batch.ids.data(), before) << "filled again without allocating";
}

TEST(Batcher, WeightOfAnUpdateDoesNotDependOnHowItIsCut) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 24; ++i) lengths.push_back(2 + i % 7);
  const Dataset data = rows_of(lengths);
  Batcher whole(data, {.batch_size = 8, .accumulate = 1, .epochs = 1, .seed = 3});
  Batcher cut(data, {.batch_size = 2, .accumulate = 4, .epochs = 1, .seed = 3});
  ASSERT_EQ(whole.num_steps(), cut.num_steps());
  for (int64_t s = 0; s < whole.num_steps(); ++s) {
    const double weight = whole.update(s).weight;
    const int64_t tokens = whole.update(s).num_tokens;
    const Update& u = cut.update(s);
    EXPECT_EQ(u.weight, weight);
    EXPECT_EQ(u.num_tokens, tokens);
    Batch batch;
    double sum = 0;
    for (const auto& m : u.micro_batches) cut.fill(m, &batch), sum += batch.weight;
    EXPECT_EQ(sum, weight);
  }
}

TEST(Batcher, TokensOfABatchAreBounded) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 40; ++i) lengths.push_back(1 + (i * 7) % 20);
  const Dataset data = rows_of(lengths);
  Batcher b(data, {.batch_tokens = 30, .accumulate = 2, .epochs = 4, .seed = 2});
  std::vector<int> seen(40);
  for (int64_t s = 0; s < b.num_steps(); ++s) {
    const Update& u = b.update(s);
    for (const auto& m : u.micro_batches) {
      int64_t tokens = 0;
      for (const int64_t i : m) tokens += data.length(i), ++seen[static_cast<size_t>(i)];
      EXPECT_LE(tokens, 30);
      EXPECT_LE(tokens, b.capacity().tokens);
    }
  }
  for (const int n : seen) EXPECT_EQ(n, 4);
  Batcher small(data, {.batch_tokens = 5, .epochs = 1});
  EXPECT_EQ(small.capacity().tokens, 20) << "a longer row stands alone";
  // Epochs differ in their number of steps here; a run of given steps is cut exactly.
  Batcher steps(data, {.batch_tokens = 30, .steps = 57});
  EXPECT_EQ(steps.num_steps(), 57);
  EXPECT_FALSE(steps.update(56).micro_batches.empty());
  EXPECT_THROW(steps.update(57), Error);
}

TEST(Batcher, PackingFillsSlotsAndKeepsRowsApart) {
  std::vector<int64_t> lengths;
  int64_t total = 0;
  for (int64_t i = 0; i < 200; ++i) lengths.push_back(5 + (i * 13) % 60), total += lengths.back();
  const Dataset data = rows_of(lengths);
  Batcher b(data, {.batch_size = 2, .epochs = 1, .pack = true, .max_length = 128, .seed = 4});
  const int64_t least = (total + 127) / 128;
  EXPECT_LE(b.num_steps(), (least * 105 / 100 + 2) / 2)
      << "at most 5 % of the room is lost, " << least << " slots needed";
  std::vector<int> seen(200);
  Batch batch;
  for (int64_t s = 0; s < b.num_steps(); ++s) {
    const auto micro = b.update(s).micro_batches[0];
    b.fill(micro, &batch);
    EXPECT_LE(batch.num_tokens(), 256);
    EXPECT_EQ(batch.sequence_offsets.size(), micro.size() + 1) << "each row is a sequence";
    for (size_t i = 0; i < micro.size(); ++i) {
      ++seen[static_cast<size_t>(micro[i])];
      EXPECT_EQ(batch.positions[static_cast<size_t>(batch.sequence_offsets[i])], 0);
    }
  }
  for (const int n : seen) EXPECT_EQ(n, 1);
}

TEST(Batcher, StepsGoRoundTheRows) {
  const Dataset data = rows_of(std::vector<int64_t>(5, 3));
  Batcher b(data, {.batch_size = 2, .steps = 8, .shuffle = false});
  EXPECT_EQ(b.num_steps(), 8);
  for (int64_t s = 0; s < 8; ++s) EXPECT_EQ(b.update(s).micro_batches[0][0], 2 * (s % 3));
  EXPECT_EQ(b.update(7).epoch, 2);
  EXPECT_EQ(b.update(2).micro_batches[0].size(), 1u) << "the last, smaller batch";
}

TEST(Dataset, SplitIsDeterministicAndComplete) {
  const Dataset data = rows_of(std::vector<int64_t>(100, 4));
  const auto [train, valid] = split_dataset(data, 0.05, 7);
  EXPECT_EQ(train.size(), 95);
  EXPECT_EQ(valid.size(), 5);
  std::set<int64_t> rows;
  for (const Dataset* part : {&train, &valid}) {
    for (int64_t i = 0; i < part->size(); ++i) {
      const Example e = part->example(i);
      EXPECT_TRUE(rows.insert(e.row).second);
      EXPECT_EQ(e.ids[0], 100 * e.row);
      EXPECT_EQ(part->where(i), "d.jsonl:" + std::to_string(e.row + 1));
    }
  }
  EXPECT_EQ(rows.size(), 100u);
  EXPECT_EQ(split_dataset(data, 0.05, 7).second.fingerprint(), valid.fingerprint());
  EXPECT_NE(split_dataset(data, 0.05, 8).second.fingerprint(), valid.fingerprint());
  EXPECT_EQ(split_dataset(rows_of({3, 3}), 0.01, 0).second.size(), 1);
  EXPECT_THROW(split_dataset(rows_of({3}), 0.5, 0), Error);
}

class PretokenisedTest : public testing::Test {
 protected:
  std::string write(const std::vector<int64_t>& shape, const std::vector<int64_t>& ids, const std::string& label_name,
                    const std::vector<int64_t>& labels, const std::vector<int64_t>& mask = {}) {
    std::vector<TensorToWrite> tensors = {{"input_ids", DType::kI64, shape, as_bytes_of(ids)},
                                          {label_name, DType::kI64, shape, as_bytes_of(labels)}};
    if (!mask.empty()) tensors.push_back({"attention_mask", DType::kI64, shape, as_bytes_of(mask)});
    const std::string path = folder_ / "b.safetensors";
    write_safetensors(path, tensors);
    return path;
  }
  test::TempDir folder_;
};

TEST_F(PretokenisedTest, LabelsAreShiftedTargetsAreNot) {
  const Dataset labels =
      read_pretokenised(write({2, 1, 3}, {1, 2, 3, 4, 5, 6}, "labels", {9, 2, -100, 9, -100, 7}), 10, -100);
  EXPECT_EQ(labels.size(), 2);
  EXPECT_EQ(labels.fixed_batch(), 1);
  Batcher b(labels, {.epochs = 1, .shuffle = false});
  ASSERT_EQ(b.num_steps(), 2);
  Batch batch;
  b.fill(b.update(0).micro_batches[0], &batch);
  EXPECT_EQ(batch.label_rows, std::vector<int32_t>{0});
  EXPECT_EQ(batch.labels, std::vector<int32_t>{2});
  b.fill(b.update(1).micro_batches[0], &batch);
  EXPECT_EQ(batch.label_rows, std::vector<int32_t>{1});
  EXPECT_EQ(batch.labels, std::vector<int32_t>{7});

  const Dataset targets = read_pretokenised(write({1, 2, 2}, {1, 2, 3, 4}, "targets", {-100, 8, 7, -100}), 10, -100);
  Batcher t(targets, {.epochs = 1, .shuffle = false});
  t.fill(t.update(0).micro_batches[0], &batch);
  EXPECT_EQ(batch.label_rows, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(batch.labels, (std::vector<int32_t>{8, 7}));
  EXPECT_EQ(batch.sequence_offsets, (std::vector<int32_t>{0, 2, 4}));
}

TEST_F(PretokenisedTest, MaskCutsPadding) {
  const Dataset data = read_pretokenised(
      write({1, 2, 3}, {1, 2, 0, 3, 4, 5}, "labels", {-100, 2, 0, 3, 4, 5}, {1, 1, 0, 1, 1, 1}), 10, -100);
  EXPECT_EQ(data.num_tokens(), 5);
  EXPECT_EQ(data.num_trained_tokens(), 3);
  EXPECT_THROW(read_pretokenised(write({1, 1, 3}, {1, 2, 3}, "labels", {1, 2, 3}, {0, 1, 1}), 10, -100), Error);
}

TEST_F(PretokenisedTest, FaultsAreNamed) {
  const auto error = [&](const std::string& path) {
    try {
      read_pretokenised(path, 10, -100);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(error(write({1, 1, 3}, {1, 2, 10}, "labels", {1, 2, 3})).find("input_ids[0, 0, 2] is 10, expected 0 to 9"),
            std::string::npos);
  EXPECT_NE(error(write({1, 1, 3}, {1, 2, 3}, "labels", {1, -7, 3})).find("labels[0, 0, 1] is -7"), std::string::npos);
  EXPECT_NE(error(write({1, 1, 3}, {1, 2, 3}, "labels", {1, -100, -100})).find("all tokens of batch 0 are ignored"),
            std::string::npos);
  EXPECT_NE(error(write({1, 3}, {1, 2, 3}, "labels", {1, 2, 3})).find("input_ids has shape [1, 3]"), std::string::npos);
  EXPECT_NE(error(write({0, 1, 3}, {}, "labels", {})).find("no rows"), std::string::npos);
}

TEST(Dataset, PretokenisedFixtureIsTakenInFileOrderCyclically) {
  GRAFT_NEEDS_FIXTURES();
  const std::string path = test::fixtures() + "/golden/train_qwen2/batches.safetensors";
  const SafetensorsFile file(path);
  const auto shape = file.at("input_ids").shape;
  const std::vector<int64_t> ids = file.read_i64("input_ids");
  const Dataset data = read_pretokenised(path, 100000, -100);
  Batcher b(data, {.steps = 10, .shuffle = false});
  ASSERT_EQ(b.num_steps(), 10);
  Batch batch;
  for (int64_t s = 0; s < 10; ++s) {
    ASSERT_EQ(b.update(s).micro_batches.size(), 1u);
    b.fill(b.update(s).micro_batches[0], &batch);
    const int64_t n = shape[1] * shape[2], from = (s % shape[0]) * n;
    ASSERT_EQ(batch.num_tokens(), n);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(batch.ids[static_cast<size_t>(i)], ids[static_cast<size_t>(from + i)]);
    EXPECT_EQ(batch.labels.size(), static_cast<size_t>(shape[1] * (shape[2] - 1)));
  }
}

}  // namespace
}  // namespace graft
