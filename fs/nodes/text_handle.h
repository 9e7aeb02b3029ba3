// An open file that reads a text fixed when it was opened.
#pragma once

#include <string>

#include "fs/node.h"

namespace kvfs::fs {

class TextHandle : public Handle {
 public:
  TextHandle(std::string text, PageCache cache) : text_(std::move(text)), cache_(cache) {}
  PageCache page_cache() const override { return cache_; }
  void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) override;

 private:
  const std::string text_;
  const PageCache cache_;
};

// The part of a text that a read asks for.
ByteSpan slice(std::string_view text, std::uint64_t offset, std::size_t size);

// For files that nobody writes, root included.
Status refuse_writing(int flags);

}  // namespace kvfs::fs
