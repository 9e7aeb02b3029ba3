// What a program is about to do with a name it looks up: the kernel asks for it first, the same way
// for mkdir as for ls.
//
// `cp -r state elsewhere` makes elsewhere and then, without looking, everything in it. A new state
// has directories already: to who is inside mkdir, or creates exclusively, they are not there yet.
// Read from /proc/THREAD/syscall, else, where that may not be read, guessed from the program's
// name. Any thread; some 10 µs.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kvfs::fs {

// Whether the thread is making a path that ends in this name.
bool makes_a_new_name(std::int32_t thread, std::string_view name);

// From a line of /proc/THREAD/syscall, "NUMBER ARGUMENT…" with arguments in hexadecimal: where in
// the caller's memory the path is that must not exist yet; nothing: it makes no new name.
std::optional<std::uint64_t> new_path_of(std::string_view syscall_line);

}  // namespace kvfs::fs
