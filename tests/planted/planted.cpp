// Defects on purpose, in functions that LibTorch calls: that the presets `asan` and `tsan` see them there, whatever
// they pass over for LibTorch's own sake. Takes the name of one.
#include <torch/torch.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>

namespace {

int shared = 0;
std::atomic<int> present = 0;
char* volatile kept = nullptr;
volatile std::size_t place = 4;

void backward(const char* defect) {
  const auto x = torch::ones({3}, torch::requires_grad());
  const auto y = x * 2;
  y.register_hook([defect](const torch::Tensor&) {
    if (std::strcmp(defect, "race") == 0) {
      // Both threads are here at once, which no order of memory tells them.
      present.fetch_add(1, std::memory_order_relaxed);
      while (present.load(std::memory_order_relaxed) < 2) std::this_thread::yield();
      ++shared;
    }
    if (std::strcmp(defect, "leak") == 0) {
      kept = new char[77];
      kept = nullptr;
    }
    if (std::strcmp(defect, "overrun") == 0) {
      kept = new char[4];
      kept[place] = 1;
      delete[] kept;
    }
    if (std::strcmp(defect, "overflow") == 0) shared = 2'000'000'000 + static_cast<int>(place) * 500'000'000;
  });
  y.sum().backward();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::array<std::thread, 2> threads;
  for (std::thread& thread : threads) thread = std::thread(backward, argv[1]);
  for (std::thread& thread : threads) thread.join();
}
