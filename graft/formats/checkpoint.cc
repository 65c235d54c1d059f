#include "graft/formats/checkpoint.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <utility>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/log.h"
#include "graft/formats/json_fields.h"
#include "graft/formats/model_folder.h"
#include "graft/formats/safetensors.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr int64_t kVersion = 1;

void flush_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

std::string parent_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// Swaps two names at once where the system can; else the old folder is moved away first.
void swap_folders(const std::string& temporary, const std::string& path) {
#ifdef SYS_renameat2
  constexpr unsigned kExchange = 2;  // RENAME_EXCHANGE
  if (::syscall(SYS_renameat2, AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), kExchange) == 0) return;
#endif
  const std::string aside = temporary + ".old";
  GRAFT_CHECK(::rename(path.c_str(), aside.c_str()) == 0, "{}: cannot be replaced: {}", path, std::strerror(errno));
  GRAFT_CHECK(::rename(temporary.c_str(), path.c_str()) == 0, "{}: cannot be written: {}", path, std::strerror(errno));
  ::rename(aside.c_str(), temporary.c_str());
}

// N of "checkpoint-N"; -1 for another name.
int64_t step_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return -1;
  name.remove_prefix(kPrefix.size());
  int64_t step = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  return error == std::errc() && end == name.data() + name.size() && step >= 0 ? step : -1;
}

bool is_temporary(std::string_view name) {
  return name.starts_with(".checkpoint-") && name.find(".tmp-") != std::string_view::npos;
}

// Renamed before it is removed, so that a removal that is cut off leaves no half checkpoint under its name.
void remove_checkpoint(const std::string& path) {
  const std::string gone = fmt::format("{}/.{}.tmp-gone", parent_of(path), fs::path(path).filename().string());
  std::error_code ignored;
  fs::remove_all(gone, ignored);
  if (::rename(path.c_str(), gone.c_str()) == 0) fs::remove_all(gone, ignored);
}

}  // namespace

AtomicFolder::AtomicFolder(std::string path) : path_(without_slash(std::move(path))) {
  const std::string parent = parent_of(path_);
  std::error_code error;
  fs::create_directories(parent, error);
  temporary_ = fmt::format("{}/.{}.tmp-{}", parent, fs::path(path_).filename().string(), ::getpid());
  if (!error) fs::remove_all(temporary_, error);
  if (!error) fs::create_directory(temporary_, error);
  GRAFT_CHECK_HINT(!error, "check the permissions of the folder and the free space", "{}: cannot be created: {}", path_,
                   error.message());
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);  // after an exchange it is the old folder
}

void AtomicFolder::commit() {
  GRAFT_CHECK(!committed_, "{}: committed twice", path_);
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) {
    if (entry.is_directory()) flush_folder(entry.path().string());
  }
  flush_folder(temporary_);
  if (path_exists(path_)) {
    swap_folders(temporary_, path_);
  } else {
    GRAFT_CHECK(::rename(temporary_.c_str(), path_.c_str()) == 0, "{}: cannot be written: {}", path_,
                std::strerror(errno));
  }
  committed_ = true;
  flush_folder(parent_of(path_));
}

void write_checkpoint(const std::string& out, int64_t step,
                      const std::function<void(const std::string& folder)>& write_files, Json graft_state,
                      const Json& trainer_state) {
  AtomicFolder folder(fmt::format("{}/{}{}", without_slash(out), kPrefix, step));
  write_files(folder.path());
  Json sizes = Json::object();
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    if (entry.path().extension() == ".safetensors") names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) sizes[name] = fs::file_size(folder.path() + "/" + name);
  Json state = {{"version", kVersion}, {"step", step}};
  for (const auto& [key, value] : graft_state.items()) state[key] = value;
  state["files"] = sizes;
  write_file(folder.path() + "/trainer_state.json", trainer_state.dump(2) + "\n");
  write_file(folder.path() + "/graft_state.json", state.dump(2) + "\n");
  folder.commit();
}

std::vector<Checkpoint> list_checkpoints(const std::string& out) {
  std::vector<Checkpoint> list;
  std::error_code error;
  for (fs::directory_iterator it(out, error), end; !error && it != end; it.increment(error)) {
    const int64_t step = step_of(it->path().filename().string());
    if (step >= 0 && is_directory(it->path().string())) list.push_back({step, it->path().string()});
  }
  std::sort(list.begin(), list.end(), [](const Checkpoint& a, const Checkpoint& b) { return a.step < b.step; });
  return list;
}

Json read_graft_state(const std::string& checkpoint) {
  const std::string path = checkpoint + "/graft_state.json";
  GRAFT_CHECK_HINT(path_exists(path), "it was not written by graft, or not to its end: resume from another",
                   "{}: is missing", path);
  Json state = read_json(path, {}, size_t{256} << 20);
  Faults faults;
  const JsonFields fields(state, faults);
  if (!state.is_object()) faults.add("is {}, expected an object", printable(json_kind(state)));
  fields.whole("version", std::nullopt, 1, kVersion);
  fields.whole("step", std::nullopt, 0, INT64_MAX);
  faults.throw_if_any(path, "resume from another checkpoint, or with the version of graft that wrote it");
  return state;
}

Json read_trainer_state(const std::string& checkpoint) {
  const std::string path = checkpoint + "/trainer_state.json";
  Json state = read_json(path, {}, size_t{1} << 30);
  GRAFT_CHECK(state.is_object(), "{}: is {}, expected an object", path, printable(json_kind(state)));
  return state;
}

std::string checkpoint_fault(const std::string& path) {
  try {
    const Json state = read_graft_state(path);
    read_trainer_state(path);
    if (!path_exists(path + "/optimizer.safetensors")) return "optimizer.safetensors is missing";
    read_safetensors_header(path + "/optimizer.safetensors");
    if (path_exists(path + "/adapter_model.safetensors")) {
      read_safetensors_header(path + "/adapter_model.safetensors");
      if (!path_exists(path + "/adapter_config.json")) return "adapter_config.json is missing";
      read_json(path + "/adapter_config.json");
    } else if (path_exists(path + "/config.json")) {
      const TensorFolder weights(path);
    } else {
      return "it holds neither adapter_model.safetensors nor a model";
    }
    const auto files = state.find("files");
    if (files == state.end() || !files->is_object()) return "graft_state.json lists no files";
    for (const auto& [name, size] : files->items()) {
      if (name.find('/') != std::string::npos) return "graft_state.json names a file outside";
      std::error_code error;
      const uint64_t now = fs::file_size(path + "/" + name, error);
      if (error) return printable(name) + " is missing";
      if (size != now) {
        return fmt::format("{} has {} bytes, {} were written", printable(name), now, printable(size.dump()));
      }
    }
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::optional<Checkpoint> newest_checkpoint(const std::string& out) {
  std::vector<Checkpoint> list = list_checkpoints(out);
  for (auto it = list.rbegin(); it != list.rend(); ++it) {
    const std::string fault = checkpoint_fault(it->path);
    if (fault.empty()) return *it;
    log_warning("{}: is not whole and is passed over: {}", it->path, fault);
  }
  return std::nullopt;
}

Checkpoint find_checkpoint(const std::string& given) {
  const std::string path = without_slash(given);
  GRAFT_CHECK_HINT(is_directory(path), "give a checkpoint-N folder, or the folder that holds them",
                   "{}: is not a folder", path);
  const std::string name = fs::weakly_canonical(path).filename().string();
  if (step_of(name) >= 0 || path_exists(path + "/graft_state.json")) {
    const std::string fault = checkpoint_fault(path);
    GRAFT_CHECK_HINT(fault.empty(), "resume from an earlier checkpoint, or start anew with --overwrite",
                     "{}: is not a whole checkpoint: {}", path, fault);
    return {read_graft_state(path)["step"].get<int64_t>(), path};
  }
  const std::vector<Checkpoint> list = list_checkpoints(path);
  GRAFT_CHECK_HINT(!list.empty(), "give the --out folder of the run", "{}: holds no checkpoint-N", path);
  Faults faults;
  for (auto it = list.rbegin(); it != list.rend(); ++it) {
    const std::string fault = checkpoint_fault(it->path);
    if (fault.empty()) {
      if (!faults.empty()) log_warning("{}: {}; taking {}", path, faults.lines()[0], it->path);
      return *it;
    }
    faults.add("checkpoint-{} is not whole: {}", it->step, fault);
  }
  faults.throw_if_any(path, "start anew with --overwrite");
  return {};
}

void prune_checkpoints(const std::string& out, int64_t keep, std::span<const int64_t> protect) {
  std::error_code error;
  for (fs::directory_iterator it(out, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (is_temporary(it->path().filename().string())) fs::remove_all(it->path(), ignored);
  }
  std::vector<Checkpoint> list = list_checkpoints(out);
  int64_t kept = 0;
  for (auto it = list.rbegin(); it != list.rend(); ++it) {
    if (std::find(protect.begin(), protect.end(), it->step) != protect.end()) continue;
    if (kept < std::max<int64_t>(keep, 1) && path_exists(it->path + "/graft_state.json")) {
      ++kept;
    } else {
      remove_checkpoint(it->path);
    }
  }
}

}  // namespace graft
