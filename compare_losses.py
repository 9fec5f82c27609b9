# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.9"]
# ///
# %% 1. What and how
"""Train one GAN with several losses, and measure which of them draws better digits.

The loss defines what each of the two networks tries to achieve. All losses start from the same
weights here, see the same streams of real images and latents, and take the same number of generator
steps. WGAN and WGAN-GP also have other settings of the optimizer, and their D takes 5 steps before
each step of G, so they use 5 times as many images (section 6). Then a judge, which is a small
classifier that was trained on real digits, compares the images of each GAN with real ones. No GAN
learns from it.

D is also called a critic: it gives an image a score, and a higher score means more real. Only for
BCE and BCE-R1 is the score a logit, whose sigmoid is a probability.

Run it:  python compare_losses.py     (There are no options: edit the constants in section 3.)
Each start makes a folder of its own, outputs/compare_losses/run_1/ (then run_2, run_3, ...), with
    comparison.png                     images, loss curves and distances of all losses: look here
    comparison.md                      the final table, with more columns than the printed one
    history.csv                        the table that it prints while it trains
    generator_bce.pt ...               the weights of each loss's generator, for the first seed
    generated_bce.npy ...              10,000 images of each of these
    checkpoint_bce_0.pt ...            for each loss and seed, all that RESUME = True needs
    run.txt                            the constants and the versions of this run
The judge is kept beside the runs, in judge.pt, for later runs and measurements.

Measure any other images, such as those of train_gan.py, with two lines of Python:
    import compare_losses
    compare_losses.measure_digits("outputs/train_gan/run_1/generated.npy")

How to read the tables:
    loss D, loss G   what D and G minimise, averaged over the epoch, penalties left out. Each loss
                     has a scale of its own, so do not compare them. Only for WGAN and WGAN-GP does
                     a loss D closer to 0 mean better images (or a weaker critic), in one run.
    real score       the mean score of real images. Fake score is the same for fake ones.
    distance         Frechet distance (squared) of what the judge sees in fake and real images: the
                     FID, by this judge. Lower is better. This is what compares the losses.
    G itself         the distance of images by G's latest weights, not by their average as elsewhere
    KID              Kernel Inception Distance, by this judge. Lower is better.
    IS               Inception Score, by this judge, from 1 to 10. Higher is better.
    readable         the share of images in which the judge names a digit at more than 90 %
    digits           how many of the ten are drawn, each in at least 1 % of the images
    precision        the share of fake images that look real
    recall           the share of real images that some fake image comes near
    seconds          of training, without the judge's work
    minutes left     of the whole run, estimated from its speed so far
In the row "real images", training images that are new to the judge take the place of the fakes.
Small differences mean nothing: with another seed they may be the other way round. A large study
that tuned each loss with care found none that was always better. [EQUAL]

[GAN]      Goodfellow et al. 2014, Generative Adversarial Nets, arxiv.org/abs/1406.2661
[DCGAN]    Radford et al. 2015, Unsupervised Representation Learning ..., arxiv.org/abs/1511.06434
[Salimans] Salimans et al. 2016, Improved Techniques for Training GANs, arxiv.org/abs/1606.03498
[LSGAN]    Mao et al. 2016, Least Squares Generative ..., arxiv.org/abs/1611.04076
[WGAN]     Arjovsky et al. 2017, Wasserstein GAN, arxiv.org/abs/1701.07875
[WGAN-GP]  Gulrajani et al. 2017, Improved Training of Wasserstein GANs, arxiv.org/abs/1704.00028
[HINGE]    Lim and Ye 2017, Geometric GAN, arxiv.org/abs/1705.02894
[R1]       Mescheder et al. 2018, Which Training Methods for GANs ...?, arxiv.org/abs/1801.04406
[R3GAN]    Huang et al. 2024, The GAN is dead; long live the GAN! ..., arxiv.org/abs/2501.05441
[LAZY]     Karras et al. 2020, Analyzing and Improving ... StyleGAN, arxiv.org/abs/1912.04958
[Yazici]   Yazici et al. 2019, The Unusual Effectiveness of Averaging ..., arxiv.org/abs/1806.04498
[Shamir]   Shamir and Zhang 2013, Stochastic Gradient Descent ..., arxiv.org/abs/1212.1824
[EQUAL]    Lucic et al. 2018, Are GANs Created Equal? ..., arxiv.org/abs/1711.10337
[FID]      Heusel et al. 2017, GANs Trained by a Two Time-Scale ..., arxiv.org/abs/1706.08500
[KID]      Binkowski et al. 2018, Demystifying MMD GANs, arxiv.org/abs/1801.01401
[PR]       Kynkaanniemi et al. 2019, Improved Precision and Recall ..., arxiv.org/abs/1904.06991
"""

# %% 2. Imports
import contextlib
import copy
import itertools
import math
import os
import socket
import statistics
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

# Waiting threads of GNU's OpenMP give way sooner, so other programs slow the training down less.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.optim.swa_utils import update_bn

# %% 3. Constants
# Data
DATASET = "MNIST"  # Or "FashionMNIST", "KMNIST", or "drawn": digits drawn here, no download.
DATA_DIR = "data"  # The dataset is looked for here, and downloaded to here if it is missing.
# What is compared
LOSSES = ["BCE", "LSGAN", "WGAN", "BCE-R1"]  # Others are in section 6.
SEEDS = [0]  # One run of each loss for each seed. [0, 1, 2] shows how much is chance. [EQUAL]
# Networks
LATENT_DIM = 100  # Random numbers that make an image: 100 as in [DCGAN]. Try 2 to 500.
GENERATOR_HIDDEN = [128, 256, 512]  # Widths of G's hidden layers, one to four of them.
DISCRIMINATOR_HIDDEN = [512, 256]  # The same for D's hidden layers.
# Training (learning rates and penalties stand with the losses, in section 6)
EPOCHS = 6  # In each, G takes a step for each batch of the data, and WGAN's D takes 5.
BATCH_SIZE = 64  # Real images in a step, 2 or more. Smaller batches: more steps, but noisier ones.
AVERAGE = 8  # Results use a mean of G's weights: mainly the last 1/AVERAGE of steps. 0: no mean.
DEVICE = "auto"  # An NVIDIA GPU if there is one, else the CPU. Or "cpu", "cuda", "cuda:1", "mps".
RESUME = False  # True goes on from the latest checkpoints, "run_1" from those of that run.
# Output
OUTPUT_DIR = "outputs/compare_losses"  # Relative to the current folder, like DATA_DIR.


# %% 4. Data
def load_images(train=True):
    """Read the whole dataset into memory: 60,000 images, or the 10,000 test images.

    Returns images, float32 [N, 1, 28, 28] from -1 (black) to 1 (white), the range of G's Tanh;
    labels, int64 [N], which the GAN never sees; and the name of what was loaded.
    """
    dataset = fetch_dataset(train) if DATASET != "drawn" else None
    if dataset is None:  # Drawn digits are wanted, or the dataset is not available.
        name = "drawn digits" if DATASET == "drawn" else f"drawn digits in place of {DATASET}"
        images, labels = draw_digits(60_000 if train else 10_000, seed=0 if train else 1)
        return images, labels, name
    # Convert all images here, once, so that no epoch has to convert them again.
    images = dataset.data.unsqueeze(1).float().div_(127.5).sub_(1)  # [N, 1, 28, 28]
    return images, dataset.targets, DATASET


# %% 5. Networks
class Generator(nn.Module):
    """Turns latent vectors [B, LATENT_DIM] into images [B, 1, 28, 28] from -1 to 1."""

    def __init__(self):
        super().__init__()
        widths = [LATENT_DIM, *GENERATOR_HIDDEN]
        hidden = []  # [B, 128], then [B, 256], then [B, 512]
        for inputs, outputs in zip(widths, widths[1:]):
            # BatchNorm gives each value mean 0 and standard deviation 1 over the batch, and then
            # a scale and a shift that it learns.
            hidden += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(
            *hidden,
            nn.Linear(widths[-1], 28 * 28),  # [B, 784]
            nn.Tanh(),  # [B, 784], from -1 to 1 as the real images are
            nn.Unflatten(1, (1, 28, 28)),  # [B, 1, 28, 28]
        )

    def forward(self, latents):
        return self.layers(latents)


class Discriminator(nn.Module):
    """Turns images [B, 1, 28, 28] into a score each, [B, 1]: the higher, the more real.

    It ends without a Sigmoid, because losses that need one have it themselves. It has no BatchNorm,
    because this would mix an image's score with the other images of its batch, while the gradient
    penalties are about each image by itself. [WGAN-GP, sec. 4]
    """

    def __init__(self):
        super().__init__()
        widths = [28 * 28, *DISCRIMINATOR_HIDDEN]
        hidden = []
        for inputs, outputs in zip(widths, widths[1:]):
            # LeakyReLU multiplies what is below 0 by 0.2 [DCGAN, sec. 4], so that some gradient
            # always reaches G. ReLU would stop it there.
            hidden += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]  # [B, 512], then [B, 256]
        self.layers = nn.Sequential(
            nn.Flatten(),  # [B, 784]
            *hidden,
            nn.Linear(widths[-1], 1),  # [B, 1]
        )

    def forward(self, images):
        return self.layers(images)


# %% 6. Losses (docs/theory.md says what they are about)
@dataclass
class Loss:
    """What the critic and the generator minimise, and how they learn. Scores are [B, 1] each."""

    critic: Callable  # Of the scores of real and of fake images: a mean over the batch.
    generator: Callable  # The same for G.
    optimizer: type = torch.optim.Adam
    betas: tuple | None = (0.0, 0.99)  # Adam's. None for RMSprop.
    critic_lr: float = 1e-3
    generator_lr: float = 1e-3
    critic_steps: int = 1  # Steps of the critic before each step of the generator.
    clip: float = 0  # Keeps each weight of the critic between -clip and clip. 0: no clip.
    gp: float = 0  # Weights of the three penalties below. 0: none.
    r1: float = 0
    r2: float = 0
    penalty_every: int = 1  # With 8, every 8th critic step has a penalty, 8 times as strong.
    relativistic: bool = False  # True if G's loss needs the scores of real images, too.


# Every loss by its name. To add one, add an entry here, and its name to LOSSES. Rates and penalties
# come from a search, with as many trials for each loss (R3GAN has R3GAN-lazy's): docs/results.md.
LOSS_TABLE = {
    # [GAN, eq. 1; sec. 3 for G], P = sigmoid(score). softplus(-score) is -log P without a log(0).
    #   D: -log P(x) - log(1 - P(G(z)))        G: -log P(G(z))
    "BCE": Loss(
        critic=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        generator=lambda real, fake: F.softplus(-fake).mean(),
    ),
    # [LSGAN, eq. 9]: real images should score 1, fake ones 0, and G wants 1 for its own. Unlike
    # BCE, it also draws a score back that is on the right side, but too far away.
    #   D: ((D(x) - 1)^2 + D(G(z))^2) / 2      G: (D(G(z)) - 1)^2 / 2
    "LSGAN": Loss(
        critic=lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
        generator=lambda real, fake: (fake - 1).square().mean() / 2,
    ),
    # [WGAN, eq. 3, alg. 1]. A function is Lipschitz if it changes from point to point by at most a
    # constant times their distance. Without this bound the critic's loss could fall without end, so
    # the clip keeps D Lipschitz. The mean of D(x) - D(G(z)) is then at most a constant times the
    # Wasserstein distance of fake and real images. But clipped networks may stay far below, nobody
    # knows how far. RMSprop as in alg. 1: sec. 4.2 warns of momentum, as of Adam's beta1 > 0.
    #   D: D(G(z)) - D(x)                      G: -D(G(z))
    "WGAN": Loss(
        critic=lambda real, fake: fake.mean() - real.mean(),
        generator=lambda real, fake: -fake.mean(),
        optimizer=torch.optim.RMSprop, betas=None, critic_lr=5e-5, critic_steps=5, clip=0.01,
    ),
    # [HINGE]: for D there is nothing more to gain beyond the scores 1 and -1.
    #   D: max(0, 1 - D(x)) + max(0, 1 + D(G(z)))       G: -D(G(z))
    "hinge": Loss(
        critic=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        generator=lambda real, fake: -fake.mean(),
    ),
    # [R3GAN, sec. 2]: only the difference of the scores counts, which is to keep G from leaving out
    # kinds of image. The penalties make it converge near the solution.
    #   D: softplus(D(G(z)) - D(x))            G: softplus(D(x) - D(G(z)))
    "R3GAN": Loss(
        critic=lambda real, fake: F.softplus(fake - real).mean(),
        generator=lambda real, fake: F.softplus(real - fake).mean(),
        r1=1.0, r2=1.0, relativistic=True,
    ),
}
LOSS_TABLE |= {
    "BCE-R1": replace(LOSS_TABLE["BCE"], r1=0.3, penalty_every=8),
    # [WGAN-GP, eq. 3, alg. 1]: a penalty in place of the clip, and Adam.
    "WGAN-GP": replace(LOSS_TABLE["WGAN"], optimizer=torch.optim.Adam, betas=(0.0, 0.9),
                       critic_lr=1e-3, clip=0, gp=10),
    "R3GAN-lazy": replace(LOSS_TABLE["R3GAN"], penalty_every=8),  # Faster. The paper is not lazy.
}


def input_gradient(critic, images):
    """The gradient of each image's score with respect to its pixels, [B, 1, 28, 28]."""
    images = images.clone().requires_grad_()
    # Each score depends only on its own image, so the gradient of the sum of all scores holds the
    # gradient for each image. create_graph=True lets backward() differentiate it once more.
    (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return gradient


def penalty(loss, critic, real_images, fake_images):
    """The sum of the penalties that an entry asks for. g(x): the gradient of the score at x.

    r1   r1 / 2 * mean of |g(x)|^2 at real images [R1, eq. 9]. G follows g, so a G whose
         images are real can rest if the critic is flat there.
    r2   r2 / 2 * mean of |g(G(z))|^2, the same at fake images [R1, eq. 10]
    gp   gp * mean of (|g| - 1)^2 at random mixes of a real and a fake image. On the line between a
         fake and the real image with which optimal transport pairs it, the best critic has a
         gradient of length 1. [WGAN-GP, prop. 1] As in eq. 3, the pairs are random here.
    """
    value = torch.zeros((), device=real_images.device)
    for weight, images in ((loss.r1, real_images), (loss.r2, fake_images)):
        if weight:
            gradient = input_gradient(critic, images)  # [B, 1, 28, 28]
            value = value + weight / 2 * gradient.square().sum((1, 2, 3)).mean()
    if loss.gp:
        share = torch.rand(len(real_images), 1, 1, 1).to(real_images.device)
        gradient = input_gradient(critic, share * real_images + (1 - share) * fake_images)
        value = value + loss.gp * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return value


# %% 7. One training step
#   1. G draws fake images, and the critic scores a batch of real images and these.
#   2. The critic's weights move. For WGAN they are clipped. Steps 1 and 2 come critic_steps times.
#   3. The new critic scores the last fake images again, and G's weights move.
#   4. The average of G's weights moves towards G. Only results and files use it.
def sample_latents(count, rng, device="cpu"):
    """Draw latent vectors from the standard normal distribution: [count, LATENT_DIM]."""
    return torch.randn(count, LATENT_DIM, generator=rng).to(device)


def batches(images, rng):
    """Batches of BATCH_SIZE real images without end, in a new order once no full one is left."""
    while True:
        order = torch.randperm(len(images), generator=rng).to(images.device)
        for batch in order.split(BATCH_SIZE):
            if len(batch) == min(BATCH_SIZE, len(images)):  # All batches have the same size.
                yield images[batch]


def critic_step(critic, optimizer, loss, real_images, fake_images, penalty_weight=0):
    """Teach D to score real above fake images. Returns loss D, mean scores of real and fake."""
    fake_images = fake_images.detach()  # Keeps the gradient out of G, because only D learns now.
    # One pass with both halves is faster than two, and the same: D has no BatchNorm to mix them.
    real_scores, fake_scores = critic(torch.cat([real_images, fake_images])).chunk(2)  # [B, 1] each
    value, extra = loss.critic(real_scores, fake_scores), 0
    if penalty_weight:
        extra = penalty_weight * penalty(loss, critic, real_images, fake_images)
    optimizer.zero_grad()
    (value + extra).backward()
    optimizer.step()
    if loss.clip:
        with torch.no_grad():
            for weights in critic.parameters():
                weights.clamp_(-loss.clip, loss.clip)
    return value.detach(), real_scores.detach().mean(), fake_scores.detach().mean()


def generator_step(generator, critic, optimizer, loss, real_images, fake_images):
    """Teach G to make images [B, 1, 28, 28] that D judges as real. Returns loss G."""
    # D has just changed, so it looks again.
    real_scores = critic(real_images) if loss.relativistic else None
    value = loss.generator(real_scores, critic(fake_images))
    optimizer.zero_grad()
    # The gradient reaches G through D, but inputs= stores gradients only for G's weights.
    value.backward(inputs=list(generator.parameters()))
    optimizer.step()
    return value.detach()


@torch.no_grad()
def update_average(average, generator, step):
    """Move the average of G's weights towards G, less and less with each step.

    G keeps moving, because each batch differs and D changes as well. A mean of G's weights over
    many steps often draws better than the latest weights. [Yazici] This mean is [Shamir, sec. 4]
    with eta = AVERAGE - 1: with AVERAGE = 8, the last eighth of all steps so far makes up about two
    thirds of it. The larger AVERAGE is, the less the early steps count.
    """
    share = AVERAGE / (AVERAGE + step)
    for mean, weight in zip(average.parameters(), generator.parameters()):
        mean.lerp_(weight, share)  # mean + share * (weight - mean)
    for copied, buffer in zip(average.buffers(), generator.buffers()):
        copied.copy_(buffer)  # BatchNorm's statistics, if G has BatchNorm.


def train_step(gan, real_batches, rng):
    """The critic steps of gan.loss, then one step of G. Returns [4]: loss D, loss G, both scores.

    G learns from the fake images of the last critic step. (In [WGAN, alg. 1] it draws new ones.)
    Loss D and the scores are of the last critic step, too.
    """
    loss = LOSS_TABLE[gan.loss]
    for _ in range(loss.critic_steps):
        real_images = next(real_batches)  # [B, 1, 28, 28]
        fake_images = gan.generator(sample_latents(len(real_images), rng, real_images.device))
        # A penalty costs more passes through D. To save time, only every penalty_every-th step has
        # it, that many times as strong, so that its mean gradient is the same. [LAZY, app. B]
        due = (loss.r1 or loss.r2 or loss.gp) and gan.d_steps % loss.penalty_every == 0
        loss_d, real_score, fake_score = critic_step(
            gan.discriminator, gan.optimizer_d, loss, real_images, fake_images,
            penalty_weight=loss.penalty_every if due else 0,
        )
        gan.d_steps += 1
    loss_g = generator_step(
        gan.generator, gan.discriminator, gan.optimizer_g, loss, real_images, fake_images
    )
    if AVERAGE:
        update_average(gan.average, gan.generator, gan.step)
    gan.step += 1
    return torch.stack([loss_d, loss_g, real_score, fake_score])


# %% 8. Training
def random_stream(use, seed):
    """Random numbers for one use, such as "weights": the same for the same seed, on any device.

    Each use has a stream of its own. If the seed itself started both the first weights and the
    latents, these would be made from the same random numbers.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{use}, seed {seed}".encode()))


def build_gan(device, loss, seed):
    """Make the whole state of one training, as a namespace. A checkpoint holds each entry.

    For one seed, each loss gets the same first weights, latents and order of the images.
    """
    torch.manual_seed(random_stream("weights", seed).initial_seed())  # Layers draw their weights.
    gan = SimpleNamespace(loss=loss, seed=seed, step=0, d_steps=0)
    gan.generator, gan.discriminator = Generator().to(device), Discriminator().to(device)
    gan.average = copy.deepcopy(gan.generator) if AVERAGE else gan.generator  # Draws the results.
    entry = LOSS_TABLE[loss]
    adam = {"betas": entry.betas, "fused": True} if entry.betas else {}  # fused: only faster.
    weights_g, weights_d = gan.generator.parameters(), gan.discriminator.parameters()
    gan.optimizer_g = entry.optimizer(weights_g, lr=entry.generator_lr, **adam)
    gan.optimizer_d = entry.optimizer(weights_d, lr=entry.critic_lr, **adam)
    gan.history = []  # The rows of the table, a dictionary each.
    gan.found = None  # The judge's figures at the end.
    return gan


def train_epoch(gan, images, epoch):
    """Take an epoch's generator steps. Returns the means of train_step's four numbers."""
    # Each epoch has streams of its own, so a resumed run sees what an unbroken one would see. The
    # mixes of WGAN-GP and Dropout, if any, draw from torch's own stream.
    torch.manual_seed(random_stream(f"layers in epoch {epoch}", gan.seed).initial_seed())
    real_batches = batches(images, random_stream(f"order in epoch {epoch}", gan.seed))
    rng = random_stream(f"latents in epoch {epoch}", gan.seed)
    torch.set_float32_matmul_precision("medium")  # As in find_device. The judge has "highest".
    steps = max(1, len(images) // BATCH_SIZE)
    totals = torch.zeros(4, device=images.device)
    for number in range(1, steps + 1):
        totals += train_step(gan, real_batches, rng)
        show_progress(number, steps)
    return (totals / steps).tolist()  # The sums go to the CPU only here.


def renew_statistics(generator, seed, device):
    """Measure BatchNorm's mean and deviation anew for a generator, over 6,400 latents.

    Averaged weights never processed a batch in training, so they need statistics of their own, or
    the pictures look worse than those of G itself.
    """
    latents = sample_latents(6400, random_stream("batchnorm latents", seed), device)
    update_bn(latents.split(64), generator)


def train(gans, images, judge, folder):
    """Train each of gans until the end of epoch EPOCHS. Measure and save after each epoch."""
    print("loss        seed  epoch    loss D    loss G  real score  fake score  distance  seconds  "
          "minutes left", flush=True)
    for gan in gans:
        for epoch in range(len(gan.history) + 1, EPOCHS + 1):
            start = time.perf_counter()
            means = train_epoch(gan, images, epoch)
            seconds = time.perf_counter() - start
            renew_statistics(gan.average, gan.seed, images.device)
            end_epoch(gan, gans, judge, folder, epoch, means, seconds)


@torch.no_grad()
def generate(generator, latents):
    """Images of the latents as bytes, uint8 [N, 28, 28]: -1 always becomes 0, and 1 becomes 255."""
    generator.eval()  # A BatchNorm layer, if any, then treats each image by itself.
    images = torch.cat([generator(part).cpu() for part in latents.split(1000)])  # [N, 1, 28, 28]
    generator.train()
    return images.add(1).mul(127.5).round().byte().squeeze(1)


# %% 9. The judge and its metrics
# Two runs on the same data can be compared, because they train the same judge, up to rounding. That
# (for example with another number of threads) has moved distances by up to 14 %, so treat distances
# as equal if they differ by less than 15 %. Papers use other judges, which have other scales.
class Judge(nn.Module):
    """A small CNN that names the digit in images [B, 1, 28, 28]: features [B, 96], logits [B, 10].

    The features are what it sees in an image: images that look alike to it have similar features,
    even if their pixels differ much. [FID] takes features from Inception, a far larger network for
    photographs. Here 64 are about shapes, and the judge decides by them. The other 32 are about
    specks, blur and strokes: means, over the whole image, of a layer that sees 5 x 5 pixels.
    """

    def __init__(self):
        super().__init__()
        self.near = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),  # [B, 16, 28, 28]
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),  # [B, 32, 14, 14]
        )
        self.far = nn.Sequential(
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),  # [B, 64, 7, 7]
            nn.Flatten(),  # [B, 3136]
            # BatchNorm gives each of these variance 1 before the ReLU, so none outweighs the rest.
            nn.Linear(3136, 64), nn.BatchNorm1d(64, affine=False), nn.ReLU(),  # [B, 64]
        )
        self.decide = nn.Linear(64, 10)  # [B, 10]
        # One scale for all means, which train_judge sets. Some hardly vary in real images, and a
        # scale for each would blow these up.
        self.register_buffer("scale", torch.ones(()))
        self.to(memory_format=torch.channels_last)  # Processors compute convolutions faster so.

    def forward(self, images):
        near = self.near((images + 1) / 2)  # [B, 32, 14, 14]. Black is 0, as the padding is.
        shapes = self.far(near)  # [B, 64]
        features = torch.cat([shapes, near.mean((2, 3)) / self.scale], 1)  # [B, 96]
        return features, self.decide(shapes)


def judge_recipe():
    """All that decides how a judge comes out, except its layers and its data.

    "means": 0.25 makes the variance of the 32 means a quarter of that of the 64 features of shapes.
    With 0.5, the ranking of some GANs changed with the judge's seed. Without means, the judge
    hardly saw specks.
    """
    return {"seed": 243580376, "order": 2051556033, "rounds": 3, "batch": 128, "lr": 2e-3,
            "means": 0.25}


def train_judge(images, labels):
    """A judge that has learnt the labels, int64 [N], of the first five sixths of the images.

    These are MNIST's first 50,000. It is the same judge every time, except for rounding. A judge of
    another seed has another scale.
    """
    torch.set_float32_matmul_precision("highest")  # The judge never rounds more than it must.
    recipe, known = judge_recipe(), len(images) * 5 // 6
    rng = torch.Generator().manual_seed(recipe["order"])
    torch.manual_seed(recipe["seed"])  # Layers draw their weights.
    judge = Judge().to(images.device)
    orders = [torch.randperm(known, generator=rng) for _ in range(recipe["rounds"])]
    batches = [b for b in torch.cat(orders).split(recipe["batch"]) if len(b) > 1]  # For BatchNorm.
    optimizer = torch.optim.Adam(judge.parameters(), lr=recipe["lr"], fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, len(batches))
    for number, batch in enumerate(batches, start=1):
        loss = F.cross_entropy(judge(images[batch])[1], labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()  # Smaller and smaller steps, to settle.
        show_progress(number, len(batches))
    judge.eval()
    features = look_at(judge, images[: min(known, 10_000)])[0]  # [10000, 96]
    shapes, means = features.var(0).split([64, 32])  # [64], [32]
    judge.scale.fill_((means.sum() / shapes.sum() / recipe["means"]).sqrt().item())
    return judge


@torch.no_grad()
def look_at(judge, images):
    """What the judge sees in images [N, 1, 28, 28]: features [N, 96] and probabilities [N, 10]."""
    torch.set_float32_matmul_precision("highest")
    features, logits = zip(*[judge(part) for part in images.split(1000)])
    return torch.cat(features).cpu().double(), torch.cat(logits).cpu().double().softmax(1)


def measure(judge, images):
    """Compare images [N, 1, 28, 28] with the first N real ones. Returns the figures by name."""
    features, probabilities = look_at(judge, images)
    real_features = judge.real_features[: len(images)]
    precision, recall = precision_and_recall(real_features, features)
    best, digit = probabilities.max(1)
    # A digit is drawn if the judge names it, at more than 90 %, in at least 1 % of the images.
    named = torch.bincount(digit[best > 0.9], minlength=10) / len(images)  # [10]
    return {"distance": frechet_distance(real_features, features),
            "KID": kernel_distance(real_features, features), "IS": inception_score(probabilities),
            "readable": named.sum().item(), "digits": (named >= 0.01).sum().item(),
            "precision": precision, "recall": recall}


def frechet_distance(real, fake):
    """The FID of two sets of features [N, 96]: their squared distance as Gaussian distributions.

    |mean_r - mean_f|^2 + trace(C_r + C_f - 2 (C_r C_f)^(1/2)), C: covariances. [FID, eq. 6]

    It grows with bad images and with missing kinds of image, but does not say which. It is larger
    for fewer images, so compare equally many. It sees only means and covariances, though features
    after a ReLU are not Gaussian. A GAN that copied its training images would have a fine value.
    """
    # A trace is the sum of the eigenvalues. Those of (C_r C_f)^(1/2) are the roots of C_r C_f's.
    cov_r, cov_f = real.T.cov(), fake.T.cov()
    roots = torch.linalg.eigvals(cov_r @ cov_f).real.clamp(min=0).sqrt()  # Rounding may go below 0.
    means = (real.mean(0) - fake.mean(0)).square().sum()
    return (means + cov_r.trace() + cov_f.trace() - 2 * roots.sum()).item()


def kernel_distance(real, fake):
    """The KID of two sets of features [N, 96], with the kernel k(x, y) = (x . y / 96 + 1)^3. [KID]

    mean of k(x, x') + mean of k(y, y') - 2 * mean of k(x, y)     x, x': real features, y, y': fake

    An image is never paired with itself, so fewer images make the estimate noisier (it can fall
    below 0), but not larger on average. Like the FID, it does not say what is wrong. To save
    memory, it is a mean over blocks of up to 1,000 images.
    """

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3  # [N, N]

    def within(x):
        return (kernel(x, x).sum() - kernel(x, x).trace()) / (len(x) * (len(x) - 1))

    blocks = math.ceil(len(fake) / 1000)
    pairs = zip(real.chunk(blocks), fake.chunk(blocks))
    return statistics.mean(
        (within(x) + within(y) - 2 * kernel(x, y).mean()).item() for x, y in pairs)


def inception_score(probabilities):
    """exp of the mean of KL(p(digit | image) || p(digit)), from [N, 10]. [Salimans, sec. 4]

    p(digit) is the mean over the images. The score is 1 if the judge says the same of all, and 10
    if it is certain of each and names all digits equally often. It never looks at a real image, so
    ten pictures, one of each digit, would have a perfect score.
    """
    logs = probabilities.clamp(min=1e-12).log() - probabilities.mean(0).clamp(min=1e-12).log()
    return (probabilities * logs).sum(1).mean().exp().item()


def precision_and_recall(real, fake):
    """Share of fakes that look real, and share of real images that the fakes come near. [PR]

    Each real image has a ball, which reaches to its third nearest real neighbour. A fake in any of
    these looks real (eqs. 1, 2). Recall is the same with the sides swapped. So precision measures
    fidelity, and recall variety. Outliers have large balls: a real one makes precision look too
    good, a fake one recall. Only the first 5,000 of each count, to save memory.
    """
    real, fake = real[:5000].float(), fake[:5000].float()
    distances = torch.cdist(real, fake)  # [real, fake]
    # The fourth smallest distance, because the smallest is that of an image to itself.
    real_radius, fake_radius = [torch.cdist(x, x).kthvalue(4).values for x in (real, fake)]
    precision = (distances <= real_radius.unsqueeze(1)).any(0).double().mean().item()
    return precision, (distances <= fake_radius).any(1).double().mean().item()


def measure_digits(source):
    """Print the figures of anybody's images beside those of real ones. Returns them, by row.

    source: a .npy file, an array, a tensor or a list of batches, uint8 or floats from -1 to 1.
    Black is the lowest value. Only the first 10,000 count, so they must not be sorted by digit.
    """
    images = read_digits(source)  # [N, 1, 28, 28]
    Path(OUTPUT_DIR).expanduser().mkdir(parents=True, exist_ok=True)
    real_images, labels, data_name = load_images()
    judge = prepare_judge(check_images(real_images), labels, data_name)
    name = "/".join(Path(source).parts[-2:]) if isinstance(source, (str, Path)) else "images"
    rows = {"real images": judge.other_images[: len(images)], name: images}
    figures = {row: measure(judge, part.to(judge.scale.device)) for row, part in rows.items()}
    print(f"\n{figure_table({row: [found] for row, found in figures.items()})}\n"
          f"{len(images):,} images of each row against as many {judge.about}")
    return figures


# %% 10. Main
def main():
    check_constants()
    device = find_device()
    images, labels, data_name = load_images()
    images = check_images(images).to(device)
    gans = [build_gan(device, loss, seed) for seed in SEEDS for loss in LOSSES]
    folder = begin(gans, images, data_name)  # A new folder. With RESUME, loads earlier trainings.
    judge = prepare_judge(images, labels, data_name)
    train(gans, images, judge, folder)
    save_results(gans, judge, folder)
    print(f"\nThe files of these GANs on {data_name} are in {folder.absolute()}.\n"
          f"To go on, set RESUME = True and raise EPOCHS, or add to LOSSES or SEEDS.")


# %% 11. Plumbing: the device, files and resuming, pictures, data
def find_device():
    """The device that DEVICE names. "auto" takes an NVIDIA GPU if a first operation on it works."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False  # On GPUs.
    torch.set_float32_matmul_precision("medium")  # Faster. AMX, Arm and GPUs may round more.
    name = DEVICE if DEVICE != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).add(1).item()  # Fails on GPUs that are full, busy or too old.
    except Exception as error:
        reason = f"{name!r} cannot be used: {(str(error) or repr(error)).splitlines()[0]:.200}"
        if DEVICE != "auto":
            raise SystemExit(f"DEVICE = {reason}") from None
        print(f"Note      the device {reason}. The CPU is used instead.")
        name = "cpu"
    return torch.device(name)


def begin(gans, images, data_name):
    """Make this run's folder. With RESUME, load earlier trainings. Print what it is."""
    runs, start = Path(OUTPUT_DIR).expanduser(), ""
    runs.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(path.name[4:]) for path in runs.glob("run_*") if path.name[4:].isdecimal())
    wanted = [f"run_{number}" for number in numbers] if RESUME is True else [str(RESUME)]
    for gan in gans:
        entry = {name: repr(value) for name, value in vars(LOSS_TABLE[gan.loss]).items()
                 if name not in ("critic", "generator")}
        gan.made_with = {**settings(), **entry, "data": data_name}
        saved = [runs / name / checkpoint_name(gan) for name in wanted if RESUME]
        saved = [path for path in saved if path.exists()]
        if saved:
            load_checkpoint(gan, saved[-1])
            start += f", {saved[-1]}: {len(gan.history)} epochs"
    if RESUME and not start:
        raise SystemExit(f"RESUME = {RESUME!r}: there is no such checkpoint in {runs}.")
    # Each start makes a folder, also if it resumes, so no run ever touches the files of another.
    for number in range(max(numbers, default=0) + 1, 1_000_000):
        folder = runs / f"run_{number}"
        with contextlib.suppress(FileExistsError):  # Another start may be faster.
            folder.mkdir()
            break
    device = torch.cuda.get_device_name(images.device) if images.is_cuda else images.device.type
    networks = gans[0].generator, gans[0].discriminator
    sizes = [sum(w.numel() for w in network.parameters()) for network in networks]
    text = (f"Data      {data_name}, {len(images):,} images of 28 x 28 pixels\n"
            f"Device    {device}, {torch.get_num_threads()} CPU threads\n"
            f"Versions  Python {sys.version.split()[0]}, torch {torch.__version__}\n"
            f"Networks  generator {sizes[0]:,} parameters, discriminator {sizes[1]:,}\n"
            f"Output    {folder}\n"
            f"Start     {len(gans)} trainings of {EPOCHS} epochs{start}\n")
    print(text)
    constants = {**settings(), "LOSSES": LOSSES, "SEEDS": SEEDS, "EPOCHS": EPOCHS}
    text += "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    write(folder / "run.txt", lambda file: file.write(text.encode(errors="replace")))
    for gan in [gan for gan in gans if gan.history]:  # So that this folder has all of its own run.
        save_checkpoint(gan, folder)
    return folder


def settings():
    """The constants that a checkpoint must agree with to be resumed, by name."""
    names = ("DATASET", "LATENT_DIM", "GENERATOR_HIDDEN", "DISCRIMINATOR_HIDDEN", "BATCH_SIZE",
             "AVERAGE")
    return {name: globals()[name] for name in names}


def checkpoint_name(gan):
    """The file for the state of one training."""
    return f"checkpoint_{gan.loss.lower()}_{gan.seed}.pt"


def write(path, save):
    """Let save(file) write a file. It gets its name once it is whole. A kill leaves only a part."""
    part = path.with_name(f"part.{os.getpid()}.{path.name}")
    try:
        with open(part, "wb") as file:
            save(file)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # A full disk, or a file that another program holds.
        with contextlib.suppress(OSError):  # The drive itself may be lost.
            part.unlink()
        if isinstance(error.__context__, KeyboardInterrupt):  # torch.save hides a Ctrl-C.
            raise KeyboardInterrupt from None
        print(f"Cannot write {path}: {error}. The run goes on.", flush=True)


def save_checkpoint(gan, folder):
    """Write the whole state of one training."""
    state = {name: part.state_dict() if hasattr(part, "state_dict") else part
             for name, part in vars(gan).items()}
    write(folder / checkpoint_name(gan), lambda file: torch.save(state, file))


def load_checkpoint(gan, path):
    """Load the state into gan. Exits if it was made with other constants, data or networks."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, new in gan.made_with.items():
            if (old := state["made_with"].get(name)) != new:
                raise ValueError(f"it was made with {name} = {old!r}, and now it is {new!r}")
        for name, part in vars(gan).items():
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(state[name])
            elif name != "made_with":
                setattr(gan, name, state[name])
    except Exception as error:  # A damaged file fails in many ways.
        raise SystemExit(f"{path} cannot be used: {error!r:.300}. Undo it, or set RESUME = False.")


def show_progress(step, steps):
    """Show the number of the step within the epoch, on a terminal and in a notebook."""
    if step % 20 == 0 and ("ipykernel" in sys.modules or sys.stdout and sys.stdout.isatty()):
        print(f"  step {step} of {steps}", end="\r", flush=True)  # The row is longer and covers it.


def end_epoch(gan, gans, judge, folder, epoch, means, seconds):
    """Measure, save, and print the row of an epoch. Write the results after a whole training."""
    if not math.isfinite(sum(means)):
        raise SystemExit(f"Stopped: a loss of {gan.loss} in epoch {epoch} is not a finite number. "
                         f"Resuming would repeat it: lower its rates in section 6.")
    features, _ = look_at(judge, sample_images(gan.average, gan.seed))
    distance = frechet_distance(judge.real_features, features)
    names = ("loss", "seed", "epoch", "loss D", "loss G", "real score", "fake score", "distance",
             "seconds", "G steps", "D steps", "data")
    gan.history.append(dict(zip(names, (gan.loss, gan.seed, epoch, *means, distance, seconds,
                                        gan.step, gan.d_steps, gan.made_with["data"]))))
    # The time of an epoch is about proportional to its steps of G and D together.
    costs = [(1 + LOSS_TABLE[g.loss].critic_steps, len(g.history)) for g in gans]
    rate = (sum(row["seconds"] for g in gans for row in g.history)
            / sum(cost * done for cost, done in costs))
    left = rate * sum(cost * (EPOCHS - done) for cost, done in costs if done < EPOCHS) / 60
    save_checkpoint(gan, folder)  # Before the row: what stands in the table is never trained again.
    print(f"{gan.loss:11}{gan.seed:5d} {epoch:6d} {means[0]:9.4f} {means[1]:9.4f} {means[2]:11.3f} "
          f"{means[3]:11.3f} {distance:9.2f} {seconds:8.1f} {left:13.1f}", flush=True)
    done = [g for g in gans if len(g.history) >= EPOCHS]
    if epoch == EPOCHS and len(done) < len(gans):  # main() writes them after the last one.
        save_results(done, judge, folder)


def save_results(gans, judge, folder):
    """Measure what is not measured yet. Write the tables, the figure, images and weights."""
    judge.found = getattr(judge, "found", None) or measure(judge, judge.other_images)  # Real ones.
    for gan in [gan for gan in gans if gan.found is None]:
        images, latest = sample_images(gan.average, gan.seed), copy.deepcopy(gan.generator)
        renew_statistics(latest, gan.seed, images.device)
        features, _ = look_at(judge, sample_images(latest, gan.seed))
        gan.found = {**measure(judge, images),
                     "seconds": sum(row["seconds"] for row in gan.history),
                     "G itself": frechet_distance(judge.real_features, features),
                     "G steps": gan.step, "D steps": gan.d_steps}
        if gan.seed == SEEDS[0]:
            weights = {key: tensor.cpu() for key, tensor in gan.average.state_dict().items()}
            pixels = images.add(1).mul(127.5).round().byte().squeeze(1).cpu().numpy()
            name = gan.loss.lower()
            write(folder / f"generator_{name}.pt", lambda file: torch.save(weights, file))
            write(folder / f"generated_{name}.npy", lambda file: np.save(file, pixels))
    rows = [row for gan in gans for row in gan.history]
    lines = [",".join(map(str, row)) + "\n" for row in (rows[0], *map(dict.values, rows))]
    write(folder / "history.csv", lambda file: file.write("".join(lines).encode(errors="replace")))
    groups = {"real images": [judge.found]}
    for gan in gans:
        groups.setdefault(gan.loss, []).append(gan.found)
    about = f"\n10,000 images of each GAN against {len(judge.real_features):,} {judge.about}\n"
    text = figure_table(groups) + about
    write(folder / "comparison.md", lambda file: file.write(text.encode(errors="replace")))
    picture = draw_comparison(gans, judge.found["distance"], folder.name)
    write(folder / "comparison.png", lambda file: picture.savefig(file, dpi=150))
    if "ipykernel" in sys.modules and (folder / "comparison.png").exists():  # Below the cell.
        sys.modules["IPython"].display.display(Image.open(folder / "comparison.png"))
    print(f"\n{figure_table(groups, ('G itself', 'G steps', 'D steps'))}{about}", flush=True)


def sample_images(generator, seed, count=10_000):
    """Images of a generator, float32 [count, 1, 28, 28], always from the same latents."""
    torch.set_float32_matmul_precision("highest")  # As look_at does, whenever they are drawn.
    device = next(generator.parameters()).device
    latents = sample_latents(count, random_stream("10,000 images", seed), device)
    return generate(generator, latents).unsqueeze(1).to(device).float().div_(127.5).sub_(1)


def figure_table(groups, hidden=()):
    """A Markdown table with a row for each name: the figure, or mean ± deviation over the seeds."""
    columns = {"distance": 2, "G itself": 2, "KID": 4, "IS": 2, "readable": 3, "digits": 1,
               "precision": 3, "recall": 3, "seconds": 0, "G steps": 0, "D steps": 0}  # Decimals.
    columns = {key: decimals for key, decimals in columns.items() if key not in hidden and
               any(key in found for group in groups.values() for found in group)}
    rows = [["", *columns]]
    for name, group in groups.items():
        rows.append([name])
        for key, decimals in columns.items():
            values = [found[key] for found in group if key in found]
            cell = f"{statistics.mean(values):,.{decimals}f}" if values else ""
            if len(values) > 1:
                cell += f" ± {statistics.stdev(values):,.{decimals}f}"
            rows[-1].append(cell)
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(map(str.ljust, row, widths))} |\n" for row in rows)


def draw_comparison(gans, real_distance, run):
    """Images and loss curves of each loss, and the distances of all. Returns a Figure.

    Images and curves are those of the first seed. real_distance: the distance of real images.
    """
    shown = [gan for gan in gans if gan.seed == gans[0].seed]
    losses = dict.fromkeys(gan.loss for gan in gans)  # Each once, in their order.
    looks = {loss: {"color": f"C{number}", "ls": ("-", "--", "-.", ":")[number % 4],
                    "marker": "osD^vPX*"[number % 8], "ms": 4}
             for number, loss in enumerate(losses)}
    figure = Figure(figsize=(11, 1.7 * len(shown) + 3.8), layout="constrained")  # Needs no display.
    figure.suptitle(f"{run}: one GAN on {gans[0].made_with['data']}, trained with each loss")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.7 * len(shown), 3.8))
    panels = top.subplots(len(shown), 2, squeeze=False, width_ratios=(8, 3))
    for (samples, curves), gan in zip(panels, shown):
        grid = sample_images(gan.average, gan.seed, 40).add(1).mul(127.5).view(2, 20, 28, 28)
        grid = grid.transpose(1, 2).reshape(56, 560).cpu().numpy()
        samples.imshow(grid, cmap="gray", vmin=0, vmax=255)
        samples.set(xticks=[], yticks=[])
        samples.set_title(f"{gan.loss}: distance {gan.found['distance']:.2f}", loc="left")
        rows = {key: [row[key] for row in gan.history] for key in gan.history[0]}
        lines, label = {"loss D": rows["loss D"], "loss G": rows["loss G"]}, "loss"
        if LOSS_TABLE[gan.loss].clip or LOSS_TABLE[gan.loss].gp:  # WGAN and its like.
            gaps = [real - fake for real, fake in zip(rows["real score"], rows["fake score"])]
            lines, label = {"D(x) - D(G(z))": gaps}, "unknown unit"
        for (name, values), style in zip(lines.items(), ("o-", "s--")):
            curves.plot(rows["epoch"], values, style, color="black", ms=3, lw=1, label=name)
        curves.set(xlim=(0, EPOCHS + 1), ylabel=label)
        curves.xaxis.get_major_locator().set_params(integer=True)
        curves.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    panels[-1, 1].set_xlabel("epoch")
    left, right = bottom.subplots(1, 2, sharey=True)
    for gan in gans:
        distances = [row["distance"] for row in gan.history]
        steps = [row["G steps"] for row in gan.history]
        seconds = list(itertools.accumulate(row["seconds"] for row in gan.history))
        for axes, places in ((left, steps), (right, seconds)):
            label = gan.loss if gan.seed == gans[0].seed else None
            axes.plot(places, distances, label=label, **looks[gan.loss])
    for axes, label in ((left, "generator steps"), (right, "seconds of training")):
        axes.axhline(real_distance, color="grey", lw=1, label="real images")
        axes.set(yscale="log", xlabel=label, xlim=(0, None))
    left.set(ylabel="distance from real images (lower is better)")
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def prepare_judge(images, labels, data_name):
    """The judge in judge.pt if the same recipe and data made it, or else a new one, kept there.

    Takes the training images and their labels. With the judge comes what it sees in the test images
    that others are compared with, and the images for the row of real images (section 9).
    """
    if labels is None or len(images) < 30:
        raise SystemExit("load_images must return at least 30 images, and labels for the judge.")
    if data_name.startswith("drawn digits"):  # By choice, or because there was no download.
        test_images, test_labels = draw_digits(10_000, seed=1)
    else:
        test_images, test_labels, _ = load_images(train=False)
    judge = Judge().to(images.device).eval()
    made_with = {**judge_recipe(), "layers": str(judge), "data": data_name, "images": len(images),
                 "white": (images > 0).sum().item()}
    path = Path(OUTPUT_DIR).expanduser() / "judge.pt"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["made with"] != made_with:
            raise ValueError
        judge.load_state_dict(saved["judge"])
    except Exception:  # No file, a damaged one, or one of another recipe or other data.
        judge = train_judge(images, torch.as_tensor(labels).long().to(images.device))
        saved = {"made with": made_with, "judge": judge.state_dict()}
        write(path, lambda file: torch.save(saved, file))
    # The first half of MNIST's test images is neater handwriting than the second: mixed, here.
    mixed = torch.randperm(len(test_images), generator=torch.Generator().manual_seed(3488238119))
    test_images = test_images[mixed].to(images.device)
    judge.real_features, probabilities = look_at(judge, test_images)
    right = probabilities.argmax(1) == torch.as_tensor(test_labels)[mixed]
    right = right.double().mean().item()
    print(f"Judge     names {right:.1%} right of {len(mixed):,} test images\n")
    if right < 0.7:
        print("Warning: a judge that names so few right sees little. Do not trust its figures.")
    judge.other_images = images[len(images) * 5 // 6 :]  # The last 10,000 training images of MNIST.
    judge.about = (f"test images of {data_name}.\nReal images: training images of it that the "
                   f"judge has not learnt from.")
    return judge


def read_digits(source):
    """Images from a file, an array, a tensor or a list of these: float32 [N, 1, 28, 28], -1 to 1.

    Raises SystemExit, in one line, if it is none or if these are no such images.
    """
    wanted = ("Wanted: 100 or more of 28 x 28 pixels, uint8 or floats from -1 to 1. From 0 to 1, "
              "write 2 * images - 1. From 0 to 255, images / 127.5 - 1.")
    try:  # np.load runs no code from the file.
        parts = np.load(source) if isinstance(source, (str, Path)) else source
        parts = parts if isinstance(parts, (list, tuple)) else [parts]
        parts = [torch.as_tensor(part).detach().cpu() for part in parts]
    except Exception as error:  # Another kind of file, or a damaged one: it fails in many ways.
        name = source if isinstance(source, (str, Path)) else f"This {type(source).__name__}"
        raise SystemExit(f"{name} cannot be read: {error!r:.200}. {wanted}") from None
    fit = all(part.numel() / 784 in (1, part.shape[:1].numel()) for part in parts)
    if not fit or sum(part.numel() for part in parts) < 100 * 784:
        shapes = ", ".join(str(list(part.shape)) for part in parts[:3])
        raise SystemExit(f"Images of shape {shapes or 'nothing'} cannot be measured. {wanted}")
    images = torch.cat([part.reshape(-1, 1, 28, 28) for part in parts])[:10_000]
    low, high, kind = images.min().item(), images.max().item(), images.dtype
    if kind == torch.uint8:
        images = images.float().div_(127.5).sub_(1)  # As load_images does.
    elif not images.is_floating_point() or not -1.01 <= low < 0 <= 1.01 - high:
        raise SystemExit(f"{len(images)} images of {kind} from {low:g} to {high:g} cannot be "
                         f"measured. {wanted}")
    if images.mean() > 0 or images.std(0).mean() < 0.1:
        print("Hint: most pixels are white, or all images alike. Digits are white on black here.")
    return images.float()


def fetch_dataset(train):
    """Read DATASET. If it is missing, download it. If that fails, say so and return None."""
    reader, folder = getattr(torchvision.datasets, DATASET), Path(DATA_DIR).expanduser()
    files = {name: folder / DATASET / "raw" / Path(name).stem for name, _ in reader.resources}
    missing = not all(file.exists() for file in files.values())
    try:
        if missing:
            print(f"Download  {DATASET}, 12 to 31 MB, to {folder}", flush=True)
            socket.setdefaulttimeout(15)  # Each try gives up after 15 seconds.
        return reader(folder, train=train, download=missing)
    except Exception as error:  # Downloads and damaged files fail in many ways.
        reason = " ".join((str(error) or repr(error)).split())[:300]
    where = "\n".join(f"{file}  from {reader.mirrors[0]}{name}" for name, file in files.items())
    if not missing:
        raise SystemExit(f"One of these files cannot be read ({reason}). If it is damaged, move it "
                         f"away, and the next run downloads it again:\n{where}")
    print(f"{'=' * 98}\n{DATASET} IS NOT THERE AND CANNOT BE DOWNLOADED: {reason}\nDRAWN DIGITS "
          f"take its place: results are not those of {DATASET}.\nTo use it, put these files here, "
          f"packed (.gz) or unpacked:\n{where}\n{'=' * 98}", flush=True)


def draw_digits(count, seed=0):
    """Digits like handwriting: float32 [count, 1, 28, 28] from -1 to 1, and labels [count]."""
    torch.manual_seed(seed)
    transforms, glyphs = torchvision.transforms, []
    for name in ("DejaVuSans-Oblique", "DejaVuSerif-Italic", "cmss10"):
        font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf", 26)
        for character in "0l23456789":  # A lower-case L looks more like a written 1.
            glyph = Image.new("L", (28, 28))
            ImageDraw.Draw(glyph).text((14, 14), character, fill=255, font=font, anchor="mm")
            glyph = transforms.functional.to_tensor(glyph)
            centre = (glyph[0] > 0.5).argwhere().float().mean(0)  # Centre of mass, as in MNIST.
            glyphs.append(glyph.roll((13.5 - centre).round().int().tolist(), (1, 2)))
    bend = transforms.Compose([
        transforms.GaussianBlur(5, 0.8),
        transforms.RandomAffine(5, shear=16, interpolation=transforms.InterpolationMode.BILINEAR),
        transforms.ElasticTransform(50.0, 5.0)])  # Smooth bends, at random.
    glyphs = torch.stack(glyphs)  # [30, 1, 28, 28]. Number n shows the digit n % 10.
    images = torch.cat([bend(glyphs) for _ in range(math.ceil(count / 30))])[:count]
    level = 0.25 + 0.27 * torch.rand(count, 1, 1, 1)  # A low level makes thick strokes.
    order = torch.randperm(count)
    return images.sub_(level).mul_(8).clamp_(-1, 1)[order], order % 10


def check_images(images):
    """Return images, or exit, in one line, if they are not what load_images has to return."""
    low, high = images.min().item(), images.max().item()
    right = images.dtype == torch.float32 and images.shape[1:] == (1, 28, 28)
    if not right or not -1 <= low < 0 or not high <= 1 or (images[:1000] == images[0]).all():
        raise SystemExit(f"load_images returned {images.dtype} {list(images.shape)}, {low:g} to "
                         f"{high:g}. Wanted: float32 [N, 1, 28, 28], -1 to 1, and not all alike.")
    return images


def check_constants():
    """Exit, in one line, if a constant has a value that fails only later, or does nothing."""
    if DATASET not in ("MNIST", "FashionMNIST", "KMNIST", "drawn"):
        raise SystemExit(f"DATASET = {DATASET!r} must be MNIST, FashionMNIST, KMNIST or drawn.")
    if not LOSSES or not set(LOSSES) <= set(LOSS_TABLE) or len(set(LOSSES)) < len(LOSSES):
        raise SystemExit(f"LOSSES = {LOSSES!r} must be a list of names from {list(LOSS_TABLE)}.")
    if type(SEEDS) is not list or not SEEDS:
        raise SystemExit(f"SEEDS = {SEEDS!r} must be a list of numbers, such as [0, 1, 2].")
    for name, low in {"LATENT_DIM": 1, "EPOCHS": 1, "BATCH_SIZE": 2, "AVERAGE": 0.0}.items():
        value = globals()[name]
        if type(value) not in (int, type(low)) or not low <= value < 1e8:
            raise SystemExit(f"{name} = {value!r} must be {type(low).__name__}, {low} or more.")


if __name__ == "__main__":
    if len(sys.argv) > 1 and Path(sys.argv[0]).name == Path(globals().get("__file__", "")).name:
        raise SystemExit(f"{sys.argv[0]} takes no arguments: edit the constants in section 3.")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # For a console that lacks a letter of a path.
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped. The rows above are kept: RESUME = True goes on or writes newer pictures.")
