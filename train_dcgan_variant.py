# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.9"]
# ///
# %% 1. What and how
"""Train a GAN with BatchNorm and convolutions on MNIST: noise in, handwritten digits out.

The generator G turns a latent vector z, which is a list of random numbers, into an image. The
discriminator D looks at an image and says how likely it is to be real. They play a game. In theory,
D makes the following value high, and G makes it low. (In practice, and here, G makes -log D(G(z))
low instead. Section 6 says why.) [GAN, eq. 1, sec. 3]

    E[log D(x)] + E[log(1 - D(G(z)))]      x: a real image, z: a latent vector, E: a mean

By default G is fully connected and D is convolutional. GENERATOR = "conv" makes G convolutional,
too: with DISCRIMINATOR = "flatten", this is a small [DCGAN]. Often, training a GAN goes wrong. The
constant TRICKS takes known ideas against that. Each is explained where it acts: search its name.

    label_smoothing        D should call real images 0.9 real, not 1       [Salimans, sec. 3.4]
    spectral_norm          D treats similar images similarly               [SN]
    minibatch_stddev       D sees how much the images of a batch differ    [ProGAN, sec. 3]
    feature_matching       G imitates real images' mean features in D      [Salimans, sec. 3.1]
    historical_averaging   weights are pulled to their average so far      [Salimans, sec. 3.3]
    ttur                   D learns at four times the rate of G            [TTUR]
    frequency_separation   D also gets an image's fine detail by itself    [Fritsche]

Run it:  python train_dcgan_variant.py     (There are no options: edit the constants in section 3.)

It writes to outputs/train_dcgan_variant/:
    samples_epoch_001.png ...  64 images from the same 64 latents, every SAMPLE_EVERY epochs
    training.gif               the same 64 images as they change over the epochs
    interpolation.png          walks from latent to latent: does one digit turn into another?
    neighbours.png             samples beside the most similar training images: are they copies?
    losses.png, history.csv    the printed table, as curves and as a file
    generated.npy              10,000 images from other latents, to measure how good they are
    generator.pt               the weights of the G that made these images
    checkpoint.pt              the state from which RESUME = True continues the training
    run.txt                    the constants and the versions of this run
A new run moves the files of an earlier one to outputs/train_dcgan_variant/earlier_1/ (2, 3, ...).

How to read the table, which has a row for each epoch. These are means over the epoch's steps:
    loss D    2 ln 2 = 1.39 if D always says 0.5, a guess. Lower if D can tell real from fake.
    loss G    ln 2 = 0.69 if D guesses. Higher if D recognises the fakes, lower if it believes them.
    D(x)      D's probability that real images are real. 0.5 if D only guesses.
    D(G(z))   D's probability that fakes are real. 0.5 if D only guesses.
Loss G is measured after D's step, the other three before it. None of the four says how good the
images are, so look at the pictures. The script warns you if D has won (D(x) stays near 1 and
D(G(z)) near 0), or if the pictures are nearly all alike (total mode collapse).

docs/tutorials.md describes four tutorials. Settings of tutorial C: DISCRIMINATOR = "flatten",
EPOCHS = 50, BATCH_SIZE = 128, LEARNING_RATE = 2e-4, BETAS = (0.5, 0.999), R1 = 0, AVERAGE = 0,
SEED = 42. With them, D becomes too strong, and digits look alike. For the discriminator of
tutorial D, take the same settings, but DISCRIMINATOR = "pool".

[GAN]       Goodfellow et al. 2014, Generative Adversarial Nets, arxiv.org/abs/1406.2661
[DCGAN]     Radford et al. 2015, Deep Convolutional GANs, arxiv.org/abs/1511.06434
[Salimans]  Salimans et al. 2016, Improved Techniques for Training GANs, arxiv.org/abs/1606.03498
[Arjovsky]  Arjovsky and Bottou 2017, Towards Principled Methods, arxiv.org/abs/1701.04862
[TTUR]      Heusel et al. 2017, Two Time-Scale Update Rule, arxiv.org/abs/1706.08500
[ProGAN]    Karras et al. 2018, Progressive Growing of GANs, arxiv.org/abs/1710.10196
[SN]        Miyato et al. 2018, Spectral Normalization for GANs, arxiv.org/abs/1802.05957
[R1]        Mescheder et al. 2018, Which Training Methods Converge?, arxiv.org/abs/1801.04406
[Fritsche]  Fritsche et al. 2019, Frequency Separation, arxiv.org/abs/1911.07850
[LAZY]      Karras et al. 2020, StyleGAN2, arxiv.org/abs/1912.04958
[MEAN]      Shamir and Zhang 2013, polynomial-decay averaging, arxiv.org/abs/1212.1824
            Yazici et al. 2018, Averaging in GAN Training, arxiv.org/abs/1806.04498
[White]     White 2016, Sampling Generative Networks, arxiv.org/abs/1609.04468
"""

# %% 2. Imports
import contextlib
import copy
import csv
import io
import math
import os
import platform
import socket
import sqlite3
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
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, update_bn

# %% 3. Constants
# Data
DATASET = "MNIST"  # Or "FashionMNIST", "KMNIST", or "drawn": digits drawn here, no download.
DATA_DIR = "data"  # The dataset is looked for here, and downloaded to here if it is missing.
# Networks
GENERATOR = "mlp"  # Fully connected. Or "conv": transposed convolutions, as in [DCGAN].
DISCRIMINATOR = "hidden"  # Convolutions, then a hidden layer. Or "flatten", "pool": see section 5.
LATENT_DIM = 100  # Random numbers that make an image: 100 as in [DCGAN]. Try 2 to 500.
# Training
TRICKS = ()  # Names from the docstring's list, such as ("label_smoothing", "ttur") or ("ttur",).
EPOCHS = 8  # Passes over the data, up to 999. Digits are readable after epoch 2, and better later.
BATCH_SIZE = 64  # Real images in a step, 2 or more. Smaller batches: more steps, but noisier ones.
LEARNING_RATE = 2e-3  # Adam's step size in both networks. Try 5e-4 to 2e-3.
BETAS = (0.0, 0.99)  # Adam's memory: beta1 for gradients (0: none), beta2 for their squares.
R1 = 0.3  # How strong the penalty on D's slope is (section 6). 0: none. Try 0.1 to 1.
AVERAGE = 8  # Results use a mean of G's weights: mainly the last 1/AVERAGE of steps. 0: no mean.
DEVICE = "auto"  # An NVIDIA GPU if there is one, else the CPU. Or "cpu", "cuda", "cuda:1", "mps".
SEED = 0  # The same seed gives the same run on the same machine. Another seed: other digits.
RESUME = False  # True goes on from checkpoint.pt. To train for longer, raise EPOCHS as well.
# Output
OUTPUT_DIR = "outputs/train_dcgan_variant"  # Relative to the folder that you start in.
SAMPLE_EVERY = 1  # Pictures after epoch 1, after the last one, and at multiples of this number.


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
    """Turns latent vectors [B, LATENT_DIM] into images [B, 1, 28, 28] from -1 to 1.

    BatchNorm gives each feature or map mean 0 and deviation 1 over the batch, and then a learned
    scale and shift. For pictures, in eval mode, it uses fixed statistics instead: see section 8.
    """

    def __init__(self):
        super().__init__()
        if GENERATOR == "mlp":
            widths = [LATENT_DIM, 256, 512, 1024]
            hidden = []
            for inputs, outputs in zip(widths, widths[1:]):
                # [B, 256], then [B, 512], then [B, 1024]
                hidden += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
            self.layers = nn.Sequential(
                *hidden,
                nn.Linear(widths[-1], 28 * 28),  # [B, 784]
                nn.Tanh(),  # [B, 784], from -1 to 1 as the real images are
                nn.Unflatten(1, (1, 28, 28)),  # [B, 1, 28, 28]
            )
        else:
            self.layers = nn.Sequential(
                nn.Linear(LATENT_DIM, 64 * 7 * 7),  # [B, 3136]
                nn.Unflatten(1, (64, 7, 7)),  # [B, 64, 7, 7]
                nn.BatchNorm2d(64),
                nn.ReLU(),
                nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),  # [B, 32, 14, 14]
                nn.BatchNorm2d(32),
                nn.ReLU(),
                nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),  # [B, 1, 28, 28]
                nn.Tanh(),  # [B, 1, 28, 28], from -1 to 1 as the real images are
            )

    def forward(self, latents):
        return self.layers(latents)


class Discriminator(nn.Module):
    """Turns images [B, 1, 28, 28] into one logit each, [B, 1].

    A logit is any number, and its sigmoid is the probability D(x) that the image is real. The
    losses compute log D and log(1 - D) in one operation, because D can round to 0 or 1.
    """

    def __init__(self):
        super().__init__()
        channels = 2 if "frequency_separation" in TRICKS else 1
        extra = 1 if "minibatch_stddev" in TRICKS else 0
        # G learns from the gradient that passes through D, and LeakyReLU never blocks it. G's last
        # and D's first layer have no BatchNorm [DCGAN, sec. 3]. Only "pool" breaks this rule.
        if DISCRIMINATOR == "pool":  # Tutorial D: smaller kernels, BatchNorm twice, and averages.
            first = [nn.Conv2d(channels, 64, 3, stride=2, padding=1)]  # [B, 64, 14, 14]
            middle = [
                nn.BatchNorm2d(64),
                nn.LeakyReLU(0.2),
                nn.Conv2d(64, 128, 3, stride=2, padding=1),  # [B, 128, 7, 7]
                nn.BatchNorm2d(128),
                nn.LeakyReLU(0.2),
            ]
            last = [
                nn.AdaptiveAvgPool2d(1),  # [B, 128, 1, 1]
                nn.Flatten(),  # [B, 128], which Linear needs
                nn.Linear(128 + extra, 1),  # [B, 1]
            ]
        elif DISCRIMINATOR == "flatten":  # Tutorial C.
            first = [
                nn.Conv2d(channels, 64, 4, stride=2, padding=1),  # [B, 64, 14, 14]
                nn.LeakyReLU(0.2),
                nn.Conv2d(64, 128, 4, stride=2, padding=1),  # [B, 128, 7, 7]
            ]
            middle = [nn.BatchNorm2d(128), nn.LeakyReLU(0.2)]  # [B, 128, 7, 7]
            last = [
                nn.Flatten(),  # [B, 6272]
                nn.Linear((128 + extra) * 7 * 7, 1),  # [B, 1]
            ]
        else:
            # With "flatten", the logit is a sum over 7 x 7 places, each judged by itself: the
            # strokes come out right, but not the digit. Here, a layer that sees all places at once
            # judges the whole shape. Half as many maps save time.
            first = [
                nn.Conv2d(channels, 32, 4, stride=2, padding=1),  # [B, 32, 14, 14]
                nn.LeakyReLU(0.2),
                nn.Conv2d(32, 64, 4, stride=2, padding=1),  # [B, 64, 7, 7]
            ]
            middle = [nn.BatchNorm2d(64), nn.LeakyReLU(0.2)]  # [B, 64, 7, 7]
            last = [
                nn.Flatten(),  # [B, 3136]
                nn.Linear((64 + extra) * 7 * 7, 128),  # [B, 128]
                nn.LeakyReLU(0.2),
                nn.Linear(128, 1),  # [B, 1]
            ]
        if "spectral_norm" in TRICKS:
            # [SN, sec. 2] Each layer's weights are divided by their largest singular value. (One
            # step of power iteration at each use estimates it. A convolution's weights count as a
            # matrix with a row for each output channel.) So no layer amplifies a difference between
            # images by much: D is smooth. BatchNorm might amplify it, so it is left out.
            middle = [layer for layer in middle if not isinstance(layer, nn.BatchNorm2d)]
            for layer in first + middle + last:
                if hasattr(layer, "weight"):
                    spectral_norm(layer)
        self.first, self.middle = nn.Sequential(*first), nn.Sequential(*middle)
        self.last = nn.Sequential(*last)

    def features(self, images):
        """Feature maps of images [B, 1, 28, 28], before any BatchNorm: "hidden" has [B, 64, 7, 7].

        BatchNorm gives a real and a fake batch the same mean and deviation. So the tricks that
        measure batches, feature_matching and minibatch_stddev, have to look before it.
        """
        if "frequency_separation" in TRICKS:
            # An image minus its blurred copy leaves edges and fine detail, which G learns last. The
            # D of [Fritsche] sees nothing else. Here they are a second channel beside the image.
            blur = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
            images = torch.cat([images, images - blur], 1)  # [B, 2, 28, 28]
        return self.first(images)

    def judge(self, features):
        """The logits [B, 1] of images with these features."""
        maps = self.middle(features)  # [B, 64, 7, 7] for "hidden"
        if "minibatch_stddev" in TRICKS:
            # [ProGAN, sec. 3] One number says how much the images of this batch differ. Each image
            # gets it as one more map. It betrays fakes that are all alike. In black corners,
            # the variance of features is 0, where sqrt has an infinite slope. So 1e-6 is added.
            spread = (features.var(0, correction=0) + 1e-6).sqrt().mean()
            maps = torch.cat([maps, spread.expand(len(maps), 1, 7, 7)], 1)  # Here [B, 65, 7, 7]
        return self.last(maps)

    def forward(self, images):
        return self.judge(self.features(images))


# %% 6. Losses
def discriminator_loss(real_logits, fake_logits):
    """What D minimises: the batch mean of -log D(x) - log(1 - D(G(z))). [GAN, eq. 1]

    Takes logits [B, 1] of real and fake images. If all are 0 (a guess), the loss is 2 ln 2 = 1.386.
    D maximises equation 1. Optimizers minimise, so here there is a minus.

    For a given G, the best D is D*(x) = p_data(x) / (p_data(x) + p_G(x)), where p_data and p_G say
    how common x is among real and among generated images. With D*, equation 1 is 2 JSD - 2 ln 2.
    JSD, the Jensen-Shannon divergence, says how far p_G is from p_data. If it is 0, D* is 0.5.
    [GAN, prop. 1, thm. 1] The loss does not say how good images are. First, D never equals D*.
    Second, D* may recognise good fakes by invisible details. Its loss is then 0. [Arjovsky, sec. 2]
    """
    # label_smoothing [Salimans, sec. 3.4]: with the target 0.9, the loss of a real image is least
    # at D(x) = 0.9, so D need not be certain. The target of fakes stays 0. If it were above 0, D
    # would rate even obvious fakes above 0, and G would have less reason to change them.
    target = 0.9 if "label_smoothing" in TRICKS else 1.0
    # Binary cross-entropy is -log D for the target 1, and -log(1 - D) for the target 0.
    targets = torch.full_like(real_logits, target)
    loss_real = F.binary_cross_entropy_with_logits(real_logits, targets)
    loss_fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return loss_real + loss_fake


def generator_loss(fake_logits):
    """What G minimises: the batch mean of -log D(G(z)). [GAN, sec. 3]

    Takes logits [B, 1] of fake images. If all are 0 (a guess), the loss is ln 2 = 0.693. In
    equation 1, G would minimise log(1 - D(G(z))). But if D recognises a fake, for example at the
    logit -5, the slope of this term in the logit is -0.007. That of -log D(G(z)) is -0.993.
    Suppose that D is D* for this G, and stays fixed. Then our loss has the same gradient for G as
    KL(p_G || p_data) - 2 JSD, if KL, the Kullback-Leibler divergence, is finite. [Arjovsky, thm.
    2.5] This difference equals 2 KL((p_G + p_data) / 2 || p_data): it is 0 only if p_G = p_data.
    """
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def r1_penalty(discriminator, real_images):
    """Mean squared length of D's slope at real images [B, 1, 28, 28], times R1 / 2. [R1, eq. 9]

    The slope is the gradient of the logit with respect to the pixels. It says which change makes an
    image look more real to D, and G learns such changes. Suppose that G's images are like real ones
    now. Then G should stop. But D's loss depends only on the images of its batches. So D may give
    higher logits close to them. This pulls G away, D reacts, and so on. Small slopes stop it.
    (BatchNorm and minibatch_stddev make images of a batch change each other's logits, so a slope is
    not quite one image's own. It works anyway.)
    """
    real_images = real_images.clone().requires_grad_()
    logits = discriminator(real_images)  # [B, 1]
    # Each logit depends (almost) only on its own image, so the gradient of their sum contains the
    # slope for each image. create_graph=True lets backward() differentiate the slopes, too.
    (slopes,) = torch.autograd.grad(logits.sum(), real_images, create_graph=True)
    return R1 / 2 * slopes.square().sum((1, 2, 3)).mean()


def feature_matching(real_features, fake_features):
    """Squared distance of the two batches' mean features. [Salimans, sec. 3.1]

    If TRICKS says so, G minimises it instead of generator_loss. G need not fool D then. Its images
    only have to give D the same features on average. With our D, G drew 2 or 3 kinds of digit then.
    minibatch_stddev is added after these features, so it gives G no gradient here.
    """
    return (real_features.mean(0) - fake_features.mean(0)).square().sum()


def historical_averaging(network, past):
    """A factor times the squared distance of the weights from their average. [Salimans, sec. 3.3]

    If TRICKS says so, each network adds this to its loss. It should damp oscillation: weights
    that circle around a point are pulled towards it. The paper gives no factor. With 1, the
    networks hardly learn. We found no factor that helps. 1e-4 does little harm.
    """
    pairs = zip(network.parameters(), past.parameters())
    return 1e-4 * sum((weight - mean.detach()).square().sum() for weight, mean in pairs)


# %% 7. One training step
#   1. G draws fake images from new latents.
#   2. D judges real images and the fake ones: D's loss. In every 8th step, R1's penalty is added.
#   3. D's weights move, so that D tells real from fake better. G's weights do not.
#   4. The new D judges the same fake images again: G's loss. ([GAN, alg. 1] draws new ones.)
#   5. G's weights move, so that D more often judges G's images as real. D's weights do not.
#   6. The average of G's weights moves towards G. Only pictures and files use it.
def sample_latents(count, rng, device="cpu"):
    """Draw latent vectors from the standard normal distribution: [count, LATENT_DIM]."""
    return torch.randn(count, LATENT_DIM, generator=rng).to(device)


def discriminator_step(
    discriminator, optimizer, real_images, fake_images, penalty_weight=0, past=None
):
    """Teach D to tell real from fake images [B, 1, 28, 28]. Returns loss D, mean D(x), D(G(z)).

    past is the average of D's weights so far, for historical_averaging. Loss D does not include
    its term, nor the penalty, so that runs with and without these can be compared.
    """
    # Only D learns now. Without detach(), the backward pass would go through G, too. It would take
    # time and free G's part of the graph, which generator_step still needs. D sees real and fake
    # images in two batches, not in a mixed one, because BatchNorm measures an image against its
    # batch. In G's step, all of the batch is fake, so D must learn on such batches.
    real_logits = discriminator(real_images)  # [B, 1]
    fake_logits = discriminator(fake_images.detach())  # [B, 1]
    loss = to_minimise = discriminator_loss(real_logits, fake_logits)
    if penalty_weight:
        to_minimise = loss + penalty_weight * r1_penalty(discriminator, real_images)
    if "historical_averaging" in TRICKS:
        to_minimise = to_minimise + historical_averaging(discriminator, past)
    optimizer.zero_grad()
    to_minimise.backward()
    optimizer.step()
    d_real, d_fake = real_logits.detach().sigmoid(), fake_logits.detach().sigmoid()
    return loss.detach(), d_real.mean(), d_fake.mean()


def generator_step(generator, discriminator, optimizer, fake_images, real_images=None, past=None):
    """Teach G to make images [B, 1, 28, 28] that D judges as real. Returns loss G.

    Only feature_matching needs real_images. Only historical_averaging needs past, the plain
    mean of G's weights. The returned loss G is that of generator_loss, whatever TRICKS are used.
    """
    features = discriminator.features(fake_images)  # D has just changed, so it looks again.
    loss = to_minimise = generator_loss(discriminator.judge(features))
    if "feature_matching" in TRICKS:
        with torch.no_grad():
            real_features = discriminator.features(real_images)
        to_minimise = feature_matching(real_features, features)
    if "historical_averaging" in TRICKS:
        to_minimise = to_minimise + historical_averaging(generator, past)
    optimizer.zero_grad()
    # The gradient reaches G through D, but inputs= stores gradients only for G's weights.
    to_minimise.backward(inputs=list(generator.parameters()))
    optimizer.step()
    return loss.detach()


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


def train_step(gan, real_images):
    """One step of D, then one of G. Returns loss D, loss G, D(x) and D(G(z)) in a tensor [4]."""
    latents = sample_latents(len(real_images), gan.latents_rng, real_images.device)
    fake_images = gan.generator(latents)  # [B, 1, 28, 28]
    # The penalty costs more passes through D. To save time, only every 8th step adds it, multiplied
    # by 8. So its mean gradient stays about the same [LAZY, app. B], but Adam's steps change a bit.
    penalty_weight = 8 if R1 and gan.step % 8 == 0 else 0
    loss_d, d_real, d_fake = discriminator_step(
        gan.discriminator, gan.optimizer_d, real_images, fake_images, penalty_weight, gan.past_d
    )
    loss_g = generator_step(
        gan.generator, gan.discriminator, gan.optimizer_g, fake_images, real_images, gan.past_g
    )
    if "historical_averaging" in TRICKS:
        gan.past_d.update_parameters(gan.discriminator)
        gan.past_g.update_parameters(gan.generator)
    if AVERAGE:
        update_average(gan.average, gan.generator, gan.step)
    gan.step += 1
    return torch.stack([loss_d, loss_g, d_real, d_fake])


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


def build_gan(device):
    """Make all parts of a run, in one namespace. A checkpoint keeps every entry of it."""
    torch.manual_seed(random_stream("weights", SEED).initial_seed())  # Seeds the first weights.
    gan = SimpleNamespace(step=0)
    gan.generator, gan.discriminator = Generator().to(device), Discriminator().to(device)
    gan.average = copy.deepcopy(gan.generator) if AVERAGE else gan.generator  # For outputs.
    # ttur [TTUR]: a D that learns faster knows G's latest images and guides G better. Here G's rate
    # is halved and D's is doubled, so D learns 4 times as fast, as in arxiv.org/abs/1805.08318.
    rate_g, rate_d = (0.5, 2) if "ttur" in TRICKS else (1, 1)
    adam = {"betas": BETAS, "fused": True}  # fused: only faster.
    gan.optimizer_g = torch.optim.Adam(gan.generator.parameters(), rate_g * LEARNING_RATE, **adam)
    gan.optimizer_d = torch.optim.Adam(
        gan.discriminator.parameters(), rate_d * LEARNING_RATE, **adam
    )
    gan.past_g = gan.past_d = None
    if "historical_averaging" in TRICKS:  # The averages of all weights so far.
        gan.past_g, gan.past_d = AveragedModel(gan.generator), AveragedModel(gan.discriminator)
    gan.order_rng = random_stream("data order", SEED)
    gan.latents_rng = random_stream("training latents", SEED)
    # Always the same latents in pictures, so that only G differs from one picture to the next.
    gan.fixed_latents = sample_latents(64, random_stream("fixed latents", SEED), device)
    gan.frames = []  # The images of the fixed latents after each epoch, each uint8 [64, 28, 28].
    gan.history = []  # The rows of the table, a dictionary each.
    return gan


def train_epoch(gan, images):
    """Show each image of [N, 1, 28, 28] once. Returns the means of train_step's four numbers."""
    order = torch.randperm(len(images), generator=gan.order_rng).to(images.device)
    # The last batch may be smaller. It is left out if it is one image: BatchNorm needs two.
    batches = [batch for batch in order.split(BATCH_SIZE) if len(batch) > 1]
    totals = torch.zeros(4, device=images.device)
    for number, batch in enumerate(batches, start=1):
        totals += train_step(gan, images[batch])
        show_progress(number, len(batches))
    return (totals / len(batches)).tolist()  # The sums go to the CPU only here.


def renew_statistics(gan):
    """Measure BatchNorm's mean and deviation anew for gan.average, over 6,400 latents.

    Averaged weights never processed a batch in training, so they need statistics of their own,
    or the pictures look worse than those of G itself. (Tutorial C sets BatchNorm's momentum to 0.8.
    In Keras, this is the share of the old mean. In PyTorch, it is the share of the new batch. Here,
    it would have no effect, because update_bn computes the statistics anew, over all latents.)
    """
    latents = sample_latents(6400, random_stream("batchnorm latents", SEED))
    update_bn(latents.to(gan.fixed_latents.device).split(64), gan.average)


def train(gan, images):
    """Train until the end of epoch EPOCHS. After each epoch, print its row and save the state."""
    for epoch in range(len(gan.history) + 1, EPOCHS + 1):
        start = time.perf_counter()
        means = train_epoch(gan, images)
        renew_statistics(gan)
        end_epoch(gan, images, epoch, means, time.perf_counter() - start)


# %% 9. Main
def main():
    check_constants()
    with open_output():  # Only one run at a time can use the folder.
        device = find_device()
        images, _, data_name = load_images()
        images = images.to(device)
        gan = build_gan(device)
        begin(gan, images, data_name)  # Resume, or move the files of an earlier run away.
        try:
            train(gan, images)
        except KeyboardInterrupt:
            say("\nStopped.")
        finally:  # Also after an error, because the pictures so far may show what went wrong.
            finish(gan)
            save_studies(gan, images)


# %% 10. Plumbing: files, pictures, data, checks. Nothing below is about how a GAN learns.
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
    """Write checkpoint.pt, the state of the whole run."""
    state = {name: part.get_state() if isinstance(part, torch.Generator)
             else part.state_dict() if hasattr(part, "state_dict") else part
             for name, part in vars(gan).items()}
    write_whole("checkpoint.pt", lambda file: torch.save(state, file))


def load_checkpoint(gan):
    """Load the state in checkpoint.pt into gan. Exits if it is damaged, or does not fit."""
    may_change = {"EPOCHS", "SAMPLE_EVERY", "RESUME", "OUTPUT_DIR", "DATA_DIR", "DEVICE", "device"}
    try:
        state = torch.load(output("checkpoint.pt"), map_location="cpu", weights_only=True)
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
        raise SystemExit(f"{output('checkpoint.pt')} cannot be used. {reason}. Undo what has "
                         f"changed, or start anew by RESUME = False. All files are kept.") from None


def begin(gan, images, data_name):
    """Describe the run, also in run.txt. Resume, or move the files of an earlier run away."""
    device = torch.cuda.get_device_name(images.device) if images.is_cuda else images.device.type
    sizes = [sum(w.numel() for w in net.parameters()) for net in (gan.generator, gan.discriminator)]
    # A checkpoint must agree with this, except in what load_checkpoint lists as may_change.
    gan.warned, gan.made_with = [], {**check_constants(), "data": data_name, "device": device}
    gan.made_with |= {name: type(part).__name__ for name, part in vars(gan).items()}
    if RESUME and output("checkpoint.pt").exists():
        load_checkpoint(gan)
    else:
        set_aside_earlier_run()
    text = (f"Data      {data_name}, {len(images):,} images of 28 x 28 pixels\n"
            f"Device    {device}, {torch.get_num_threads()} CPU threads\n"
            f"Versions  Python {platform.python_version()}, torch {torch.__version__}\n"
            f"Networks  generator {sizes[0]:,} parameters, discriminator {sizes[1]:,}\n"
            f"Output    {output().resolve()}\n"
            f"Start     after epoch {len(gan.history)} of {EPOCHS}\n")
    say(text)
    text += "".join(f"{name} = {value!r}\n" for name, value in check_constants().items())
    write_whole("run.txt", lambda file: file.write(text.encode()))
    say("epoch   loss D   loss G    D(x)  D(G(z))  seconds  time left")


def set_aside_earlier_run():
    """Move the files of an earlier run to OUTPUT_DIR/earlier_1 (2, 3, ...): all of them or none."""
    kinds, number = ("run.txt", "samples_epoch_*.png", "training.gif", "losses.png", "history.csv",
                     "interpolation.png", "neighbours.png", "generat*.*", "checkpoint.pt"), 1
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


def end_epoch(gan, images, epoch, means, seconds):
    """Print the row of an epoch, warn, save pictures if it is their turn, and then the state."""
    if not math.isfinite(sum(means)):
        raise SystemExit(f"Stopped: a loss in epoch {epoch} is not a finite number. Resuming "
                         f"would repeat it: lower LEARNING_RATE, start anew. All files are kept.")
    gan.frames.append(generate(gan.average, gan.fixed_latents))
    gan.history.append({"epoch": epoch, **dict(zip(("loss D", "loss G", "D(x)", "D(G(z))"), means)),
                        "seconds": seconds, "data": gan.made_with["data"]})
    left = f"{(EPOCHS - epoch) * seconds / 60:.1f} min"
    say(f"{epoch:5d} {means[0]:8.4f} {means[1]:8.4f} {means[2]:7.3f} {means[3]:8.3f} {seconds:8.1f}"
        f"  {left:>9}")
    for warning in set(diagnose(gan, images)) - set(gan.warned):
        gan.warned.append(warning)
        say(f"Warning: {warning}")
    if epoch < EPOCHS and (epoch == 1 or epoch % SAMPLE_EVERY == 0):  # finish() draws the last.
        save_pictures(gan)
    save_checkpoint(gan)


def diagnose(gan, images):
    """Look for visible problems. Returns a sentence for each, which says what to change."""
    last, found = gan.history[-3:], []
    cure = "Try another LEARNING_RATE, or TRICKS." if R1 else "Try R1 = 0.3."
    sure = 0.85 if "label_smoothing" in TRICKS else 0.95
    # With feature_matching, G does not even try to fool D.
    if "feature_matching" not in TRICKS and len(last) == 3 and all(
            row["D(x)"] > sure and row["D(G(z))"] < 0.05 for row in last):
        found.append(f"D has won: D(x) is near 1 and D(G(z)) near 0. {cure}")
    variety = gan.frames[-1].float().std(0).mean() / images[:1000].cpu().mul(127.5).std(0).mean()
    if len(last) == 3 and variety < 0.3:  # Healthy runs stay above 0.5.
        found.append(f"the pictures are nearly all alike (mode collapse). {cure}")
    return found


def finish(gan):
    """Write the files of the latest whole epoch, also after Ctrl-C or an error in the next one."""
    if not gan.history or not output("checkpoint.pt").exists():
        return say("There is no checkpoint, so nothing more is written.")
    load_checkpoint(gan)
    weights = {name: tensor.cpu() for name, tensor in gan.average.state_dict().items()}
    write_whole("generator.pt", lambda file: torch.save(weights, file))
    latents = sample_latents(10_000, random_stream("judged latents", SEED))
    images = generate(gan.average, latents.to(gan.fixed_latents.device)).numpy()
    write_whole("generated.npy", lambda file: np.save(file, images))
    save_pictures(gan)
    say(f"\nAll files are in {output()}. To go on after epoch {len(gan.history)}, set "
        f"RESUME = True and, if needed, raise EPOCHS.")


@torch.no_grad()
def generate(generator, latents):
    """Images of the latents as bytes, uint8 [N, 28, 28]: black is always 0, white always 255."""
    generator.eval()  # A BatchNorm layer, if any, then treats each image by itself.
    images = torch.cat([generator(part).cpu() for part in latents.split(1000)])  # [N, 1, 28, 28]
    generator.train()
    return images.add(1).mul(127.5).round().byte().squeeze(1)


def save_pictures(gan):
    """Write the grid of the latest epoch, the GIF of all so far, the curves and the history."""
    title = " + ".join((f"{GENERATOR} G, {DISCRIMINATOR} D", *TRICKS))
    title, count = f"{title} on {gan.made_with['data']}, R1 {R1}", len(gan.frames)
    epochs = range(count, 0, -math.ceil(count / 50))[::-1]  # At most 50, the last one included.
    grids = [draw_grid(gan.frames[epoch - 1], f"{title}: epoch {epoch}") for epoch in epochs]
    write_whole(f"samples_epoch_{count:03d}.png", lambda file: grids[-1].save(file, "PNG"))
    small = [grid.reduce(2) for grid in grids]
    times = [max(120, 5000 // len(small))] * (len(small) - 1) + [2000]  # Milliseconds.
    write_whole("training.gif", lambda file: small[0].save(
        file, "GIF", save_all=True, append_images=small[1:], duration=times, loop=0))
    guess = {"loss D": 2 * math.log(2), "loss G": math.log(2), "D(x)": 0.5, "D(G(z))": 0.5}
    if "label_smoothing" in TRICKS:  # With it, the best D says 0.45 where it can only guess.
        guess = {"loss D": 1.376, "loss G": 0.799, "D(x)": 0.45, "D(G(z))": 0.45}
    curves = draw_curves(gan.history, title, guess)
    write_whole("losses.png", lambda file: curves.savefig(file, dpi=150))
    text = io.StringIO()
    rows = [gan.history[0], *(row.values() for row in gan.history)]  # The keys first, as headings.
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole("history.csv", lambda file: file.write(text.getvalue().encode()))
    if "ipykernel" in sys.modules:  # In a notebook, show them below the cell.
        sys.modules["IPython"].display.display(grids[-1], Image.open(output("losses.png")))


def save_studies(gan, images):
    """Write interpolation.png, walks between latents, and neighbours.png, a search for copies."""
    if not gan.history or not output("checkpoint.pt").exists():
        return
    # Walks from z1 to z2 along an arc, cos(t) z1 + sin(t) z2. Every point of it is again a standard
    # normal vector, as in training. The middle of a straight line is only 0.7 times as long, and
    # vectors as short as that hardly ever occur in 100 dimensions. [White]
    z1, z2 = gan.fixed_latents[:16].view(8, 2, 1, LATENT_DIM).unbind(1)  # [8, 1, LATENT_DIM] each
    t = torch.linspace(0, math.pi / 2, 10, device=z1.device).view(10, 1)
    walks = generate(gan.average, (t.cos() * z1 + t.sin() * z2).flatten(0, 1))  # [80, 28, 28]
    data = gan.made_with["data"]
    grid = draw_grid(walks, f"GAN on {data}: each row walks from one latent to another", columns=10)
    write_whole("interpolation.png", lambda file: grid.save(file, "PNG"))

    # The training images nearest to a sample, by the distance of their pixels.
    samples = gan.frames[-1][:8].to(images.device)  # uint8 [8, 28, 28]
    parts = images.flatten(1).split(10_000)  # In parts, to need little memory.
    distances = [torch.cdist(samples.flatten(1) / 127.5 - 1, part) for part in parts]  # [8, 10000]
    count = min(7, len(images))
    nearest = torch.cat(distances, 1).topk(count, largest=False).indices  # [8, 7]
    nearest = images[nearest].squeeze(2).add(1).mul(127.5).round().byte()  # [8, 7, 28, 28]
    rows = torch.cat([samples.unsqueeze(1), nearest], 1).flatten(0, 1).cpu()  # [64, 28, 28]
    rows = draw_grid(rows, f"GAN on {data}: a sample, its nearest training images", count + 1)
    write_whole("neighbours.png", lambda file: rows.save(file, "PNG"))


def draw_grid(images, title, columns=8):
    """Arrange images, uint8 [N, 28, 28], in rows below a title. Returns a Pillow image."""
    grid = torchvision.utils.make_grid(images.unsqueeze(1), columns, pad_value=96)[0]
    grid = Image.fromarray(grid.numpy()).resize((4 * grid.shape[1], 4 * grid.shape[0]), 0)
    picture = Image.new("L", (grid.width, grid.height + 48), 255)
    picture.paste(grid, (0, 48))
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    ImageDraw.Draw(picture).text((8, 10), title, 0, ImageFont.truetype(str(font), 24))
    return picture


def draw_curves(history, title, guess):
    """Draw the table over the epochs. guess: the value of each column if D can only guess."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")  # Needs no display.
    figure.suptitle(title)
    for axes, names in zip(figure.subplots(1, 2), (("loss D", "loss G"), ("D(x)", "D(G(z))"))):
        for name, style, line in zip(names, ("C0o-", "C1s--"), ("C0-.", "C1:")):
            points = [(row["epoch"], row[name]) for row in history]
            axes.plot(*zip(*points), style, ms=4, label=name)
            axes.axhline(guess[name], c=line[:2], ls=line[2:], label=f"{name} of a mere guess")
        axes.set(xlabel="epoch", ylabel="mean over the epoch", xlim=(0, len(history) + 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    axes.set_ylim(0, 1)  # Probabilities, on the right.
    return figure


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
    tricks = {
        "label_smoothing", "spectral_norm", "minibatch_stddev", "feature_matching",
        "historical_averaging", "ttur", "frequency_separation"}
    rules = {  # str, [choices], (lowest, highest), or (lowest, highest, allowed tuple lengths).
        "DATASET": ["MNIST", "FashionMNIST", "KMNIST", "drawn"], "DATA_DIR": str,
        "GENERATOR": ["mlp", "conv"], "DISCRIMINATOR": ["hidden", "flatten", "pool"],
        "LATENT_DIM": (1, 10_000), "TRICKS": tricks, "EPOCHS": (1, 999),
        "BATCH_SIZE": (2, 60_000), "LEARNING_RATE": (1e-7, 1.0),
        "BETAS": (0.0, 0.9999, [2]), "R1": (0.0, 1000.0), "AVERAGE": (0.0, 1000.0),
        "DEVICE": str, "SEED": (0, 2**32 - 1), "RESUME": [False, True],
        "OUTPUT_DIR": str, "SAMPLE_EVERY": (1, 10_000)}
    for name, rule in rules.items():
        value = globals().get(name)
        if isinstance(rule, list):
            right, wanted = value in rule, f"one of {rule}"
        elif isinstance(rule, set):
            right = isinstance(value, tuple) and all(value.count(name) == 1 for name in value)
            right = right and all(name in list(rule) for name in value)
            wanted = f"(), or a tuple such as ('ttur',) of different names from {sorted(rule)}"
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
        if not right:
            raise SystemExit(f"{name} = {value!r} cannot be used. It must be {wanted}.")
    return {name: globals()[name] for name in rules}


if __name__ == "__main__":
    if len(sys.argv) > 1 and Path(sys.argv[0]).name == Path(globals().get("__file__", "")).name:
        raise SystemExit(f"{sys.argv[0]} takes no arguments: edit the constants in section 3.")
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped.")
