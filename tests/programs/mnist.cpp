// A classifier of digits.
#include <torch/torch.h>

#include <cstdio>
#include <iostream>
#include <vector>

#ifdef DDS_ATTACHED
#include <dds/dds.hpp>
#endif

struct Net : torch::nn::Module {
  Net()
      : conv1(torch::nn::Conv2dOptions(1, 4, /*kernel_size=*/3)),
        conv2(torch::nn::Conv2dOptions(4, 8, /*kernel_size=*/3)),
        fc1(32, 20),
        fc2(20, 10) {
    register_module("conv1", conv1);
    register_module("conv2", conv2);
    register_module("conv2_drop", conv2_drop);
    register_module("fc1", fc1);
    register_module("fc2", fc2);
  }

  torch::Tensor forward(torch::Tensor x) {
    x = torch::relu(torch::max_pool2d(conv1->forward(x), 2));
    x = torch::relu(torch::max_pool2d(conv2_drop->forward(conv2->forward(x)), 2));
    x = x.view({-1, 32});
    x = torch::relu(fc1->forward(x));
    x = torch::dropout(x, /*p=*/0.5, /*training=*/is_training());
    x = fc2->forward(x);
    return torch::log_softmax(x, /*dim=*/1);
  }

  torch::nn::Conv2d conv1;
  torch::nn::Conv2d conv2;
  torch::nn::Dropout2d conv2_drop;
  torch::nn::Linear fc1;
  torch::nn::Linear fc2;
};

class Digits : public torch::data::datasets::Dataset<Digits> {
 public:
  explicit Digits(int64_t count)
      : images_(torch::rand({count, 1, 14, 14})), labels_(torch::randint(0, 10, {count}, torch::kLong)) {}
  torch::data::Example<> get(size_t index) override {
    return {images_[static_cast<int64_t>(index)], labels_[static_cast<int64_t>(index)]};
  }
  torch::optional<size_t> size() const override { return images_.size(0); }

 private:
  torch::Tensor images_, labels_;
};

int main(int argc, char** argv) {
  torch::manual_seed(1);
  torch::DeviceType device_type = torch::cuda::is_available() && argc > 9 ? torch::kCUDA : torch::kCPU;
  torch::Device device(device_type);

  Net model;
  model.to(device);

  auto train_dataset =
      Digits(96).map(torch::data::transforms::Normalize<>(0.5, 0.3)).map(torch::data::transforms::Stack<>());
  auto train_loader =
      torch::data::make_data_loader<torch::data::samplers::SequentialSampler>(std::move(train_dataset), 16);
  auto test_dataset = Digits(32).map(torch::data::transforms::Stack<>());
  auto test_loader = torch::data::make_data_loader(std::move(test_dataset), 32);

  torch::optim::SGD optimizer(model.parameters(), torch::optim::SGDOptions(0.01).momentum(0.5));
#ifdef DDS_ATTACHED
  dds::Monitor monitor(model, dds::MonitorOptions().every(4), dds::log::directory(argv[2]));
#endif

  for (size_t epoch = 1; epoch <= 2; ++epoch) {
    model.train();
    for (auto& batch : *train_loader) {
#ifdef DDS_ATTACHED
      auto step = monitor.step();
#endif
      auto data = batch.data.to(device), targets = batch.target.to(device);
      optimizer.zero_grad();
      auto output = model.forward(data);
      auto loss = torch::nll_loss(output, targets);
      AT_ASSERT(!std::isnan(loss.template item<float>()));
      loss.backward();
      optimizer.step();
    }

    torch::NoGradGuard no_grad;
    model.eval();
    double test_loss = 0;
    int32_t correct = 0;
    for (const auto& batch : *test_loader) {
      auto output = model.forward(batch.data.to(device));
      test_loss += torch::nll_loss(output, batch.target, /*weight=*/{}, torch::Reduction::Sum).template item<float>();
      correct += output.argmax(1).eq(batch.target).sum().template item<int64_t>();
    }
    std::printf("Test set: Average loss: %.4f | Accuracy: %.3f\n", test_loss / 32, correct / 32.);
  }
  torch::serialize::OutputArchive archive;
  model.save(archive);
  archive.save_to(argv[1]);
  return 0;
}
