// The device's memory: pages that cannot be touched but through an Opening.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "tests/device/order.hpp"

namespace dds::test::strict {

struct Block {
  char* begin = nullptr;
  std::size_t size = 0;  ///< whole pages
  int open = 0;          ///< kernels that run on it
  History history;
};

class Memory {
 public:
  Memory();

  /// Fresh pages at an address that was never used.
  void* allocate(std::size_t bytes, StreamKey home);
  /// Gives the block's history back.
  History free(void* begin);
  /// The block that holds this address, or null. Valid until it is freed.
  Block* find(const void* address);
  /// Makes a block accessible, and protects it again.
  void open(Block& block);
  void close(Block& block);

 private:
  std::mutex mutex_;
  std::map<char*, Block> blocks_;
  char* next_;
};

Memory& memory();

/// Blocks that are accessible during its life.
class Opening {
 public:
  Opening() = default;
  Opening(const Opening&) = delete;
  Opening& operator=(const Opening&) = delete;
  ~Opening() {
    for (Block* block : blocks_) memory().close(*block);
  }
  void add(Block* block) {
    if (!block) return;
    memory().open(*block);
    blocks_.push_back(block);
  }

 private:
  std::vector<Block*> blocks_;
};

}  // namespace dds::test::strict
