#include "engine/model/families/family.h"

#include <algorithm>
#include <set>

#include "engine/model/families/reader.h"

namespace kvfs::model {
namespace {

constexpr Family kFamilies[] = {
    {"llama", "llama", "LlamaForCausalLM", read_llama},  // a GGUF's "llama" is Mistral, Mixtral too
    {"mistral", "", "MistralForCausalLM", read_mistral},
    {"mixtral", "", "MixtralForCausalLM", read_mixtral},
    {"smollm3", "smollm3", "SmolLM3ForCausalLM", read_smollm3},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", read_qwen2},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", read_qwen3},
    {"qwen3_moe", "qwen3moe", "Qwen3MoeForCausalLM", read_qwen3_moe},
    {"phi3", "phi3", "Phi3ForCausalLM", read_phi3},
    {"gemma2", "gemma2", "Gemma2ForCausalLM", read_gemma2},
    {"gemma3_text", "gemma3", "Gemma3ForCausalLM", read_gemma3},
    {"gpt2", "gpt2", "GPT2LMHeadModel", read_gpt2},
    {"gpt_neox", "gptneox", "GPTNeoXForCausalLM", read_gpt_neox},
    {"olmo2", "olmo2", "Olmo2ForCausalLM", read_olmo2},
    {"lfm2", "lfm2", "Lfm2ForCausalLM", read_lfm2},
};

}  // namespace

std::span<const Family> families() { return kFamilies; }

const Family* find_family(const Checkpoint& checkpoint) {
  const bool gguf = checkpoint.gguf() != nullptr;
  const auto found = std::ranges::find_if(kFamilies, [&](const Family& family) {
    return (gguf ? family.gguf : family.model_type) == checkpoint.family();
  });
  return found != std::end(kFamilies) ? &*found : nullptr;
}

Result<Architecture> read_architecture(const Checkpoint& checkpoint) {
  if (const Family* family = find_family(checkpoint)) {
    const Key packed{"quantization_config", nullptr};  // GPTQ, AWQ, bitsandbytes
    if (checkpoint.fields().has(packed)) {
      return checkpoint.fields().refuse(ErrorCode::kUnsupported, packed,
                                        "is set: weights packed that way are not known",
                                        "use the unpacked model, or a GGUF of it");
    }
    Reader reader(checkpoint);
    KVFS_ASSIGN(Architecture architecture, family->read(reader));
    architecture.family = family->model_type;
    KVFS_TRY(reader.finish(architecture));
    return architecture;
  }
  const bool gguf = checkpoint.gguf() != nullptr;
  std::string known;
  for (const Family& family : kFamilies) {
    const std::string_view name = gguf ? family.gguf : family.model_type;
    if (!name.empty()) known += (known.empty() ? "" : ", ") + std::string(name);
  }
  return fail(ErrorCode::kUnsupported, checkpoint.what(),
              std::string(gguf ? "general.architecture" : "config.json, model_type") + " is '" +
                  checkpoint.family() + "', known: " + known,
              "use a model of a known family");
}

}  // namespace kvfs::model
