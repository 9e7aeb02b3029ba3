#include "fs/readme_text.h"

#include <string_view>

namespace kvfs::fs {
namespace {

constexpr std::string_view kText =
    R"(kvfs keeps what a language model has read as directories. Each directory under states/ is a
state: the model's attention memory of some text. It outlives the daemon, and reading on from it
costs nothing but the new words.

  README               this text
  status               what the daemon is doing and what it stores, `key value` lines
  models/NAME/         config.json, fingerprint, info.json
  bundles/NAME.pt      a state as one file, NAME.safetensors too: cp it out, or cp one in
  states/NAME/         a state; mkdir makes one, rmdir drops it
    feed/              drop text here: the state reads it and says nothing
    ask/               drop a prompt here: answered, and the state stays as it was
    continue/          drop a prompt here: answered, and prompt and reply become part of the state
    replies/JOB        the reply to the file JOB; reading it waits for more until the job is done
    status             one line a job, newest first: `JOB running ...`, `JOB done ...`, `JOB error: ...`
    params/            one value a file: temperature, max_tokens, seed, stop, model, template, ...
    ctl                commands, one a line: `step N` goes on for N tokens, `cancel JOB`,
                       `prune METHOD k=v ...` keeps a part of its keys and values,
                       `rollback N` keeps the first N tokens, `pin` and `unpin`
    .snap/NAME         mkdir keeps what the state knows now, rmdir drops that; it is not listed
    state.json         what it is                      (these four: once it has read something)
    text               its text
    tokens.npy         its tokens
    kv/                its keys and values, a safetensors file a layer
    CHILD/             mkdir CHILD forks: it knows all that its parent knows, at no cost
    any other file     notes of your own, kept as they are

Paste this:

  cd @MOUNT@/states
  mkdir quantum
  echo 'A qubit is a two-state quantum system.' > quantum/feed/note
  echo 'What is a qubit?' > quantum/ask/q1
  cat quantum/replies/q1
  cat quantum/status

Make it repeatable, hold a conversation, and fork it:

  echo 0 > quantum/params/temperature
  echo 'Say it in one sentence.' > quantum/continue/q2; cat quantum/replies/q2
  mkdir quantum/branch
  echo 'And in French?' > quantum/branch/ask/q3; cat quantum/branch/replies/q3
  rmdir quantum/branch

A job is named after its file. It starts when the file is closed; closing fails when the prompt
cannot be taken, and `status` says why. Removing the file cancels the job. Names that begin with a
dot or end in ~ or .tmp are scratch and never start one. cp, rsync and tar copy states: a copy is a
state once all of it is there, and `status` says what it waits for. `kvfs --help` does the same from
the shell.
)";

}  // namespace

std::string readme_text(const std::string& mount_point) {
  constexpr std::string_view kMark = "@MOUNT@";
  std::string text(kText);
  text.replace(text.find(kMark), kMark.size(), mount_point);
  return text;
}

}  // namespace kvfs::fs
