#include "engine/model/llama_config.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <set>

#include "engine/model/dequantize.h"

namespace kvfs::model {
namespace {

using container::GgmlType;
using container::GgufFile;
using container::GgufTensor;

constexpr const char* kKnownFamilies = "llama";
constexpr std::uint64_t kMaxDimension = 1U << 24;

std::string shape_text(const std::vector<std::uint64_t>& dims) {
  std::string text = "[";
  for (const std::uint64_t dim : dims) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file), what_("model " + file.path().string()) {}

  Result<LlamaModel> read() {
    KVFS_TRY(read_config());
    KVFS_TRY(read_rope());
    KVFS_TRY(read_tensors());
    KVFS_TRY(refuse_unknown_tensors());
    return std::move(model_);
  }

 private:
  std::string key(const char* name) const { return model_.config.architecture + "." + name; }

  tl::unexpected<Error> unsupported(std::string why, std::string way_out = {}) const {
    return fail(ErrorCode::kUnsupported, what_, std::move(why), std::move(way_out));
  }

  Result<int> count_at(const char* name) const {
    KVFS_ASSIGN(const std::uint64_t value, file_.unsigned_at(key(name)));
    if (value == 0 || value > kMaxDimension) {
      return fail(ErrorCode::kInvalid, what_,
                  key(name) + " is " + std::to_string(value) + ", wanted 1 to " +
                      std::to_string(kMaxDimension));
    }
    return static_cast<int>(value);
  }
  Result<int> count_at(const char* name, int otherwise) const {
    if (!file_.has(key(name))) return otherwise;
    return count_at(name);
  }

  Status read_config() {
    LlamaConfig& c = model_.config;
    KVFS_ASSIGN(c.architecture, file_.string_at("general.architecture"));
    if (c.architecture != "llama") {
      return unsupported(
          "general.architecture is '" + c.architecture + "', known: " + kKnownFamilies,
          "use a model of a known family");
    }
    KVFS_ASSIGN(c.layers, count_at("block_count"));
    KVFS_ASSIGN(c.context, count_at("context_length"));
    KVFS_ASSIGN(c.width, count_at("embedding_length"));
    KVFS_ASSIGN(c.ffn_width, count_at("feed_forward_length"));
    KVFS_ASSIGN(c.heads, count_at("attention.head_count"));
    KVFS_ASSIGN(c.kv_heads, count_at("attention.head_count_kv", c.heads));
    KVFS_ASSIGN(c.head_width, count_at("attention.key_length", c.width / c.heads));
    KVFS_ASSIGN(const int value_width, count_at("attention.value_length", c.head_width));
    KVFS_ASSIGN(const double epsilon, file_.real_at(key("attention.layer_norm_rms_epsilon")));
    if (!(epsilon > 0.0 && epsilon < 1.0)) {
      return fail(ErrorCode::kInvalid, what_,
                  key("attention.layer_norm_rms_epsilon") + " is " + std::to_string(epsilon) +
                      ", wanted 0 to 1");
    }
    c.rms_epsilon = static_cast<float>(epsilon);

    if (c.layers > 1024 || c.heads > 4096 || c.kv_heads > 4096) {
      return fail(ErrorCode::kInvalid, what_, "more than 1024 layers or 4096 heads");
    }
    if (c.heads % c.kv_heads != 0) {
      return fail(ErrorCode::kInvalid, what_,
                  key("attention.head_count") + " " + std::to_string(c.heads) +
                      " is no multiple of " + key("attention.head_count_kv") + " " +
                      std::to_string(c.kv_heads));
    }
    if (value_width != c.head_width) {
      return unsupported(key("attention.value_length") + " differs from attention.key_length");
    }
    // The kernels work on 32 columns at a time.
    if (c.width % 32 != 0 || c.ffn_width % 32 != 0 || c.head_width % 32 != 0 ||
        c.head_width > 1024) {
      return unsupported("embedding_length " + std::to_string(c.width) + ", feed_forward_length " +
                         std::to_string(c.ffn_width) + " or the head width " +
                         std::to_string(c.head_width) + " is no multiple of 32");
    }
    KVFS_ASSIGN(const int experts, count_or_zero("expert_count"));
    if (experts > 0)
      return unsupported(key("expert_count") + " is set: mixtures of experts are not known");
    return {};
  }

  Result<int> count_or_zero(const char* name) const {
    if (!file_.has(key(name))) return 0;
    KVFS_ASSIGN(const std::uint64_t value, file_.unsigned_at(key(name)));
    return static_cast<int>(std::min(value, kMaxDimension));
  }

  Status read_rope() {
    LlamaConfig& c = model_.config;
    KVFS_ASSIGN(const int turned, count_at("rope.dimension_count", c.head_width));
    if (turned != c.head_width) {
      return unsupported(key("rope.dimension_count") + " is " + std::to_string(turned) +
                         ", only the whole head width " + std::to_string(c.head_width) +
                         " is known");
    }
    if (file_.has(key("rope.freq_base"))) {
      KVFS_ASSIGN(const double base, file_.real_at(key("rope.freq_base")));
      if (!(base > 1.0 && base < 1e12)) {
        return fail(ErrorCode::kInvalid, what_,
                    key("rope.freq_base") + " is " + std::to_string(base));
      }
      c.rope_base = static_cast<float>(base);
    }
    std::string scaling = "none";
    if (file_.has(key("rope.scaling.type"))) {
      KVFS_ASSIGN(scaling, file_.string_at(key("rope.scaling.type")));
    }
    if (scaling != "none" && scaling != "linear") {
      return unsupported(key("rope.scaling.type") + " is '" + scaling + "', known: none, linear");
    }
    if (scaling == "linear" && file_.has(key("rope.scaling.factor"))) {
      KVFS_ASSIGN(const double factor, file_.real_at(key("rope.scaling.factor")));
      if (!(factor >= 1.0 && factor < 1e6)) {
        return fail(ErrorCode::kInvalid, what_,
                    key("rope.scaling.factor") + " is " + std::to_string(factor));
      }
      c.rope_scale = static_cast<float>(factor);
    }
    return {};
  }

  Result<const GgufTensor*> tensor(const std::string& name, std::vector<std::uint64_t> dims) {
    const GgufTensor* found = file_.find_tensor(name);
    if (found == nullptr) {
      return fail(ErrorCode::kCorrupt, what_, "tensor " + name + " is missing",
                  "fetch the file again");
    }
    if (found->dims != dims) {
      return fail(
          ErrorCode::kCorrupt, what_,
          "tensor " + name + " is " + shape_text(found->dims) + ", wanted " + shape_text(dims),
          "fetch the file again");
    }
    if (!is_supported(found->type)) {
      return unsupported("tensor " + name + " is " + std::string(name_of(found->type)) +
                             ", known: F32 F16 BF16 Q4_0 Q4_1 Q8_0",
                         "use a file of one of these kinds");
    }
    known_.insert(name);
    return found;
  }
  Result<const GgufTensor*> matrix(const std::string& name, int inputs, int outputs) {
    return tensor(name, {static_cast<std::uint64_t>(inputs), static_cast<std::uint64_t>(outputs)});
  }
  Result<const GgufTensor*> vector(const std::string& name, int length) {
    KVFS_ASSIGN(const GgufTensor* found, tensor(name, {static_cast<std::uint64_t>(length)}));
    if (found->type != GgmlType::kF32) {
      return unsupported("tensor " + name + " is " + std::string(name_of(found->type)) +
                         ", wanted F32");
    }
    return found;
  }

  Status read_tensors() {
    LlamaConfig& c = model_.config;
    LlamaTensors& t = model_.tensors;
    const GgufTensor* embedding = file_.find_tensor("token_embd.weight");
    if (embedding == nullptr || embedding->dims.size() != 2 || embedding->dims[1] == 0 ||
        embedding->dims[1] > kMaxDimension) {
      return fail(ErrorCode::kCorrupt, what_, "tensor token_embd.weight is missing or no matrix",
                  "fetch the file again");
    }
    KVFS_ASSIGN(c.vocab, count_at("vocab_size", static_cast<int>(embedding->dims[1])));
    KVFS_ASSIGN(t.embedding, matrix("token_embd.weight", c.width, c.vocab));
    KVFS_ASSIGN(t.output_norm, vector("output_norm.weight", c.width));
    t.output = t.embedding;
    if (file_.find_tensor("output.weight") != nullptr) {
      KVFS_ASSIGN(t.output, matrix("output.weight", c.width, c.vocab));
    }
    t.rope_freqs = nullptr;
    if (file_.find_tensor("rope_freqs.weight") != nullptr) {
      KVFS_ASSIGN(t.rope_freqs, vector("rope_freqs.weight", c.head_width / 2));
    }
    for (int i = 0; i < c.layers; ++i) {
      KVFS_ASSIGN(LlamaLayerTensors layer, read_layer("blk." + std::to_string(i) + "."));
      t.layers.push_back(layer);
    }
    return {};
  }

  Result<LlamaLayerTensors> read_layer(const std::string& prefix) {
    const LlamaConfig& c = model_.config;
    const int q = c.heads * c.head_width;
    const int kv = c.kv_heads * c.head_width;
    LlamaLayerTensors layer{};
    KVFS_ASSIGN(layer.attn_norm, vector(prefix + "attn_norm.weight", c.width));
    KVFS_ASSIGN(layer.wq, matrix(prefix + "attn_q.weight", c.width, q));
    KVFS_ASSIGN(layer.wk, matrix(prefix + "attn_k.weight", c.width, kv));
    KVFS_ASSIGN(layer.wv, matrix(prefix + "attn_v.weight", c.width, kv));
    KVFS_ASSIGN(layer.wo, matrix(prefix + "attn_output.weight", q, c.width));
    KVFS_ASSIGN(layer.ffn_norm, vector(prefix + "ffn_norm.weight", c.width));
    KVFS_ASSIGN(layer.gate, matrix(prefix + "ffn_gate.weight", c.width, c.ffn_width));
    KVFS_ASSIGN(layer.up, matrix(prefix + "ffn_up.weight", c.width, c.ffn_width));
    KVFS_ASSIGN(layer.down, matrix(prefix + "ffn_down.weight", c.ffn_width, c.width));
    return layer;
  }

  // A tensor nobody asked for (a bias, say) means a model that would answer wrongly.
  Status refuse_unknown_tensors() const {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (!known_.contains(tensor.name)) {
        return unsupported("tensor " + tensor.name +
                           " has no place in the llama family as known here");
      }
    }
    return {};
  }

  const GgufFile& file_;
  std::string what_;
  LlamaModel model_;
  std::set<std::string> known_;
};

}  // namespace

LayerShape LlamaConfig::layer_shape() const {
  return {.kv_heads = static_cast<std::uint16_t>(kv_heads),
          .key_width = static_cast<std::uint16_t>(head_width),
          .value_width = static_cast<std::uint16_t>(head_width)};
}

Result<LlamaModel> read_llama(const GgufFile& file) { return Reader(file).read(); }

std::vector<float> rope_frequencies(const LlamaModel& model) {
  const LlamaConfig& c = model.config;
  const auto half = static_cast<std::size_t>(c.head_width / 2);
  std::vector<float> divisors(half, 1.0F);
  if (model.tensors.rope_freqs != nullptr) {
    std::memcpy(divisors.data(), model.tensors.rope_freqs->bytes.data(), half * sizeof(float));
  }
  std::vector<float> frequencies(half);
  for (std::size_t i = 0; i < half; ++i) {
    // fp32 steps, as transformers has them: the yardstick compares bits of angles.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(c.head_width);
    const auto power = static_cast<float>(
        std::pow(static_cast<double>(c.rope_base), static_cast<double>(exponent)));
    frequencies[i] = 1.0F / power / divisors[i] / c.rope_scale;
  }
  return frequencies;
}

}  // namespace kvfs::model
