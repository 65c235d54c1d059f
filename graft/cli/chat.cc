#include <editline/readline.h>
#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "graft/base/error.h"
#include "graft/cli/generate_flags.h"

namespace graft {
namespace {

constexpr const char* kHelp =
    "  /help                 this list\n"
    "  /reset                forget the dialogue\n"
    "  /system TEXT          set the system message and forget the dialogue\n"
    "  /adapter              list adapters; * is active\n"
    "  /adapter load NAME PATH, /adapter use NAME, /adapter off, /adapter remove NAME\n"
    "  /quit                 leave (as Ctrl-D)\n"
    "  Ctrl-C stops an answer or drops the line. A line that ends in \\ goes on in the next.\n";

std::atomic<bool> answering = false, leaving = false;

// On a terminal, Ctrl-C stops an answer or drops the line. SIGTERM, and Ctrl-C while waiting for another program's text, end the dialogue;
// libedit must give the terminal back first.
void handle_signals() {
  static bool terminal = false;
  terminal = stdout_is_terminal();
  const auto handler = [](int number) {
    if (number == SIGTERM && leaving.exchange(true)) ::_exit(130);
    if (!terminal && !answering.load()) ::_exit(130);
    stop_requested = true;
  };
  std::signal(SIGINT, handler);
  std::signal(SIGTERM, handler);
}

// The next character typed, as libedit wants it: a code point, or EOF. Ctrl-C ends the wait (libedit alone would go on reading, with the
// terminal no longer in its mode).
int read_key(FILE*) {
  const auto byte = []() -> int {
    while (!stop_requested.load()) {
      pollfd input{STDIN_FILENO, POLLIN, 0};
      const int ready = ::poll(&input, 1, 50);
      if (ready < 0 && errno != EINTR) return EOF;
      if (ready <= 0) continue;
      unsigned char c = 0;
      const ssize_t n = ::read(STDIN_FILENO, &c, 1);
      if (n == 1) return c;
      if (n == 0 || errno != EINTR) return EOF;
    }
    return EOF;
  };
  const int first = byte();
  if (first >= 0xF8 || (first >= 0x80 && first < 0xC0)) return 0xFFFD;  // no character begins so
  const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : first >= 0xC0 ? 1 : 0;
  int point = more == 3 ? first & 0x07 : more == 2 ? first & 0x0F : more == 1 ? first & 0x1F : first;
  for (int i = 0; i < more; ++i) {
    const int next = byte();
    if (next == EOF) return EOF;
    point = point << 6 | (next & 0x3F);
  }
  return point;
}

// libedit shows what is typed in the locale's characters, and in "C" it knows ASCII only: anything else would vanish from the line.
void take_utf8_locale() {
  const char* name = std::setlocale(LC_CTYPE, "");
  if (name == nullptr || ::nl_langinfo(CODESET) != std::string_view("UTF-8")) std::setlocale(LC_CTYPE, "C.UTF-8");
}

class Dialogue {
 public:
  Dialogue(GenerateFlags& flags, Session& session) : flags_(flags), session_(session) { reset(); }

  void run() {
    const bool terminal = stdout_is_terminal();
    if (!flags_.common.quiet) fmt::print(stderr, "{}; /help lists commands, Ctrl-D leaves\n", flags_.session.model);
    while (const auto line = read_message(terminal)) {
      if (line->find_first_not_of(" \t\r\n") == std::string::npos) continue;
      if (line->front() != '/') {
        answer(*line, terminal);
      } else if (!command(*line)) {
        return;
      }
    }
  }

 private:
  void reset() {
    messages_ = Json::array();
    if (!flags_.system.empty()) messages_.push_back({{"role", "system"}, {"content", flags_.system}});
    raw_.clear();
    cached_.clear();
    if (cache_) cache_->set_length(0);
  }

  // One message: a line, or several that end in a backslash. Line editing and history on a terminal. The prompts are ASCII: libedit ends
  // the program over one that the locale cannot show.
  static std::optional<std::string> read_message(bool terminal) {
    std::string text;
    for (bool more = true; more;) {
      std::string line;
      if (terminal) {
        stop_requested = leaving.load();
        char* read = ::readline(text.empty() ? "> " : ". ");
        if (read == nullptr) {
          fmt::print("\n");
          if (leaving.load()) throw Interrupted("interrupted");
          if (!stop_requested.load()) return std::nullopt;
          text.clear();  // Ctrl-C drops what was typed
          continue;
        }
        line = read;
        std::free(read);
        if (!line.empty()) ::add_history(line.c_str());
      } else if (!std::getline(std::cin, line)) {
        return text.empty() ? std::nullopt : std::optional<std::string>(text);
      }
      more = !line.empty() && line.back() == '\\';
      if (more) line.back() = '\n';
      text += line;
    }
    return text;
  }

  void answer(const std::string& text, bool terminal) {
    std::vector<int32_t> prompt;
    const size_t before = messages_.size();
    const std::vector<int32_t> raw_before = raw_;
    try {
      if (session_.raw()) {
        EncodeOptions options;
        options.continuation = !raw_.empty();
        options.add_special_tokens = raw_.empty();
        const std::vector<int32_t> more = session_.tokenizer().encode_ids(text, options);
        raw_.insert(raw_.end(), more.begin(), more.end());
        prompt = raw_;
      } else {
        messages_.push_back({{"role", "user"}, {"content", text}});
        prompt = session_.encode_messages(messages_);
      }
      if (!cache_) cache_ = std::make_unique<KvCache>(session_.config(), session_.engine().options().max_length);
      // What the cache shares with the new prompt stays; the last token is always fed again.
      size_t shared = 0;
      while (shared < cached_.size() && shared + 1 < prompt.size() && cached_[shared] == prompt[shared]) ++shared;
      cache_->set_length(static_cast<int64_t>(std::min<size_t>(shared, static_cast<size_t>(cache_->length()))));
      stop_requested = leaving.load();
      answering = true;
      const Generated g = generate(
          session_.engine(), &session_.tokenizer(), prompt, flags_.options, turn_++,
          [](std::string_view piece) {
            fmt::print("{}", piece);
            std::fflush(stdout);
            return !stop_requested.load();
          },
          cache_.get());
      fmt::print("{}\n", g.finish_reason == "cancelled" ? " …" : "");
      std::fflush(stdout);
      if (terminal && !flags_.common.quiet && g.decode_seconds > 0) {
        fmt::print(stderr, "\x1b[2m{} tokens, {:.1f} tokens/s\x1b[0m\n", g.ids.size(),
                   static_cast<double>(g.ids.size()) / g.decode_seconds);
      }
      cached_ = prompt;
      cached_.insert(cached_.end(), g.ids.begin(), g.ids.end());
      cached_.resize(static_cast<size_t>(cache_->length()));
      raw_ = session_.raw() ? cached_ : std::vector<int32_t>();
      messages_.push_back({{"role", "assistant"}, {"content", g.text}});
      if (g.finish_reason == "context") fmt::print(stderr, "the model's context is full; /reset starts anew\n");
    } catch (const Error& e) {
      fmt::print(stderr, "error: {}\n", e.what());
      if (!e.hint().empty()) fmt::print(stderr, "hint: {}\n", e.hint());
      while (messages_.size() > before) messages_.erase(messages_.size() - 1);
      raw_ = raw_before;
      cached_.clear();
      if (cache_) cache_->set_length(0);
    }
    answering = false;
    if (leaving.load()) throw Interrupted("interrupted");
    stop_requested = false;
  }

  void adapter(std::istringstream& words) {
    std::string verb, name, path;
    words >> verb >> name;
    std::getline(words >> std::ws, path);
    const bool raw_before = session_.raw();
    if (verb.empty()) {
      if (session_.adapter_names().empty()) fmt::print("no adapter is loaded\n");
      for (const std::string& loaded : session_.adapter_names()) {
        fmt::print("{} {}\n", session_.active_adapter() == loaded ? "*" : " ", loaded);
      }
      return;
    }
    if (verb == "load" && !path.empty()) {
      session_.load_adapter(name, path);
      session_.activate_adapter(name);
    } else if (verb == "use" && !name.empty()) {
      session_.activate_adapter(name);
    } else if (verb == "off") {
      session_.deactivate_adapter();
    } else if (verb == "remove" && !name.empty()) {
      session_.unload_adapter(name);
    } else {
      fmt::print(stderr, "error: /adapter takes: load NAME PATH, use NAME, off, remove NAME\n");
      return;
    }
    // Keys and values depend on the adapter: the dialogue stays, what was computed goes. With a change between template and raw text it starts anew.
    if (session_.raw() != raw_before) {
      reset();
      fmt::print(stderr, "{}: the dialogue starts anew\n",
                 session_.raw() ? "raw text from here on" : "the chat template from here on");
    }
    cached_.clear();
    if (cache_) cache_->set_length(0);
    fmt::print("{}\n", session_.active_adapter() ? "active: " + *session_.active_adapter() : "the base model");
  }

  // False to leave.
  bool command(const std::string& line) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    try {
      if (name == "/quit" || name == "/exit") return false;
      if (name == "/reset") {
        reset();
      } else if (name == "/system") {
        std::getline(words >> std::ws, flags_.system);
        reset();
      } else if (name == "/adapter") {
        adapter(words);
      } else {
        if (name != "/help") fmt::print(stderr, "error: {} is no command\n", printable(name));
        fmt::print("{}", kHelp);
      }
    } catch (const Error& e) {
      fmt::print(stderr, "error: {}\n", e.what());
      if (!e.hint().empty()) fmt::print(stderr, "hint: {}\n", e.hint());
    }
    return true;
  }

  GenerateFlags& flags_;
  Session& session_;
  Json messages_;
  std::vector<int32_t> raw_, cached_;
  std::unique_ptr<KvCache> cache_;
  uint64_t turn_ = 0;
};

}  // namespace

void add_chat(CLI::App& app) {
  auto* command = app.add_subcommand("chat", "Talk to a model");
  auto flags = std::make_shared<GenerateFlags>();
  flags->options.max_tokens = 1024;
  add_generate_flags(*command, *flags);
  command->footer("Example:\n  graft chat Qwen2.5-0.5B-Instruct --adapter my-adapter");
  command->callback([flags] {
    Runtime runtime(flags->common);
    Session session = open_session(runtime, *flags);
    handle_signals();
    take_utf8_locale();
    rl_catch_signals = 0;
    rl_getc_function = read_key;
    Dialogue(*flags, session).run();
  });
}

}  // namespace graft
