#include "engine/model/cpu/compact.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "engine/model/dequantize.h"
#include "engine/model/places.h"

namespace kvfs::model::cpu {
namespace {

// Cosines and sines of one of the ropes: [positions, pairs].
struct Turns {
  std::size_t pairs = 0;
  std::vector<float> cosines;
  std::vector<float> sines;
};

class Mover {
 public:
  Mover(PagePool& pool, const Forward& forward, const PagedSequence& sequence, const Places& to)
      : shape_(pool.shape()), pool_(pool), forward_(forward), sequence_(sequence), to_(to) {
    find_turns();
  }

  // Different layers: any threads at once.
  Status move_layer(int layer, PagedSequence& made) const {
    const std::size_t row = static_cast<std::size_t>(shape_.width) * size_of(shape_.dtype);
    const auto& heads = to_.layers[static_cast<std::size_t>(layer)];
    std::vector<Bytes> keys(heads.size()), values(heads.size());
    for (int page = 0; page < sequence_.pages(); ++page) {
      const int end = std::min(kPage, sequence_.next_pos() - page * kPage);
      for (const KvPiece& piece :
           sequence_.page(page).take_out(static_cast<std::uint16_t>(layer), page * kPage, end)) {
        const std::size_t bytes = piece.positions.size() * row;
        for (std::size_t i = 0; i < piece.head_count; ++i) {
          const auto begin = static_cast<std::ptrdiff_t>(i * bytes);
          const auto stop = begin + static_cast<std::ptrdiff_t>(bytes);
          Bytes& key = keys[piece.head_begin + i];
          Bytes& value = values[piece.head_begin + i];
          key.insert(key.end(), piece.key.begin() + begin, piece.key.begin() + stop);
          value.insert(value.end(), piece.value.begin() + begin, piece.value.begin() + stop);
        }
      }
    }
    for (std::size_t head = 0; head < heads.size(); ++head) {
      turn(layer, heads[head], keys[head]);
      KVFS_TRY(put(layer, head, keys[head], values[head], made));
    }
    return {};
  }

 private:
  void find_turns() {
    const Architecture& model = forward_.architecture();
    for (int layer = 0; layer < static_cast<int>(model.layers.size()); ++layer) {
      const auto rope = model.layers[static_cast<std::size_t>(layer)].rope;
      if (!rope || turns_.contains(*rope)) continue;
      Turns& of = turns_[*rope];
      std::vector<float> cosines, sines;
      for (Position pos = 0; pos < sequence_.next_pos(); ++pos) {
        forward_.angles_at(layer, pos, cosines, sines);
        of.pairs = cosines.size();
        of.cosines.insert(of.cosines.end(), cosines.begin(), cosines.end());
        of.sines.insert(of.sines.end(), sines.begin(), sines.end());
      }
    }
  }

  float read(const std::uint8_t* at) const {
    if (shape_.dtype == DType::kF32) {
      float value;
      std::memcpy(&value, at, sizeof value);
      return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    return bf16_to_float(bits);
  }
  void write(std::uint8_t* at, double value) const {
    const auto narrow = static_cast<float>(value);
    if (shape_.dtype == DType::kF32) {
      std::memcpy(at, &narrow, sizeof narrow);
      return;
    }
    const std::uint16_t bits = float_to_bf16(narrow);
    std::memcpy(at, &bits, sizeof bits);
  }

  void turn(int layer, const HeadPlaces& head, Bytes& keys) const {
    const auto rope = forward_.architecture().layers[static_cast<std::size_t>(layer)].rope;
    if (!rope) return;  // a layer that turns nothing
    const Turns& turns = turns_.at(*rope);
    const std::size_t element = size_of(shape_.dtype);
    const std::size_t row = static_cast<std::size_t>(shape_.width) * element;
    for (std::size_t i = 0; i < head.from.size(); ++i) {
      const auto from = static_cast<std::size_t>(head.from[i]);
      const auto to = static_cast<std::size_t>(head.first) + i;
      if (from == to) continue;
      for (std::size_t pair = 0; pair < turns.pairs; ++pair) {
        const double c0 = static_cast<double>(turns.cosines[from * turns.pairs + pair]);
        const double s0 = static_cast<double>(turns.sines[from * turns.pairs + pair]);
        const double c1 = static_cast<double>(turns.cosines[to * turns.pairs + pair]);
        const double s1 = static_cast<double>(turns.sines[to * turns.pairs + pair]);
        const double magnitude = c0 * c0 + s0 * s0;  // it is in the key already
        const double cosine = (c1 * c0 + s1 * s0) / magnitude;
        const double sine = (s1 * c0 - c1 * s0) / magnitude;
        std::uint8_t* const at = &keys[i * row + pair * element];
        std::uint8_t* const with = at + turns.pairs * element;
        const auto a = static_cast<double>(read(at)), b = static_cast<double>(read(with));
        write(at, a * cosine - b * sine);
        write(with, b * cosine + a * sine);
      }
    }
  }

  Status put(int layer, std::size_t head, const Bytes& keys, const Bytes& values,
             PagedSequence& made) const {
    const HeadPlaces& places = to_.layers[static_cast<std::size_t>(layer)][head];
    const std::size_t row = static_cast<std::size_t>(shape_.width) * size_of(shape_.dtype);
    const auto count = static_cast<Position>(places.from.size());
    for (Position i = 0; i < count;) {
      const Position first = places.first + i;
      const Position next = std::min(count, (first / kPage + 1) * kPage - places.first);
      KvPiece piece{.layer = static_cast<std::uint16_t>(layer), .kind = shape_.layer(layer).kind};
      piece.head_begin = static_cast<std::uint16_t>(head);
      piece.head_count = 1;
      for (Position p = i; p < next; ++p) piece.positions.push_back(places.first + p);
      const auto begin = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(i) * row);
      const auto end = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(next) * row);
      piece.key.assign(keys.begin() + begin, keys.begin() + end);
      piece.value.assign(values.begin() + begin, values.begin() + end);
      KVFS_TRY(made.put_in(pool_, piece));
      i = next;
    }
    return {};
  }

  const PageShape& shape_;
  PagePool& pool_;
  const Forward& forward_;
  const PagedSequence& sequence_;
  const Places& to_;
  std::map<int, Turns> turns_;  // by rope
};

}  // namespace

Result<std::unique_ptr<PagedSequence>> compacted(PagePool& pool, const Forward& forward,
                                                 ForkJoin& threads, const PagedSequence& sequence) {
  const Architecture& model = forward.architecture();
  Turnable turnable{model.positions != nullptr, {}};
  std::vector<std::vector<std::vector<Position>>> positions;
  for (std::size_t layer = 0; layer < model.layers.size(); ++layer) {
    turnable.windows.push_back(model.layers[layer].window);
    positions.push_back(sequence.positions(pool.shape(), static_cast<int>(layer)));
  }
  KVFS_ASSIGN(const Places to, find_places(std::move(positions), sequence.next_pos(), turnable));
  if (!to.moves()) return nullptr;
  auto made = std::make_unique<PagedSequence>();
  KVFS_TRY(made->open_room(pool, to.next_pos, !to.dense));
  const Mover mover(pool, forward, sequence, to);
  std::vector<Status> done(to.layers.size());
  threads.for_each(static_cast<int>(done.size()), [&](int layer, int) {
    done[static_cast<std::size_t>(layer)] = mover.move_layer(layer, *made);
  });
  for (const Status& each : done) KVFS_TRY(each);
  KVFS_TRY(made->set_next_pos(pool, threads, to.next_pos));
  return made;
}

}  // namespace kvfs::model::cpu
