#include "graft/models/init.h"

#include <gtest/gtest.h>

#include "graft/base/file.h"
#include "graft/formats/model_folder.h"
#include "graft/models/model.h"
#include "graft/models/test_support.h"

namespace graft {
namespace {

// A model made in memory is the one that init writes, in panels and in rows.
TEST(Init, InMemoryAsInAFile) {
  using namespace test;
  const TempDir dir;
  Workers workers;
  write_file(dir / "config.json", tiny_config("graft_moe").dump());
  InitConfig init;
  init.config = dir / "config.json", init.out = dir / "model", init.seed = 5;
  init_model(workers.context, init);
  const ModelFolder folder = ModelFolder::open(init.out, supported_model_types());
  for (const bool rows : {false, true}) {
    const Model loaded = Model::load(workers.context, folder, {.rows = rows});
    const Model made = Model::random(workers.context, folder.config, 5, {.rows = rows});
    const Model other = Model::random(workers.context, folder.config, 6, {.rows = rows});
    EXPECT_EQ(made.in_rows(), rows);
    EXPECT_EQ(made.bytes(), loaded.bytes());
    ASSERT_EQ(made.parameters().size(), loaded.parameters().size());
    for (const auto& [name, p] : loaded.parameters()) {
      const int64_t size = p.is_matrix() ? p.shape[0] * p.shape[1] : p.shape[0];
      std::vector<float> want(static_cast<size_t>(size)), got(want), different(want);
      p.copy(workers.context, 0, p.shape[0], want.data());
      made.parameters().at(name).copy(workers.context, 0, p.shape[0], got.data());
      other.parameters().at(name).copy(workers.context, 0, p.shape[0], different.data());
      EXPECT_EQ(got, want) << name;
      EXPECT_EQ(different != want, p.is_matrix()) << name;
    }
  }
}

}  // namespace
}  // namespace graft
