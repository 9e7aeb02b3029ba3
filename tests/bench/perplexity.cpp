// Perplexity of a model in both modes beside transformers'; ends with 1 when one is too far from
// it.
//
//   bench_perplexity MODEL.gguf GOLDEN.json [fast|reference|both] [THREADS]
//
// GOLDEN.json: tests/engine/model/goldens/perplexity-….json, or what perplexity_oracle.py writes.
#include "tests/engine/model/perplexity.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

using namespace kvfs;
using namespace kvfs::model;
using namespace kvfs::model::testing;

// Whether it is near enough.
Result<bool> measure(const char* path, const PerplexityGolden& golden, Compute compute,
                     int threads) {
  const DeviceChoice cpu{.kind = DeviceChoice::Kind::kCpu};
  KVFS_ASSIGN(const auto card, describe_model(path, compute, cpu, {}));
  KVFS_ASSIGN(const auto model,
              load_model(*card, {.device = cpu, .compute = compute, .threads = threads}));
  KVFS_ASSIGN(const Measured measured, measure_perplexity(*model, golden));
  const double apart = measured.perplexity / golden.perplexity - 1;
  std::printf(
      "%-15s perplexity %.4f, transformers %.4f, %+.3f %% (%.1f allowed); the same best token "
      "%.2f %%\n",
      model->info().kernel_class.c_str(), measured.perplexity, golden.perplexity, 100 * apart,
      100 * allowed_share(compute), 100 * measured.agreement);
  return std::fabs(apart) <= allowed_share(compute);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(
        stderr, "usage: bench_perplexity MODEL.gguf GOLDEN.json [fast|reference|both] [THREADS]\n");
    return 2;
  }
  const PerplexityGolden golden = PerplexityGolden::read(argv[2]);
  const std::string mode = argc > 3 ? argv[3] : "both";
  const int threads = argc > 4 ? std::atoi(argv[4]) : 0;
  bool near = true;
  for (const Compute compute : {Compute::kFast, Compute::kReference}) {
    if (mode == (compute == Compute::kFast ? "reference" : "fast")) continue;
    const auto done = measure(argv[1], golden, compute, threads);
    if (!done) {
      std::fprintf(stderr, "%s\n", done.error().message().c_str());
      return 1;
    }
    near = near && *done;
  }
  return near ? 0 : 1;
}
