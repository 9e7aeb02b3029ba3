// Arrays of keys and values from one of kF32, kF16, kBF16 to another: to nearest, ties to even.
// Pure, any thread.
#pragma once

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"

namespace kvfs {

// in and out hold as many elements, at any alignment. False: a finite value became an infinity.
bool convert_floats(DType from, ByteSpan in, DType to, MutableByteSpan out);

}  // namespace kvfs
