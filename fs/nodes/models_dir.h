// models/ and models/NAME/: what the daemon knows of each model, read-only.
#pragma once

#include <string>

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class ModelsDir : public Directory {
 public:
  explicit ModelsDir(Context& context) : Directory(ino_of(Fixed::kModels)), context_(context) {}
  Result<Attributes> attributes() override;
  Caching caching() const override { return {kUntilTold, kUntilTold}; }
  Result<NodePtr> parent() override;
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;

 private:
  Context& context_;
};

class ModelDir : public Directory {
 public:
  ModelDir(Context& context, std::string name);
  Result<Attributes> attributes() override;
  Caching caching() const override { return {kUntilTold, kUntilTold}; }
  Result<NodePtr> parent() override;
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;

 private:
  Context& context_;
  const std::string name_;
};

}  // namespace kvfs::fs
