"""A GAN in one page: the generator G draws digits, the discriminator D says which ones are real.

The networks, losses and rates are train_gan.py's, which adds R1 (a penalty that pays in long runs),
GPUs, resuming, curves and measured digits. On a CPU this takes half a minute, and prints little.
"""
import copy

import torch
from torch import nn
from torchvision import datasets, utils

torch.manual_seed(0)
generator = nn.Sequential(  # From latent vectors [B, 100] to images [B, 1, 28, 28].
    nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(),
    nn.Linear(512, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
discriminator = nn.Sequential(  # Images to logits [B, 1]. D's answer is sigmoid(logit).
    nn.Flatten(), nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2),
    nn.Linear(256, 1))
# The opponent changes, so old gradients mislead: Adam keeps none (0.0), and squares not for long.
adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.99))
adam_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99))
average = copy.deepcopy(generator)  # Becomes a mean of G's weights, which draws the pictures.


def cross_entropy(logits, target):  # Target 1: mean of -log D. Target 0: mean of -log(1 - D).
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def train_step(real_images, step):
    fake_images = generator(torch.randn(len(real_images), 100))
    # D learns to answer 1 to real images and 0 to fakes. detach() cuts fakes off from G, because
    # backward() would otherwise go on into G and delete its graph, which G's loss still needs.
    loss_d = (cross_entropy(discriminator(real_images), 1.0)
              + cross_entropy(discriminator(fake_images.detach()), 0.0))
    adam_d.zero_grad()  # It also drops what G's loss left in D's gradients.
    loss_d.backward()
    adam_d.step()
    # G learns to make D answer 1 to fakes, so its target is 1. (Lowering log(1 - D) has the
    # same aim, but its gradient is almost 0 as long as D is sure that G's images are fake.)
    loss_g = cross_entropy(discriminator(fake_images), 1.0)
    adam_g.zero_grad()
    loss_g.backward()
    adam_g.step()
    # Each batch moves G's weights a bit at random, which cancels out in a mean over many steps.
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), generator.parameters()):
            mean.lerp_(weight, 8 / (8 + step))  # Mostly the last eighth of all steps so far.
    return loss_d.item(), loss_g.item()


if __name__ == "__main__":
    # Real pixels get Tanh's range, -1 to 1. Otherwise D would recognise the fakes by their range.
    images = datasets.MNIST("data", download=True).data.unsqueeze(1) / 127.5 - 1
    latents = torch.randn(64, 100)  # The same ones for each picture, so that we see them change.
    for epoch in range(1, 4):
        batches = torch.randperm(len(images)).split(64)  # 60,000 images in a new order.
        losses = [train_step(images[batch], step)
                  for step, batch in enumerate(batches, (epoch - 1) * len(batches))]
        print(f"epoch {epoch}: mean loss D, loss G: {torch.tensor(losses).mean(0)}")
        utils.save_image(average(latents) / 2 + 0.5, f"minimal_gan_epoch_{epoch}.png")  # 0 to 1.
