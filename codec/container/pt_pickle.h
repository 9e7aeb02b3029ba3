// The data.pkl of a .pt bundle: the tree that refers to the storages data/0 (ids), the positions,
// and each layer's keys and values, in this order.
#pragma once

#include "codec/container/state_bundle.h"

namespace kvfs::container {

Bytes pt_pickle(const BundleSpec& spec);

}  // namespace kvfs::container
