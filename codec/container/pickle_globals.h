// The closed list of what a pickle may name: what torch, numpy and transformers 4.44 and 5 write
// for tensors, arrays and caches. A name here stands for itself; nothing is ever imported or
// called.
#pragma once

#include <optional>
#include <string_view>

#include "codec/base/dtype.h"

namespace kvfs::container {

enum class GlobalRole {
  kRebuildTensor,     // torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)
  kRebuildParameter,  // torch._utils._rebuild_parameter(tensor, requires_grad, hooks)
  kLoadFromBytes,     // torch.storage._load_from_bytes(file of one storage)
  kStorage,           // torch.FloatStorage …: dtype says of what, none for types we cannot hold
  kTorchType,         // torch.bfloat16 …: a mere name
  kDevice,            // torch.device(name)
  kSize,              // torch.Size(tuple)
  kOrderedDict,       // collections.OrderedDict
  kSet,               // builtins.set
  kEncode,            // _codecs.encode(text, 'latin1'): bytes as protocols 0 to 2 have them
  kReconstructor,     // copyreg._reconstructor(class, object, None): an object, protocols 0 and 1
  kPlainObject,       // builtins.object
  kArrayReconstruct,  // numpy…_reconstruct(ndarray, (0,), b'b'), then a state
  kArrayFromBuffer,   // numpy…_frombuffer(bytes, dtype, shape, order)
  kArrayClass,        // numpy.ndarray
  kArrayType,         // numpy.dtype(name, align, copy), then a state
  kCache,             // transformers.cache_utils.DynamicCache
  kCacheLayer,        // transformers.cache_utils.DynamicLayer, DynamicSlidingWindowLayer
};

struct PickleGlobal {
  std::string_view module;
  std::string_view name;
  GlobalRole role;
  std::optional<DType> dtype = std::nullopt;  // kStorage
};

// Null for all that is not on the list.
const PickleGlobal* find_pickle_global(std::string_view module, std::string_view name);

// May a pickle call it (REDUCE), or make an object of it (NEWOBJ)?
bool may_be_called(GlobalRole role);
bool may_be_made(GlobalRole role);

}  // namespace kvfs::container
