// The model interface: what the scheduler, and nobody else, drives. Plain data, no libtorch.
//
// One engine thread owns a Model and all its Sequences; no method may be called from another thread
// (but for info(), which is immutable, and kv_in where kv_room says so). Failure of the device is a
// Result, never an exception.
//
// "Same history, same bits": the KV of a token and the logits after it depend on (KV bits before it,
// token, position, path) alone — not on the batch, the pages, how a prompt was cut, or the threads —
// where the path is read (prefill) or generated (decode). When info().one_path is set the two paths
// have the same bits too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"
#include "codec/base/ids.h"
#include "codec/base/kv.h"
#include "codec/base/result.h"
#include "codec/chunk/stored_piece.h"
#include "engine/model/sampling.h"
#include "engine/prune/observation.h"
#include "engine/prune/plan.h"
#include "engine/prune/policy.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace kvfs::model {

enum class Compute { kFast, kReference };  // reference: fp32 throughout, weights dequantized

struct DeviceChoice {
  enum class Kind { kAuto, kCpu, kCuda } kind = Kind::kAuto;  // auto: CUDA when there is one
  int index = 0;
};

struct ModelInfo {
  std::string name;             // model_name(path)
  std::filesystem::path path;
  std::string architecture;     // "llama": as its file says
  std::uint64_t parameters = 0;
  std::uint64_t weight_bytes = 0;    // in its files
  std::uint64_t resident_bytes = 0;  // of memory once loaded, on this device in this mode
  std::int32_t context_length = 0;   // tokens
  std::int32_t vocab_size = 0;
  std::vector<LayerShape> layers;
  ModelFingerprint fingerprint;      // of weights, config, tokenizer; independent of device and mode
  std::string kernel_class;          // "cpu-fast-1", "cpu-reference-1", "cuda-fast-4", "cuda-fast-fp16-1": decides what may share computed bits
  DType kv_dtype = DType::kBF16;
  bool one_path = false;             // read and generated tokens have the same bits
  bool prunes = false;               // prune(), and KV with gaps, are there
  bool fp16 = false;                 // its matrices are fp16 ones, and so CUDA's fast kernels multiply them
  std::string device;                // "cpu (2 threads, avx2)", "cuda:0 (NVIDIA H200)"
};

// A history on the device: tokens' KV in 256-token pages, shared with its forks (copy on write).
class Sequence {
 public:
  virtual ~Sequence() = default;
  virtual Position next_pos() const = 0;  // absolute position of the next token
};

struct DecodeItem {
  Sequence* sequence = nullptr;
  TokenId token = 0;
  std::span<float> logits;  // out, [vocab_size] fp32: after this token
  // Out, if wanted: the sequence's entries, this token's included, and what its query gave them
  // (kNewestQuery), out of the attention of this very step. No other bits change.
  prune::Observation* seen = nullptr;
};

inline constexpr TokenId kNewest = -1;  // what the latest step drew, whether it was heard or not

struct AheadItem {
  Sequence* sequence = nullptr;
  TokenId token = kNewest;  // given for the first step, and after all steps were heard
  const SamplingParams* sampling = nullptr;
  Said said;        // what was heard, the first step's token included
  int unheard = 0;  // tokens of this sequence that were drawn and not heard: they follow on `said`
};

// KV on its way out. Any thread may take it, once; its model outlives it.
class KvOut {
 public:
  virtual ~KvOut() = default;
  // Waits for it. All layers' pieces, as kv_out's.
  virtual Result<std::vector<KvPiece>> take() = 0;
};

// Looks again at what a sequence holds, slice by slice, so that others can be served in between: the
// sequence must be there, as it was, until the end. Same thread as the model.
class Observer {
 public:
  virtual ~Observer() = default;
  // Tokens that have been read, of those of the plan.
  virtual std::int64_t tokens_read() const = 0;
  // Reads at most prefill_slice() tokens. True: that was all. kTooLarge: no memory for a fork.
  virtual Result<bool> read() = 0;
  // What was seen, once all is read.
  virtual Result<prune::Observation> take() = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;

  virtual std::unique_ptr<Sequence> new_sequence() = 0;
  // O(pages): no KV is copied until one of the two writes into a shared partial page.
  virtual std::unique_ptr<Sequence> fork(const Sequence& sequence) = 0;

  // Reads tokens at positions next_pos() … ; any number, cut anywhere, same bits. logits: empty, or
  // [vocab_size] fp32 to be filled for the last token, or on a CPU [tokens, vocab_size] for each.
  // kTooLarge: the context or the memory is full (the sequence is then as before; after a failure of
  // the device it may end earlier). At most prefill_slice() tokens a call keep others waiting tens of
  // milliseconds only.
  virtual Status prefill(Sequence& sequence, std::span<const TokenId> tokens,
                         std::span<float> logits) = 0;
  virtual std::int32_t prefill_slice() const = 0;
  // At most that many gain from being read in one call, for who keeps nobody waiting.
  virtual std::int32_t prefill_alone() const { return prefill_slice(); }

  // Appends one token to each of up to max_batch() distinct sequences (the generated path).
  virtual Status decode(std::span<DecodeItem> items) = 0;
  virtual std::int32_t max_batch() const = 0;

  // Generating without a trip to the host for each token: launch() begins such a step and draws each
  // sequence's next token where the logits are, hear() waits for the eldest step and gives its tokens
  // in its items' order. They are those that decode() and sample() give, and so is the KV; next_pos
  // counts what was launched. Sequences may join and leave between steps; truncate() drops what was
  // launched in vain, and everything else sees the steps done. After launch() failed, everything is
  // as before; after hear() failed, no step is under way and its sequences are not to be used again.
  // most_ahead(): steps that may be launched and not heard; 0: this device only decodes.
  virtual int most_ahead() const { return 0; }
  virtual bool draws(const SamplingParams& sampling) const {  // what it cannot, sample() does
    (void)sampling;
    return false;
  }
  virtual Status launch(std::span<const AheadItem> items);
  virtual Result<std::vector<TokenId>> hear();

  // Drops the tokens at positions ≥ end. Used to compute the last token's logits again.
  // kUnsupported: a layer that keeps some positions only (info().layers) goes back by one token, or
  // to the beginning of a block, and end is neither.
  virtual Status truncate(Sequence& sequence, Position end) = 0;

  // Keeps these of each head's entries only and frees the others' memory, but for what forks still
  // hold. Positions and next_pos stay. After kTooLarge (old and new are held for a moment), kInvalid
  // and kUnsupported (a model with convolutions) the sequence is as before.
  virtual Status prune(Sequence& sequence, const prune::Kept& kept) {
    (void)sequence, (void)kept;
    return fail(ErrorCode::kUnsupported, "prune a sequence", "this device cannot do that yet",
                "load the model on the CPU");
  }
  // Moves each head's entries to consecutive positions, keys turned on accordingly, and with them
  // next_pos: to the fewest that hold every head's. A head's newest entry stays as far from the next
  // token as it was: where it is the newest token's, one behind it else. Positions then start at 0 in
  // the fullest head. The sequence is as before after kUnsupported (learned positions; a sliding
  // window that would see entries again that it had left behind) and kTooLarge.
  virtual Status compact(Sequence& sequence) {
    (void)sequence;
    return fail(ErrorCode::kUnsupported, "move entries to other positions",
                "this device cannot do that yet", "load the model on the CPU");
  }
  // Where a layer's entries lie, by KV head, ascending: what prune's indices point into.
  virtual Result<std::vector<std::vector<Position>>> positions(const Sequence& sequence,
                                                               std::uint16_t layer) {
    (void)sequence, (void)layer;
    return fail(ErrorCode::kUnsupported, "list a sequence's entries",
                "this device cannot do that yet", "load the model on the CPU");
  }

  // Starts to look at the sequence's entries in the way that a method of pruning needs
  // (prune::make_plan; plan_pruning() in pruning.h). Tokens are read on forks; the sequence stays as
  // it is. kInvalid: a plan for another sequence; kUnsupported: a model with convolutions.
  virtual Result<std::unique_ptr<Observer>> look_again(const Sequence& sequence, prune::Plan plan) {
    (void)sequence, (void)plan;
    return fail(ErrorCode::kUnsupported, "look at what attention sees",
                "this device cannot do that yet", "load the model on the CPU");
  }
  // The same, at once. last: its newest tokens, of whose queries the weights are wanted
  // (kNewestQuery: one; kWindowQueries: the window), read again with entries of their own in every
  // head; all of them for kAllQueries and kExpectedQueries. kUnsupported: kReconstruction.
  Result<prune::Observation> observe(const Sequence& sequence, prune::Needs needs,
                                     std::span<const TokenId> last);

  // KV of one layer in block (positions block·256 …), all heads, as plain bytes: a piece for each
  // run of heads with the same positions, none for heads that hold nothing there.
  virtual Result<std::vector<KvPiece>> kv_out(const Sequence& sequence, std::uint16_t layer,
                                              std::int32_t block) = 0;
  // All layers of a block, of which nothing changes any more but by truncate(): on a device they are
  // copied while it goes on.
  virtual Result<std::unique_ptr<KvOut>> kv_on_its_way(const Sequence& sequence,
                                                       std::int32_t block);
  // Puts back what kv_out gave, layer by layer, blocks in ascending order; call
  // set_next_pos once all layers of all blocks are in. What lacks is kInvalid there, as far as it can
  // be known: of a pruned block only the caller knows what it held. kUnsupported: a layout this
  // model's kernels cannot attend to.
  virtual Status kv_in(Sequence& sequence, const KvPiece& piece) = 0;
  virtual Status set_next_pos(Sequence& sequence, Position next_pos) = 0;
  // Makes room for KV before position end, ahead of kv_in; gaps: for pruned KV, of whose blocks some
  // heads, or all, may hold some positions or none. True: until set_next_pos, any threads may call
  // kv_in on this sequence at once, each piece of another layer, head or block, in any order, while
  // the engine thread goes on with other sequences. kTooLarge; kUnsupported: no gaps in this model.
  virtual Result<bool> kv_room(Sequence& sequence, Position end, bool gaps = false) {
    (void)sequence, (void)end, (void)gaps;
    return false;
  }

  // kv_in for chunks as the store keeps them, which the device decodes: where takes_stored() and
  // kv_room said true. What only the device finds wrong with them set_next_pos says: kCorrupt.
  virtual bool takes_stored() const { return false; }
  virtual Status stored_in(Sequence& sequence, const chunk::StoredPiece& piece) {
    (void)sequence, (void)piece;
    return fail(ErrorCode::kUnsupported, "put KV in", "this device takes decoded pieces only");
  }

  // Bytes of KV pages in use on the device and the budget they must stay within.
  virtual std::uint64_t kv_bytes_used() const = 0;
  virtual std::uint64_t kv_bytes_budget() const = 0;
};

struct LoadOptions {
  DeviceChoice device;
  Compute compute = Compute::kFast;
  int threads = 0;                  // CPU: 0 = one a physical core
  std::uint64_t kv_budget = 0;      // bytes, if the device leaves them; 0 = what it does, on a CPU at most half of its memory
  std::function<void(double)> progress;  // share loaded, 0 … 1; may be empty
};

// What can be known without loading weights: info (device left empty), tokenizer, template.
// Immutable and usable from any thread; shared by the mount, HTTP and the scheduler.
struct ModelCard {
  ModelInfo info;
  std::string config_json;                         // models/NAME/config.json
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::unique_ptr<text::ChatTemplate> chat;        // null: the model has no (understood) template
  std::string chat_error;                          // why it is null, when the file does have one
};

// path: a GGUF file or a Hugging Face folder. kNotFound, kCorrupt, kUnsupported (an unknown family)
// name the file, the field and the way out; kTooLarge, with the figures: its weights are more than
// the machine's memory, and nothing of them was read. The fingerprint is XXH3-128 over the bytes of weights,
// config and tokenizer (fingerprint.h); cached in cache_dir (if not empty) by the files' identity so
// that the second start is instant.
Result<std::unique_ptr<ModelCard>> read_card(const std::filesystem::path& path, Compute compute,
                                             const DeviceChoice& device,
                                             const std::filesystem::path& cache_dir);
// The same without tokenizer and template: enough to load the model.
Result<std::unique_ptr<ModelCard>> describe_model(const std::filesystem::path& path,
                                                  Compute compute, const DeviceChoice& device,
                                                  const std::filesystem::path& cache_dir);

// The file's name without ".gguf", or the folder's.
std::string model_name(const std::filesystem::path& path);

// Bytes of memory for models: the machine's, or its control group's when that is less. 0: not known
// before a model is loaded (CUDA).
std::uint64_t memory_of(const DeviceChoice& device);
std::string size_text(std::uint64_t bytes);  // "512 MiB", "1.5 GiB"

// Loads the weights. A model that does not fit is kTooLarge before anything is allocated.
Result<std::unique_ptr<Model>> load_model(const ModelCard& card, const LoadOptions& options);

}  // namespace kvfs::model
