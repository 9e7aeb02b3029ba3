// Attention of the read path with Hopper's own instructions (wgmma); see read_tile.cuh.
//
// Four warps multiply together, their queries or weights from registers, keys and values from
// shared memory. A tile's scores are waited for while the tile before is added up, and become
// weights meanwhile:
//
//   scores(i + 1), sums(i) begin │ scores(i + 1) end │ weights(i + 1) │ sums(i) end
//
// The two fours meet at every other tile only, so that one may weigh while the other multiplies.

#include "engine/model/cuda/read_tile.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KVFS_WGMMA 1
#endif

namespace kvfs::model::cuda {
namespace {

constexpr int kStages = 7;  // a tile each; two tiles come and go together

#if defined(KVFS_WGMMA)

#define KVFS_FOUR(c) "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])

// c[64 rows of four warps × n] (+)= a · b; a as the older instructions', of each warp's 16 rows. b:
// of shared memory, [64 inputs' piece of n keys] or [16 keys of n dimensions].
__device__ __forceinline__ void multiply_keys(float (&c)[8][4], const unsigned (&a)[4],
                                              std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, "
      "%8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}\n"
      : KVFS_FOUR(c[0]), KVFS_FOUR(c[1]), KVFS_FOUR(c[2]), KVFS_FOUR(c[3]), KVFS_FOUR(c[4]),
        KVFS_FOUR(c[5]), KVFS_FOUR(c[6]), KVFS_FOUR(c[7])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void multiply_values(float (&c)[8][4], const unsigned (&a)[4],
                                                std::uint64_t b) {
  const int add = 1;
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, "
      "%8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}\n"
      : KVFS_FOUR(c[0]), KVFS_FOUR(c[1]), KVFS_FOUR(c[2]), KVFS_FOUR(c[3]), KVFS_FOUR(c[4]),
        KVFS_FOUR(c[5]), KVFS_FOUR(c[6]), KVFS_FOUR(c[7])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void multiply_values(float (&c)[16][4], const unsigned (&a)[4],
                                                std::uint64_t b) {
  const int add = 1;
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, "
      "%8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}\n"
      : KVFS_FOUR(c[0]), KVFS_FOUR(c[1]), KVFS_FOUR(c[2]), KVFS_FOUR(c[3]), KVFS_FOUR(c[4]),
        KVFS_FOUR(c[5]), KVFS_FOUR(c[6]), KVFS_FOUR(c[7]), KVFS_FOUR(c[8]), KVFS_FOUR(c[9]),
        KVFS_FOUR(c[10]), KVFS_FOUR(c[11]), KVFS_FOUR(c[12]), KVFS_FOUR(c[13]), KVFS_FOUR(c[14]),
        KVFS_FOUR(c[15])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
#undef KVFS_FOUR

__device__ __forceinline__ void open_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void close_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kLeft>
__device__ __forceinline__ void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
__device__ __forceinline__ void show_copies_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A side of a tile as wgmma is told of it: rows of 128 bytes, pieces swapped over 8 of them; 64
// dimensions further on, another 64 rows.
__device__ __forceinline__ std::uint64_t described(const std::uint8_t* side) {
  const auto at = static_cast<std::uint64_t>(__cvta_generic_to_shared(side));
  constexpr std::uint64_t kAcross = kTileKeys * 128 / 16;  // to the next 64 dimensions
  constexpr std::uint64_t kDown = 8 * 128 / 16;            // to the next 8 keys
  constexpr std::uint64_t kSwapped = std::uint64_t{1} << 62;
  return at >> 4 | kAcross << 16 | kDown << 32 | kSwapped;
}

template <int kWidth>
__device__ __forceinline__ void begin_scores(const std::uint8_t* keys,
                                             const unsigned (&q)[kWidth / 16][4],
                                             float (&c)[8][4]) {
  const std::uint64_t b = described(keys);
  open_products();
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    multiply_keys(c, q[step], b + step / 4 * (kTileKeys * 128 / 16) + step % 4 * 2, step > 0);
  }
  close_products();
}

#endif

template <int kWidth>
__global__ void __launch_bounds__(kReadThreads, 1)
    attend_rows_kernel(__nv_bfloat16* rows_of, ReadRows rows, HeadShape shape, KvPlace kv,
                       bool fp16) {
#if defined(KVFS_WGMMA)
  extern __shared__ __align__(1024) std::uint8_t ring[];
  const ReadBlock<kWidth> block(rows_of, rows, shape, kv, fp16);
  const auto stage = [&](int i) { return ring + i % kStages * (2 * kSideBytes<kWidth>); };
  unsigned q[kWidth / 16][4];
  block.load_queries(q);
  const auto fetch = [&](int tile) {
    if (tile < block.tiles) block.fetch(tile, stage(tile));
  };
  fetch(0);
  for (int i = 1; i < 5; i += 2) {
    close_copies();
    fetch(i);
    fetch(i + 1);
  }
  close_copies();
  Sums<kWidth> sums;
  float c[8][4];
  unsigned w[kTileKeys / 16][4];  // of the tile that is weighed next
  float scale[2];
  const auto weigh = [&](int i) {
    block.mask(i, c);
    weights_of<kWidth>(c, sums, scale);
  };
  const auto pack_weights = [&] {
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) packed_weights(c, step, w[step]);
  };
  const auto begin_sums = [&](int i) {
    const std::uint64_t b = described(stage(i) + kSideBytes<kWidth>);
    open_products();
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step) {
      multiply_values(sums.values, w[step], b + step * (16 * 128 / 16));
    }
    close_products();
  };
  await_copies<2>();
  show_copies_to_products();
  __syncthreads();
  begin_scores<kWidth>(stage(0), q, c);
  await_products<0>();
  weigh(0);
  pack_weights();
  for (int i = 0; i + 1 < block.tiles; ++i) {
    if (i % 2 == 0) {
      await_copies<1>();
      show_copies_to_products();
      __syncthreads();  // tiles i + 1 and i + 2 are there, and all are done with tile i − 1
    }
    begin_scores<kWidth>(stage(i + 1), q, c);
    begin_sums(i);
    if (i % 2 == 0) {
      fetch(i + 5);
      fetch(i + 6);
      close_copies();
    }
    await_products<1>();
    weigh(i + 1);
    await_products<0>();
    rescale<kWidth>(scale, sums);
    pack_weights();
  }
  begin_sums(block.tiles - 1);
  await_products<0>();
  await_copies<0>();
  block.store(sums);
#endif
}

template <int kWidth>
cudaError_t launch(__nv_bfloat16* rows_of, ReadRows rows, HeadShape shape, KvPlace kv,
                   cudaStream_t stream, bool fp16) {
  constexpr int kShared = kStages * 2 * kSideBytes<kWidth>;
  cudaFuncAttributes attributes{};
  cudaError_t error = cudaFuncGetAttributes(&attributes, attend_rows_kernel<kWidth>);
  if (error == cudaSuccess && attributes.binaryVersion != 90) return cudaErrorNotSupported;
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(attend_rows_kernel<kWidth>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  }
  if (error != cudaSuccess) return error;
  attend_rows_kernel<kWidth>
      <<<read_grid(rows, shape), kReadThreads, kShared, stream>>>(rows_of, rows, shape, kv, fp16);
  return cudaGetLastError();
}

}  // namespace

cudaError_t attend_rows_sm90(__nv_bfloat16* rows_of, ReadRows rows, HeadShape shape, KvPlace kv,
                             cudaStream_t stream, bool fp16) {
  return shape.width == 64 ? launch<64>(rows_of, rows, shape, kv, stream, fp16)
                           : launch<128>(rows_of, rows, shape, kv, stream, fp16);
}

}  // namespace kvfs::model::cuda
