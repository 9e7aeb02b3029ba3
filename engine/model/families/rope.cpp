// RoPE's frequencies, in fp32 steps as transformers' modeling_rope_utils.py has them: the yardstick
// compares bits of angles.
#include <cmath>
#include <cstring>
#include <numbers>

#include "engine/model/dequantize.h"
#include "engine/model/families/reader.h"

namespace kvfs::model {
namespace {

constexpr Key kFactor{"factor", "rope.scaling.factor"};
constexpr Key kOriginal{"original_max_position_embeddings", "rope.scaling.original_context_length"};
constexpr Key kMagnitude{"attention_factor", "rope.scaling.attn_factor"};

// base^(2i / turned)
std::vector<float> wavelengths(double base, int turned) {
  std::vector<float> out;
  for (int i = 0; i < turned; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(turned);
    out.push_back(static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(base)), static_cast<double>(exponent))));
  }
  return out;
}

class RopeReader {
 public:
  RopeReader(Reader& reader, const Architecture& a, const char* kind)
      : reader_(reader), a_(a), kind_(kind), fields_(reader.fields()) {}

  Result<Rope> read() {
    KVFS_TRY(find_fields());
    KVFS_TRY(read_base());
    const Key type_key{fields_.has({"rope_type", nullptr}) ? "rope_type" : "type",
                       "rope.scaling.type"};
    KVFS_ASSIGN(const std::string type, fields_.text_or(type_key, "default"));
    // GGUFs of Phi-3 hold the factors and do not name the scaling.
    if (type == "longrope" || type == "su" ||
        (reader_.is_gguf() && reader_.checkpoint().find("rope_factors_long.weight") != nullptr)) {
      return longrope();
    }
    if (type == "default" || type == "none") return divided(1.0);
    if (type == "linear") {
      KVFS_ASSIGN(const double factor, fields_.real_or(kFactor, 1.0, 1.0, 1e6));
      return divided(factor);
    }
    if (type == "llama3") return llama3();
    if (type == "yarn") return yarn();
    return fields_.refuse(ErrorCode::kUnsupported, type_key,
                          "is '" + type + "', known: default, linear, llama3, yarn, longrope",
                          "use a model with one of these");
  }

 private:
  // transformers keeps them in rope_parameters, and kept them in rope_scaling and beside it.
  Status find_fields() {
    if (reader_.is_gguf()) return {};
    const Fields& config = reader_.fields();
    if (config.has({"rope_parameters", nullptr})) {
      KVFS_ASSIGN(fields_, config.object({"rope_parameters", nullptr}));
      if (kind_ != nullptr && fields_.has({kind_, nullptr})) {
        KVFS_ASSIGN(Fields inner, fields_.object({kind_, nullptr}));
        fields_ = std::move(inner);
      }
    } else if (config.has({"rope_scaling", nullptr})) {
      KVFS_ASSIGN(fields_, config.object({"rope_scaling", nullptr}));
    } else {
      fields_ = {};
    }
    return {};
  }

  Status read_base() {
    const Fields& config = reader_.fields();
    const Key base{"rope_theta", "rope.freq_base"};
    const Key older{"rotary_emb_base", nullptr};
    const Fields& holder = fields_.has(base) ? fields_ : config;
    KVFS_ASSIGN(base_, holder.real_or(config.has(older) && !fields_.has(base) ? older : base,
                                      10000.0, 1.0, 1e12));
    if (reader_.is_gguf()) {
      KVFS_ASSIGN(turned_, config.count_or({nullptr, "rope.dimension_count"}, a_.head_width));
    } else {
      const Key partial{"partial_rotary_factor", nullptr};
      const Key old_partial{"rotary_pct", nullptr};
      const Fields& where = fields_.has(partial) ? fields_ : config;
      KVFS_ASSIGN(const double share,
                  where.real_or(where.has(partial) ? partial : old_partial, 1.0, 0.0, 1.0));
      turned_ = static_cast<int>(a_.head_width * share);
    }
    if (turned_ < 2 || turned_ % 2 != 0 || turned_ > a_.head_width) {
      return reader_.unsupported("RoPE turns " + std::to_string(turned_) + " of a head's " +
                                 std::to_string(a_.head_width) + " dimensions");
    }
    return {};
  }

  // rope_freqs.weight: what GGUF keeps of Llama 3's scaling.
  Result<Rope> divided(double linear) {
    Rope rope = plain_rope(base_, turned_, linear);
    if (reader_.is_gguf() && reader_.checkpoint().find("rope_freqs.weight") != nullptr) {
      KVFS_ASSIGN(const std::vector<float> divisors, factors("rope_freqs.weight"));
      for (std::size_t i = 0; i < divisors.size(); ++i) {
        rope.frequencies[i] =
            1.0F / wavelengths(base_, turned_)[i] / divisors[i] / static_cast<float>(linear);
      }
    }
    return rope;
  }

  Result<std::vector<float>> factors(const std::string& name) {
    KVFS_ASSIGN(const Tensor* tensor, reader_.vector(name, turned_ / 2));
    std::vector<float> values(static_cast<std::size_t>(turned_ / 2));
    dequantize_row(tensor->type, tensor->bytes, values);
    return values;
  }

  Result<Rope> llama3() {
    KVFS_ASSIGN(const double factor, fields_.real(kFactor, 1.0, 1e6));
    KVFS_ASSIGN(const double low, fields_.real({"low_freq_factor", nullptr}, 1e-3, 1e6));
    KVFS_ASSIGN(const double high, fields_.real({"high_freq_factor", nullptr}, 1e-3, 1e6));
    KVFS_ASSIGN(const int original, fields_.count(kOriginal));
    if (!(high > low)) {
      return fields_.refuse(ErrorCode::kInvalid, {"high_freq_factor", nullptr},
                            "is not above low_freq_factor");
    }
    Rope rope = plain_rope(base_, turned_);
    for (float& frequency : rope.frequencies) {
      const float length = 2.0F * std::numbers::pi_v<float> / frequency;
      if (length > static_cast<float>(original / low)) {
        frequency /= static_cast<float>(factor);
      } else if (length > static_cast<float>(original / high)) {
        const float smooth = (static_cast<float>(original) / length - static_cast<float>(low)) /
                             static_cast<float>(high - low);
        frequency = (1.0F - smooth) * frequency / static_cast<float>(factor) + smooth * frequency;
      }
    }
    return rope;
  }

  // YaRN (arXiv 2309.00071), "NTK by parts" and the attention factor.
  Result<Rope> yarn() {
    KVFS_ASSIGN(const double factor, fields_.real(kFactor, 1.0, 1e6));
    KVFS_ASSIGN(const int original, fields_.count_or(kOriginal, a_.context));
    KVFS_ASSIGN(const double fast, fields_.real_or({"beta_fast", nullptr}, 32.0, 1e-3, 1e6));
    KVFS_ASSIGN(const double slow, fields_.real_or({"beta_slow", nullptr}, 1.0, 1e-3, 1e6));
    for (const char* other : {"mscale", "mscale_all_dim", "truncate"}) {
      if (fields_.has({other, nullptr}))
        return fields_.refuse(ErrorCode::kUnsupported, {other, nullptr}, "is not known here");
    }
    const auto dimension = [&](double turns) {
      return turned_ * std::log(original / (turns * 2.0 * std::numbers::pi)) /
             (2.0 * std::log(base_));
    };
    const double low = std::max(std::floor(dimension(fast)), 0.0);
    double high = std::min(std::ceil(dimension(slow)), turned_ - 1.0);
    if (high == low) high += 0.001;
    Rope rope{.base = base_};
    const std::vector<float> lengths = wavelengths(base_, turned_);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      const auto ramp =
          static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
      rope.frequencies.push_back(1.0F / (static_cast<float>(factor) * lengths[i]) * ramp +
                                 1.0F / lengths[i] * (1.0F - ramp));
    }
    const double usual = 0.1 * std::log(factor) + 1.0;
    KVFS_ASSIGN(const double magnitude,
                fields_.real_or({"attention_factor", nullptr}, usual, 1e-3, 1e3));
    rope.magnitude = static_cast<float>(magnitude);
    return rope;
  }

  // LongRoPE (arXiv 2402.13753) as Phi-3 has it.
  Result<Rope> longrope() {
    const Fields& config = reader_.fields();
    const Fields& holder = fields_.has(kOriginal) ? fields_ : config;
    KVFS_ASSIGN(const int original, holder.count(kOriginal));
    std::vector<float> early;
    std::vector<float> late;
    if (reader_.is_gguf()) {
      KVFS_ASSIGN(early, factors("rope_factors_short.weight"));
      KVFS_ASSIGN(late, factors("rope_factors_long.weight"));
    } else {
      KVFS_ASSIGN(early, listed("short_factor"));
      KVFS_ASSIGN(late, listed("long_factor"));
    }
    Rope rope{.base = base_};
    const std::vector<float> lengths = wavelengths(base_, turned_);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      rope.frequencies.push_back(1.0F / (early[i] * lengths[i]));
      rope.late_frequencies.push_back(1.0F / (late[i] * lengths[i]));
    }
    rope.late_from = original;
    const double stretch = static_cast<double>(a_.context) / original;
    KVFS_ASSIGN(const double factor, fields_.real_or({"factor", nullptr}, stretch, 1e-3, 1e6));
    const double usual =
        factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(original));
    KVFS_ASSIGN(const double magnitude, fields_.real_or(kMagnitude, usual, 1e-3, 1e3));
    rope.magnitude = static_cast<float>(magnitude);
    return rope;
  }

  Result<std::vector<float>> listed(const char* name) {
    KVFS_ASSIGN(const std::vector<double> values, fields_.reals({name, nullptr}, 1e-3, 1e6));
    if (values.size() != static_cast<std::size_t>(turned_ / 2)) {
      return fields_.refuse(ErrorCode::kInvalid, {name, nullptr},
                            "has " + std::to_string(values.size()) + " factors, wanted " +
                                std::to_string(turned_ / 2));
    }
    return std::vector<float>(values.begin(), values.end());
  }

  Reader& reader_;
  const Architecture& a_;
  const char* kind_;
  Fields fields_;
  double base_ = 10000.0;
  int turned_ = 0;
};

}  // namespace

Rope plain_rope(double base, int turned, double linear) {
  Rope rope{.base = base};
  for (const float length : wavelengths(base, turned))
    rope.frequencies.push_back(1.0F / length / static_cast<float>(linear));
  return rope;
}

Result<Rope> read_rope(Reader& reader, const Architecture& a, const char* kind) {
  return RopeReader(reader, a, kind).read();
}

}  // namespace kvfs::model
