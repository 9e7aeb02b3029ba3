#include "engine/model/fingerprint.h"

#include <sys/stat.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace kvfs::model {
namespace {

// Change when the meaning of a fingerprint does.
constexpr std::string_view kFileSeed = "kvfs model 1";
constexpr std::string_view kFolderSeed = "kvfs model folder 1";

ModelFingerprint digest_of(ByteSpan bytes, std::string_view seed) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, seed.data(), seed.size());
  XXH3_128bits_update(state, bytes.data(), bytes.size());
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
  XXH3_freeState(state);
  ModelFingerprint fingerprint;
  std::memcpy(fingerprint.bytes.data(), canonical.digest, fingerprint.bytes.size());
  return fingerprint;
}

// One line that changes whenever one of the files may have.
Result<std::string> identity_of(const Checkpoint& checkpoint) {
  std::ostringstream line;
  line << kFileSeed;
  for (const std::filesystem::path& path : checkpoint.files()) {
    struct stat s {};
    if (::stat(path.c_str(), &s) != 0) {
      return fail(ErrorCode::kNotFound, "model " + path.string(), std::strerror(errno));
    }
    line << ' ' << s.st_size << ' ' << s.st_mtim.tv_sec << '.' << s.st_mtim.tv_nsec << ' '
         << s.st_dev << ':' << s.st_ino << ' ' << path.string();
  }
  return line.str();
}

std::filesystem::path cache_file(const std::filesystem::path& cache_dir,
                                 const std::filesystem::path& path) {
  return cache_dir / ("fingerprint-" + digest_of(as_bytes(path.string()), "path").hex());
}

// A cache: what cannot be read or written only costs time.
void remember(const std::filesystem::path& at, const std::string& identity,
              const ModelFingerprint& fingerprint) {
  std::error_code ignored;
  std::filesystem::create_directories(at.parent_path(), ignored);
  const std::filesystem::path temporary = at.string() + ".new";
  {
    std::ofstream file(temporary, std::ios::trunc);
    file << identity << '\n' << fingerprint.hex() << '\n';
    if (!file.flush()) return;
  }
  std::filesystem::rename(temporary, at, ignored);
}

Result<ModelFingerprint> compute(const Checkpoint& checkpoint) {
  if (checkpoint.gguf() != nullptr) return digest_of(checkpoint.gguf()->file_bytes(), kFileSeed);
  std::ostringstream list;
  for (const std::filesystem::path& path : checkpoint.files()) {
    KVFS_ASSIGN(const auto file, container::MappedFile::open(path, "model file " + path.string()));
    list << path.filename().string() << ' ' << file.bytes().size() << ' '
         << digest_of(file.bytes(), kFileSeed).hex() << '\n';
  }
  return digest_of(as_bytes(list.str()), kFolderSeed);
}

}  // namespace

Result<ModelFingerprint> fingerprint_of(const Checkpoint& checkpoint,
                                        const std::filesystem::path& cache_dir) {
  KVFS_ASSIGN(const std::string identity, identity_of(checkpoint));
  const std::filesystem::path at =
      cache_dir.empty() ? cache_dir : cache_file(cache_dir, checkpoint.path());
  if (!at.empty()) {
    std::ifstream cached(at);
    std::string line;
    std::string hex;
    if (std::getline(cached, line) && line == identity && std::getline(cached, hex)) {
      if (auto bytes = from_hex(hex)) return ModelFingerprint{*bytes};
    }
  }
  KVFS_ASSIGN(const ModelFingerprint fingerprint, compute(checkpoint));
  if (!at.empty()) remember(at, identity, fingerprint);
  return fingerprint;
}

}  // namespace kvfs::model
