#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "engine/model/cpu/observe.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

constexpr int kPositionsToCome = 512;

// The average of the turns to come: pairs (i, i + pairs) of a head.
struct AverageTurn {
  std::vector<double> cosines;
  std::vector<double> sines;

  // x[i · step], in place.
  void apply(double* x, std::size_t step) const {
    const std::size_t pairs = cosines.size();
    for (std::size_t i = 0; i < pairs; ++i) {
      double& a = x[i * step];
      double& b = x[(i + pairs) * step];
      const double turned = a * cosines[i] - b * sines[i];
      b = b * cosines[i] + a * sines[i];
      a = turned;
    }
  }
};

AverageTurn average_turn(const Forward& forward, int layer, Position first) {
  AverageTurn mean;
  std::vector<float> cosines;
  std::vector<float> sines;
  for (Position pos = first; pos < first + kPositionsToCome; ++pos) {
    forward.angles_at(layer, pos, cosines, sines);
    mean.cosines.resize(cosines.size());
    mean.sines.resize(sines.size());
    for (std::size_t i = 0; i < cosines.size(); ++i) {
      mean.cosines[i] += static_cast<double>(cosines[i]) / kPositionsToCome;
      mean.sines[i] += static_cast<double>(sines[i]) / kPositionsToCome;
    }
  }
  return mean;
}

// What a KV head's keys are multiplied by: for each query head of the group a matrix and a vector,
// so that the exponent is k · (matrix · k + vector).
class ExpectedQueries {
 public:
  ExpectedQueries(const QueryMoments& queries, const AverageTurn& turn, int layer, int first_head,
                  int group, int width, double scale)
      : width_(static_cast<std::size_t>(width)),
        outputs_(static_cast<std::size_t>(group) * width_),
        store_(outputs_ * width_ + 16),
        vectors_(outputs_) {
    void* at = store_.data();
    std::size_t space = store_.size() * sizeof(float);
    matrix_ = static_cast<float*>(std::align(64, outputs_ * width_ * sizeof(float), at, space));
    for (int g = 0; g < group; ++g) {
      const std::size_t begin = static_cast<std::size_t>(g) * width_;
      std::vector<double> mean = queries.mean(layer, first_head + g);
      turn.apply(mean.data(), 1);
      for (std::size_t i = 0; i < width_; ++i)
        vectors_[begin + i] = static_cast<float>(mean[i] * scale);
      std::vector<double> covariance = queries.covariance(layer, first_head + g);
      for (std::size_t i = 0; i < width_; ++i) turn.apply(&covariance[i], width_);
      for (std::size_t i = 0; i < width_; ++i) turn.apply(&covariance[i * width_], 1);
      for (std::size_t out = 0; out < width_; ++out) {
        for (std::size_t in = 0; in < width_; ++in) {
          const std::size_t column = begin + out;
          matrix_[(column / kPanel * width_ + in) * kPanel + column % kPanel] =
              static_cast<float>(covariance[out * width_ + in] * scale * scale / 2);
        }
      }
    }
  }

  // Appends each query head's exponents of these keys [count, width].
  void add(const Kernels& kernels, const std::vector<float>& keys, prune::HeadScores& scores,
           std::size_t first_head) {
    const std::size_t count = keys.size() / width_;
    products_.resize(count * outputs_);
    const MatrixView view{Packing::kF32, static_cast<int>(width_), static_cast<int>(outputs_),
                          reinterpret_cast<const std::uint8_t*>(matrix_)};
    kernels.multiply_plain(keys.data(), static_cast<int>(count), view, 0,
                           static_cast<int>(outputs_) / kPanel,
                           {products_.data(), outputs_, false});
    for (std::size_t column = 0; column < outputs_; column += width_) {
      std::vector<float>& to = scores[first_head + column / width_];
      for (std::size_t i = 0; i < count; ++i) {
        const float* key = &keys[i * width_];
        const float* product = &products_[i * outputs_ + column];
        float lanes[8] = {};
        for (std::size_t d = 0; d < width_; d += 8) {
          for (std::size_t lane = 0; lane < 8; ++lane) {
            lanes[lane] += key[d + lane] * (product[d + lane] + vectors_[column + d + lane]);
          }
        }
        float sum = 0;
        for (const float lane : lanes) sum += lane;
        to.push_back(sum);
      }
    }
  }

 private:
  std::size_t width_;
  std::size_t outputs_;
  std::vector<float> store_;
  float* matrix_;  // [outputs / 32, width, 32]
  std::vector<float> vectors_;
  std::vector<float> products_;
};

void widen(DType type, ByteSpan rows, std::vector<float>& to) {
  to.resize(rows.size() / size_of(type));
  if (type == DType::kF32) {
    std::memcpy(to.data(), rows.data(), rows.size());
    return;
  }
  std::vector<std::uint16_t> bits(to.size());  // a plain loop over these is made vectors of
  std::memcpy(bits.data(), rows.data(), rows.size());
  std::ranges::transform(bits, to.begin(), bf16_to_float);
}

// In lanes, so that one addition need not wait for the one before.
float norm_of(const float* x, std::size_t width) {
  double lanes[8] = {};
  for (std::size_t d = 0; d < width; d += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) {
      const auto value = static_cast<double>(x[d + lane]);
      lanes[lane] += value * value;
    }
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return static_cast<float>(std::sqrt(sum));
}

}  // namespace

void expect_weights(const PageShape& shape, const PagedSequence& sequence, const Kernels& kernels,
                    const Forward& forward, const QueryMoments& queries, ForkJoin& threads,
                    prune::Observation& to) {
  const int group = forward.architecture().heads / shape.kv_heads;
  const auto width = static_cast<std::size_t>(shape.width);
  threads.for_each(static_cast<int>(to.size()), [&](int layer, int) {
    prune::LayerObservation& seen = to[static_cast<std::size_t>(layer)];
    seen.scores.resize(static_cast<std::size_t>(forward.architecture().heads));
    seen.value_norms.resize(static_cast<std::size_t>(shape.kv_heads));
    const AverageTurn turn = average_turn(forward, layer, sequence.next_pos());
    std::vector<ExpectedQueries> expected;
    for (int head = 0; head < shape.kv_heads; ++head) {
      expected.emplace_back(queries, turn, layer, head * group, group, shape.width,
                            static_cast<double>(forward.architecture().attention_scale));
    }
    std::vector<float> rows;
    for (int page = 0; page < sequence.pages(); ++page) {
      const int end = std::min(kPage, sequence.next_pos() - page * kPage);
      for (const KvPiece& piece :
           sequence.page(page).take_out(static_cast<std::uint16_t>(layer), page * kPage, end)) {
        const std::size_t bytes = piece.key.size() / piece.head_count;
        for (std::size_t i = 0; i < piece.head_count; ++i) {
          const std::size_t head = piece.head_begin + i;
          widen(shape.dtype, ByteSpan(piece.key).subspan(i * bytes, bytes), rows);
          expected[head].add(kernels, rows, seen.scores, head * static_cast<std::size_t>(group));
          widen(shape.dtype, ByteSpan(piece.value).subspan(i * bytes, bytes), rows);
          for (std::size_t at = 0; at < rows.size(); at += width)
            seen.value_norms[head].push_back(norm_of(&rows[at], width));
        }
      }
    }
  });
}

}  // namespace kvfs::model::cpu
