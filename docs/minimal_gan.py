"""A GAN on MNIST in one page: random numbers in, handwritten digits out.

The networks, losses and rates are those of train_gan.py. That script adds R1 (a penalty on D's
gradient, for long training), curves, resuming, and 10,000 digits that can be measured.
"""
import copy

import torch
from torch import nn
from torchvision import datasets, utils

torch.manual_seed(0)
generator = nn.Sequential(  # From latent vectors [B, 100] to images [B, 1, 28, 28].
    nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(),
    nn.Linear(512, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
discriminator = nn.Sequential(  # From images to logits [B, 1]. The sigmoid of a logit is D(x).
    nn.Flatten(), nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2),
    nn.Linear(256, 1))
# The opponent changes, so Adam keeps no old gradients (beta1 = 0) and few old squares (0.99).
adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.99))
adam_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99))
average = copy.deepcopy(generator)  # This mean of G's weights draws the pictures.


def cross_entropy(logits, target):  # The mean of -log D if the target is 1, of -log(1 - D) if 0.
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def train_step(real_images, step):
    fake_images = generator(torch.randn(len(real_images), 100))
    # D learns to answer 1 to real images and 0 to fakes. Only D learns here, so detach() keeps G
    # out of it. Without it, backward() would also use up G's graph, which G's loss still needs.
    loss_d = (cross_entropy(discriminator(real_images), 1.0)
              + cross_entropy(discriminator(fake_images.detach()), 0.0))
    adam_d.zero_grad()  # It also drops what G's loss left in D's gradients.
    loss_d.backward()
    adam_d.step()
    # G learns to make D answer 1 to fakes, so its target is 1. (To lower log(1 - D) has the same
    # aim, but gives G almost no gradient as long as D is sure that G's images are fake.)
    loss_g = cross_entropy(discriminator(fake_images), 1.0)
    adam_g.zero_grad()
    loss_g.backward()
    adam_g.step()
    # Small batches make noisy steps. The average draws cleaner digits, because noise cancels out.
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), generator.parameters()):
            mean.lerp_(weight, 8 / (8 + step))  # The last eighth of all steps counts most.
    return loss_d.item(), loss_g.item()


if __name__ == "__main__":
    # Real pixels go from -1 to 1 like Tanh's, because D would recognise fakes by another range.
    images = datasets.MNIST("data", download=True).data.unsqueeze(1) / 127.5 - 1
    latents, losses = torch.randn(64, 100), []
    for epoch in range(1, 4):
        for batch in torch.randperm(len(images)).split(64):
            losses.append(train_step(images[batch], step=len(losses)))
        loss_d, loss_g = torch.tensor(losses[-938:]).mean(0)  # An epoch has 938 batches.
        print(f"epoch {epoch}: mean loss D {loss_d:.4f}, mean loss G {loss_g:.4f}")
        utils.save_image(average(latents) / 2 + 0.5, f"minimal_gan_epoch_{epoch}.png")
