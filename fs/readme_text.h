// What MOUNT/README says.
#pragma once

#include <string>

namespace kvfs::fs {

std::string readme_text(const std::string& mount_point);

}  // namespace kvfs::fs
