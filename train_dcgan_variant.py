# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.9"]
# ///
# %% 1. What and how
"""Train a GAN with BatchNorm and convolutions on MNIST: noise in, handwritten digits out.

The generator G turns a latent vector z of random numbers into an image. The discriminator D looks
at an image and says how likely it is to be real. They play a game [GAN, eq. 1]: D is trained to
make the value below high, G to make it low. E is the mean over many images.

    E[log D(x)] + E[log(1 - D(G(z)))]          x: a real image, z: random numbers

(In fact G minimises -log D(G(z)). Section 6 says why.)

By default G is fully connected and D convolutional. Such a D stays well ahead, and G leaves digits
out and draws the others nearly alike. GENERATOR = "conv" makes both convolutional: a small [DCGAN].
Its digits vary far more. What else people do can be tried by naming it in TRICKS, one or several
together. Some make D calmer, some tell G more. Each is explained where it acts, so search for it:

    label_smoothing        D shall call real images 0.9 real, not 1        [Salimans, sec. 3.4]
    spectral_norm          D's answer can only change slowly               [SN]
    minibatch_stddev       D sees how much the images of a batch differ    [ProGAN, sec. 3]
    feature_matching       G imitates the average of D's last features     [Salimans, sec. 3.1]
    historical_averaging   weights are pulled to their average so far      [Salimans, sec. 3.3]
    ema                    pictures come from an average of recent Gs      [ProGAN, app. A.1]
    ttur                   D learns at four times the rate of G            [TTUR]
    frequency_separation   D also gets an image's fine detail by itself    [Fritsche]

Run it:  python train_dcgan_variant.py          (Edit the constants in section 3 for another run.)

It writes to outputs/train_dcgan_variant/:
    samples_epoch_010.png ...  64 images from the same 64 latents, every SAMPLE_EVERY epochs
    training.gif               the same 64 images as they change over the epochs
    interpolation.png          walks from latent to latent: does one digit turn into another?
    neighbours.png             samples beside the most similar training images: are they copies?
    losses.png, history.csv    the table that it prints, as curves and as a file
    generator.pt               the generator's weights after the latest epoch
    checkpoint.pt              all that RESUME = True needs to go on from the latest epoch
A new run moves the files of an earlier one to outputs/train_dcgan_variant/earlier_1/ (2, 3, ...).

How to read the table, one row an epoch, each number a mean over the epoch:
    loss D    1.39 (2 ln 2) if D can only guess. Falls as D learns, climbs as the digits get good.
    loss G    0.69 (ln 2) if D can only guess. Mostly rises when loss D falls. Neither is a
              measure of quality: look at the pictures.
    D(x)      how real D finds real images: 1 is certain, 0.5 is a guess.
    D(G(z))   how real D finds the images of G.
Failures, which the script points out: D(x) near 1 and D(G(z)) near 0 for many epochs (D has won
and G learns nothing), pictures that are all alike (mode collapse), a loss that is not a number.

Unlike in [GAN, alg. 1], D and G learn from the same batch of fake images: one pass less through G.

[GAN]       Goodfellow et al. 2014, Generative Adversarial Nets, arxiv.org/abs/1406.2661
[DCGAN]     Radford et al. 2015, Unsupervised Representation Learning with Deep Convolutional
            Generative Adversarial Networks, arxiv.org/abs/1511.06434
[Salimans]  Salimans et al. 2016, Improved Techniques for Training GANs, arxiv.org/abs/1606.03498
[TTUR]      Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule Converge to a Local
            Nash Equilibrium, arxiv.org/abs/1706.08500
[ProGAN]    Karras et al. 2018, Progressive Growing of GANs, arxiv.org/abs/1710.10196
[SN]        Miyato et al. 2018, Spectral Normalization for GANs, arxiv.org/abs/1802.05957
[Fritsche]  Fritsche et al. 2019, Frequency Separation for Real-World Super-Resolution,
            arxiv.org/abs/1911.07850
[White]     White 2016, Sampling Generative Networks, arxiv.org/abs/1609.04468
"""

# %% 2. Imports
import copy
import csv
import ctypes
import io
import math
import platform
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import torch
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel

# %% 3. Constants
# Data
DATASET = "MNIST"  # Or "FashionMNIST", "KMNIST", or "drawn": digits made on the spot, no download.
DATA_DIR = "data"  # The dataset is looked for here, and downloaded to here if it is missing.
# Networks
GENERATOR = "mlp"  # Fully connected. Or "conv": transposed convolutions, as in [DCGAN].
DISCRIMINATOR = "flatten"  # 4x4 kernels, then all features. Or "pool": 3x3, then their averages.
LATENT_DIM = 100  # Random numbers that make an image: 100 as in [DCGAN]. Try 2 to 500.
# Training
TRICKS = ()  # Names from the docstring's list, such as ("label_smoothing", "ema") or ("ema",).
EPOCHS = 50  # Passes over the data, up to 999.
BATCH_SIZE = 128  # Real images in a step, 2 or more: 128 in [DCGAN]. Smaller: more, noisier steps.
LEARNING_RATE = 2e-4  # Adam's step size in both networks. 1e-3 was too high in [DCGAN, sec. 4].
BETA1 = 0.5  # Adam's memory of past gradients. The usual 0.9 oscillated in [DCGAN, sec. 4].
PRECISION = "float32"  # "bfloat16" is faster on processors and GPUs that have it, and less exact.
SEED = 42  # The same seed gives the same run on the same machine. Another gives other digits.
RESUME = False  # True goes on from checkpoint.pt. To train for longer, raise EPOCHS as well.
# Output
OUTPUT_DIR = "outputs/train_dcgan_variant"  # Relative to the folder that you start in.
SAMPLE_EVERY = 10  # Epochs from one sample picture to the next.
SHOW_WINDOWS = False  # True opens the last pictures in windows at the end (needs a desktop).


# %% 4. Data
def load_images(train=True):
    """Read the whole dataset into memory: 60,000 images, or else the 10,000 for testing.

    Returns images, float32 [N, 1, 28, 28] from -1 (black) to 1 (white), the range of G's Tanh;
    labels, int64 [N], which the GAN never sees; and the name of what was loaded. Exits with a
    message if a file is damaged.
    """
    if DATASET == "drawn" or not fetch_dataset():
        images, labels = draw_digits(60_000 if train else 10_000, seed=0 if train else 1)
        return images, labels, "drawn digits"
    dataset = getattr(torchvision.datasets, DATASET)(DATA_DIR, train=train)
    # One tensor, converted once. A DataLoader would convert each image again in every epoch, which
    # takes longer than the networks do.
    images = dataset.data.unsqueeze(1).float().div_(127.5).sub_(1)  # [N, 1, 28, 28]
    return images, dataset.targets, DATASET


# %% 5. Networks
class Generator(nn.Module):
    """Turns latent vectors [B, LATENT_DIM] into images [B, 1, 28, 28] from -1 to 1.

    BatchNorm gives each feature mean 0 and standard deviation 1 over the batch, then a learned
    scale and shift. It also keeps running statistics: in eval mode (for pictures) it uses those.
    """

    def __init__(self):
        super().__init__()
        if GENERATOR == "mlp":
            widths = [LATENT_DIM, 256, 512, 1024]
            hidden = []
            for inputs, outputs in zip(widths, widths[1:]):
                hidden += [
                    nn.Linear(inputs, outputs),  # [B, 256], then [B, 512], then [B, 1024]
                    # In PyTorch, momentum is the share of the newest batch in the running
                    # statistics: with 0.8 they are those of the last few batches. Tutorials copy
                    # 0.8 from Keras, where it is the share of the old ones: 0.2 here. The default
                    # is 0.1. It matters for pictures only, for in training each batch has its own.
                    nn.BatchNorm1d(outputs, momentum=0.8),
                    nn.ReLU(),
                ]
            self.layers = nn.Sequential(
                *hidden,
                nn.Linear(widths[-1], 28 * 28),  # [B, 784]
                nn.Tanh(),  # [B, 784], from -1 to 1 as the real images are
                nn.Unflatten(1, (1, 28, 28)),  # [B, 1, 28, 28]
            )
        else:
            self.layers = nn.Sequential(
                nn.Linear(LATENT_DIM, 128 * 7 * 7),  # [B, 6272]
                nn.Unflatten(1, (128, 7, 7)),  # [B, 128, 7, 7]
                nn.BatchNorm2d(128),
                nn.ReLU(),
                nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1),  # [B, 64, 14, 14]
                nn.BatchNorm2d(64),
                nn.ReLU(),
                nn.ConvTranspose2d(64, 1, 4, stride=2, padding=1),  # [B, 1, 28, 28]
                nn.Tanh(),  # [B, 1, 28, 28], from -1 to 1 as the real images are
            )
            # Here alone, the first weights are as in [DCGAN, sec. 4] and its authors' code.
            for layer in self.layers:
                if hasattr(layer, "weight"):
                    mean = 1 if isinstance(layer, nn.BatchNorm2d) else 0
                    nn.init.normal_(layer.weight, mean, 0.02)

    def forward(self, latents):
        with mixed_precision(latents.device):
            return self.layers(latents).float()


class Discriminator(nn.Module):
    """Turns images [B, 1, 28, 28] into a logit each, [B, 1]: D(x) is the sigmoid of the logit.

    The losses apply the sigmoid, because log(sigmoid(logit)) in one go never rounds to log(0).
    """

    def __init__(self):
        super().__init__()
        channels = 2 if "frequency_separation" in TRICKS else 1
        maps = 129 if "minibatch_stddev" in TRICKS else 128
        # G learns from the gradient that passes through D, and LeakyReLU never blocks it. DCGAN
        # has no BatchNorm next to the images, in G or in D [DCGAN, sec. 3]. "pool" has one in D.
        if DISCRIMINATOR == "flatten":
            layers = [
                nn.Conv2d(channels, 64, 4, stride=2, padding=1),  # [B, 64, 14, 14]
                nn.LeakyReLU(0.2),
                nn.Conv2d(64, 128, 4, stride=2, padding=1),  # [B, 128, 7, 7]
                nn.BatchNorm2d(128, momentum=0.8),
                nn.LeakyReLU(0.2),
            ]
            last = [
                nn.Flatten(),  # [B, 6272]
                nn.Linear(maps * 7 * 7, 1),  # [B, 1]
            ]
        else:  # Smaller kernels, BatchNorm twice and with its default momentum, and an average.
            layers = [
                nn.Conv2d(channels, 64, 3, stride=2, padding=1),  # [B, 64, 14, 14]
                nn.BatchNorm2d(64),
                nn.LeakyReLU(0.2),
                nn.Conv2d(64, 128, 3, stride=2, padding=1),  # [B, 128, 7, 7]
                nn.BatchNorm2d(128),
                nn.LeakyReLU(0.2),
            ]
            last = [
                nn.AdaptiveAvgPool2d(1),  # [B, 128, 1, 1]
                nn.Flatten(),  # [B, 128], which Linear needs
                nn.Linear(maps, 1),  # [B, 1]
            ]
        if "spectral_norm" in TRICKS:
            # [SN, sec. 2] Each layer's weights are divided by their largest singular value, which
            # a step of power iteration at each use keeps up to date. So no layer amplifies a
            # difference between images by much: D stays smooth. BatchNorm may amplify, so it goes.
            layers = [layer for layer in layers if not isinstance(layer, nn.BatchNorm2d)]
            for layer in layers + last:
                if hasattr(layer, "weight"):
                    spectral_norm(layer)
        self.layers, self.last = nn.Sequential(*layers), nn.Sequential(*last)

    def features(self, images):
        """The feature maps of images [B, 1, 28, 28] before D's last layer: [B, 128, 7, 7]."""
        if "frequency_separation" in TRICKS:
            # An image less its blur is its edges and fine detail: what G gets right last. The D of
            # [Fritsche] sees nothing else. Here they are a second channel, beside the image.
            blur = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
            images = torch.cat([images, images - blur], 1)  # [B, 2, 28, 28]
        with mixed_precision(images.device):
            return self.layers(images)

    def judge(self, features):
        """The logits [B, 1] of images with these features [B, 128, 7, 7]."""
        if "minibatch_stddev" in TRICKS:
            # [ProGAN, sec. 3] How much the images of this batch differ, in one number, as one more
            # feature map for all of them. Fakes that are all alike betray themselves by it.
            spread = features.float().std(0, correction=0).mean()
            spread = spread.to(features.dtype).expand(len(features), 1, 7, 7)
            features = torch.cat([features, spread], 1)  # [B, 129, 7, 7]
        with mixed_precision(features.device):
            return self.last(features).float()

    def forward(self, images):
        return self.judge(self.features(images))


def mixed_precision(device):
    """A context in which layers multiply in bfloat16 if PRECISION says so; weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=PRECISION == "bfloat16")


# %% 6. Losses
def discriminator_loss(real_logits, fake_logits):
    """What D minimises: the batch mean of -log D(x) - log(1 - D(G(z))). [GAN, eq. 1]

    Binary cross-entropy is -log D for the target 1 and -log(1 - D) for the target 0. The minus is
    there because optimizers minimise, and D wants the value of eq. 1 high.
    Takes logits [B, 1] of real and of fake images. If all are 0, D only guesses: 2 ln 2 = 1.386.
    """
    # label_smoothing [Salimans, sec. 3.4]: the loss of real images is least at D(x) = 0.9 instead
    # of 1, so D is not to be certain of them. The target of fake images stays 0: another would
    # reward G for staying where it is.
    target = 0.9 if "label_smoothing" in TRICKS else 1.0
    targets = torch.full_like(real_logits, target)
    loss_real = F.binary_cross_entropy_with_logits(real_logits, targets)
    loss_fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return loss_real + loss_fake


def generator_loss(fake_logits):
    """What G minimises: the batch mean of -log D(G(z)). [GAN, sec. 3]

    Takes logits [B, 1] of fake images. If all are 0, D only guesses: ln 2 = 0.693. Eq. 1 has
    G minimise log(1 - D(G(z))) instead. The best G is the same, but where D is sure that an image
    is fake, as it is at the start, that hardly changes with the logit: G would learn nothing.
    """
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def feature_matching(real_features, fake_features):
    """Squared distance of the two batches' mean features [B, 128, 7, 7]. [Salimans, sec. 3.1]

    G minimises it instead of generator_loss if TRICKS says so. It need not fool D, only look like
    the real images on average, which one image drawn over and over hardly does. minibatch_stddev
    acts after these features: with both, it changes D, but G is not told of it.
    """
    return (real_features.float().mean(0) - fake_features.float().mean(0)).square().sum()


def historical_averaging(network, past):
    """Squared distance of the weights from their average so far. [Salimans, sec. 3.3]

    Each network adds its own to its loss if TRICKS says so. It calms networks that chase each other
    in circles: the average of a circle is its middle.
    """
    pairs = zip(network.parameters(), past.parameters())
    return sum((weight - mean.detach()).square().sum() for weight, mean in pairs)


# %% 7. One training step
def sample_latents(count, rng):
    """Draw latent vectors from the standard normal distribution: [count, LATENT_DIM]."""
    return torch.randn(count, LATENT_DIM, generator=rng, device=rng.device)


def discriminator_step(discriminator, optimizer, real_images, fake_images, past=None):
    """Teach D to tell real from fake images [B, 1, 28, 28]. Returns loss D, mean D(x), D(G(z)).

    past holds the average of D's weights so far. Only historical_averaging needs it.
    """
    # detach() keeps the gradient of D's loss out of G: only D learns now, and generator_step still
    # needs G's part of the graph. Two passes, not one of a mixed batch: BatchNorm measures an image
    # against its batch. In G's step that batch is all fake, so D must learn on such batches.
    real_logits = discriminator(real_images)  # [B, 1]
    fake_logits = discriminator(fake_images.detach())  # [B, 1]
    loss = to_minimise = discriminator_loss(real_logits, fake_logits)
    if "historical_averaging" in TRICKS:
        to_minimise = to_minimise + historical_averaging(discriminator, past)
    optimizer.zero_grad()
    to_minimise.backward()
    optimizer.step()
    d_real, d_fake = real_logits.detach().sigmoid(), fake_logits.detach().sigmoid()
    return loss.detach(), d_real.mean(), d_fake.mean()


def generator_step(
    generator, discriminator, optimizer, fake_images, real_images=None, past=None
):
    """Teach G to make D take its images [B, 1, 28, 28] for real. Returns loss G.

    Only feature_matching needs real_images, only historical_averaging the average of G's weights.
    Loss G is without their terms, so that it means the same for all TRICKS.
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
    # The gradient reaches G through D. inputs: compute it for G's weights only, not for D's too.
    to_minimise.backward(inputs=list(generator.parameters()))
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def update_average(average, generator, latents):
    """ema: move the running average of G a small part of the way to G. [ProGAN, app. A.1]

    G wavers from step to step. The average of about the last 200 Gs does not.
    """
    for mean, weight in zip(average.parameters(), generator.parameters()):
        mean.lerp_(weight, 0.005)  # 0.001 in [ProGAN], which takes many more steps.
    average(latents)  # Only for BatchNorm's running statistics: they must fit these weights.


def train_step(gan, real_images):
    """One step of D, then one of G. Returns loss D, loss G, D(x) and D(G(z)) in a tensor [4]."""
    generator = gan.player if "ema" in TRICKS else gan.generator
    latents = sample_latents(len(real_images), gan.rng)
    fake_images = generator(latents)  # [B, 1, 28, 28]
    loss_d, d_real, d_fake = discriminator_step(
        gan.discriminator, gan.optimizer_d, real_images, fake_images, gan.past_d
    )
    loss_g = generator_step(
        generator, gan.discriminator, gan.optimizer_g, fake_images, real_images, gan.past_g
    )
    if "historical_averaging" in TRICKS:
        gan.past_d.update_parameters(gan.discriminator)
        gan.past_g.update_parameters(generator)
    if "ema" in TRICKS:
        update_average(gan.generator, generator, latents)
    return torch.stack([loss_d, loss_g, d_real, d_fake])


# %% 8. Training
def build_gan(device):
    """Make all that a run needs to go on: a checkpoint holds each entry of this namespace."""
    torch.manual_seed(SEED)  # For the first weights.
    gan = SimpleNamespace()
    gan.generator, gan.discriminator = Generator().to(device), Discriminator().to(device)
    generator = gan.generator
    if "ema" in TRICKS:  # This one learns. gan.generator is its average, for pictures and files.
        generator = gan.player = copy.deepcopy(gan.generator)
    # ttur [TTUR]: a D that learns faster knows G's latest images and guides G better. The ratio
    # 4 : 1 is that of Zhang et al., arxiv.org/abs/1805.08318, here with LEARNING_RATE between.
    rate_g, rate_d = (0.5, 2) if "ttur" in TRICKS else (1, 1)
    adam = {"betas": (BETA1, 0.999), "fused": True}  # fused is only faster.
    gan.optimizer_g = torch.optim.Adam(generator.parameters(), rate_g * LEARNING_RATE, **adam)
    gan.optimizer_d = torch.optim.Adam(
        gan.discriminator.parameters(), rate_d * LEARNING_RATE, **adam
    )
    gan.past_g = gan.past_d = None
    if "historical_averaging" in TRICKS:  # The averages of all weights so far.
        gan.past_g, gan.past_d = AveragedModel(generator), AveragedModel(gan.discriminator)
    gan.rng = torch.Generator(device).manual_seed(SEED)  # A source of random numbers.
    gan.fixed_latents = sample_latents(64, gan.rng)  # Always the same in pictures: only G changes.
    gan.frames = []  # What G makes of the fixed latents after each epoch, uint8 [64, 28, 28].
    gan.history = []  # The rows of the table, a dictionary each.
    return gan


def train_epoch(gan, images):
    """Show each image of [N, 1, 28, 28] once. Returns the means of train_step's four numbers."""
    order = torch.randperm(len(images), generator=gan.rng, device=images.device)
    # The last batch may be smaller. It is left out if it is one image: BatchNorm needs two.
    batches = [batch for batch in order.split(BATCH_SIZE) if len(batch) > 1]
    totals = torch.zeros(4, device=images.device)
    for number, batch in enumerate(batches, start=1):
        totals += train_step(gan, images[batch])
        show_progress(number, len(batches))
    return (totals / len(batches)).tolist()  # Only here does the program wait for a GPU.


def train(gan, images, data_name):
    """Train to the end of epoch EPOCHS. Saves, and prints a row, after every epoch."""
    print("\nepoch   loss D   loss G    D(x)  D(G(z))  seconds  time left")
    warned = set()
    for epoch in range(len(gan.history) + 1, EPOCHS + 1):
        start = time.perf_counter()
        loss_d, loss_g, d_real, d_fake = train_epoch(gan, images)
        seconds = time.perf_counter() - start
        if not math.isfinite(loss_d + loss_g):
            raise SystemExit(f"Stopped: a loss in epoch {epoch} is not a finite number. Lower "
                             f"LEARNING_RATE and start anew. What was saved before is kept.")
        gan.frames.append(generate(gan.generator, gan.fixed_latents))
        gan.history.append({"epoch": epoch, "loss_d": loss_d, "loss_g": loss_g, "d_real": d_real,
                            "d_fake": d_fake, "seconds": seconds, "data": data_name})
        save_checkpoint(gan, data_name)
        left = timedelta(seconds=round((EPOCHS - epoch) * seconds))
        print(f"{epoch:5d} {loss_d:8.4f} {loss_g:8.4f} {d_real:7.3f} {d_fake:8.3f} {seconds:8.1f}"
              f"  {left!s:>9}", flush=True)
        for warning in diagnose(gan, images) - warned:
            print(f"Warning: {warning}", flush=True)
            warned.add(warning)
        if epoch % SAMPLE_EVERY == 0:
            save_pictures(gan, data_name)


# %% 9. Plumbing: pictures, files and resuming, drawn digits, checks
@torch.no_grad()
def generate(generator, latents):
    """Images of the latents as bytes, uint8 [N, 28, 28]: black is always 0, white always 255."""
    generator.eval()  # A BatchNorm layer, if any, then treats each image by itself.
    images = generator(latents).cpu()  # [N, 1, 28, 28]
    generator.train()
    return images.add(1).mul(127.5).round().byte().squeeze(1)


def draw_grid(frame, title):
    """Lay the 64 images of a frame, uint8 [64, 28, 28], out in 8 rows. Returns a Figure."""
    figure = Figure(figsize=(5.4, 5.8), layout="constrained")  # Needs no display.
    axes = figure.add_subplot()
    grid = frame.view(8, 8, 28, 28).transpose(1, 2).reshape(224, 224).numpy()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks(range(14, 224, 28), range(1, 9))
    axes.set_yticks(range(14, 224, 28), "ABCDEFGH")
    axes.set(title=title, xlabel="column (a place keeps its latent in all pictures)", ylabel="row")
    return figure


def draw_rows(rows, title, row_names, column_names):
    """Lay images, uint8 [rows, columns, 28, 28], out in a titled grid. Returns a Figure."""
    height, width = len(row_names), len(column_names)
    figure = Figure(figsize=(0.6 * width + 1.2, 0.6 * height + 0.8), layout="constrained")
    axes = figure.add_subplot()
    grid = rows.transpose(1, 2).reshape(28 * height, 28 * width).numpy()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks(range(14, 28 * width, 28), column_names)
    axes.set_yticks(range(14, 28 * height, 28), row_names)
    axes.set_title(title, fontsize="medium")
    return figure


def draw_curves(history, title):
    """Plot the table over the epochs, with the values that theory expects. Returns a Figure."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss_d"] for row in history], "C0.-", label="loss D")
    left.plot(epochs, [row["loss_g"] for row in history], "C1.-", label="loss G")
    left.axhline(2 * math.log(2), color="C0", ls="--", label="loss D = 2 ln 2 if D can only guess")
    left.axhline(math.log(2), color="C1", ls="--", label="loss G = ln 2 if D can only guess")
    right.plot(epochs, [row["d_real"] for row in history], "C0.-", label="D(x)")
    right.plot(epochs, [row["d_fake"] for row in history], "C1.-", label="D(G(z))")
    right.axhline(0.5, color="grey", ls="--", label="both = 0.5 if D can only guess")
    left.set(xlabel="epoch", ylabel="loss (epoch mean)", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="probability of being real (epoch mean)", ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize="small")
    return figure


def png(figure, dpi=110):
    """The bytes of the PNG file that shows a Figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save_pictures(gan, data_name):
    """Write the sample grids that are due and not there yet, the curves, and the history."""
    for epoch, frame in enumerate(gan.frames, start=1):
        name = f"samples_epoch_{epoch:03d}.png"
        due = epoch % SAMPLE_EVERY == 0 or epoch == len(gan.frames)
        if due and not Path(OUTPUT_DIR, name).exists():
            write_whole(name, png(draw_grid(frame, f"GAN on {data_name}, after epoch {epoch}")))
    write_whole("losses.png", png(draw_curves(gan.history, f"GAN on {data_name}")))
    table = io.StringIO()
    writer = csv.DictWriter(table, gan.history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(gan.history)
    write_whole("history.csv", table.getvalue().encode())


def save_gif(gan, data_name):
    """Write the frames as an animation of at most 50 pictures that pauses on the last one."""
    every = math.ceil(len(gan.frames) / 50)
    pictures = []
    for epoch in range(len(gan.frames), 0, -every):  # Backwards, so that the last one is in.
        grid = draw_grid(gan.frames[epoch - 1], f"GAN on {data_name}, after epoch {epoch}")
        pictures.insert(0, Image.open(io.BytesIO(png(grid, dpi=72))).convert("L"))
    buffer = io.BytesIO()
    durations = [150] * (len(pictures) - 1) + [2000]  # Milliseconds.
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0
    )
    write_whole("training.gif", buffer.getvalue())


def save_studies(gan, images, data_name):
    """Write interpolation.png, walks between latents, and neighbours.png, a search for copies."""
    title = f"GAN on {data_name}, after epoch {len(gan.frames)}"
    # Ctrl-C may have left G amid an epoch. Its weights after the latest whole one are in the file.
    state = torch.load(Path(OUTPUT_DIR, "checkpoint.pt"), map_location="cpu", weights_only=True)
    gan.generator.load_state_dict(state["generator"])

    # Walks from z1 to z2 along an arc, cos(t) z1 + sin(t) z2: each point on it is as random as
    # those that G has learned from. Halfway on a straight line, a latent would be only 0.7 times as
    # long, and of 100 random numbers hardly any are together so short. [White]
    z1, z2 = gan.fixed_latents[:16].view(8, 2, 1, LATENT_DIM).unbind(1)  # [8, 1, LATENT_DIM] each
    t = torch.linspace(0, math.pi / 2, 10, device=z1.device).view(10, 1)
    walks = t.cos() * z1 + t.sin() * z2  # [8, 10, LATENT_DIM]
    walks = generate(gan.generator, walks.flatten(0, 1)).view(8, 10, 28, 28)
    places = [f"{row}{column}" for row in "AB" for column in range(1, 9)]  # As in the samples.
    ends = [f"{start} to {end}" for start, end in zip(places[::2], places[1::2])]
    figure = draw_rows(walks, f"Walks between latents: {title}", ends, range(1, 11))
    write_whole("interpolation.png", png(figure))

    # The training images nearest to a sample, by the distance of their pixels.
    samples = gan.frames[-1][:8].to(images.device)  # uint8 [8, 28, 28]
    flat = samples.flatten(1) / 127.5 - 1  # [8, 784]
    parts = images.flatten(1).split(10_000)  # In parts, to need little memory.
    distances = torch.cat([torch.cdist(flat, part) for part in parts], 1)  # [8, N]
    nearest = images[distances.topk(5, largest=False).indices]  # [8, 5, 1, 28, 28]
    nearest = nearest.squeeze(2).add(1).mul(127.5).round().byte()
    rows = torch.cat([samples.unsqueeze(1), nearest], 1).cpu()  # [8, 6, 28, 28]
    names = ["sample", "nearest", "2nd", "3rd", "4th", "5th"]
    figure = draw_rows(rows, f"Nearest training images: {title}", places[:8], names)
    write_whole("neighbours.png", png(figure))


def write_whole(name, data):
    """Write bytes to OUTPUT_DIR/name: beside it, then in its place, so it is never half there."""
    path = Path(OUTPUT_DIR, name)
    beside = path.with_name(name + ".part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        message = f"Cannot write {path}: {error.strerror}. The old one, if any, is kept."
        if name.endswith(".pt"):
            raise SystemExit(message) from None
        print(message, flush=True)  # A picture that is open in a viewer must not end the training.
    finally:
        beside.unlink(missing_ok=True)


def save_checkpoint(gan, data_name):
    """Write checkpoint.pt, the state of the whole run, and generator.pt, G's weights alone."""
    state = {"made with": {**check_constants(), "data": data_name, "device": gan.rng.device.type}}
    for name, part in vars(gan).items():
        state[name] = part.state_dict() if hasattr(part, "state_dict") else part
    state["rng"] = gan.rng.get_state()
    weights = {name: tensor.cpu() for name, tensor in gan.generator.state_dict().items()}
    for name, content in (("checkpoint.pt", state), ("generator.pt", weights)):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_whole(name, buffer.getvalue())


def load_checkpoint(gan, data_name):
    """Put the state in checkpoint.pt into gan. Exits if it is damaged or of another kind of run."""
    path = Path(OUTPUT_DIR, "checkpoint.pt")
    anew = "or set RESUME = False to start anew; the earlier files are kept."
    now = {**check_constants(), "data": data_name, "device": gan.rng.device.type}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # Runs no code from it.
        saved = state["made with"]
    except Exception as error:  # A damaged file fails in many ways.
        raise SystemExit(f"{path} is damaged ({type(error).__name__}). Delete it, {anew}") from None
    if saved.keys() != now.keys():
        raise SystemExit(f"{path} is of a script with other constants. Change OUTPUT_DIR, {anew}")
    may_change = {"EPOCHS", "SAMPLE_EVERY", "RESUME", "SHOW_WINDOWS", "OUTPUT_DIR", "DATA_DIR"}
    for name in now.keys() - may_change:
        if saved[name] != now[name]:
            raise SystemExit(f"{path} was made with {name} = {saved[name]!r}, and now it is "
                             f"{now[name]!r}. Change it back, {anew}")
    try:
        for name, part in vars(gan).items():
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(state[name])
            elif isinstance(part, list):
                part.extend(state[name])
    except (KeyError, RuntimeError, ValueError):
        raise SystemExit(f"{path} is of other networks than section 5 has. Change them back, "
                         f"{anew}") from None
    gan.rng.set_state(state["rng"])
    gan.fixed_latents.copy_(state["fixed_latents"])


def written_files():
    """The files of a run that are in OUTPUT_DIR now."""
    names = ["samples_epoch_*.png", "training.gif", "interpolation.png", "neighbours.png"]
    names += ["losses.png", "history.csv", "generator.pt", "checkpoint.pt"]
    return [path for name in names for path in sorted(Path(OUTPUT_DIR).glob(name))]


def set_aside_earlier_run():
    """Move the files of an earlier run to OUTPUT_DIR/earlier_1 (2, 3, ...): none is destroyed."""
    if files := written_files():
        number = 1
        while (folder := Path(OUTPUT_DIR, f"earlier_{number}")).exists():
            number += 1
        folder.mkdir()
        for path in files:
            path.rename(folder / path.name)
        print(f"Kept      the files of an earlier run, in {folder}")


def show_progress(number, count):
    """Keep a line moving within the epoch on a terminal. A file or a pipe gets only the table."""
    if sys.stdout.isatty() and (number % 20 == 0 or number == count):
        line = f"  step {number} of {count}" if number < count else " " * 30
        print(f"\r{line}\r", end="", flush=True)


def fetch_dataset():
    """Make sure that torchvision finds DATASET in DATA_DIR. Downloads it once if it is not there.

    Returns False, after a notice, if it cannot be had. Raises SystemExit if a file is damaged.
    """
    folder = Path(DATA_DIR, DATASET, "raw")
    sizes = {"train-images-idx3-ubyte": 47_040_016, "train-labels-idx1-ubyte": 60_008,
             "t10k-images-idx3-ubyte": 7_840_016, "t10k-labels-idx1-ubyte": 10_008}
    reason = None
    if not all((folder / name).exists() for name in sizes):
        try:
            getattr(torchvision.datasets, DATASET)(DATA_DIR, download=True)
        except Exception as error:  # A download fails in many ways.
            reason = str(error).strip() or type(error).__name__
    for name, size in sizes.items():
        path = folder / name
        start = bytes([0, 0, 8, 3 if "images" in name else 1])  # How such a file must begin.
        if path.exists() and (path.stat().st_size != size or path.read_bytes()[:4] != start):
            raise SystemExit(f"{path} is damaged. Delete it and start again to download it anew.")
    if reason:
        print("=" * 98)
        print(f"{DATASET} IS NOT THERE AND CANNOT BE DOWNLOADED: {reason}")
        print("DRAWN DIGITS are used instead: fonts, bent until they look like handwriting.")
        print(f"To use {DATASET}, put these four files, unpacked, into {folder.resolve()}:")
        print(", ".join(sizes))
        print("=" * 98, flush=True)
    return not reason


def draw_digits(count, seed=0):
    """Draw digits that resemble handwriting, the same ones for the same seed.

    Returns images, float32 [count, 1, 28, 28] from -1 to 1, and labels, int64 [count], evenly.
    """
    rng = torch.Generator().manual_seed(seed)
    glyphs = []  # Ten digits of each font, 40 pixels high on 56 x 56: twice as large as in the end.
    for name in ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSerif-Italic", "cmss10"):
        file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
        font = ImageFont.truetype(str(file), 100)
        for character in "0l23456789":  # A small L looks more like a written one than a printed 1.
            left, top, right, bottom = font.getbbox(character)
            ink = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(ink).text((-left, -top), character, fill=255, font=font)
            width = round(40 * ink.width / ink.height)
            glyph = Image.new("L", (56, 56))
            glyph.paste(ink.resize((width, 40)), ((56 - width) // 2, 8))
            glyphs.append(torch.tensor(list(glyph.tobytes())).view(1, 56, 56) / 255)
    # Blurred, ink fades to the sides. What is kept below, from a random level up, is the stroke:
    # broad if the level is low, thin if it is high.
    blur = torch.exp(-(torch.arange(-3, 4) ** 2) / 6.5)
    glyphs = F.conv2d(torch.stack(glyphs), blur.outer(blur).view(1, 1, 7, 7), padding=3)
    glyphs /= glyphs.amax((2, 3), keepdim=True)  # [40, 1, 56, 56]
    # As in MNIST, the centre of mass of the ink comes into the middle of the image.
    ink = glyphs / glyphs.sum((2, 3), keepdim=True)
    places = torch.linspace(-1, 1, 56)
    centres = torch.cat([ink.sum(2) @ places, ink.sum(3) @ places], 1)  # [40, 2]

    labels = (torch.arange(count) % 10)[torch.randperm(count, generator=rng)]
    images = []
    for part in labels.split(2000):  # In parts, to need little memory.
        n = len(part)
        chosen = part + 10 * torch.randint(len(glyphs) // 10, (n,), generator=rng)
        turn, shear = 0.1 * torch.randn(2, n, generator=rng)
        wide, high = torch.rand(2, n, generator=rng)
        shift = centres[chosen] + 0.02 * torch.randn(n, 2, generator=rng)
        matrix = torch.stack([0.85 + 0.35 * wide, 0.1 + shear - turn, shift[:, 0],
                              turn, 1 + 0.25 * high, shift[:, 1]], 1).view(n, 2, 3)
        grid = F.affine_grid(matrix, (n, 1, 28, 28), align_corners=False)  # [n, 28, 28, 2]
        bends = 0.06 * torch.randn(n, 2, 4, 4, generator=rng)  # Smoothly uneven, as a hand is.
        bends = F.interpolate(bends, size=28, mode="bicubic", align_corners=True)
        ink = F.grid_sample(glyphs[chosen], grid + bends.permute(0, 2, 3, 1), align_corners=False)
        level = 0.27 + 0.3 * torch.rand(n, 1, 1, 1, generator=rng)
        images.append((4.5 * (ink - level) + 0.5).clamp(0, 1))
    return torch.cat(images).mul_(2).sub_(1), labels


def diagnose(gan, images):
    """What has visibly gone wrong by now: a set of sentences that name the constant to change."""
    last, found = gan.history[-5:], set()
    if len(last) < 5:  # The first epochs are always wild.
        return found
    certain = 0.85 if "label_smoothing" in TRICKS else 0.95
    # With feature_matching G does not even try to fool D.
    if "feature_matching" not in TRICKS and all(
        row["d_real"] > certain and row["d_fake"] < 0.05 for row in last
    ):
        found.add("D has won: D(x) near 1, D(G(z)) near 0. Try BETA1 = 0.5, GENERATOR = conv.")
    variety = gan.frames[-1].float().std(0).mean() / images[:1000].cpu().mul(127.5).std(0).mean()
    if variety < 0.3:  # Healthy runs stay above 0.5 of the variety of the real images.
        found.add("the pictures are nearly all alike. Try GENERATOR = conv, BETA1 = 0.5, TRICKS.")
    return found


def check_constants():
    """Return the constants by name. Raises SystemExit, in one line, if one cannot be used."""
    allowed = {
        "DATASET": ["MNIST", "FashionMNIST", "KMNIST", "drawn"],  # A list: one of these.
        "DATA_DIR": str,
        "GENERATOR": ["mlp", "conv"],
        "DISCRIMINATOR": ["flatten", "pool"],
        "LATENT_DIM": range(1, 10_001),  # A range: a whole number in it.
        "TRICKS": {  # A set: a tuple of some of these.
            "label_smoothing", "spectral_norm", "minibatch_stddev", "feature_matching",
            "historical_averaging", "ema", "ttur", "frequency_separation",
        },
        "EPOCHS": range(1, 1000),
        "BATCH_SIZE": range(2, 60_001),
        "LEARNING_RATE": (1e-7, 1),  # A pair: a number from the first to the second.
        "BETA1": (0, 0.999),
        "PRECISION": ["float32", "bfloat16"],
        "SEED": range(2**32),
        "RESUME": [False, True],
        "OUTPUT_DIR": str,
        "SAMPLE_EVERY": range(1, 10_001),
        "SHOW_WINDOWS": [False, True],
    }
    for name, rule in allowed.items():
        value = globals()[name]
        if rule is str:
            right, wanted = isinstance(value, str) and value.strip(), "the name of a folder"
        elif isinstance(rule, set):
            names = sorted(rule)
            right = isinstance(value, tuple)
            right = right and all(item in names and value.count(item) == 1 for item in value)
            wanted = f"(), or a tuple such as ('ema',) of names from {names}, none of them twice"
        elif isinstance(rule, list):
            right, wanted = value in rule, f"one of {rule}"
        elif isinstance(rule, range):
            right = type(value) is int and value in rule
            wanted = f"a whole number from {rule[0]} to {rule[-1]}"
        else:
            right = type(value) in (int, float) and rule[0] <= value <= rule[1]
            wanted = f"a number from {rule[0]} to {rule[1]}"
        if not right:
            raise SystemExit(f"{name} = {value!r} cannot be used. It must be {wanted}.")
    return {name: globals()[name] for name in allowed}


def open_output():
    """Make OUTPUT_DIR, and raise SystemExit if nothing can be written to it."""
    try:
        Path(OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=OUTPUT_DIR).close()
    except OSError as error:
        raise SystemExit(f"Cannot write to OUTPUT_DIR, {OUTPUT_DIR!r}: {error.strerror}.") from None


def keep_freed_memory():
    """Have Linux keep freed memory for the next step. On a CPU, a step is a tenth shorter then.

    It holds for the whole process: a notebook, too, gives memory back only when it ends.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free space below 2 GB is kept.
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: blocks below 32 MB, the limit, come from that space.


def announce(gan, images, data_name):
    """Print what this run works with."""
    device = torch.cuda.get_device_name() if images.is_cuda else images.device.type
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    sizes = [sum(w.numel() for w in net.parameters()) for net in (gan.generator, gan.discriminator)]
    print(f"Data      {data_name}, {len(images):,} images of 28 x 28 pixels")
    print(f"Device    {device}, {torch.get_num_threads()} CPU threads, {PRECISION}")
    print(f"Versions  Python {platform.python_version()}, {versions}")
    print(f"Networks  generator {sizes[0]:,} parameters, discriminator {sizes[1]:,}")
    print(f"Output    {Path(OUTPUT_DIR).resolve()}")


def show_windows():
    """Open the last sample grid and the curves in windows, until they are closed."""
    import matplotlib.pyplot as plt  # Only here, because it looks for a display.

    samples = sorted(Path(OUTPUT_DIR).glob("samples_epoch_*.png"))
    for path in (samples[-1], Path(OUTPUT_DIR, "losses.png")):
        plt.figure(layout="constrained").add_subplot().imshow(plt.imread(path))
        plt.axis("off")
    plt.show()


# %% 10. Main
def main():
    check_constants()
    open_output()
    keep_freed_memory()
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    device = torch.device("cuda" if cuda else "mps" if mps else "cpu")
    # Without this, a GPU may add up a convolution in another order each time, whatever the SEED.
    torch.backends.cudnn.deterministic = True
    images, _, data_name = load_images()
    images = images.to(device)
    gan = build_gan(device)
    announce(gan, images, data_name)
    print(f"Tricks    {', '.join(TRICKS) or 'none'}")
    if RESUME and Path(OUTPUT_DIR, "checkpoint.pt").exists():
        load_checkpoint(gan, data_name)
        print(f"Resumed   after epoch {len(gan.history)} of {EPOCHS}")
    else:
        if RESUME:
            print("Resumed   nothing, for there is no checkpoint.pt: a new run")
        set_aside_earlier_run()
    try:
        train(gan, images, data_name)
    except KeyboardInterrupt:
        print("\nStopped. RESUME = True goes on after the last full epoch.")
    finally:  # Also after an error: the pictures so far may show what went wrong.
        if gan.history and Path(OUTPUT_DIR, "checkpoint.pt").exists():
            save_pictures(gan, data_name)
            save_gif(gan, data_name)
            save_studies(gan, images, data_name)
    print("\nWritten:", *written_files(), sep="\n  ")
    if SHOW_WINDOWS and gan.history:
        show_windows()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped.")
