#include "graft/formats/checkpoint.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/adapter.h"
#include "tests/support/bad_case.h"

namespace graft {
namespace {

using test::TempDir;

void write_one(const std::string& out, int64_t step) {
  write_checkpoint(
      out, step,
      [&](const std::string& folder) {
        write_adapter(folder, load_adapter("tests/data/tiny_adapter"));
        const std::vector<float> moments(1000, static_cast<float>(step));
        write_safetensors(folder + "/optimizer.safetensors", {{"m", DType::kF32, {1000}, as_bytes_of(moments)}});
      },
      {{"seed", 7}}, {{"global_step", step}});
}

std::vector<int64_t> steps(const std::string& out) {
  std::vector<int64_t> list;
  for (const Checkpoint& c : list_checkpoints(out)) list.push_back(c.step);
  return list;
}

TEST(Checkpoint, WritesListsAndPrunes) {
  const TempDir out;
  EXPECT_FALSE(newest_checkpoint(out.path()).has_value());
  EXPECT_FALSE(newest_checkpoint(out / "nothing").has_value());
  for (const int64_t step : {5, 10, 100, 20}) write_one(out.path(), step);
  EXPECT_EQ(steps(out.path()), (std::vector<int64_t>{5, 10, 20, 100}));
  EXPECT_EQ(newest_checkpoint(out.path())->step, 100);
  const Json state = read_graft_state(out / "checkpoint-100");
  EXPECT_EQ(state["seed"], 7);
  EXPECT_EQ(state["files"].size(), 2u);
  EXPECT_EQ(read_trainer_state(out / "checkpoint-100")["global_step"], 100);
  EXPECT_EQ(find_checkpoint(out.path()).step, 100);
  EXPECT_EQ(find_checkpoint(out / "checkpoint-20/").step, 20);
  write_one(out.path(), 20);  // again: replaced in one move
  EXPECT_EQ(checkpoint_fault(out / "checkpoint-20"), "");
  std::filesystem::create_directory(out / ".checkpoint-3.tmp-123");
  const int64_t best[] = {5};
  prune_checkpoints(out.path(), 2, best);
  EXPECT_EQ(steps(out.path()), (std::vector<int64_t>{5, 20, 100}));
  prune_checkpoints(out.path(), 0);
  EXPECT_EQ(steps(out.path()), (std::vector<int64_t>{100}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(out.path()), std::filesystem::directory_iterator()), 1);
}

TEST(Checkpoint, BrokenOnesArePassedOver) {
  const TempDir out;
  for (const int64_t step : {1, 2, 3}) write_one(out.path(), step);
  const std::string weights = out / "checkpoint-3/adapter_model.safetensors";
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 30);
  std::filesystem::remove(out / "checkpoint-2/optimizer.safetensors");
  test::CapturedLog log;
  EXPECT_EQ(newest_checkpoint(out.path())->step, 1);
  EXPECT_NE(log.text().find("checkpoint-3"), std::string::npos);
  EXPECT_NE(log.text().find("optimizer.safetensors is missing"), std::string::npos);
  EXPECT_EQ(find_checkpoint(out.path()).step, 1);
  EXPECT_THROW(find_checkpoint(out / "checkpoint-2"), Error);
  write_file(out / "checkpoint-1/graft_state.json", "{\"version\": 99, \"step\": 1}");
  EXPECT_THROW(find_checkpoint(out.path()), Error);
  EXPECT_THROW(find_checkpoint("tests/data"), Error);
}

TEST(Checkpoint, AFailureLeavesNothing) {
  const TempDir out;
  EXPECT_THROW(
      write_checkpoint(out.path(), 1,
                       [](const std::string& folder) { write_file(folder + "/x", "y"), fail("disk full"); }, {}, {}),
      Error);
  EXPECT_TRUE(std::filesystem::is_empty(out.path()));
}

TEST(Checkpoint, KilledAtAnyInstantTheNewestIsWhole) {
  const TempDir out;
  write_one(out.path(), 0);
  for (int round = 0; round < 10; ++round) {
    const int64_t first = newest_checkpoint(out.path())->step;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int64_t step = first;; ++step) {  // the first rewrites what is there
        write_one(out.path(), step);
        prune_checkpoints(out.path(), 2);
      }
    }
    ::usleep(static_cast<useconds_t>(15000 + 45000 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    test::CapturedLog log;
    const auto newest = newest_checkpoint(out.path());
    ASSERT_TRUE(newest.has_value());
    EXPECT_GE(newest->step, first);
    EXPECT_FALSE(log.warned()) << log.text();  // not even the last is half written
  }
}

TEST(Checkpoint, HostileCheckpointsGetTheirVerdict) {
  GRAFT_NEEDS_FIXTURES();
  int cases = 0;
  for (const test::BadCase& c : test::bad_cases("resume")) {
    test::expect_verdict(c, [](const std::string& folder) { find_checkpoint(folder); });
    test::expect_verdict(c, [](const std::string& folder) { find_checkpoint(folder + "/checkpoint-40"); });
    ++cases;
  }
  EXPECT_EQ(cases, 2);
}

}  // namespace
}  // namespace graft
