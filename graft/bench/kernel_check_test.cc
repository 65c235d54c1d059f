#include "graft/bench/kernel_check.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "graft/base/error.h"
#include "graft/formats/safetensors.h"
#include "graft/kernels/registry.h"
#include "tests/support/bad_case.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

std::string golden_folder() {
  return std::filesystem::path(test::fixtures()).parent_path().string() + "/oracle/golden";
}

TEST(KernelCheck, GoldenVectorsOfEveryKernelAndVariant) {
  GRAFT_NEEDS_FIXTURES();
  std::vector<std::string> files;
  for (const KernelInfo& kernel : kernel_registry())
    files.push_back(fmt::format("{}/{}.safetensors", golden_folder(), kernel.name));
  ThreadPool pool(2);
  const KernelCheckReport report = check_kernels(pool, files, "all");
  for (const Error& e : report.errors) ADD_FAILURE() << e.what();
  const std::vector<KernelCheck>& checks = report.results;
  EXPECT_EQ(checks.size(), kernel_registry().size() * kernel_variants().size());
  for (const KernelCheck& check : checks) {
    EXPECT_TRUE(check.ok()) << check.kernel << " " << check.variant << ": " << check.fault;
    EXPECT_GE(check.cases, 3) << check.kernel;
  }
}

class BrokenGolden : public testing::Test {
 protected:
  // A golden file of map_abs with one case of one element, after `edit`.
  std::string file(float wanted, Metadata metadata) {
    const std::vector<float> x = {-2}, y = {wanted};
    std::string path = dir_ / "golden.safetensors";
    SafetensorsWriter writer(path, {{"case0.in.x", DType::kF32, {1}, {}}, {"case0.out.y", DType::kF32, {1}, {}}},
                             metadata);
    for (const TensorInfo& info : writer.tensors())
      writer.write(info.name, as_bytes_of(info.name == "case0.in.x" ? x : y));
    writer.commit();
    return path;
  }
  std::string message(const std::string& path, const std::string& variant = "all") {
    try {
      const KernelCheckReport report = check_kernels(pool_, {path}, variant);
      return report.errors.empty() ? "" : report.errors.front().what();
    } catch (const Error& e) {  // the variant
      return e.what();
    }
  }
  test::TempDir dir_;
  ThreadPool pool_{1};
};

TEST_F(BrokenGolden, WrongValueIsAFaultNotAnError) {
  const Metadata good = {{"kernel", "map_abs"}, {"cases", "1"}, {"case0.tol.y", "0 0"}};
  EXPECT_TRUE(check_kernels(pool_, {file(2, good)}, "scalar").ok());
  const std::string path = file(2.5f, good);
  const KernelCheck bad = check_kernels(pool_, {path}, "scalar").results[0];
  EXPECT_EQ(bad.fault, path + ": case 0 output y element 0: 2, expected 2.5 within 0");
  EXPECT_FALSE(bad.ok());
}

TEST_F(BrokenGolden, EveryFaultNamesFileAndPlace) {
  const auto has = [&](Metadata metadata, std::string_view part) {
    EXPECT_NE(message(file(2, std::move(metadata))).find(part), std::string::npos) << part;
  };
  has({{"cases", "1"}}, "no 'kernel'");
  has({{"kernel", "map_nothing"}}, "kernel 'map_nothing' is unknown");
  has({{"kernel", "map_abs"}}, "no 'cases'");
  has({{"kernel", "map_abs"}, {"cases", "-1"}}, "'cases' is '-1'");
  has({{"kernel", "map_abs"}, {"cases", "0"}}, "'cases' is '0'");
  has({{"kernel", "map_abs"}, {"cases", "9999999999"}}, "'cases' is '9999999999'");
  has({{"kernel", "map_abs"}, {"cases", "2"}, {"case0.tol.y", "0 0"}}, "case 1 has no output");
  has({{"kernel", "map_abs"}, {"cases", "1"}}, "case0.tol.y is missing");
  has({{"kernel", "map_abs"}, {"cases", "1"}, {"case0.tol.y", "small"}}, "the tolerance is 'small'");
  has({{"kernel", "map_add"}, {"cases", "1"}, {"case0.tol.y", "0 0"}}, "case 0: input '");
  has({{"kernel", "map_clamp"}, {"cases", "1"}, {"case0.tol.y", "0 0"}, {"case0.param.lo", "x"}},
      "parameter 'lo' is 'x'");
  const std::string path = file(2, {{"kernel", "map_abs"}, {"cases", "1"}, {"case0.tol.y", "0 0"}});
  EXPECT_NE(message(path, "avx9").find("no variant 'avx9'"), std::string::npos);
  EXPECT_NE(message(dir_ / "missing.safetensors"), "");
}

// What is broken or foreign is an error of its own; the rest is checked, and the files of a kernel make one row a variant.
TEST_F(BrokenGolden, GoesOnPastWhatCannotBeChecked) {
  const Metadata good = {{"kernel", "map_abs"}, {"cases", "1"}, {"case0.tol.y", "0 0"}};
  const auto keep = [&](const char* name, const std::string& path) {
    std::string to = dir_ / name;
    std::filesystem::rename(path, to);
    return to;
  };
  const std::string foreign = keep("foreign.safetensors", file(2, {{"kernel", "map_nothing"}}));
  const std::string first = keep("first.safetensors", file(2, good)),
                    second = keep("second.safetensors", file(3, good));
  const std::string empty = dir_ / "empty";
  std::filesystem::create_directory(empty);
  const KernelCheckReport report =
      check_kernels(pool_, {foreign, empty, first, dir_ / "missing.safetensors", second}, "scalar");
  EXPECT_FALSE(report.ok());
  ASSERT_EQ(report.errors.size(), 3u);
  EXPECT_EQ(std::string_view(report.errors[0].what()),
            empty + ": no .safetensors file, expected golden files of kernels");
  ASSERT_EQ(report.results.size(), 1u);
  EXPECT_EQ(report.results[0].cases, 2);
  EXPECT_TRUE(report.results[0].fault.starts_with(second)) << report.results[0].fault;
}

}  // namespace
}  // namespace graft
