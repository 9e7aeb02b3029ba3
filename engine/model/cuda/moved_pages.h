// Entries moved to consecutive positions: what pruning with positions=compact does last, on the
// device. As cpu/compact.h: a key is turned on by the difference of the angles of its two
// positions, and rounded to the pages' type once; values keep their bits. Engine thread, on the
// current stream.
#pragma once

#include <memory>
#include <vector>

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/pages.h"
#include "engine/model/places.h"

namespace kvfs::model::cuda {

// A sequence's pages once every head's entries stand where `to` says. turnings: by layer.
// kTooLarge.
Result<std::vector<std::shared_ptr<PagePool::Page>>> moved_pages(
    PagePool& pool, const std::vector<std::shared_ptr<PagePool::Page>>& pages, const Places& to,
    const std::vector<Turning>& turnings);

}  // namespace kvfs::model::cuda
