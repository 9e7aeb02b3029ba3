#include "engine/model/families/reader.h"

#include <algorithm>
#include <cmath>

#include "engine/model/dequantize.h"

namespace kvfs::model {
namespace {

using container::GgmlType;

constexpr int kMostLayers = 1024;
constexpr int kMostHeads = 4096;

std::string shape_text(const std::vector<std::uint64_t>& dims) {
  std::string text = "[";
  for (const std::uint64_t dim : dims) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

// Buffers that old checkpoints carry beside the weights.
bool is_buffer(std::string_view name) {
  for (const std::string_view end : {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias",
                                     ".attention.bias", ".attention.masked_bias"}) {
    if (name.ends_with(end)) return true;
  }
  return false;
}

std::uint64_t wide(int n) { return static_cast<std::uint64_t>(n); }

std::vector<Slice> bias_or_zeros(const Linear& part) {
  if (!part.bias.empty()) return part.bias;
  return {{.rows = part.outputs()}};
}

}  // namespace

tl::unexpected<Error> Reader::unsupported(std::string why, std::string way_out) const {
  return fail(ErrorCode::kUnsupported, checkpoint_.what(), std::move(why), std::move(way_out));
}

std::string Reader::full_name(Name name, int layer, int expert) const {
  std::string out;
  const char* own = is_gguf() ? name.gguf : name.hugging_face;
  for (const char* c = own != nullptr ? own : "?"; *c != '\0'; ++c) {
    if (*c == '#')
      out += std::to_string(layer);
    else if (*c == '@')
      out += std::to_string(expert);
    else
      out += *c;
  }
  return out;
}

Result<Architecture> Reader::sizes(const SizeKeys& keys) {
  Architecture a;
  const Fields& f = fields();
  KVFS_ASSIGN(const int layers, f.count(keys.layers, kMostLayers));
  a.layers.resize(static_cast<std::size_t>(layers));
  KVFS_ASSIGN(a.context, f.count(keys.context));
  KVFS_ASSIGN(a.width, f.count(keys.width));
  KVFS_ASSIGN(a.heads, f.count(keys.heads, kMostHeads));
  KVFS_ASSIGN(a.kv_heads, f.count_or(keys.kv_heads, a.heads, kMostHeads));
  if (a.heads % a.kv_heads != 0) {
    return f.refuse(ErrorCode::kInvalid, keys.heads,
                    std::to_string(a.heads) + " is no multiple of " + f.name(keys.kv_heads) + " " +
                        std::to_string(a.kv_heads));
  }
  const Key head_width{"head_dim", "attention.key_length"};
  if (!f.has(head_width) && a.width % a.heads != 0) {
    return f.refuse(
        ErrorCode::kInvalid, keys.width,
        std::to_string(a.width) + " is no multiple of the " + std::to_string(a.heads) + " heads");
  }
  KVFS_ASSIGN(a.head_width, f.count_or(head_width, a.width / a.heads));
  KVFS_ASSIGN(const int value_width, f.count_or({nullptr, "attention.value_length"}, a.head_width));
  if (value_width != a.head_width) {
    return unsupported(f.name({nullptr, "attention.value_length"}) +
                       " differs from attention.key_length");
  }
  // The kernels work on 32 columns at a time.
  if (a.width % 32 != 0 || a.head_width % 32 != 0 || a.head_width > 1024) {
    return unsupported(f.name(keys.width) + " " + std::to_string(a.width) + " or the head width " +
                       std::to_string(a.head_width) + " is no multiple of 32");
  }
  KVFS_ASSIGN(const double epsilon, f.real(keys.epsilon, 1e-12, 1.0));
  a.epsilon = static_cast<float>(epsilon);
  a.attention_scale = 1.0F / std::sqrt(static_cast<float>(a.head_width));
  return a;
}

Result<int> Reader::ffn_width(Key key) {
  KVFS_ASSIGN(const int width, fields().count(key));
  if (width % 32 != 0)
    return unsupported(fields().name(key) + " " + std::to_string(width) + " is no multiple of 32");
  return width;
}

Result<Activation> Reader::activation(Key key, Activation otherwise) {
  if (!fields().has(key)) return otherwise;
  KVFS_ASSIGN(const std::string name, fields().text(key));
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast")
    return Activation::kGeluTanh;
  return fields().refuse(ErrorCode::kUnsupported, key,
                         "is '" + name + "', known: silu, gelu, gelu_new, gelu_pytorch_tanh",
                         "use a model with one of these");
}

bool Reader::has(Name name, int layer) const {
  return checkpoint_.find(full_name(name, layer) + ".weight") != nullptr;
}

Result<const Tensor*> Reader::tensor(const std::string& name,
                                     const std::vector<std::uint64_t>& dims) {
  const Tensor* found = checkpoint_.find(name);
  if (found == nullptr) {
    return fail(ErrorCode::kCorrupt, checkpoint_.what(), "tensor " + name + " is missing",
                "fetch the file again");
  }
  if (found->dims != dims) {
    return fail(
        ErrorCode::kCorrupt, checkpoint_.what(),
        "tensor " + name + " is " + shape_text(found->dims) + ", wanted " + shape_text(dims),
        "fetch the file again");
  }
  if (!is_supported(found->type)) {
    return unsupported("tensor " + name + " is " + std::string(name_of(found->type)) +
                           ", known: " + supported_types(),
                       "use a file of one of these kinds");
  }
  known_.insert(name);
  return found;
}

Result<const Tensor*> Reader::matrix(const std::string& name, int inputs, int outputs,
                                     int experts) {
  std::vector<std::uint64_t> dims{wide(inputs), wide(outputs)};
  if (experts > 0) dims.push_back(wide(experts));
  return tensor(name, dims);
}

Result<const Tensor*> Reader::plain(const std::string& name,
                                    const std::vector<std::uint64_t>& dims) {
  KVFS_ASSIGN(const Tensor* found, tensor(name, dims));
  if (block_elements(found->type) != 1) {
    return unsupported("tensor " + name + " is " + std::string(name_of(found->type)) +
                       ", wanted F32, F16 or BF16");
  }
  return found;
}

Result<const Tensor*> Reader::vector(const std::string& name, int length) {
  return plain(name, {wide(length)});
}

Result<const Tensor*> Reader::taps(const std::string& name, int channels, int taps) {
  if (is_gguf()) return plain(name, {wide(taps), wide(channels)});
  return plain(name, {wide(taps), 1, wide(channels)});
}

Result<Linear> Reader::linear(Name name, int layer, int inputs, int outputs, Bias bias) {
  const std::string base = full_name(name, layer);
  Linear made{.inputs = inputs};
  KVFS_ASSIGN(const Tensor* weight, matrix(base + ".weight", inputs, outputs));
  made.weight = {{.tensor = weight, .rows = outputs}};
  const bool there = checkpoint_.find(base + ".bias") != nullptr;
  if (bias == Bias::kNeeded || (bias == Bias::kIfThere && there)) {
    KVFS_ASSIGN(const Tensor* vector_there, vector(base + ".bias", outputs));
    made.bias = {{.tensor = vector_there, .rows = outputs}};
  }
  return made;
}

Result<Norm> Reader::norm(Norm::Kind kind, Name name, int layer, int length) {
  const std::string base = full_name(name, layer);
  Norm made{.kind = kind, .length = length};
  KVFS_ASSIGN(made.weight, vector(base + ".weight", length));
  if (kind == Norm::Kind::kLayer && checkpoint_.find(base + ".bias") != nullptr) {
    KVFS_ASSIGN(made.bias, vector(base + ".bias", length));
  }
  return made;
}

Status Reader::vocabulary(Architecture& a, Name embedding, Name output) {
  const std::string name = full_name(embedding, 0) + ".weight";
  const Tensor* table = checkpoint_.find(name);
  if (table == nullptr || table->dims.size() != 2 || table->dims[1] == 0 ||
      table->dims[1] > wide(Fields::kMostCount)) {
    return fail(ErrorCode::kCorrupt, checkpoint_.what(),
                "tensor " + name + " is missing or no matrix", "fetch the file again");
  }
  KVFS_ASSIGN(a.vocab,
              fields().count_or({"vocab_size", "vocab_size"}, static_cast<int>(table->dims[1])));
  KVFS_ASSIGN(a.embedding, matrix(name, a.width, a.vocab));
  const Slice tied{.tensor = a.embedding, .rows = a.vocab};
  a.output = {.inputs = a.width, .weight = {tied}};
  const bool own = has(output);
  KVFS_ASSIGN(const bool shared, fields().flag_or({"tie_word_embeddings", nullptr}, !own));
  if (own) {
    // transformers writes lm_head beside a tied embedding at times, and ignores it.
    KVFS_ASSIGN(Linear head, linear(output, 0, a.width, a.vocab, Bias::kIfThere));
    if (!shared) a.output = std::move(head);
  } else if (!shared) {
    return fail(ErrorCode::kCorrupt, checkpoint_.what(),
                "tensor " + full_name(output, 0) + ".weight is missing and " +
                    fields().name({"tie_word_embeddings", nullptr}) + " is false",
                "fetch the file again");
  }
  return {};
}

Status Reader::finish(const Architecture& a) const {
  for (const Tensor& tensor : checkpoint_.tensors()) {
    if (known_.contains(tensor.name) || is_buffer(tensor.name)) continue;
    return unsupported("tensor " + tensor.name + " has no place in the " + a.family +
                       " family as known here");
  }
  return {};
}

Linear stacked(Linear a, Linear b) {
  if (!a.bias.empty() || !b.bias.empty()) {
    std::vector<Slice> bias = bias_or_zeros(a);
    const std::vector<Slice> below = bias_or_zeros(b);
    bias.insert(bias.end(), below.begin(), below.end());
    a.bias = std::move(bias);
  }
  a.weight.insert(a.weight.end(), b.weight.begin(), b.weight.end());
  return a;
}

}  // namespace kvfs::model
