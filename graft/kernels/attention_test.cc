#include "graft/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "graft/base/cpu.h"
#include "graft/kernels/attention_test_data.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using namespace graft::test;

Runner& runner(int threads) {
  static Runner one(1), two(2), seven(7);
  return threads == 1 ? one : threads == 2 ? two : seven;
}

std::string describe(const Shape& s, int64_t length, CpuLevel level, int threads, Layout layout) {
  return std::to_string(length) + " keys, " + std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) +
         " heads of " + std::to_string(s.head_dim) + ", window " + std::to_string(s.window) + ", " +
         std::string(cpu_level_name(level)) + ", " + std::to_string(threads) + " threads, layout " +
         std::to_string(static_cast<int>(layout));
}

// softmax(scale q k) v in two passes with libm: the mathematics, in another order of arithmetic.
std::vector<double> two_pass(const Shape& s, const Sequence<double>& x, std::vector<double>* lse) {
  std::vector<double> o;
  for (int64_t p = x.begin; p < x.length; ++p) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t g = h / (s.heads / s.kv_heads), first = s.window > 0 ? std::max<int64_t>(0, p - s.window + 1) : 0;
      std::vector<double> w;
      for (int64_t j = first; j <= p; ++j) {
        double dot = 0;
        for (int64_t e = 0; e < s.head_dim; ++e) {
          dot += x.q[static_cast<size_t>((p * s.heads + h) * s.head_dim + e)] *
                 x.k[static_cast<size_t>((j * s.kv_heads + g) * s.head_dim + e)];
        }
        w.push_back(dot / std::sqrt(static_cast<double>(s.head_dim)));
      }
      const double m = *std::max_element(w.begin(), w.end());
      double l = 0;
      for (double& y : w) l += y = std::exp(y - m);
      for (int64_t e = 0; e < s.head_dim; ++e) {
        double sum = 0;
        for (int64_t j = first; j <= p; ++j) {
          sum +=
              w[static_cast<size_t>(j - first)] / l * x.v[static_cast<size_t>((j * s.kv_heads + g) * s.head_dim + e)];
        }
        o.push_back(sum);
      }
      lse->push_back(m + std::log(l));
    }
  }
  return o;
}

TEST(Attention, MatchesTwoPassSoftmax) {
  for (int64_t window : {0, 1, 12, 64, 100, 600}) {
    for (int64_t length : {1, 7, 64, 65, 130, 700, 1100}) {
      const Shape s{4, 2, 7, window};
      const Sequence<double> x = make_sequence<double>(s, length, std::max<int64_t>(0, length - 140), 3);
      std::vector<double> want_lse;
      const std::vector<double> want = two_pass(s, x, &want_lse);
      const Attended<double> got = attend<double>(runner(2), s, {&x}, Layout::kRows);
      double worst = 0;
      for (size_t i = 0; i < want.size(); ++i) worst = std::max(worst, std::abs(want[i] - got.o[i]));
      for (size_t i = 0; i < want_lse.size(); ++i) worst = std::max(worst, std::abs(want_lse[i] - got.lse[i]));
      EXPECT_LE(worst, 1e-13) << length << " keys, window " << window;  // a few dozen roundings of values of order 1
    }
  }
}

TEST(Attention, FloatIsCloseToDouble) {
  const Shape s{4, 2, 64, 0};
  const Sequence<double> x = make_sequence<double>(s, 600, 0, 5);
  const Sequence<float> y{
      x.length, x.begin, {x.q.begin(), x.q.end()}, {x.k.begin(), x.k.end()}, {x.v.begin(), x.v.end()}};
  const Attended<double> want = attend<double>(runner(2), s, {&x}, Layout::kRows);
  const Attended<float> got = attend<float>(runner(2), s, {&y}, Layout::kRows);
  double worst = 0;
  for (size_t i = 0; i < want.o.size(); ++i) {
    worst = std::max(worst, std::abs(want.o[i] - static_cast<double>(got.o[i])));
  }
  // scores of size 8 with chains of 64 roundings: 64 * 2^-24 * 8 at the very worst
  EXPECT_LE(worst, 3e-5);
}

// The same rows in every variant, layout, number of threads and cut into calls.
void check_bits(const Shape& s, int64_t length, int64_t begin, bool thorough) {
  const LevelGuard guard;
  const Sequence<float> x = make_sequence<float>(s, length, begin, 11);
  set_cpu_level(CpuLevel::kScalar);
  const Attended<float> want = attend<float>(runner(1), s, {&x}, Layout::kRows);
  const int64_t row = s.heads * s.head_dim;
  for (CpuLevel level : {CpuLevel::kScalar, CpuLevel::kAvx2, CpuLevel::kAvx512, CpuLevel::kNeon}) {
    set_cpu_level(guard.top);
    const std::vector<CpuLevel> levels = cpu_levels_available();
    if (std::find(levels.begin(), levels.end(), level) == levels.end()) continue;
    if (level == CpuLevel::kScalar && !thorough) continue;
    set_cpu_level(level);
    for (int threads : {1, 2, 7}) {
      if (threads > 1 && !thorough && (length + s.window + s.head_dim) % 2 == threads % 2) continue;
      for (Layout layout : kLayouts) {
        if (threads == 2 && (layout == Layout::kRows || layout == Layout::kCache)) continue;  // enough in turn
        if (threads == 7 && layout != Layout::kRows && layout != Layout::kCache) continue;
        const std::string what = describe(s, length, level, threads, layout);
        const Attended<float> got = attend<float>(runner(threads), s, {&x}, layout);
        ASSERT_TRUE(same_bits(want.o, got.o)) << what;
        ASSERT_TRUE(same_bits(want.lse, got.lse)) << what;
        // Decoding: the last rows one at a time; and a chunk that begins elsewhere, among other sequences.
        for (int64_t at : {length - 1, begin + (length - begin) / 2, begin + 1}) {
          for (int64_t end : {at + 1, std::min(length, at + 13)}) {
            if (at < begin || at >= length || (at == length - 1 && end != length)) continue;
            Sequence<float> part = x;
            part.begin = at;
            part.length = end;
            part.q.resize(static_cast<size_t>(end * row));
            const Sequence<float> other = make_sequence<float>(s, 20, 5, 13),
                                  single = make_sequence<float>(s, 3, 2, 17);
            const std::vector<const Sequence<float>*> alone = {&part}, among = {&single, &other, &part, &single};
            for (const auto* batch : {&alone, &among}) {
              const Attended<float> some = attend<float>(runner(threads), s, *batch, layout);
              const int64_t skip = batch->size() == 1 ? 0 : 16;
              ASSERT_TRUE(same_bits(want.o.data() + (at - begin) * row, some.o.data() + skip * row,
                                    static_cast<size_t>((end - at) * row)))
                  << what << ", rows " << at << " to " << end << " in a batch of " << batch->size();
              ASSERT_TRUE(same_bits(want.lse.data() + (at - begin) * s.heads, some.lse.data() + skip * s.heads,
                                    static_cast<size_t>((end - at) * s.heads)))
                  << what << ", rows " << at << " to " << end << " in a batch of " << batch->size();
            }
          }
        }
      }
    }
  }
}

TEST(Attention, SameBitsAtEveryLength) {
  for (int64_t length : {1, 2, 15, 16, 17, 63, 64, 65, 129, 511, 512, 513}) {
    for (int64_t window : {0, 1, 12, 64, 100, 600}) {
      check_bits({4, 2, 16, window}, length, std::max<int64_t>(0, length - 40), window == 12);
    }
  }
  check_bits({2, 1, 16, 0}, 600, 0, false);
  check_bits({2, 1, 16, 100}, 600, 0, false);
  check_bits({2, 1, 16, 600}, 1300, 1100, false);
}

TEST(Attention, SameBitsInEveryShape) {
  for (int64_t head_dim : {1, 2, 7, 16, 24, 64, 80, 128}) {
    for (const Shape& heads : {Shape{1, 1}, Shape{4, 2}, Shape{14, 2}, Shape{5, 1}}) {
      const int64_t window = (head_dim + heads.heads) % 2 * 12;
      check_bits({heads.heads, heads.kv_heads, head_dim, window}, 150, 0, head_dim == 7);
    }
  }
}

TEST(Attention, SameBitsOverManySpans) {
  for (int64_t window : {0, 600, 1000}) check_bits({4, 2, 24, window}, 4097, 4060, false);
  check_bits({14, 2, 64, 0}, 2100, 2095, false);
}

// Decoding is split over spans only where the scratch has room for their states: a plan for shorter sequences still works.
TEST(Attention, ShortScratchIsEnough) {
  const Shape s{2, 1, 16, 0};
  const Sequence<float> x = make_sequence<float>(s, 2000, 1999, 47);
  const Attended<float> want = attend<float>(runner(1), s, {&x}, Layout::kCache);
  Runner fresh(7);
  fresh.context.reserve(attention_scratch(7, s.heads, s.kv_heads, s.head_dim, 1, 512));
  const ScratchNeed before = fresh.context.reserved();
  const Keys<float> keys = lay_out(fresh.context, s, x, Layout::kCache);
  const AttentionSequence<float> sequence{0, 1, x.begin, keys.ranges};
  std::vector<float> o(32);
  AttentionArgs<float> args;
  args.sequences = {&sequence, 1};
  args.num_heads = 2;
  args.num_kv_heads = 1;
  args.head_dim = 16;
  args.scale = 0.25;
  args.q = View<const float, 3>(x.q.data() + x.begin * 32, 1, 2, 16);
  args.o = View<float, 3>(o.data(), 1, 2, 16);
  attention<float>(fresh.context, args);
  EXPECT_TRUE(same_bits(want.o, o));
  EXPECT_EQ(fresh.context.reserved().shared, before.shared);
}

TEST(Attention, NanReachesWhatSeesItOnly) {
  const LevelGuard guard;
  const float nan = std::nanf("");
  for (CpuLevel level : {CpuLevel::kScalar, CpuLevel::kAvx2, CpuLevel::kAvx512, CpuLevel::kNeon}) {
    set_cpu_level(guard.top);
    const std::vector<CpuLevel> levels = cpu_levels_available();
    if (std::find(levels.begin(), levels.end(), level) == levels.end()) continue;
    set_cpu_level(level);
    for (int64_t window : {0, 1, 12, 100}) {
      for (int64_t bad : {0, 5, 64, 77, 149}) {
        for (int which = 0; which < 3; ++which) {
          for (const Layout layout : {Layout::kRows, Layout::kCache}) {
            const Shape s{4, 2, 24, window};
            Sequence<float> x = make_sequence<float>(s, 150, 0, 19), clean = make_sequence<float>(s, 80, 0, 23);
            const Attended<float> good = attend<float>(runner(2), s, {&x}, Layout::kRows);
            if (which == 0) x.q[static_cast<size_t>((bad * 4 + 1) * 24 + 3)] = nan;  // one query of head 1
            if (which == 1) x.k[static_cast<size_t>((bad * 2 + 1) * 24 + 3)] = nan;  // one key of heads 2 and 3
            if (which == 2) {
              x.v[static_cast<size_t>((bad * 2 + 1) * 24 + 3)] = nan;  // one value of heads 2 and 3: one feature
            }
            const Attended<float> got = attend<float>(runner(2), s, {&clean, &x}, layout);
            for (int64_t p = 0; p < 150; ++p) {
              for (int64_t h = 0; h < 4; ++h) {
                const bool sees = p >= bad && (window == 0 || p < bad + window);
                for (int64_t e = 0; e < 24; ++e) {
                  const bool expected = which == 0 ? p == bad && h == 1 : sees && h >= 2 && (which == 1 || e == 3);
                  const float y = got.o[static_cast<size_t>(((80 + p) * 4 + h) * 24 + e)];
                  ASSERT_EQ(std::isnan(y), expected)
                      << "position " << p << ", head " << h << ", feature " << e << ", bad " << bad << ", " << which;
                  if (!expected) {
                    ASSERT_EQ(y, good.o[static_cast<size_t>((p * 4 + h) * 24 + e)]);
                  }
                }
                const bool expected_lse = which == 0 ? p == bad && h == 1 : which == 1 && sees && h >= 2;
                ASSERT_EQ(std::isnan(got.lse[static_cast<size_t>((80 + p) * 4 + h)]), expected_lse);
              }
            }
            for (size_t i = 0; i < static_cast<size_t>(80 * 4 * 24); ++i) ASSERT_FALSE(std::isnan(got.o[i]));
          }
        }
      }
    }
  }
}

TEST(Attention, LargeScoresStayFinite) {
  const LevelGuard guard;
  set_cpu_level(CpuLevel::kScalar);
  const Shape s{2, 1, 16, 0};
  Sequence<float> x = make_sequence<float>(s, 200, 0, 29);
  for (float& y : x.q) y *= 300;
  const Attended<float> want = attend<float>(runner(1), s, {&x}, Layout::kRows);
  for (float y : want.o) ASSERT_LE(std::abs(y), 1.001f);  // a mean of values in [-1, 1]
  set_cpu_level(guard.top);
  EXPECT_TRUE(same_bits(want.o, attend<float>(runner(2), s, {&x}, Layout::kCache).o));
}

TEST(Attention, EmptyBatchAndEmptySequence) {
  const LevelGuard guard;
  for (CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    const Shape s{2, 1, 16, 0};
    EXPECT_TRUE(attend<float>(runner(2), s, {}, Layout::kRows).o.empty());
    const Sequence<float> none = make_sequence<float>(s, 0, 0, 1), one = make_sequence<float>(s, 1, 0, 2);
    const Attended<float> got = attend<float>(runner(2), s, {&none, &one, &none}, Layout::kRows);
    ASSERT_EQ(got.o.size(), 32u);
    for (size_t i = 0; i < 32; ++i) EXPECT_EQ(got.o[i], one.v[i % 16]);  // one key: its value
    TrainingBatch<float> batch = make_batch<float>(s, {}, 1);
    train_forward(runner(2), s, batch);
    EXPECT_TRUE(train_backward(runner(2), s, batch).dq.empty());
    batch = make_batch<float>(s, {0, 1, 0}, 1);
    train_forward(runner(2), s, batch);
    const Gradients<float> g = train_backward(runner(2), s, batch);
    for (size_t e = 0; e < 16; ++e) EXPECT_FLOAT_EQ(g.dv[e], batch.d_o[e] + batch.d_o[16 + e]);
    for (float y : g.dk) {
      EXPECT_NEAR(y, 0, 1e-6);  // one key: the weight is 1 whatever the score; rounding of do . v - do . o remains
    }
  }
}

// Each gradient against differences of <d_o, o> in f64.
TEST(AttentionBackward, MatchesFiniteDifferences) {
  for (const Shape& s : {Shape{4, 2, 7, 0}, Shape{2, 2, 2, 12}, Shape{5, 1, 3, 70}, Shape{1, 1, 1, 1}}) {
    TrainingBatch<double> batch = make_batch<double>(s, {3, 75, 1, 130}, 31);
    train_forward(runner(2), s, batch);
    const Gradients<double> g = train_backward(runner(2), s, batch);
    const auto loss = [&] {
      TrainingBatch<double> copy = batch;
      train_forward(runner(2), s, copy);
      double sum = 0;
      for (size_t i = 0; i < copy.o.size(); ++i) sum += copy.o[i] * copy.d_o[i];
      return sum;
    };
    const auto check = [&](std::vector<double>& x, const std::vector<double>& dx, const char* name) {
      double worst = 0, largest = 0;
      for (double y : dx) largest = std::max(largest, std::abs(y));
      for (size_t i = 0; i < x.size(); i += 1 + x.size() / 20) {
        const double keep = x[i], h = 1e-4;
        const auto at = [&](double value) {
          x[i] = value;
          return loss();
        };
        // fourth order: h^4 is far below the rounding of the loss over h
        const double slope = (8 * (at(keep + h) - at(keep - h)) - (at(keep + 2 * h) - at(keep - 2 * h))) / (12 * h);
        x[i] = keep;
        worst = std::max(worst, std::abs(slope - dx[i]));
      }
      EXPECT_LE(worst, 1e-6 * std::max(largest, 1e-3)) << name << ", heads " << s.heads << ", window " << s.window;
    };
    check(batch.q, g.dq, "dq");
    check(batch.k, g.dk, "dk");
    check(batch.v, g.dv, "dv");
  }
}

void check_backward_bits(const Shape& s, int64_t length) {
  const LevelGuard guard;
  set_cpu_level(CpuLevel::kScalar);
  TrainingBatch<float> batch = make_batch<float>(s, {length}, 37),
                       many = make_batch<float>(s, {length, 5, 0, 66, 1}, 37);
  train_forward(runner(1), s, batch);
  train_forward(runner(1), s, many);
  const Gradients<float> want = train_backward(runner(1), s, batch), want_many = train_backward(runner(1), s, many);
  ASSERT_TRUE(same_bits(want.dk.data(), want_many.dk.data(), want.dk.size()));
  for (CpuLevel level : {CpuLevel::kScalar, CpuLevel::kAvx2, CpuLevel::kAvx512, CpuLevel::kNeon}) {
    set_cpu_level(guard.top);
    const std::vector<CpuLevel> levels = cpu_levels_available();
    if (std::find(levels.begin(), levels.end(), level) == levels.end()) continue;
    set_cpu_level(level);
    for (int threads : {1, 2, 7}) {
      if (level == CpuLevel::kScalar && threads != 7) continue;
      for (const bool alone : {true, false}) {
        const Gradients<float>& expected = alone ? want : want_many;
        const Gradients<float> got = train_backward(runner(threads), s, alone ? batch : many);
        const std::string what = describe(s, length, level, threads, Layout::kRows) + (alone ? "" : ", in a batch");
        ASSERT_TRUE(same_bits(expected.dq, got.dq)) << what;
        ASSERT_TRUE(same_bits(expected.dk, got.dk)) << what;
        ASSERT_TRUE(same_bits(expected.dv, got.dv)) << what;
      }
    }
  }
}

TEST(AttentionBackward, SameBitsAtEveryLength) {
  for (int64_t length : {1, 2, 15, 16, 17, 63, 64, 65, 129, 200}) {
    for (int64_t window : {0, 1, 3, 12, 64, 100}) check_backward_bits({4, 2, 16, window}, length);
  }
  check_backward_bits({2, 1, 16, 0}, 513);
  check_backward_bits({2, 1, 16, 300}, 600);
}

TEST(AttentionBackward, SameBitsInEveryShape) {
  for (int64_t head_dim : {1, 2, 7, 16, 24, 64, 80, 128}) {
    for (const Shape& heads : {Shape{1, 1}, Shape{4, 2}, Shape{14, 2}, Shape{5, 1}}) {
      check_backward_bits({heads.heads, heads.kv_heads, head_dim, (head_dim + heads.heads) % 2 * 12}, 100);
    }
  }
}

// Views into wider rows, as a fused projection of q, k and v gives, and features that do not lie together.
TEST(AttentionBackward, AnyStrides) {
  const LevelGuard guard;
  for (int64_t head_dim : {7, 64}) {
    for (int64_t feature : {1, 2}) {
      for (int64_t pad : {int64_t{0}, int64_t{37},
                          512 - 8 * head_dim % 512}) {  // the last makes the distance between rows a multiple of 2 kB
        const Shape s{4, 2, head_dim, 90};
        const int64_t rows = 150, row = 8 * head_dim * feature + pad;
        const TrainingBatch<float> plain = [&] {
          TrainingBatch<float> batch = make_batch<float>(s, {rows}, 43);
          set_cpu_level(CpuLevel::kScalar);
          train_forward(runner(1), s, batch);
          return batch;
        }();
        const Gradients<float> want = train_backward(runner(1), s, plain);
        for (CpuLevel level : {CpuLevel::kScalar, CpuLevel::kAvx2, CpuLevel::kAvx512, CpuLevel::kNeon}) {
          set_cpu_level(guard.top);
          const std::vector<CpuLevel> levels = cpu_levels_available();
          if (std::find(levels.begin(), levels.end(), level) == levels.end()) continue;
          set_cpu_level(level);
          for (int threads : {1, 7}) {
            // memory: [rows][q k v] and the same for the gradients; o and d_o [rows][padded]
            std::vector<float> x(static_cast<size_t>(rows * row), 99.0f), dx = x, o = x, d_o = x,
                                                                          lse(static_cast<size_t>(rows * s.heads));
            const auto view = [&](std::vector<float>& memory, int64_t first_head, int64_t heads) {
              return View<float, 3>(memory.data() + first_head * head_dim * feature, {rows, heads, head_dim},
                                    {row, head_dim * feature, feature});
            };
            const auto put = [&](const std::vector<float>& from, View<float, 3> to) {
              for (int64_t t = 0; t < rows; ++t) {
                for (int64_t h = 0; h < to.extent(1); ++h) {
                  for (int64_t e = 0; e < head_dim; ++e) {
                    to(t, h, e) = from[static_cast<size_t>((t * to.extent(1) + h) * head_dim + e)];
                  }
                }
              }
            };
            const auto get = [&](View<float, 3> from) {
              std::vector<float> to;
              for (int64_t t = 0; t < rows; ++t) {
                for (int64_t h = 0; h < from.extent(1); ++h) {
                  for (int64_t e = 0; e < head_dim; ++e) to.push_back(from(t, h, e));
                }
              }
              return to;
            };
            put(plain.q, view(x, 0, 4));
            put(plain.k, view(x, 4, 2));
            put(plain.v, view(x, 6, 2));
            put(plain.d_o, view(d_o, 0, 4));
            KeyRange<float> range{0,
                                  rows,
                                  false,
                                  view(x, 4, 2).data(),
                                  view(x, 6, 2).data(),
                                  row,
                                  head_dim * feature,
                                  feature,
                                  row,
                                  head_dim * feature,
                                  feature};
            const AttentionSequence<float> sequence{0, rows, 0, std::span<const KeyRange<float>>(&range, 1)};
            AttentionArgs<float> args;
            args.sequences = {&sequence, 1};
            args.num_heads = s.heads;
            args.num_kv_heads = s.kv_heads;
            args.head_dim = s.head_dim;
            args.window = s.window;
            args.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
            args.q = view(x, 0, 4);
            args.o = view(o, 0, 4);
            args.lse = View<float, 2>(lse.data(), rows, s.heads);
            runner(threads).context.reserve(attention_scratch(threads, 4, 2, head_dim, rows, rows));
            attention<float>(runner(threads).context, args);
            const std::string what = describe(s, rows, level, threads, Layout::kRows) + ", feature stride " +
                                     std::to_string(feature) + ", row stride " + std::to_string(row);
            ASSERT_TRUE(same_bits(plain.o, get(view(o, 0, 4)))) << what;
            ASSERT_TRUE(same_bits(plain.lse, lse)) << what;
            const std::vector<int32_t> offsets = {0, static_cast<int32_t>(rows)};
            AttentionBackwardArgs<float> back{offsets,
                                              4,
                                              2,
                                              head_dim,
                                              s.window,
                                              args.scale,
                                              args.q,
                                              view(x, 4, 2),
                                              view(x, 6, 2),
                                              args.o,
                                              view(d_o, 0, 4),
                                              lse,
                                              view(dx, 0, 4),
                                              view(dx, 4, 2),
                                              view(dx, 6, 2)};
            runner(threads).context.reserve(attention_backward_scratch(threads, 4, 2, head_dim, rows, rows));
            attention_backward<float>(runner(threads).context, back);
            ASSERT_TRUE(same_bits(want.dq, get(view(dx, 0, 4)))) << what;
            ASSERT_TRUE(same_bits(want.dk, get(view(dx, 4, 2)))) << what;
            ASSERT_TRUE(same_bits(want.dv, get(view(dx, 6, 2)))) << what;
          }
        }
      }
    }
  }
}

TEST(AttentionBackward, NanStaysWithItsSequenceAndPast) {
  const LevelGuard guard;
  const Shape s{2, 1, 24, 20};
  for (CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    TrainingBatch<float> batch = make_batch<float>(s, {30, 150, 10}, 41);
    train_forward(runner(2), s, batch);
    const int64_t bad = 100;  // position in the second sequence: this gradient is not a number
    batch.d_o[static_cast<size_t>(((30 + bad) * 2 + 1) * 24 + 3)] = std::nanf("");
    const Gradients<float> g = train_backward(runner(2), s, batch);
    for (int64_t row = 0; row < 190; ++row) {
      const int64_t position = row - 30;
      const bool seen = row >= 30 && row < 180 && position <= bad && position > bad - 20;
      for (int64_t e = 0; e < 24; ++e) {
        ASSERT_EQ(std::isnan(g.dk[static_cast<size_t>(row * 24 + e)]), seen) << row;
        ASSERT_EQ(std::isnan(g.dv[static_cast<size_t>(row * 24 + e)]), seen && e == 3) << row;
        ASSERT_FALSE(std::isnan(g.dq[static_cast<size_t>(row * 48 + e)])) << row;
        ASSERT_EQ(std::isnan(g.dq[static_cast<size_t>(row * 48 + 24 + e)]), position == bad) << row;
      }
    }
  }
}

}  // namespace
}  // namespace graft
