#include "graft/models/adapter_record.h"

#include <filesystem>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/json.h"

namespace graft {

void write_adapter_record(const std::string& folder, const AdapterRecord& record) {
  Json json = {{"version", 1}, {"rows", record.chat ? "chat" : "raw"}, {"template_args", record.template_args}};
  write_file(folder + "/graft.json", json.dump(2) + "\n");
}

std::optional<AdapterRecord> read_adapter_record(const std::string& path) {
  const std::string folder = is_directory(path) ? path : std::filesystem::path(path).parent_path().string();
  const std::string file = (folder.empty() ? "." : folder) + "/graft.json";
  if (!path_exists(file)) return std::nullopt;
  const Json json = read_json(file, {}, size_t{1} << 20);
  const auto is_text_list = [](const Json& value) {
    return value.is_array() &&
           std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_string(); });
  };
  GRAFT_CHECK(json.is_object() && json.contains("rows") && json["rows"].is_string() && json.contains("template_args") &&
                  is_text_list(json["template_args"]),
              "{}: expected an object with rows (\"chat\" or \"raw\") and template_args (a list of \"K=V\")", file);
  AdapterRecord record;
  record.chat = json["rows"] == "chat";
  record.template_args = json["template_args"].get<std::vector<std::string>>();
  return record;
}

}  // namespace graft
