// Two networks that train against each other, with a monitor on each:
//   gan WEIGHTS LOG [EVERY]
// The discriminator's log goes into the folder LOG, the generator's into LOG_g; every second step is read, or each
// whose number is a multiple of EVERY (0: none).
#include <torch/torch.h>

#include <cstdint>
#include <cstdio>
#include <dds/dds.hpp>
#include <optional>
#include <string>

const int64_t kNoiseSize = 8;
const int64_t kBatchSize = 8;
const int64_t kNumberOfBatches = 4;

using namespace torch;

struct DCGANGeneratorImpl : nn::Module {
  DCGANGeneratorImpl(int noise_size)
      : conv1(nn::ConvTranspose2dOptions(noise_size, 16, 3).bias(false)),
        batch_norm1(16),
        conv2(nn::ConvTranspose2dOptions(16, 8, 4).stride(2).padding(1).bias(false)),
        batch_norm2(8),
        conv3(nn::ConvTranspose2dOptions(8, 1, 4).stride(2).padding(1).bias(false)) {
    register_module("conv1", conv1);
    register_module("conv2", conv2);
    register_module("conv3", conv3);
    register_module("batch_norm1", batch_norm1);
    register_module("batch_norm2", batch_norm2);
  }

  Tensor forward(Tensor x) {
    x = relu(batch_norm1(conv1(x)));
    x = relu(batch_norm2(conv2(x)));
    x = tanh(conv3(x));
    return x;
  }

  nn::ConvTranspose2d conv1;
  nn::BatchNorm2d batch_norm1;
  nn::ConvTranspose2d conv2;
  nn::BatchNorm2d batch_norm2;
  nn::ConvTranspose2d conv3;
};
TORCH_MODULE(DCGANGenerator);

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "Usage: gan WEIGHTS LOG [EVERY]\n");
    return 2;
  }
  manual_seed(2);
  DCGANGenerator generator(kNoiseSize);
  nn::Sequential discriminator(nn::Conv2d(nn::Conv2dOptions(1, 8, 4).stride(2).padding(1).bias(false)),
                               nn::LeakyReLU(nn::LeakyReLUOptions().negative_slope(0.2)),
                               nn::Conv2d(nn::Conv2dOptions(8, 16, 4).stride(2).padding(1).bias(false)),
                               nn::BatchNorm2d(16), nn::LeakyReLU(nn::LeakyReLUOptions().negative_slope(0.2)),
                               nn::Conv2d(nn::Conv2dOptions(16, 1, 3).stride(1).padding(0).bias(false)), nn::Sigmoid());

  optim::Adam generator_optimizer(generator->parameters(), optim::AdamOptions(2e-4).betas(std::make_tuple(0.5, 0.5)));
  optim::Adam discriminator_optimizer(discriminator->parameters(),
                                      optim::AdamOptions(5e-4).betas(std::make_tuple(0.5, 0.5)));
  const std::int64_t every = argc > 3 ? std::stoll(argv[3]) : 2;
  const auto options = dds::MonitorOptions().every(every > 0 ? std::optional(every) : std::nullopt);
  dds::Monitor of_generator(*generator, options, dds::log::directory(std::string(argv[2]) + "_g"));
  dds::Monitor of_discriminator(*discriminator, options, dds::log::directory(argv[2]));

  for (int64_t batch_index = 0; batch_index < kNumberOfBatches; ++batch_index) {
    auto generator_step = of_generator.step();
    auto discriminator_step = of_discriminator.step();
    // Train discriminator with real images.
    discriminator->zero_grad();
    Tensor real_images = torch::rand({kBatchSize, 1, 12, 12}) * 2 - 1;
    Tensor real_labels = torch::empty(real_images.size(0)).uniform_(0.8, 1.0);
    Tensor real_output = discriminator->forward(real_images).reshape(real_labels.sizes());
    Tensor d_loss_real = binary_cross_entropy(real_output, real_labels);
    d_loss_real.backward();

    // Train discriminator with fake images.
    Tensor noise = torch::randn({real_images.size(0), kNoiseSize, 1, 1});
    Tensor fake_images = generator->forward(noise);
    Tensor fake_labels = torch::zeros(real_images.size(0));
    Tensor fake_output = discriminator->forward(fake_images.detach()).reshape(fake_labels.sizes());
    Tensor d_loss_fake = binary_cross_entropy(fake_output, fake_labels);
    d_loss_fake.backward();
    discriminator_optimizer.step();

    // Train generator.
    generator->zero_grad();
    fake_labels.fill_(1);
    fake_output = discriminator->forward(fake_images).reshape(fake_labels.sizes());
    Tensor g_loss = binary_cross_entropy(fake_output, fake_labels);
    g_loss.backward();
    generator_optimizer.step();
    std::printf("[%2ld] D_loss: %.4f | G_loss: %.4f\n", static_cast<long>(batch_index),
                (d_loss_real + d_loss_fake).item<float>(), g_loss.item<float>());
  }
  serialize::OutputArchive archive, nested;
  generator->save(nested);
  archive.write("generator", nested);
  serialize::OutputArchive other;
  discriminator->save(other);
  archive.write("discriminator", other);
  archive.save_to(argv[1]);
  return 0;
}
