// What is known of a model file without its weights.
#include <sys/stat.h>
#include <xxhash.h>

#include <boost/json.hpp>
#include <cstring>
#include <fstream>
#include <sstream>

#include "engine/model/device.h"
#include "engine/model/llama_config.h"
#include "engine/model/model.h"

namespace kvfs::model {
namespace {

// Changes when the meaning of a fingerprint does.
constexpr std::string_view kFingerprintSeed = "kvfs model 1";

ModelFingerprint digest_of(ByteSpan bytes, std::string_view seed) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, seed.data(), seed.size());
  XXH3_128bits_update(state, bytes.data(), bytes.size());
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
  XXH3_freeState(state);
  ModelFingerprint fingerprint;
  std::memcpy(fingerprint.bytes.data(), canonical.digest, fingerprint.bytes.size());
  return fingerprint;
}

// One line that changes whenever the file may have.
Result<std::string> identity_of(const std::filesystem::path& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) {
    return fail(ErrorCode::kNotFound, "model " + path.string(), std::strerror(errno));
  }
  std::ostringstream line;
  line << kFingerprintSeed << ' ' << s.st_size << ' ' << s.st_mtim.tv_sec << '.'
       << s.st_mtim.tv_nsec << ' ' << s.st_dev << ':' << s.st_ino << ' ' << path.string();
  return line.str();
}

std::filesystem::path cache_file(const std::filesystem::path& cache_dir,
                                 const std::filesystem::path& path) {
  return cache_dir / ("fingerprint-" + digest_of(as_bytes(path.string()), "path").hex());
}

// A cache: what cannot be read or written only costs time.
void remember(const std::filesystem::path& at, const std::string& identity,
              const ModelFingerprint& fingerprint) {
  std::error_code ignored;
  std::filesystem::create_directories(at.parent_path(), ignored);
  const std::filesystem::path temporary = at.string() + ".new";
  {
    std::ofstream file(temporary, std::ios::trunc);
    file << identity << '\n' << fingerprint.hex() << '\n';
    if (!file.flush()) return;
  }
  std::filesystem::rename(temporary, at, ignored);
}

Result<ModelFingerprint> fingerprint_of(const container::GgufFile& file,
                                        const std::filesystem::path& cache_dir) {
  KVFS_ASSIGN(const std::string identity, identity_of(file.path()));
  const std::filesystem::path at =
      cache_dir.empty() ? cache_dir : cache_file(cache_dir, file.path());
  if (!at.empty()) {
    std::ifstream cached(at);
    std::string line;
    std::string hex;
    if (std::getline(cached, line) && line == identity && std::getline(cached, hex)) {
      if (auto bytes = from_hex(hex)) return ModelFingerprint{*bytes};
    }
  }
  const ModelFingerprint fingerprint = digest_of(file.file_bytes(), kFingerprintSeed);
  if (!at.empty()) remember(at, identity, fingerprint);
  return fingerprint;
}

// The keys that transformers' LlamaConfig has, so that DynamicCache users find what they need.
std::string config_json(const LlamaConfig& c, bool tied) {
  const boost::json::object config{
      {"architectures", boost::json::array{"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"hidden_size", c.width},
      {"intermediate_size", c.ffn_width},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", c.kv_heads},
      {"head_dim", c.head_width},
      {"max_position_embeddings", c.context},
      {"rms_norm_eps", c.rms_epsilon},
      {"rope_theta", c.rope_base},
      {"vocab_size", c.vocab},
      {"tie_word_embeddings", tied},
  };
  return boost::json::serialize(config);
}

}  // namespace

Result<std::unique_ptr<ModelCard>> read_card(const std::filesystem::path& path, Compute compute,
                                             const DeviceChoice& device,
                                             const std::filesystem::path& cache_dir) {
  KVFS_ASSIGN(const Device chosen, choose_device(device));
  KVFS_ASSIGN(const std::unique_ptr<container::GgufFile> file, container::GgufFile::open(path));
  KVFS_ASSIGN(const LlamaModel model, read_llama(*file));

  auto card = std::make_unique<ModelCard>();
  ModelInfo& info = card->info;
  info.name = path.stem().string();
  info.path = path;
  info.architecture = model.config.architecture;
  for (const container::GgufTensor& tensor : file->tensors()) {
    std::uint64_t elements = 1;
    for (const std::uint64_t dim : tensor.dims) elements *= dim;
    info.parameters += elements;
    info.weight_bytes += tensor.bytes.size();
  }
  info.context_length = model.config.context;
  info.vocab_size = model.config.vocab;
  info.layers.assign(static_cast<std::size_t>(model.config.layers), model.config.layer_shape());
  KVFS_ASSIGN(info.fingerprint, fingerprint_of(*file, cache_dir));
  const KernelClass kernels = kernel_class(chosen, compute);
  info.kernel_class = kernels.name;
  info.kv_dtype = kernels.kv_dtype;
  info.one_path = kernels.one_path;

  card->config_json = config_json(model.config, model.tensors.tied());
  KVFS_ASSIGN(card->tokenizer, text::load_tokenizer(*file));
  if (card->tokenizer->vocab_size() > info.vocab_size) {
    return fail(ErrorCode::kCorrupt, "model " + path.string(),
                "its tokenizer has " + std::to_string(card->tokenizer->vocab_size()) +
                    " tokens, its embedding " + std::to_string(info.vocab_size),
                "fetch the file again");
  }
  if (auto chat = text::load_chat_template(*file, *card->tokenizer)) {
    card->chat = *std::move(chat);
  } else if (chat.error().code != ErrorCode::kNotFound) {
    card->chat_error = chat.error().message();
  }
  return card;
}

}  // namespace kvfs::model
