// The directory that is mounted on: what can be in the way, and what a crashed daemon left there.
#pragma once

#include <filesystem>

#include "codec/base/result.h"

namespace kvfs::fs {

// The mount point, absolute, empty and free; a stale mount on it is unmounted first. kNotFound,
// kInvalid (no directory), kNotEmpty, kBusy (a mount already), kUnsupported (no /dev/fuse),
// kPermission; each with the way out.
Result<std::filesystem::path> prepare_mount_point(const std::filesystem::path& mount_point);

// Detaches a mount whose daemon is gone; true when there was none or it is gone now.
bool detach_stale_mount(const std::filesystem::path& mount_point);

// Reads ahead in steps of 1 MiB; the default of 128 KiB costs a request each. Best effort.
void set_read_ahead(const std::filesystem::path& mount_point);

}  // namespace kvfs::fs
