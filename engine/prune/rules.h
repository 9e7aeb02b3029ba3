// The rule of each method, for choose(). Observations have been checked: as many scores as entries,
// query heads in equal groups, an entry in every head.
#pragma once

#include "engine/prune/methods.h"
#include "engine/prune/observation.h"

namespace kvfs::prune {

struct LayerPlace {
  int index = 0;  // from the bottom
  int count = 1;  // of layers
};

LayerKept keep(const KeepLast& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const Pyramid& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const PyramidKv& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const SnapKv& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const AdaKv& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const H2o& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const Tova& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const Knorm& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const Expected& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const Random& rule, const LayerObservation& layer, LayerPlace place);
LayerKept keep(const Drop& rule, const LayerObservation& layer, LayerPlace place);
// One budget for all layers and heads.
Kept keep(const KvZip& rule, const Observation& layers);

// Entries of a layer that may be kept at this place by the pyramid, window included.
int budget_of(const Pyramid& rule, LayerPlace place);
// Entries beside the window, of a head that has so many.
int budget_of(const PyramidKv& rule, int entries, LayerPlace place);

}  // namespace kvfs::prune
