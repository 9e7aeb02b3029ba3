// What is known of a model without its weights.
#include <algorithm>
#include <boost/json.hpp>

#include "engine/model/cpu/weights.h"
#include "engine/model/device.h"
#include "engine/model/families/family.h"
#include "engine/model/fingerprint.h"
#include "engine/model/model.h"

namespace kvfs::model {
namespace {

// The keys that transformers' configs share, so that DynamicCache users find what they need.
std::string config_json(const Architecture& a, const Family& family) {
  const FeedForward& ffn = a.layers.front().experts.front();
  boost::json::object config{
      {"architectures", boost::json::array{boost::json::string_view(family.transformers.data(),
                                                                    family.transformers.size())}},
      {"model_type", boost::json::string_view(family.model_type.data(), family.model_type.size())},
      {"hidden_size", a.width},
      {"intermediate_size", ffn.width},
      {"num_hidden_layers", a.layers.size()},
      {"num_attention_heads", a.heads},
      {"num_key_value_heads", a.kv_heads},
      {"head_dim", a.head_width},
      {"max_position_embeddings", a.context},
      {"rms_norm_eps", a.epsilon},
      {"vocab_size", a.vocab},
      {"tie_word_embeddings", a.tied()},
  };
  if (!a.ropes.empty()) config["rope_theta"] = a.ropes.front().base;
  boost::json::array types;
  for (const Layer& layer : a.layers) {
    types.push_back(layer.convolution ? "conv" : "full_attention");
    if (layer.convolution) config["conv_L_cache"] = layer.convolution->taps;
  }
  if (config.contains("conv_L_cache")) {
    config["layer_types"] = std::move(types);
    config["norm_eps"] = a.epsilon;
    config["block_auto_adjust_ff_dim"] = false;  // intermediate_size is the width as it is
  }
  return boost::json::serialize(config);
}

// Known from the header, before a weight is read: its digest alone would take minutes.
Status check_memory(const ModelInfo& info, const DeviceChoice& device) {
  const std::uint64_t memory = memory_of(device);
  if (memory == 0 || info.resident_bytes <= memory) return {};
  return fail(ErrorCode::kTooLarge, "model " + info.path.string(),
              "its weights take " + size_text(info.resident_bytes) +
                  " of memory, this machine has " + size_text(memory),
              "use a smaller or a more quantized model, or a machine (or control group) with more");
}

Result<std::unique_ptr<ModelCard>> describe(const Checkpoint& files, Compute compute,
                                            const DeviceChoice& device,
                                            const std::filesystem::path& cache_dir) {
  KVFS_ASSIGN(const Device chosen, choose_device(device));
  KVFS_ASSIGN(const Architecture model, read_architecture(files));

  auto card = std::make_unique<ModelCard>();
  ModelInfo& info = card->info;
  info.name = model_name(files.path());
  info.path = files.path();
  info.architecture = files.family();
  for (const Tensor& tensor : files.tensors()) {
    std::uint64_t elements = 1;
    for (const std::uint64_t dim : tensor.dims) elements *= dim;
    info.parameters += elements;
    info.weight_bytes += tensor.bytes.size();
  }
  info.resident_bytes =
      chosen.cuda
          ? info.parameters * (compute == Compute::kReference ? 4 : 2)  // fp32, bf16 or fp16
          : cpu::weights_size(model, compute);
  KVFS_TRY(check_memory(info, device));
  info.context_length = model.context;
  info.vocab_size = model.vocab;
  for (const Layer& layer : model.layers) info.layers.push_back(model.layer_shape(layer));
  KVFS_ASSIGN(info.fingerprint, fingerprint_of(files, cache_dir));
  info.fp16 = is_fp16(model);
  const KernelClass kernels = kernel_class(chosen, compute, info.fp16);
  info.kernel_class = kernels.name;
  info.kv_dtype = kernels.kv_dtype;
  info.one_path = kernels.one_path;
  info.prunes = std::ranges::all_of(
      info.layers, [](const LayerShape& layer) { return layer.kept == kBlockTokens; });
  card->config_json =
      files.gguf() == nullptr ? files.config_text() : config_json(model, *find_family(files));
  return card;
}

}  // namespace

std::string model_name(const std::filesystem::path& path) {
  const std::filesystem::path last =
      path.has_filename() ? path.filename() : path.parent_path().filename();
  return last.extension() == ".gguf" ? last.stem().string() : last.string();
}

Result<std::unique_ptr<ModelCard>> describe_model(const std::filesystem::path& path,
                                                  Compute compute, const DeviceChoice& device,
                                                  const std::filesystem::path& cache_dir) {
  KVFS_ASSIGN(const std::unique_ptr<Checkpoint> files, Checkpoint::open(path));
  return describe(*files, compute, device, cache_dir);
}

Result<std::unique_ptr<ModelCard>> read_card(const std::filesystem::path& path, Compute compute,
                                             const DeviceChoice& device,
                                             const std::filesystem::path& cache_dir) {
  KVFS_ASSIGN(const std::unique_ptr<Checkpoint> files, Checkpoint::open(path));
  KVFS_ASSIGN(std::unique_ptr<ModelCard> card, describe(*files, compute, device, cache_dir));
  const container::GgufFile* gguf = files->gguf();
  const std::int32_t rows = card->info.vocab_size;
  KVFS_ASSIGN(card->tokenizer, gguf != nullptr ? text::load_tokenizer(*gguf, rows)
                                               : text::load_tokenizer(path, rows));
  auto chat = gguf != nullptr ? text::load_chat_template(*gguf, *card->tokenizer)
                              : text::load_chat_template(path, *card->tokenizer);
  if (chat) {
    card->chat = *std::move(chat);
  } else if (chat.error().code != ErrorCode::kNotFound) {
    card->chat_error = chat.error().message();
  }
  return card;
}

}  // namespace kvfs::model
