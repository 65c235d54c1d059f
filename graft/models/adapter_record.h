#pragma once

#include <optional>
#include <string>
#include <vector>

namespace graft {

// How a run's rows were made, kept beside what it wrote (DIR/graft.json), so that `generate`, `chat` and `eval` ask the way it was trained.
struct AdapterRecord {
  bool chat = false;                       // rows went through the chat template
  std::vector<std::string> template_args;  // K=V, as given to `train`
};
void write_adapter_record(const std::string& folder, const AdapterRecord& record);
std::optional<AdapterRecord> read_adapter_record(
    const std::string& path);  // of a folder, or of the folder a file lies in

}  // namespace graft
