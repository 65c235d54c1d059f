// ask MODEL QUESTION: answers with a model folder; graft as a library.
#include <fmt/format.h>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/infer/session.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw graft::Error("usage: ask MODEL QUESTION");
  graft::ThreadPool pool(graft::usable_cores());
  graft::Context context(pool);
  graft::SessionOptions options;
  options.model = argv[1];
  graft::Session session(context, options);

  graft::GenerateOptions answer;  // greedy, 128 tokens
  answer.end_tokens = session.end_tokens();
  const auto prompt = session.encode_prompt(argv[2], "");
  fmt::print("{}\n", graft::generate(session.engine(), &session.tokenizer(), prompt, answer).text);
} catch (const graft::Error& e) {
  fmt::print(stderr, "error: {}\n{}\n", e.what(), e.hint());
  return 1;
}
