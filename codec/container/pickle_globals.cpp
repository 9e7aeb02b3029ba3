#include "codec/container/pickle_globals.h"

namespace kvfs::container {
namespace {

using Role = GlobalRole;

constexpr PickleGlobal kGlobals[] = {
    {"torch._utils", "_rebuild_tensor_v2", Role::kRebuildTensor},
    {"torch._utils", "_rebuild_parameter", Role::kRebuildParameter},
    {"torch.storage", "_load_from_bytes", Role::kLoadFromBytes},
    {"torch", "FloatStorage", Role::kStorage, DType::kF32},
    {"torch", "HalfStorage", Role::kStorage, DType::kF16},
    {"torch", "BFloat16Storage", Role::kStorage, DType::kBF16},
    {"torch", "LongStorage", Role::kStorage, DType::kI64},
    {"torch", "IntStorage", Role::kStorage, DType::kI32},
    {"torch", "CharStorage", Role::kStorage, DType::kI8},
    {"torch", "ByteStorage", Role::kStorage, DType::kU8},
    {"torch", "BoolStorage", Role::kStorage, DType::kU8},
    {"torch", "DoubleStorage", Role::kStorage},
    {"torch", "ShortStorage", Role::kStorage},
    {"torch", "float32", Role::kTorchType},
    {"torch", "float16", Role::kTorchType},
    {"torch", "bfloat16", Role::kTorchType},
    {"torch", "float64", Role::kTorchType},
    {"torch", "int64", Role::kTorchType},
    {"torch", "int32", Role::kTorchType},
    {"torch", "device", Role::kDevice},
    {"torch", "Size", Role::kSize},
    {"collections", "OrderedDict", Role::kOrderedDict},
    {"builtins", "set", Role::kSet},
    {"__builtin__", "set", Role::kSet},
    {"_codecs", "encode", Role::kEncode},
    {"copyreg", "_reconstructor", Role::kReconstructor},
    {"copy_reg", "_reconstructor", Role::kReconstructor},
    {"builtins", "object", Role::kPlainObject},
    {"__builtin__", "object", Role::kPlainObject},
    {"numpy.core.multiarray", "_reconstruct", Role::kArrayReconstruct},
    {"numpy._core.multiarray", "_reconstruct", Role::kArrayReconstruct},
    {"numpy.core.numeric", "_frombuffer", Role::kArrayFromBuffer},
    {"numpy._core.numeric", "_frombuffer", Role::kArrayFromBuffer},
    {"numpy", "ndarray", Role::kArrayClass},
    {"numpy", "dtype", Role::kArrayType},
    {"transformers.cache_utils", "DynamicCache", Role::kCache},
    {"transformers.cache_utils", "DynamicLayer", Role::kCacheLayer},
    {"transformers.cache_utils", "DynamicSlidingWindowLayer", Role::kCacheLayer},
};

}  // namespace

const PickleGlobal* find_pickle_global(std::string_view module, std::string_view name) {
  for (const PickleGlobal& global : kGlobals) {
    if (global.module == module && global.name == name) return &global;
  }
  return nullptr;
}

bool may_be_called(GlobalRole role) {
  switch (role) {
    case Role::kStorage:
    case Role::kTorchType:
    case Role::kPlainObject:
    case Role::kArrayClass:
    case Role::kCache:
    case Role::kCacheLayer:
      return false;
    default:
      return true;
  }
}

bool may_be_made(GlobalRole role) {
  return role == Role::kCache || role == Role::kCacheLayer || role == Role::kOrderedDict;
}

}  // namespace kvfs::container
