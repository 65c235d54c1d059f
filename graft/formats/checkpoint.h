#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graft/base/json.h"

namespace graft {

// A folder that appears whole or not at all: files are written into a temporary folder beside it, flushed, and the
// folder is renamed. An older folder of the name is exchanged and then removed. Without commit the temporary is
// removed.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::string path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const std::string& path() const { return temporary_; }  // where to write until commit
  void commit();

 private:
  std::string path_, temporary_;
  bool committed_ = false;
};

// Checkpoints of a training run: OUT/checkpoint-STEP holds the adapter (adapter_model.safetensors, adapter_config.json)
// or the model (model.safetensors or shards, config.json, …), optimizer.safetensors, graft_state.json and
// trainer_state.json.
struct Checkpoint {
  int64_t step = 0;
  std::string path;
};

// Writes OUT/checkpoint-STEP. `write_files` writes all but the two JSON files into the folder it is given.
// graft_state.json gets "version", "step" and the size of every safetensors file, by which a damaged checkpoint is
// known.
void write_checkpoint(const std::string& out, int64_t step,
                      const std::function<void(const std::string& folder)>& write_files, Json graft_state,
                      const Json& trainer_state);

// All OUT/checkpoint-N, whole or not, by step.
std::vector<Checkpoint> list_checkpoints(const std::string& out);

// Why a checkpoint cannot be resumed from ("optimizer.safetensors is missing"); empty if it is whole.
std::string checkpoint_fault(const std::string& path);

// The newest whole checkpoint of a run; empty if there is none. Broken ones are skipped with a warning.
std::optional<Checkpoint> newest_checkpoint(const std::string& out);

// What --resume DIR means: a checkpoint, or the newest whole one of a run's folder. Error, naming every checkpoint and
// what is wrong with it, if nothing can be resumed.
Checkpoint find_checkpoint(const std::string& path);

// Removes the oldest until `keep` (at least 1) remain; steps in `protect` stay and do not count. Broken ones go too,
// and so do temporaries of runs that were killed.
void prune_checkpoints(const std::string& out, int64_t keep, std::span<const int64_t> protect = {});

Json read_graft_state(const std::string& checkpoint);    // checked: an object with version 1 and step
Json read_trainer_state(const std::string& checkpoint);  // an object

}  // namespace graft
