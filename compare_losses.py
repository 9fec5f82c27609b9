# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.9"]
# ///
# %% 1. What and how
"""Train one GAN with several losses, and measure which of them draws better digits.

A loss says what the two networks of a GAN play for. All losses start from the same weights here,
see real images and latents in the same order, and take the same number of generator steps. WGAN and
WGAN-GP also have other settings of the optimizer, and D takes 5 steps before each step of G, so
they use 5 times as many images (section 6). Then a judge, a small classifier that was trained on
real digits, compares the images of each GAN with real ones. No GAN learns from it.

D is also called a critic: it gives an image a score, and a higher score means more real. Only for
BCE and BCE-R1 is the score a logit, whose sigmoid is a probability.

Run it:  python compare_losses.py     (There are no options: edit the constants in section 3.)

It writes to outputs/compare_losses/:
    comparison.png                     images, loss curves and distances of all losses: look here
    comparison.md, comparison.csv      the final table, to paste into a report and as a file
    history.csv                        the table that it prints while it trains
    generator_bce.pt ...               the weights of each loss's generator, for the first seed
    generated_bce.npy ...              10,000 images of each of these
    judge.pt                           the judge, which later runs and measurements use again
    checkpoint_bce_0.pt ...            for each loss and seed, all that RESUME = True needs
    run.txt                            the constants and the versions of this run
A new run moves the files of an earlier one to outputs/compare_losses/earlier_1/ (then 2, 3, ...),
but not the judge.

Measure any other images, such as those of train_gan.py, with two lines of Python:
    import compare_losses
    compare_losses.measure_digits("outputs/train_gan/generated.npy")

How to read the tables:
    loss D, loss G   what D and G minimise: means over the epoch, without penalties. Each loss has a
                     scale of its own, so they cannot be compared. Only loss D of WGAN and WGAN-GP
                     says, roughly, how good the images are.
    real score,      the mean score of real and of fake images. For WGAN the difference says roughly
    fake score       how far the fakes are from real images, in an unknown unit, if D keeps up.
    distance         Frechet distance between what the judge sees in fake and in real images. Less
                     is better. This is what compares the losses. With the network Inception as the
                     judge it is called FID.
    G itself         the distance of images by G's latest weights, not by their average as elsewhere
    readable         the share of images in which the judge names a digit at more than 90 %
    digits           how many of the ten are drawn, each in at least 1 % of the images
    precision        the share of fake images that look real
    recall           the share of real images that some fake image comes near
    seconds          of training, without the judge's work
    minutes left     of the whole run, estimated from its speed so far
In the row "real images", training images that are new to the judge take the place of the fakes.
Small differences mean nothing: with another seed they may be the other way round. A large study
that tuned each loss with care found none that was always better. [EQUAL]

[GAN]     Goodfellow et al. 2014, Generative Adversarial Nets, arxiv.org/abs/1406.2661
[DCGAN]   Radford et al. 2015, Deep Convolutional GANs, arxiv.org/abs/1511.06434
[LSGAN]   Mao et al. 2016, Least Squares GANs, arxiv.org/abs/1611.04076
[WGAN]    Arjovsky et al. 2017, Wasserstein GAN, arxiv.org/abs/1701.07875
[WGAN-GP] Gulrajani et al. 2017, Improved Training of Wasserstein GANs, arxiv.org/abs/1704.00028
[HINGE]   Lim and Ye 2017, Geometric GAN, arxiv.org/abs/1705.02894 (and Tran et al. 2017)
[R1]      Mescheder et al. 2018, Which Training Methods Converge?, arxiv.org/abs/1801.04406
[R3GAN]   Huang et al. 2024, The GAN is dead; long live the GAN!, arxiv.org/abs/2501.05441
[LAZY]    Karras et al. 2020, StyleGAN2, arxiv.org/abs/1912.04958
[MEAN]    Shamir, Zhang 2013, arxiv.org/abs/1212.1824; Yazici et al. 2018, arxiv.org/abs/1806.04498
[EQUAL]   Lucic et al. 2018, Are GANs Created Equal?, arxiv.org/abs/1711.10337
[FID]     Heusel et al. 2017, Two Time-Scale Update Rule, arxiv.org/abs/1706.08500
[PR]      Kynkaanniemi et al. 2019, Improved Precision and Recall, arxiv.org/abs/1904.06991
"""

# %% 2. Imports
import contextlib
import copy
import csv
import io
import itertools
import math
import os
import platform
import socket
import sqlite3
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

# In a notebook, "!python" passes on the notebook's MPLBACKEND, with which matplotlib may fail here.
if "ipykernel" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)

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
LOSSES = ("BCE", "LSGAN", "WGAN", "BCE-R1")  # Also "WGAN-GP", "hinge", "R3GAN": see section 6.
SEEDS = (0,)  # One run of each loss for each seed. (0, 1, 2) shows how much is chance. [EQUAL]
# Networks
LATENT_DIM = 100  # Random numbers that make an image: 100 as in [DCGAN]. Try 2 to 500.
GENERATOR_HIDDEN = (128, 256, 512)  # Widths of G's hidden layers, one to four of them.
DISCRIMINATOR_HIDDEN = (512, 256)  # The same for D's hidden layers.
# Training (learning rates and penalties stand with the losses, in section 6)
EPOCHS = 6  # In each, G takes a step for each batch of the data, and WGAN's D takes 5.
BATCH_SIZE = 64  # Real images in a step, 2 or more. Smaller batches: more steps, but noisier ones.
AVERAGE = 8  # Results use a mean of G's weights: mainly the last 1/AVERAGE of steps. 0: no mean.
DEVICE = "auto"  # An NVIDIA GPU if there is one, else the CPU. Or "cpu", "cuda", "cuda:1", "mps".
RESUME = False  # True goes on from the checkpoints. To train for longer, raise EPOCHS as well.
# Output
SAMPLES = 10_000  # Images of each G that are judged. With fewer, distances come out larger.
OUTPUT_DIR = "outputs/compare_losses"  # Relative to the current folder, like DATA_DIR.


# %% 4. Data
def load_images(train=True):
    """Read the whole dataset into memory: 60,000 images, or the 10,000 test images.

    Returns images, float32 [N, 1, 28, 28] from -1 (black) to 1 (white), the range of G's Tanh;
    labels, int64 [N], which the GAN never sees; and the name of what was loaded.
    """
    dataset = fetch_dataset(train) if DATASET != "drawn" else None
    if dataset is None:  # Drawn digits are wanted, or the dataset is not available.
        images, labels = draw_digits(60_000 if train else 10_000, seed=0 if train else 1)
        return images, labels, "drawn digits"
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

    It ends without a Sigmoid: losses that need one have it themselves. It has no BatchNorm,
    which would mix an image's score with the other images of its batch, while the gradient
    penalties are about each image by itself [WGAN-GP, sec. 4].
    """

    def __init__(self):
        super().__init__()
        widths = [28 * 28, *DISCRIMINATOR_HIDDEN]
        hidden = []
        for inputs, outputs in zip(widths, widths[1:]):
            # Below 0, LeakyReLU has the slope 0.2 [DCGAN, sec. 4], so it passes some gradient on.
            hidden += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]  # [B, 512], then [B, 256]
        self.layers = nn.Sequential(
            nn.Flatten(),  # [B, 784]
            *hidden,
            nn.Linear(widths[-1], 1),  # [B, 1]
        )

    def forward(self, images):
        return self.layers(images)


# %% 6. Losses
def loss_entry(
    critic, generator, *, optimizer=torch.optim.Adam, betas=(0.0, 0.99), critic_lr=1e-3,
    generator_lr=1e-3, critic_steps=1, clip=0, gp=0, r1=0, r2=0, penalty_every=1,
):
    """One entry of the table below. What an entry leaves out has this function's default value.

    critic, generator  what each network minimises, a mean over the batch, from the scores of real
                       and of fake images, [B, 1] each
    optimizer, betas   how both networks learn. betas are Adam's, None for RMSprop.
    critic_lr, generator_lr   the step size of each
    critic_steps       steps of the critic before each step of the generator
    clip               keeps each weight of the critic between -clip and clip, 0 for no clip
    gp, r1, r2         weights of the penalties below, 0 for none
    penalty_every      with 8, every 8th critic step has a penalty, and it is 8 times as strong
    """
    return SimpleNamespace(**locals())


def loss_table():
    """Every loss by its name. To add one, add an entry, and its name to LOSSES.

    Four settings were tried for each, and judged on training images that the judge does not know:
    docs/results.md lists them. With the paper's own rates, 5e-5 for both networks, WGAN's
    distance was 54 after four epochs, and 3.5 with these.
    """
    return {
        # [GAN, eq. 1; sec. 3 for G]. With P = sigmoid(score): -log P(x) - log(1 - P(G(z))) for D
        # and -log P(G(z)) for G. softplus(-score) is -log P without ever a log(0).
        "BCE": loss_entry(
            critic=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
            generator=lambda real, fake: F.softplus(-fake).mean()),
        # BCE with a penalty on D's slope at real images [R1]: see penalty() below.
        "BCE-R1": loss_entry(
            critic=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
            generator=lambda real, fake: F.softplus(-fake).mean(),
            r1=0.3, penalty_every=8),
        # [LSGAN, eq. 9]: real images should score 1, fake ones 0: (D(x) - 1)^2 / 2 + D(G(z))^2 / 2
        # for D, (D(G(z)) - 1)^2 / 2 for G. If D is best, G's loss plus (D(x) - 1)^2 / 2 is 1/4 +
        # chi2 / 8, where chi2 is Pearson's divergence between p_data + p_G and 2 p_G.
        "LSGAN": loss_entry(
            critic=lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
            generator=lambda real, fake: (fake - 1).square().mean() / 2),
        # [WGAN, eq. 3, alg. 1]: D(G(z)) - D(x) for D, -D(G(z)) for G. A function is Lipschitz if it
        # changes from point to point by at most a constant times their distance. Without this bound
        # the critic's loss could fall without end. The clip keeps D Lipschitz, but the constant is
        # unknown. So G minimises, roughly, a multiple of the Wasserstein distance. No Adam with
        # beta1 > 0: see sec. 4.2. Some tutorials keep a Sigmoid and never clip: that is no WGAN.
        "WGAN": loss_entry(
            critic=lambda real, fake: fake.mean() - real.mean(),
            generator=lambda real, fake: -fake.mean(),
            optimizer=torch.optim.RMSprop, betas=None, critic_lr=5e-5, generator_lr=1e-3,
            critic_steps=5, clip=0.01),
        # [WGAN-GP, eq. 3, alg. 1]: a penalty in place of the clip.
        "WGAN-GP": loss_entry(
            critic=lambda real, fake: fake.mean() - real.mean(),
            generator=lambda real, fake: -fake.mean(),
            betas=(0.0, 0.9), critic_steps=5, gp=10),
        # [HINGE]: max(0, 1 - D(x)) + max(0, 1 + D(G(z))): nothing more to gain beyond 1 and -1.
        "hinge": loss_entry(
            critic=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
            generator=lambda real, fake: -fake.mean()),
        # [R3GAN, sec. 2]: only the difference of a real and a fake score counts. This comparison
        # with real images keeps G from leaving out kinds of image. In theory, R1 or R2 makes the
        # training converge if it is near the solution. The paper's trials needed both.
        "R3GAN": loss_entry(
            critic=lambda real, fake: F.softplus(fake - real).mean(),
            generator=lambda real, fake: F.softplus(real - fake).mean(),
            r1=1.0, r2=1.0, penalty_every=8),
    }


def slopes(critic, images):
    """The gradient of each image's score with respect to its pixels, [B, 1, 28, 28]."""
    images = images.clone().requires_grad_()
    # Each score depends on its own image only, so the gradient of the sum of all scores contains
    # the slope for each image. create_graph=True lets backward() differentiate the slopes, too.
    (gradients,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return gradients


def penalty(loss, critic, real_images, fake_images, share):
    """The sum of the penalties that an entry asks for.

    r1, r2  half the mean squared length of the slopes, r1 at real images, r2 at fake ones [R1, eqs.
            9, 10].
            D's slope moves G. So where D is flat, at the real images, G can come to rest.
    gp      the mean of (length - 1)^2 of the slopes at random mixes of a real image and a fake one.
            WGAN's best critic has slope 1 between a fake and its best match. [WGAN-GP, prop. 1]
            Here, as in eq. 3, the pairs are random. share: how much of a mix is real, [B, 1, 1, 1].
    """
    value = torch.zeros((), device=real_images.device)
    for weight, images in ((loss.r1, real_images), (loss.r2, fake_images)):
        if weight:
            value = value + weight / 2 * slopes(critic, images).square().sum((1, 2, 3)).mean()
    if loss.gp:
        between = slopes(critic, share * real_images + (1 - share) * fake_images)
        value = value + loss.gp * (between.flatten(1).norm(dim=1) - 1).square().mean()
    return value


# %% 7. One training step
#   1. G draws fake images, and the critic scores a batch of real images and these.
#   2. The critic's weights move. For WGAN they are clipped. Steps 1 and 2 come critic_steps times.
#   3. The new critic scores the last real and fake images again, and G's weights move.
#   4. The average of G's weights moves towards G. Only results and files use it.
def sample_latents(count, rng, device="cpu"):
    """Draw latent vectors from the standard normal distribution: [count, LATENT_DIM]."""
    return torch.randn(count, LATENT_DIM, generator=rng).to(device)


def next_batch(gan, images):
    """The next BATCH_SIZE real images. Shuffles all of them anew when too few are left."""
    if len(gan.order) < BATCH_SIZE:
        gan.order = torch.randperm(len(images), generator=gan.order_rng)
    batch, gan.order = gan.order[:BATCH_SIZE], gan.order[BATCH_SIZE:]
    return images[batch.to(images.device)]


def critic_step(critic, optimizer, loss, real_images, fake_images, share, penalty_weight=0):
    """Teach D to score real above fake images. Returns loss D, mean scores of real and fake."""
    fake_images = fake_images.detach()  # Keeps the gradient out of G, because only D learns now.
    # One pass with both halves is faster than two, and the same: D has no BatchNorm to mix them.
    real_scores, fake_scores = critic(torch.cat([real_images, fake_images])).chunk(2)  # [B, 1] each
    value = to_minimise = loss.critic(real_scores, fake_scores)
    if penalty_weight:
        to_minimise = value + penalty_weight * penalty(
            loss, critic, real_images, fake_images, share
        )
    optimizer.zero_grad()
    to_minimise.backward()
    optimizer.step()
    if loss.clip:
        with torch.no_grad():
            for weights in critic.parameters():
                weights.clamp_(-loss.clip, loss.clip)
    return value.detach(), real_scores.detach().mean(), fake_scores.detach().mean()


def generator_step(generator, critic, optimizer, loss, real_images, fake_images):
    """Teach G to make images [B, 1, 28, 28] that D judges as real. Returns loss G."""
    # D has just changed, so it looks again. Only R3GAN needs the real images here.
    real_scores, fake_scores = critic(torch.cat([real_images, fake_images])).chunk(2)  # [B, 1] each
    value = loss.generator(real_scores, fake_scores)
    optimizer.zero_grad()
    # The gradient reaches G through D, but inputs= stores gradients only for G's weights.
    value.backward(inputs=list(generator.parameters()))
    optimizer.step()
    return value.detach()


@torch.no_grad()
def update_average(average, generator, step):
    """Move the average of G's weights towards G, less and less with each step.

    G keeps moving, because each batch differs and D changes as well. The mean of G's weights over
    many steps often draws better than its latest weights. [MEAN] If AVERAGE is 8, about two
    thirds of the mean come from the last eighth of all steps. A larger AVERAGE forgets sooner.
    """
    share = AVERAGE / (AVERAGE + step)
    for mean, weight in zip(average.parameters(), generator.parameters()):
        mean.lerp_(weight, share)  # mean + share * (weight - mean)
    for copied, buffer in zip(average.buffers(), generator.buffers()):
        copied.copy_(buffer)  # BatchNorm's statistics, if G has BatchNorm.


def train_step(gan, images):
    """The critic steps of gan.loss, then one step of G. Returns [4]: loss D, loss G, both scores.

    G learns from the fake images of the last critic step. (In [WGAN, alg. 1] it draws new ones.)
    Loss D and the scores are of the last critic step, too.
    """
    loss = loss_table()[gan.loss]
    for _ in range(loss.critic_steps):
        real_images = next_batch(gan, images)  # [B, 1, 28, 28]
        latents = sample_latents(len(real_images), gan.latents_rng, images.device)
        fake_images = gan.generator(latents)  # [B, 1, 28, 28]
        share = torch.rand(len(real_images), 1, 1, 1, generator=gan.penalty_rng).to(images.device)
        # A penalty costs more passes through D. To save time, only every penalty_every-th step has
        # it, multiplied by that number. Its mean gradient stays about the same. [LAZY, app. B]
        penalty_weight = loss.penalty_every if gan.critic_steps % loss.penalty_every == 0 else 0
        loss_d, real_score, fake_score = critic_step(
            gan.discriminator, gan.optimizer_d, loss, real_images, fake_images, share,
            penalty_weight if loss.r1 or loss.r2 or loss.gp else 0,
        )
        gan.critic_steps += 1
    loss_g = generator_step(
        gan.generator, gan.discriminator, gan.optimizer_g, loss, real_images, fake_images
    )
    if AVERAGE:
        update_average(gan.average, gan.generator, gan.step)
    gan.step += 1
    return torch.stack([loss_d, loss_g, real_score, fake_score])


# %% 8. Training
def random_stream(use, seed):
    """Random numbers for one purpose, made on the CPU, so that they are the same for any device.

    Equal seeds give equal numbers. If the seed itself were used for the first weights and for the
    fixed latents, both would come from the same stream. So each use has a seed of its own.
    """
    uses = ["weights", "data order", "training latents", "fixed latents", "judged latents",
            "batchnorm latents", "penalty", "judge", "drawn digits", "judge data", "test images"]
    seeds = torch.randint(2**32, (len(uses),), generator=torch.Generator().manual_seed(seed))
    return torch.Generator().manual_seed(seeds[uses.index(use)].item())


def build_gan(device, loss, seed):
    """Make the whole state of one training, as a namespace. A checkpoint holds each entry.

    For one seed, each loss gets the same first weights, latents and order of the images.
    """
    torch.manual_seed(random_stream("weights", seed).initial_seed())  # Seeds the first weights.
    gan = SimpleNamespace(loss=loss, seed=seed, step=0, critic_steps=0)
    gan.generator, gan.discriminator = Generator().to(device), Discriminator().to(device)
    gan.average = copy.deepcopy(gan.generator) if AVERAGE else gan.generator  # For results.
    entry = loss_table()[loss]
    settings = {"betas": entry.betas, "fused": True} if entry.betas else {}  # fused: only faster.
    weights_g, weights_d = gan.generator.parameters(), gan.discriminator.parameters()
    gan.optimizer_g = entry.optimizer(weights_g, lr=entry.generator_lr, **settings)
    gan.optimizer_d = entry.optimizer(weights_d, lr=entry.critic_lr, **settings)
    gan.order_rng = random_stream("data order", seed)
    gan.latents_rng = random_stream("training latents", seed)
    gan.penalty_rng = random_stream("penalty", seed)
    # Always the same latents in pictures, so that only G differs from one picture to the next.
    gan.fixed_latents = sample_latents(64, random_stream("fixed latents", seed), device)
    gan.order = torch.empty(0, dtype=torch.int64)  # Indices of images yet to come.
    gan.history = []  # The rows of the table, a dictionary each.
    return gan


def train_epoch(gan, images):
    """Take an epoch's generator steps. Returns the means of train_step's four numbers."""
    steps = max(1, len(images) // BATCH_SIZE)
    totals = torch.zeros(4, device=images.device)
    for number in range(1, steps + 1):
        totals += train_step(gan, images)
        show_progress(number, steps)
    return (totals / steps).tolist()  # The sums go to the CPU only here.


def renew_statistics(gan):
    """Measure BatchNorm's mean and deviation anew for the averaged G, over 6,400 latents.

    The averaged weights never processed a batch in training, so they need statistics of their own,
    or the images look worse than those of G itself.
    """
    latents = sample_latents(6400, random_stream("batchnorm latents", gan.seed))
    update_bn(latents.to(gan.fixed_latents.device).split(64), gan.average)


def train(gans, images, judge):
    """Train each of gans until the end of epoch EPOCHS. Measure and save after each epoch."""
    say("\nloss      seed  epoch    loss D    loss G  real score  fake score  distance  seconds"
        "  minutes left")
    for gan in gans:
        for epoch in range(len(gan.history) + 1, EPOCHS + 1):
            start = time.perf_counter()
            means = train_epoch(gan, images)
            seconds = time.perf_counter() - start
            renew_statistics(gan)
            end_epoch(gan, gans, judge, epoch, means, seconds)


# %% 9. The judge and its metrics
# You may compare figures of two runs on the same data, because their judges are equal except for
# rounding. Rounding differs with the number of threads: distances moved by up to 14 %. So take them
# for equal if they differ by less than 15 %. Papers use other judges, which have other scales.
class Judge(nn.Module):
    """A small CNN that names the digit in images [B, 1, 28, 28]: features [B, 96], logits [B, 10].

    The features are what it sees in an image. Images that look alike to the judge have similar
    features, even if their pixels differ much. [FID] takes features from Inception, a far
    larger network, which was trained on photographs and not to tell digits apart. Of the features
    here, 64 are about shapes: the judge decides by them. The other 32 are about specks, blur and
    strokes, wherever they are: means, over the whole image, of a layer that sees 5 x 5 pixels.
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
            # BatchNorm gives these features, and with them the distances, a fixed scale.
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
    hardly saw specks. See docs/results.md.
    """
    return {"seed": random_stream("judge", 0).initial_seed(), "rounds": 3, "batch": 128, "lr": 2e-3,
            "means": 0.25}


def train_judge(images, labels):
    """A judge that has learnt the labels, int64 [N], of the first five sixths of the images.

    These are MNIST's first 50,000. It is the same judge every time, except for rounding. A judge of
    another seed has another scale.
    """
    recipe, rng, known = judge_recipe(), random_stream("judge data", 0), len(images) * 5 // 6
    torch.manual_seed(recipe["seed"])  # Seeds the first weights.
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
    return {"distance": frechet_distance(real_features, features), "readable": named.sum().item(),
            "digits": (named >= 0.01).sum().item(), "precision": precision, "recall": recall}


def frechet_distance(real, fake):
    """How far apart two sets of features [N, 96] are, each taken for a Gaussian distribution.

    |mean_r - mean_f|^2 + trace(C_r + C_f - 2 (C_r C_f)^(1/2)), C: covariances. [FID, eq. 6]
    It grows with bad images and with missing kinds of image, but does not say which of the two it
    is. It is a squared distance, as in the paper, and larger for fewer images: so compare equally
    many. A GAN that copied its training images would have an excellent value.
    """
    # A trace is the sum of the eigenvalues. Those of (C_r C_f)^(1/2) are the roots of C_r C_f's.
    cov_r, cov_f = real.T.cov(), fake.T.cov()
    roots = torch.linalg.eigvals(cov_r @ cov_f).real.clamp(min=0).sqrt()  # Rounding may go below 0.
    means = (real.mean(0) - fake.mean(0)).square().sum()
    return (means + cov_r.trace() + cov_f.trace() - 2 * roots.sum()).item()


def precision_and_recall(real, fake):
    """Share of fakes that look real, and share of real images that the fakes come near. [PR]

    Each real image has a ball, which reaches to its third nearest real neighbour. A fake in any of
    these looks real (eqs. 1, 2). Recall is the same with the sides swapped.
    Precision is fidelity, recall is variety. An odd real image has a large ball, which flatters
    precision. An odd fake one flatters recall. Only the first 5,000 of each count, to save memory.
    """
    real, fake = real[:5000].float(), fake[:5000].float()
    distances = torch.cdist(real, fake)  # [real, fake]
    # The fourth smallest distance, because the smallest is that of an image to itself.
    real_radius, fake_radius = [torch.cdist(x, x).kthvalue(4).values for x in (real, fake)]
    precision = (distances <= real_radius.unsqueeze(1)).any(0).double().mean().item()
    return precision, (distances <= fake_radius).any(1).double().mean().item()


def measure_digits(source, search=False):
    """Print the figures of anybody's images beside those of real ones, as a Markdown table.

    source: a .npy file or an array, uint8 [N, 28, 28] or floats from -1 to 1 [N, 1, 28, 28], where
    black is the lowest value. Only the first 10,000 count, and they must not be sorted by digit.
    They are compared with test images. To choose settings, use search=True: then they are compared
    with training images that are new to the judge, and test images take the place of the fakes in
    the row of real images. Returns the figures of both rows.
    """
    images = read_digits(source)  # [N, 1, 28, 28]
    output().mkdir(parents=True, exist_ok=True)
    judge = prepare_judge(*load_images(), search)
    name = Path(source).name if isinstance(source, (str, Path)) else "images"
    rows = {"real images": judge.other_images[: len(images)], name: images}
    figures = {row: measure(judge, part.to(judge.scale.device)) for row, part in rows.items()}
    say(f"\n{figure_table({row: [found] for row, found in figures.items()})}\n"
        f"{len(images):,} images of each row against as many {judge.about}")
    return figures


# %% 10. Main
def main():
    check_constants()
    with open_output():  # Only one run at a time can use the folder.
        device = find_device()
        images, labels, data_name = load_images()
        images = images.to(device)
        gans = [build_gan(device, loss, seed) for seed in SEEDS for loss in LOSSES]
        begin(gans, images, labels, data_name)  # Resume, or move the files of an earlier run away.
        judge = prepare_judge(images, labels, data_name)
        try:
            train(gans, images, judge)
        except KeyboardInterrupt:
            say("\nStopped.")
        finally:  # Also after an error, because the pictures so far may show what went wrong.
            finish(gans, judge)


# %% 11. Plumbing: files, pictures, data, checks. Nothing below is about how a GAN learns.
def output(name=""):
    """The path of a file in OUTPUT_DIR."""
    return Path(OUTPUT_DIR).expanduser() / name


def say(text):
    """Print. This does not fail if the console lacks a letter, or if the output was closed."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "replace").decode(), flush=True)
    except OSError:  # For example after `python train_gan.py | head`.
        sys.stdout = open(os.devnull, "w")


def show_progress(number, count):
    """Show the number of the step within the epoch, on a terminal and in a notebook."""
    moves = "ipykernel" in sys.modules or sys.stdout and sys.stdout.isatty()
    if moves and (number % 20 == 0 or number == count):
        line = f"  step {number} of {count}" if number < count else " " * 30
        print(f"\r{line}\r", end="", flush=True)


def find_device():
    """The device that DEVICE names. "auto" takes an NVIDIA GPU if a first operation on it works."""
    # For convolutions on a GPU: the same in each run, and no rounding to TF32.
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    name = DEVICE if DEVICE != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).add(1).item()  # PyTorch has no code for GPUs that are too old.
    except Exception as error:
        reason = f"{name!r} cannot be used: {str(error).splitlines()[0]}"
        if DEVICE != "auto":
            raise SystemExit(f"DEVICE = {reason}") from None
        say(f"Note      the device {reason}. The CPU is used instead.")
        name = "cpu"
    return torch.device(name)


def open_output():
    """Make OUTPUT_DIR and lock it against a second run. If this run is killed, the lock ends."""
    try:
        output().mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(output("lock"), timeout=0)  # It stores nothing.
        lock.execute("BEGIN EXCLUSIVE")
        for path in output().glob("part.*"):  # Left behind by a run that was killed while it wrote.
            path.unlink()
    except (OSError, sqlite3.Error) as error:
        reason = "another run is using it" if "locked" in str(error) else error
        raise SystemExit(f"OUTPUT_DIR = {OUTPUT_DIR!r} cannot be used: {reason}.") from None
    return contextlib.closing(lock)


def write_whole(name, save):
    """Let save(file) write a temporary file. Once it is whole, it becomes OUTPUT_DIR/name."""
    beside = output(f"part.{name}")
    try:
        with open(beside, "wb") as file:
            save(file)
        beside.replace(output(name))
    except (OSError, RuntimeError) as error:  # torch.save can raise RuntimeError.
        say(f"Cannot write {output(name)}: {error}. The old one, if any, is kept. The run goes on.")
        with contextlib.suppress(OSError):
            beside.unlink()


def save_checkpoint(gan):
    """Write the state of one training."""
    state = {name: part.get_state() if isinstance(part, torch.Generator)
             else part.state_dict() if hasattr(part, "state_dict") else part
             for name, part in vars(gan).items()}
    write_whole(checkpoint_name(gan), lambda file: torch.save(state, file))


def load_checkpoint(gan):
    """Load the saved state into gan. Exits if it is damaged, or does not fit."""
    may_change = {"LOSSES", "SEEDS", "EPOCHS", "RESUME", "OUTPUT_DIR", "DATA_DIR", "DEVICE",
                  "device"}
    try:
        state = torch.load(output(checkpoint_name(gan)), map_location="cpu", weights_only=True)
        for name in sorted(state["made_with"] | gan.made_with):
            old, new = state["made_with"].get(name), gan.made_with.get(name)
            if old != new and name not in may_change:
                raise ValueError(f"it was made with {name} = {old!r}, and now it is {new!r}")
        if state["made_with"]["device"] != gan.made_with["device"]:
            say("Note      the checkpoint is from another device, so results may differ.")
        for name, part in vars(gan).items():
            load = getattr(part, "load_state_dict", getattr(part, "set_state", None))
            if load:
                load(state[name])
            elif name not in ("made_with", "fixed_latents"):  # The latents come from the seed.
                setattr(gan, name, state[name])
    except Exception as error:  # A damaged file fails in many ways.
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        raise SystemExit(f"{output(checkpoint_name(gan))} cannot be used. {reason}. Undo what has "
                         f"changed, or start anew by RESUME = False. All files are kept.") from None


def checkpoint_name(gan):
    """The file for the state of one training."""
    return f"checkpoint_{gan.loss.lower()}_{gan.seed}.pt"


def begin(gans, images, labels, data_name):
    """Describe the run, also in run.txt. Resume, or move the files of an earlier run away."""
    if labels is None or len(images) < 30:
        raise SystemExit("load_images must return labels, too, because the judge learns from them, "
                         "and at least 30 images.")
    device = torch.cuda.get_device_name(images.device) if images.is_cuda else images.device.type
    sizes = [sum(w.numel() for w in net.parameters())
             for net in (gans[0].generator, gans[0].discriminator)]
    if not RESUME:
        set_aside_earlier_run()
    for gan in gans:
        # Except for may_change, a checkpoint must agree with this.
        gan.made_with = {**check_constants(), "data": data_name, "device": device}
        gan.made_with |= {f"{key} of {gan.loss}": getattr(value, "__name__", value)
                          for key, value in vars(loss_table()[gan.loss]).items()}
        gan.made_with |= {name: type(part).__name__ for name, part in vars(gan).items()}
        if RESUME and output(checkpoint_name(gan)).exists():
            load_checkpoint(gan)
        if len(gan.history) > EPOCHS:
            raise SystemExit(f"{gan.loss} with seed {gan.seed} has {len(gan.history)} epochs "
                             f"already, so EPOCHS = {EPOCHS} is too few to compare.")
    done = ", ".join(f"{gan.loss} {gan.seed}: {len(gan.history)}" for gan in gans if gan.history)
    text = (f"Data      {data_name}, {len(images):,} images of 28 x 28 pixels\n"
            f"Device    {device}, {torch.get_num_threads()} CPU threads\n"
            f"Versions  Python {platform.python_version()}, torch {torch.__version__}\n"
            f"Networks  generator {sizes[0]:,} parameters, discriminator {sizes[1]:,}\n"
            f"Output    {output().resolve()}\n"
            f"Start     after epochs {done or 0} of {EPOCHS}\n")
    say(text)
    text += "".join(f"{name} = {value!r}\n" for name, value in check_constants().items())
    write_whole("run.txt", lambda file: file.write(text.encode()))


def set_aside_earlier_run():
    """Move the files of an earlier run to OUTPUT_DIR/earlier_1 (2, 3, ...): all of them or none."""
    kinds, number = ("run.txt", "comparison.*", "history.csv", "generat*.*", "checkpoint_*.pt"), 1
    files = [path for kind in kinds for path in output().glob(kind)]
    if not files:
        return
    while (folder := output(f"earlier_{number}")).exists():
        number += 1
    folder.mkdir()
    try:
        for path in files:
            path.rename(folder / path.name)
    except OSError as error:  # Windows does not move a file that is open elsewhere.
        for path in folder.iterdir():
            path.rename(output(path.name))
        folder.rmdir()
        raise SystemExit(f"Cannot move a file of an earlier run. Is it open? {error}.") from None
    say(f"Kept      the files of an earlier run, in {folder}")


def end_epoch(gan, gans, judge, epoch, means, seconds):
    """Measure, save the state and print the row of an epoch."""
    if not math.isfinite(sum(means)):
        raise SystemExit(f"Stopped: a loss of {gan.loss} in epoch {epoch} is not a finite number. "
                         f"Lower its rates in section 6. What was saved before is kept.")
    start = time.perf_counter()
    features, _ = look_at(judge, sample_images(gan.average, gan.seed))
    distance = frechet_distance(judge.real_features[:SAMPLES], features)
    judging = time.perf_counter() - start
    names = "loss D", "loss G", "real score", "fake score"
    gan.history.append({
        "loss": gan.loss, "seed": gan.seed, "epoch": epoch, **dict(zip(names, means)),
        "distance": distance, "seconds": seconds, "G steps": gan.step,
        "D steps": gan.critic_steps, "data": gan.made_with["data"]})
    save_checkpoint(gan)
    # The time of an epoch is about proportional to its steps of G and D together.
    costs = [1 + loss_table()[other.loss].critic_steps for other in gans]
    rate = (sum(row["seconds"] for other in gans for row in other.history)
            / sum(cost * len(other.history) for cost, other in zip(costs, gans)))
    left = sum((EPOCHS - len(other.history)) * (cost * rate + judging)
               for cost, other in zip(costs, gans))
    say(f"{gan.loss:9}{gan.seed:5d} {epoch:6d} {means[0]:9.4f} {means[1]:9.4f} {means[2]:11.3f} "
        f"{means[3]:11.3f} {distance:9.2f} {seconds:8.1f} {left / 60:13.1f}")


def finish(gans, judge):
    """Measure what the latest whole epochs come to, also after Ctrl-C or an error in the next one.

    The files are written before anything is printed.
    """
    gans = [gan for gan in gans if gan.history and output(checkpoint_name(gan)).exists()]
    if not gans:
        return say("There is no checkpoint, so nothing more is written.")
    real, found = measure(judge, judge.other_images[:SAMPLES]), []
    for gan in gans:
        load_checkpoint(gan)
        images = sample_images(gan.average, gan.seed)
        features, _ = look_at(judge, sample_images(gan.generator, gan.seed))
        found.append({"seed": gan.seed, "loss": gan.loss, **measure(judge, images),
                      "G itself": frechet_distance(judge.real_features[:SAMPLES], features),
                      "G steps": gan.step, "D steps": gan.critic_steps,
                      "seconds": sum(row["seconds"] for row in gan.history),
                      "data": gan.made_with["data"]})
        if gan.seed == gans[0].seed:
            name = gan.loss.lower()
            weights = {key: tensor.cpu() for key, tensor in gan.average.state_dict().items()}
            pixels = images.add(1).mul(127.5).round().byte().squeeze(1).cpu().numpy()
            write_whole(f"generator_{name}.pt", lambda file: torch.save(weights, file))
            write_whole(f"generated_{name}.npy", lambda file: np.save(file, pixels))
    rows = [*found, {"seed": gans[0].seed, "loss": "real images", **real, "data": found[0]["data"]}]
    for name, table in (("comparison.csv", rows),
                        ("history.csv", [row for gan in gans for row in gan.history])):
        text = io.StringIO()
        writer = csv.DictWriter(text, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_whole(name, lambda file: file.write(text.getvalue().encode()))
    groups = {"real images": [real]}
    for row in found:
        groups.setdefault(row["loss"], []).append(row)
    text = f"{figure_table(groups)}\n{SAMPLES:,} images of each row against as many {judge.about}\n"
    write_whole("comparison.md", lambda file: file.write(text.encode()))
    picture = draw_comparison(gans, [real, *found])
    write_whole("comparison.png", lambda file: picture.savefig(file, dpi=150))
    if "ipykernel" in sys.modules:  # In a notebook, show it below the cell.
        sys.modules["IPython"].display.display(Image.open(output("comparison.png")))
    say(f"\n{text}\nAll files are in {output()}. RESUME = True goes on with what is missing.")


def sample_images(generator, seed):
    """SAMPLES images of a generator, float32 [N, 1, 28, 28], always from the same latents."""
    latents = sample_latents(SAMPLES, random_stream("judged latents", seed))
    device = next(generator.parameters()).device
    images = generate(generator, latents.to(device)).unsqueeze(1).to(device)  # [N, 1, 28, 28]
    return images.float().div_(127.5).sub_(1)  # As load_images does.


@torch.no_grad()
def generate(generator, latents):
    """Images of the latents as bytes, uint8 [N, 28, 28]: black is always 0, white always 255."""
    generator.eval()  # A BatchNorm layer, if any, then treats each image by itself.
    images = torch.cat([generator(part).cpu() for part in latents.split(1000)])  # [N, 1, 28, 28]
    generator.train()
    return images.add(1).mul(127.5).round().byte().squeeze(1)


def figure_table(groups):
    """A Markdown table with a row for each name: the figure, or mean ± deviation over the seeds."""
    columns = {"distance": 2, "G itself": 2, "readable": 3, "digits": 1, "precision": 3,
               "recall": 3, "G steps": 0, "D steps": 0, "seconds": 0}  # Decimals.
    columns = {key: decimals for key, decimals in columns.items()
               if any(key in found for group in groups.values() for found in group)}
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


def draw_comparison(gans, figures):
    """Images and loss curves of each loss, and the distances of all. Returns a Figure.

    figures: those of real images, then of each of gans. Images and curves are the first seed's.
    """
    shown = [(gan, found) for gan, found in zip(gans, figures[1:]) if gan.seed == gans[0].seed]
    looks = {gan.loss: {"color": f"C{number}", "ls": ("-", "--", "-.", ":")[number % 4],
                        "marker": "osD^vPX"[number % 7], "ms": 4}
             for number, (gan, _) in enumerate(shown)}
    figure = Figure(figsize=(11, 1.7 * len(shown) + 3.8), layout="constrained")  # Needs no display.
    figure.suptitle(f"One GAN on {figures[1]['data']}, AVERAGE {AVERAGE}: real images have a "
                    f"distance of {figures[0]['distance']:.2f}")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.7 * len(shown), 3.8))
    panels = top.subplots(len(shown), 2, squeeze=False, width_ratios=(8, 3))
    for (samples, curves), (gan, found) in zip(panels, shown):
        grid = generate(gan.average, gan.fixed_latents[:40]).view(2, 20, 28, 28)
        grid = grid.transpose(1, 2).reshape(56, 560).numpy()
        samples.imshow(grid, cmap="gray", vmin=0, vmax=255)
        samples.set(xticks=[], yticks=[])
        title = f"{gan.loss}: distance {found['distance']:.2f}"
        samples.set_title(title, loc="left", weight="bold")
        rows = {key: [row[key] for row in gan.history] for key in gan.history[0]}
        lines = {"loss D": rows["loss D"], "loss G": rows["loss G"]}
        if loss_table()[gan.loss].clip or loss_table()[gan.loss].gp:  # WGAN and its like.
            gaps = [real - fake for real, fake in zip(rows["real score"], rows["fake score"])]
            lines = {"D(x) - D(G(z))": gaps}
        for (label, values), style in zip(lines.items(), ("o-", "s--")):
            curves.plot(rows["epoch"], values, style, color="black", ms=3, lw=1, label=label)
        curves.set(xlim=(0, EPOCHS + 1))
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
        axes.axhline(figures[0]["distance"], color="grey", lw=1, label="real images")
        axes.set(yscale="log", xlabel=label)
        axes.set_xlim(left=0)
        axes.margins(x=0.05)
    left.set(ylabel="distance from real images (less is better)")
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def prepare_judge(images, labels, data_name, search=False):
    """The judge in judge.pt if the same recipe and data made it, or else a new one, kept there.

    Takes the training images and their labels. With the judge comes what it sees in the real images
    that others are compared with, and the images for the row of real images (section 9).
    """
    judge = Judge().to(images.device).eval()
    made_with = {**judge_recipe(), "layers": str(judge), "data": data_name, "images": len(images),
                 "white": (images > 0).sum().item()}
    try:
        saved = torch.load(output("judge.pt"), map_location="cpu", weights_only=True)
        if saved["made with"] != made_with:
            raise ValueError
        judge.load_state_dict(saved["judge"])
    except Exception:  # No file, a damaged one, or one of another recipe or other data.
        judge = train_judge(images, labels.to(images.device))
        saved = {"made with": made_with, "judge": judge.state_dict()}
        write_whole("judge.pt", lambda file: torch.save(saved, file))
    if data_name == "drawn digits":  # By choice, or because there was no download.
        test_images, test_labels = draw_digits(10_000, seed=1)
    else:
        test_images, test_labels, _ = load_images(train=False)
    # The first half of MNIST's test images is neater handwriting than the second: mixed, here.
    mixed = torch.randperm(len(test_images), generator=random_stream("test images", 0))
    test_images = test_images[mixed].to(images.device)
    features, probabilities = look_at(judge, test_images)
    right = (probabilities.argmax(1) == test_labels[mixed]).double().mean().item()
    say(f"Judge     names {right:.1%} right of {len(mixed):,} test images")
    if right < 0.7:
        say("Warning: a judge that names so few right sees little. Do not trust its figures.")
    unseen = images[len(images) * 5 // 6 :]  # The last 10,000 training images of MNIST.
    kinds = ("training", "test") if search else ("test", "training")
    judge.real_features = look_at(judge, unseen)[0] if search else features
    judge.other_images = test_images if search else unseen
    judge.about = (f"{kinds[0]} images of {data_name}.\nReal images: {kinds[1]} images of it that "
                   f"the judge has not learnt from.")
    return judge


def read_digits(source):
    """Images from a .npy file or an array, float32 [N, 1, 28, 28] from -1 to 1.

    Raises SystemExit, in one line, if it is none or if these are no such images.
    """
    wanted = "Wanted: at least 100, uint8 [N, 28, 28] or floats from -1 to 1 [N, 1, 28, 28]."
    try:  # np.load runs no code from the file.
        images = np.load(source) if isinstance(source, (str, Path)) else source
        images = torch.as_tensor(images).detach().cpu()
    except Exception as error:  # Another kind of file, or a damaged one: it fails in many ways.
        reason = f"{source} cannot be read. {type(error).__name__}: {error}. {wanted}"
        raise SystemExit(" ".join(reason.split())) from None
    shape = list(images.shape)
    if shape[1:] not in ([28, 28], [1, 28, 28]) or shape[0] < 100:
        raise SystemExit(f"Images of shape {shape} cannot be measured. {wanted}")
    images = images[:10_000].reshape(-1, 1, 28, 28)
    if images.dtype == torch.uint8:
        return images.float().div_(127.5).sub_(1)  # As load_images does.
    low, high = images.min().item(), images.max().item()
    if not images.is_floating_point() or not (-1.01 <= low < -0.5 and high <= 1.01):  # Or NaN.
        raise SystemExit(f"Images of {images.dtype} from {low:g} to {high:g} cannot be measured. "
                         f"{wanted}")
    return images.float()


def fetch_dataset(train):
    """Read DATASET. If it is missing, download it. If that fails, say so and return None."""
    reader, folder = getattr(torchvision.datasets, DATASET), Path(DATA_DIR).expanduser()
    files = [folder / DATASET / "raw" / Path(name).stem for name, _ in reader.resources]
    missing = not all(file.exists() for file in files)
    try:
        if missing:
            say(f"Download  {DATASET}, 12 to 31 MB, to {files[0].parent}")
            socket.setdefaulttimeout(15)  # It gives up after 15 seconds without an answer.
        dataset = reader(folder, train=train, download=missing)
        deviation, mean = torch.std_mean(dataset.data[:1000].float())  # Mostly black: mean < std.
        if deviation <= mean or dataset.targets.unique().tolist() != list(range(10)):
            raise ValueError(f"the content is not that of {DATASET}")
        return dataset
    except Exception as error:  # Downloads and damaged files fail in many ways.
        reason = str(error).strip() or type(error).__name__
    if not missing:
        raise SystemExit(f"{', '.join(map(str, files))}: one of these is damaged or cannot be read "
                         f"({reason}). Move them away, and the next run downloads them again.")
    say(f"{'=' * 98}\n{DATASET} IS NOT THERE AND CANNOT BE DOWNLOADED: {reason}\nDRAWN DIGITS are "
        f"used instead: fonts, bent until they look like handwriting. Results\nare not those of "
        f"{DATASET}. To use it, get these four files from {reader.mirrors[0]}\nand put them, "
        f"unpacked, here:\n" + "\n".join(map(str, files)) + f"\n{'=' * 98}")


def draw_digits(count, seed=0):
    """Draw digits that resemble handwriting, the same ones for the same seed.

    Returns images, float32 [count, 1, 28, 28] from -1 to 1, and labels, int64 [count], from 0 to 9.
    """
    torch.manual_seed(random_stream("drawn digits", seed).initial_seed())
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


def check_constants():
    """The constants by name. Exits with a message of one line if any cannot be used."""
    try:
        losses, scores = loss_table(), torch.zeros(2, 1)
        for entry in losses.values():  # Each is tried once, before anything is trained.
            entry.critic(scores, scores).item(), entry.generator(scores, scores).item()
    except Exception as error:
        raise SystemExit(f"An entry of loss_table in section 6 is wrong: {error}.") from None
    hidden = (1, 10_000, range(1, 5))
    rules = {  # str, [choices], (lowest, highest), or (lowest, highest, allowed tuple lengths).
        "DATASET": ["MNIST", "FashionMNIST", "KMNIST", "drawn"], "DATA_DIR": str,
        "LOSSES": set(losses), "SEEDS": (0, 2**32 - 1, range(1, 101)), "LATENT_DIM": (1, 10_000),
        "GENERATOR_HIDDEN": hidden, "DISCRIMINATOR_HIDDEN": hidden, "EPOCHS": (1, 999),
        "BATCH_SIZE": (2, 60_000), "AVERAGE": (0.0, 1000.0), "DEVICE": str,
        "RESUME": [False, True], "SAMPLES": (100, 10_000), "OUTPUT_DIR": str}
    for name, rule in rules.items():
        value = globals().get(name)
        if isinstance(rule, list):
            right, wanted = value in rule, f"one of {rule}"
        elif isinstance(rule, set):
            right = isinstance(value, tuple) and value and all(word in list(rule) for word in value)
            wanted = f"a tuple of names from {sorted(rule)}, such as ('BCE',) with its comma"
        elif rule is str:
            right, wanted = isinstance(value, str), "a text"
        else:
            low, high, *counts = rule
            right = not counts or type(value) is tuple and len(value) in counts[0]
            right = right and all(type(number) in (int, type(low)) and low <= number <= high
                                  for number in (value if counts else [value]))
            wanted = f"a {'whole ' * isinstance(low, int)}number from {low} to {high}"
            if counts:
                wanted += f", in a tuple of length {counts[0][0]} to {counts[0][-1]}: (64,) has 1"
        if not right or name in ("LOSSES", "SEEDS") and len(set(value)) < len(value):
            raise SystemExit(f"{name} = {value!r} cannot be used. It must be {wanted}.")
    return {name: globals()[name] for name in rules}


if __name__ == "__main__":
    if len(sys.argv) > 1 and Path(sys.argv[0]).name == Path(globals().get("__file__", "")).name:
        raise SystemExit(f"{sys.argv[0]} takes no arguments: edit the constants in section 3.")
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped.")
