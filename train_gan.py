# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.9"]
# ///
# %% 1. What and how
"""Train a GAN of two small fully connected networks on MNIST: noise in, handwritten digits out.

The generator G turns a latent vector z, which is a list of random numbers, into an image. The
discriminator D looks at an image and says how likely it is to be real. They play a game. In theory,
D makes the following value high, and G makes it low. (In practice, and here, G makes -log D(G(z))
low instead. Section 6 says why.) [GAN, eq. 1, sec. 3]

    E[log D(x)] + E[log(1 - D(G(z)))]      x: a real image, z: a latent vector, E: a mean

Run it:  python train_gan.py          (There are no options: edit the constants in section 3.)
It writes to outputs/train_gan/:
    samples_epoch_001.png ...  64 images from the same 64 latents, every SAMPLE_EVERY epochs
    training.gif               the same 64 images as they change over the epochs
    losses.png, history.csv    the printed table, as curves and as a file
    generated.npy              10,000 images from other latents, to measure how good they are
    generator.pt               the weights of the G that made these images
    checkpoint.pt              the state from which RESUME = True continues the training
    run.txt                    the constants and the versions of this run
A new run moves the files of an earlier one to outputs/train_gan/earlier_1/ (then 2, 3, ...).

How to read the table, which has a row for each epoch. These are means over the epoch's steps:
    loss D    2 ln 2 = 1.39 if D always says 0.5, a guess. Lower if D can tell real from fake.
    loss G    ln 2 = 0.69 if D guesses. Higher if D recognises the fakes, lower if it believes them.
    D(x)      D's probability that real images are real. 0.5 if D only guesses.
    D(G(z))   D's probability that fakes are real. 0.5 if D only guesses.
Loss G is measured after D's step, the other three before it. None of the four says how good the
images are, so look at the pictures. The script warns you if D has won (D(x) stays near 1 and
D(G(z)) near 0), or if the pictures are nearly all alike (total mode collapse).

docs/tutorials.md covers tutorials A to D. The networks here are A's. For A or B, set:
    A   EPOCHS = 100, BATCH_SIZE = 128, LEARNING_RATE = 2e-4, BETAS = (0.5, 0.999), R1 = AVERAGE = 0
    B   as A, but BATCH_SIZE = 64, BETAS = (0.9, 0.999), one hidden layer in each network: (128,)

[GAN]     Goodfellow et al. 2014, Generative Adversarial Nets, arxiv.org/abs/1406.2661
[DCGAN]   Radford et al. 2015, Deep Convolutional GANs, arxiv.org/abs/1511.06434
[Arjovsky] Arjovsky and Bottou 2017, Towards Principled Methods, arxiv.org/abs/1701.04862
[R1]      Mescheder et al. 2018, Which Training Methods Converge?, arxiv.org/abs/1801.04406
[LAZY]    Karras et al. 2020, StyleGAN2, arxiv.org/abs/1912.04958
[MEAN]    Shamir, Zhang 2013, arxiv.org/abs/1212.1824; Yazici et al. 2018, arxiv.org/abs/1806.04498
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

# %% 3. Constants
# Data
DATASET = "MNIST"  # Or "FashionMNIST", "KMNIST", or "drawn": digits drawn here, no download.
DATA_DIR = "data"  # The dataset is looked for here, and downloaded to here if it is missing.
# Networks
LATENT_DIM = 100  # Random numbers that make an image: 100 as in [DCGAN]. Try 2 to 500.
GENERATOR_HIDDEN = (256, 512)  # Widths of G's hidden layers, one to four of them.
DISCRIMINATOR_HIDDEN = (512, 256)  # The same for D. If D is far stronger, G learns badly.
# Training
EPOCHS = 14  # Passes over the data, up to 999. Digits are readable after epoch 3, and better later.
BATCH_SIZE = 64  # Real images in a step. Smaller batches: more steps, but noisier ones.
LEARNING_RATE = 1e-3  # Adam's step size in both networks. Try 2e-4 to 2e-3.
BETAS = (0.0, 0.99)  # Adam's memory: beta1 for gradients (0: none), beta2 for their squares.
R1 = 0.3  # How strong the penalty on D's slope is (section 6). 0: none. Try 0.1 to 1.
AVERAGE = 8  # Results use a mean of G's weights: mainly the last 1/AVERAGE of steps. 0: no mean.
DEVICE = "auto"  # An NVIDIA GPU if there is one, else the CPU. Or "cpu", "cuda", "cuda:1", "mps".
SEED = 0  # The same seed gives the same run on the same machine. Another seed: other digits.
RESUME = False  # True goes on from checkpoint.pt. To train for longer, raise EPOCHS as well.
# Output
OUTPUT_DIR = "outputs/train_gan"  # Relative to the current folder, like DATA_DIR.
SAMPLE_EVERY = 2  # Pictures after epoch 1, after the last one, and at multiples of this number.


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
        hidden = []
        for inputs, outputs in zip(widths, widths[1:]):
            hidden += [nn.Linear(inputs, outputs), nn.ReLU()]  # [B, 256], then [B, 512]
        self.layers = nn.Sequential(
            *hidden,
            nn.Linear(widths[-1], 28 * 28),  # [B, 784]
            nn.Tanh(),  # [B, 784], from -1 to 1 as the real images are
            nn.Unflatten(1, (1, 28, 28)),  # [B, 1, 28, 28]
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
    # Binary cross-entropy is -log D for the target 1, and -log(1 - D) for the target 0.
    loss_real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
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
    """
    real_images = real_images.clone().requires_grad_()
    logits = discriminator(real_images)  # [B, 1]
    # Each logit depends only on its own image, so the gradient of the sum of all logits contains
    # the slope for each image. create_graph=True lets backward() differentiate the slopes, too.
    (slopes,) = torch.autograd.grad(logits.sum(), real_images, create_graph=True)
    return R1 / 2 * slopes.square().sum((1, 2, 3)).mean()


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


def discriminator_step(discriminator, optimizer, real_images, fake_images, penalty_weight=0):
    """Teach D to tell real from fake images [B, 1, 28, 28]. Returns loss D, mean D(x), D(G(z)).

    Loss D does not include the penalty, so that runs with different R1 can be compared.
    """
    # Only D learns now. Without detach(), the backward pass would go through G, too. This would
    # cost time, and delete G's part of the graph, which generator_step still needs. Real and fake
    # images go through D in one batch, which is faster. (BatchNorm in D would mix them.)
    logits = discriminator(torch.cat([real_images, fake_images.detach()]))  # [2B, 1]
    real_logits, fake_logits = logits.chunk(2)  # [B, 1] each
    loss = to_minimise = discriminator_loss(real_logits, fake_logits)
    if penalty_weight:
        to_minimise = loss + penalty_weight * r1_penalty(discriminator, real_images)
    optimizer.zero_grad()
    to_minimise.backward()
    optimizer.step()
    d_real, d_fake = real_logits.detach().sigmoid(), fake_logits.detach().sigmoid()
    return loss.detach(), d_real.mean(), d_fake.mean()


def generator_step(generator, discriminator, optimizer, fake_images):
    """Teach G to make images [B, 1, 28, 28] that D judges as real. Returns loss G."""
    loss = generator_loss(discriminator(fake_images))  # D has just changed, so it looks again.
    optimizer.zero_grad()
    # The gradient reaches G through D, but inputs= stores gradients only for G's weights.
    loss.backward(inputs=list(generator.parameters()))
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
        gan.discriminator, gan.optimizer_d, real_images, fake_images, penalty_weight
    )
    loss_g = generator_step(gan.generator, gan.discriminator, gan.optimizer_g, fake_images)
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
    adam = {"lr": LEARNING_RATE, "betas": BETAS, "fused": True}  # fused: only faster.
    gan.optimizer_g = torch.optim.Adam(gan.generator.parameters(), **adam)
    gan.optimizer_d = torch.optim.Adam(gan.discriminator.parameters(), **adam)
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
    batches = order.split(BATCH_SIZE)  # The last one may be smaller.
    totals = torch.zeros(4, device=images.device)
    for number, batch in enumerate(batches, start=1):
        totals += train_step(gan, images[batch])
        show_progress(number, len(batches))
    return (totals / len(batches)).tolist()  # The sums go to the CPU only here.


def train(gan, images):
    """Train until the end of epoch EPOCHS. After each epoch, print its row and save the state."""
    for epoch in range(len(gan.history) + 1, EPOCHS + 1):
        start = time.perf_counter()
        means = train_epoch(gan, images)
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
                     "generat*.*", "checkpoint.pt"), 1
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
    cure = "Try another LEARNING_RATE, or a D of another size." if R1 else "Try R1 = 0.3."
    if len(last) == 3 and all(row["D(x)"] > 0.95 and row["D(G(z))"] < 0.05 for row in last):
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
    title, count = f"GAN on {gan.made_with['data']}, R1 {R1}, AVERAGE {AVERAGE}", len(gan.frames)
    epochs = range(count, 0, -math.ceil(count / 50))[::-1]  # At most 50, the last one included.
    grids = [draw_grid(gan.frames[epoch - 1], f"{title}: epoch {epoch}") for epoch in epochs]
    write_whole(f"samples_epoch_{count:03d}.png", lambda file: grids[-1].save(file, "PNG"))
    small = [grid.reduce(2) for grid in grids]
    times = [max(120, 5000 // len(small))] * (len(small) - 1) + [2000]  # Milliseconds.
    write_whole("training.gif", lambda file: small[0].save(
        file, "GIF", save_all=True, append_images=small[1:], duration=times, loop=0))
    guess = {"loss D": 2 * math.log(2), "loss G": math.log(2), "D(x)": 0.5, "D(G(z))": 0.5}
    curves = draw_curves(gan.history, title, guess)
    write_whole("losses.png", lambda file: curves.savefig(file, dpi=150))
    text = io.StringIO()
    rows = [gan.history[0], *(row.values() for row in gan.history)]  # The keys first, as headings.
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole("history.csv", lambda file: file.write(text.getvalue().encode()))
    if "ipykernel" in sys.modules:  # In a notebook, show them below the cell.
        sys.modules["IPython"].display.display(grids[-1], Image.open(output("losses.png")))


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
    hidden = (1, 10_000, range(1, 5))
    rules = {  # str, [choices], (lowest, highest), or (lowest, highest, allowed tuple lengths).
        "DATASET": ["MNIST", "FashionMNIST", "KMNIST", "drawn"], "DATA_DIR": str,
        "LATENT_DIM": (1, 10_000), "GENERATOR_HIDDEN": hidden, "DISCRIMINATOR_HIDDEN": hidden,
        "EPOCHS": (1, 999), "BATCH_SIZE": (1, 60_000), "LEARNING_RATE": (1e-7, 1.0),
        "BETAS": (0.0, 0.9999, [2]), "R1": (0.0, 1000.0), "AVERAGE": (0.0, 1000.0),
        "DEVICE": str, "SEED": (0, 2**32 - 1), "RESUME": [False, True],
        "OUTPUT_DIR": str, "SAMPLE_EVERY": (1, 10_000)}
    for name, rule in rules.items():
        value = globals().get(name)
        if isinstance(rule, list):
            right, wanted = value in rule, f"one of {rule}"
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
