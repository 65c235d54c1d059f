#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): setenv is POSIX, not of <cstdlib>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/base/log.h"
#include "tests/support/fixtures.h"

namespace graft::test {

// A folder that is removed at the end of the test.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "graft-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) fail("cannot create {}", name);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

// Collects what is logged while it lives: captured.text() has a line "warning: …" or "info: …" each.
class CapturedLog {
 public:
  CapturedLog() {
    set_log_sink([this](LogLevel level, std::string_view line) {
      const char* word = level == LogLevel::kWarning ? "warning" : level == LogLevel::kError ? "error" : "info";
      if (level != LogLevel::kDebug) text_ += fmt::format("{}: {}\n", word, line);
      warned_ = warned_ || level >= LogLevel::kWarning;
    });
  }
  ~CapturedLog() { set_log_sink({}); }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;
  const std::string& text() const { return text_; }
  bool warned() const { return warned_; }

 private:
  std::string text_;
  bool warned_ = false;
};

inline std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// One entry of fixtures/data/bad/expect.json (see the README there).
struct BadCase {
  std::string id, how, verdict, wrong;
  std::string base;  // folder copied first, relative to fixtures/data/bad; empty for none
  std::vector<std::string> files, remove;
  std::vector<std::vector<std::string>> mention;  // of every entry one word must occur
  Json raw;  // all other fields: text, messages, model, max_length, argument, expect

  bool may(std::string_view word) const {  // may("refuse"), may("warn"), may("ok")
    return verdict.find(word) != std::string::npos || verdict == "bounded";
  }

  // Copies the input into `into` and returns its folder.
  std::string build(const TempDir& into) const {
    namespace fs = std::filesystem;
    const fs::path bad = fs::path(fixtures()) / "data" / "bad", folder = fs::path(into.path()) / id;
    const auto copy_one = [](const fs::path& from, const fs::path& to) {
      fs::create_directories(to.parent_path());
      std::error_code ignored;
      fs::remove(to, ignored);
      fs::copy_file(from, to);
      fs::permissions(to, fs::perms::owner_write, fs::perm_options::add);
    };
    fs::create_directories(folder);
    if (!base.empty()) {
      for (const auto& entry : fs::recursive_directory_iterator(bad / base)) {
        if (entry.is_regular_file()) copy_one(entry.path(), folder / fs::relative(entry.path(), bad / base));
      }
    }
    for (const std::string& name : files) copy_one(bad / id / name, folder / name);
    for (const std::string& name : remove) fs::remove_all(folder / name);
    return folder.string();
  }

  // The words of `mention` that `text` lacks, case aside: empty when the message is good.
  std::string missing_words(const std::string& text) const {
    const std::string message = lower(text);
    std::string missing;
    for (const auto& words : mention) {
      const bool found = std::any_of(words.begin(), words.end(), [&](const std::string& word) {
        return message.find(lower(word)) != std::string::npos;
      });
      if (!found) missing += fmt::format(" [{}]", fmt::join(words, " | "));
    }
    return missing;
  }
};

// All cases whose `how` is this. Needs the fixtures.
inline std::vector<BadCase> bad_cases(std::string_view how) {
  const Json expect = read_json(fixtures() + "/data/bad/expect.json");
  std::vector<BadCase> cases;
  for (const Json& raw : expect.at("cases")) {
    if (raw.at("how") != how) continue;
    BadCase c;
    c.id = raw.at("id"), c.how = raw.at("how"), c.verdict = raw.at("verdict"), c.wrong = raw.value("wrong", "");
    if (raw.contains("base") && raw["base"].is_string()) c.base = raw["base"];
    if (raw.contains("files")) c.files = raw["files"].get<std::vector<std::string>>();
    if (raw.contains("remove")) c.remove = raw["remove"].get<std::vector<std::string>>();
    for (const Json& words : raw.value("mention", Json::array())) {
      c.mention.push_back(words.is_array() ? words.get<std::vector<std::string>>()
                                           : std::vector<std::string>{words.get<std::string>()});
    }
    c.raw = raw;
    cases.push_back(std::move(c));
  }
  return cases;
}

// Runs `load` (which takes the folder of the case) and checks the verdict: an Error where refused, a warning where
// warned, and the words of `mention` in the message, hint and warnings together.
template <typename Load>
void expect_verdict(const BadCase& c, Load&& load) {
  TempDir temporary;
  const std::string folder = c.build(temporary);
  CapturedLog log;
  std::string message;
  bool refused = false;
  try {
    load(folder);
  } catch (const Error& e) {
    refused = true;
    message = fmt::format("{}\n{}\n", e.what(), e.hint());
  }
  message += log.text();
  const char* outcome = refused ? "refuse" : log.warned() ? "warn" : "ok";
  EXPECT_TRUE(c.may(outcome)) << c.id << " (" << c.wrong << "): " << outcome << ", expected " << c.verdict << "\n"
                              << message;
  if (refused || (log.warned() && c.may("warn"))) {
    EXPECT_EQ(c.missing_words(message), "") << c.id << " (" << c.wrong << "):\n" << message;
  }
}

}  // namespace graft::test
