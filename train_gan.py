# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.9"]
# ///
# %% 1. What and how
"""Train a GAN of two small fully connected networks on MNIST: noise in, handwritten digits out.

The generator G turns a latent vector z, which is a list of random numbers, into an image. The
discriminator D looks at an image and says how likely it is to be real. The two play a game about
one value: D makes it as high as it can, and G makes it as low as it can. (In practice, and here, G
makes -log D(G(z)) low instead. Section 6 says why.) [GAN, eq. 1, sec. 3]

    E[log D(x)] + E[log(1 - D(G(z)))]      x: a real image, z: a latent vector, E: a mean

Run it:  python train_gan.py          (There are no options: edit the constants in section 3.)
Each start makes a folder of its own, outputs/train_gan/run_1/ (then run_2, run_3, ...), with
    samples_epoch_001.png ...  64 images from the same 64 latents, every SAMPLE_EVERY epochs
    training.gif               the same 64 images as they change over the epochs
    losses.png, history.csv    the printed table, as curves and as a file
    generated.npy              10,000 images from other latents, to measure how good they are
    generator.pt               the weights of the G that made these images
    checkpoint.pt              the state from which RESUME = True goes on, in a new folder
    run.txt                    the constants and the versions of this run

How to read the table, which has a row for each epoch. These are means over the epoch's steps:
    loss D    2 ln 2 = 1.39 if D always says 0.5, a mere guess. It is lower if D can tell real from
              fake, and higher if D is often sure and wrong.
    loss G    ln 2 = 0.69 if D guesses. Higher if D recognises the fakes, lower if it believes them.
    D(x)      D's probability that real images are real. 0.5 if D guesses.
    D(G(z))   D's probability that fakes are real. 0.5 if D guesses.
Loss G is measured after D's step, the other three before it. None of the four says how good the
images are, so look at the pictures. The script warns you if D has won (D(x) stays near 1 and
D(G(z)) near 0), or if the pictures are nearly all alike (total mode collapse).

docs/tutorials.md describes four common tutorials, A to D. The networks here are A's. For A or B:
    A   EPOCHS = 100, BATCH_SIZE = 128, LEARNING_RATE = 2e-4, BETAS = (0.5, 0.999), R1 = AVERAGE = 0
    B   as A, but BATCH_SIZE = 64, BETAS = (0.9, 0.999), one hidden layer in each network: [128]

[GAN]      Goodfellow et al. 2014, Generative Adversarial Nets, arxiv.org/abs/1406.2661
[DCGAN]    Radford et al. 2015, Unsupervised Representation Learning ..., arxiv.org/abs/1511.06434
[Arjovsky] Arjovsky and Bottou 2017, Towards Principled Methods ..., arxiv.org/abs/1701.04862
[R1]       Mescheder et al. 2018, Which Training Methods for GANs ...?, arxiv.org/abs/1801.04406
[LAZY]     Karras et al. 2020, Analyzing and Improving ... StyleGAN, arxiv.org/abs/1912.04958
[Momentum] Gidel et al. 2019, Negative Momentum for Improved Game ..., arxiv.org/abs/1807.04740
[Yazici]   Yazici et al. 2019, The Unusual Effectiveness of Averaging ..., arxiv.org/abs/1806.04498
[Shamir]   Shamir and Zhang 2013, Stochastic Gradient Descent ..., arxiv.org/abs/1212.1824
"""

# %% 2. Imports
import contextlib
import copy
import math
import os
import socket
import sys
import time
import zlib
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
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import nn

# %% 3. Constants
# Data
DATASET = "MNIST"  # Or "FashionMNIST", "KMNIST", or "drawn": digits drawn here, no download.
DATA_DIR = "data"  # The dataset is looked for here, and downloaded to here if it is missing.
# Networks
LATENT_DIM = 100  # Random numbers that make an image: 100 as in [DCGAN]. Try 2 to 500.
GENERATOR_HIDDEN = [256, 512]  # Widths of G's hidden layers, one to four of them.
DISCRIMINATOR_HIDDEN = [512, 256]  # The same for D. If D is far stronger, G learns badly.
# Training
EPOCHS = 24  # Passes over the data, up to 999. Digits are readable after epoch 3, and better later.
BATCH_SIZE = 64  # Real images in a step. Smaller batches: more steps, but noisier ones.
LEARNING_RATE = 1e-3  # Adam's step size in both networks. Try 2e-4 to 2e-3.
# Adam's memory, of gradients and of their squares. The first is 0, because old gradients fit an
# opponent that has changed since. In simple games, they drive both outwards. [Momentum]
BETAS = (0.0, 0.99)
R1 = 0.3  # Strength of the penalty on D's gradient (section 6). 0: none. Try 0.1 to 3.
AVERAGE = 8  # Results use a mean of G's weights: mainly the last 1/AVERAGE of steps. 0: no mean.
DEVICE = "auto"  # An NVIDIA GPU if there is one, else the CPU. Or "cpu", "cuda", "cuda:1", "mps".
SEED = 0  # The same seed gives the same run on the same machine. Another seed: other digits.
RESUME = False  # True goes on from the latest run, "run_1" from that one. EPOCHS is the last epoch.
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
    losses compute log D and log(1 - D) in one operation, because D itself can round to 0 or 1.
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


# %% 6. Losses (docs/theory.md derives what is only stated here)
def discriminator_loss(real_logits, fake_logits):
    """What D minimises: the batch mean of -log D(x) - log(1 - D(G(z))). [GAN, eq. 1]

    Takes logits [B, 1] of real and fake images. If all are 0 (a guess), the loss is 2 ln 2 = 1.386.
    There is a minus because D maximises equation 1, while optimizers minimise.

    The loss does not say how good the images are, because D may recognise even good fakes, by
    details that no eye sees. Then its loss comes close to 0. [Arjovsky, sec. 2]
    """
    # Binary cross-entropy is -log D for the target 1, and -log(1 - D) for the target 0.
    loss_real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    loss_fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return loss_real + loss_fake


def generator_loss(fake_logits):
    """What G minimises: the batch mean of -log D(G(z)). [GAN, sec. 3]

    Takes logits [B, 1] of fake images. If all are 0 (a guess), the loss is ln 2 = 0.693.

    In equation 1, G would minimise log(1 - D(G(z))). This is nearly flat where D is sure of a fake,
    so G would learn least from its worst images: at the logit -5, the gradient with respect to
    the logit is -0.007. The gradient of -log D(G(z)) is -0.993 there.
    """
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def r1_penalty(discriminator, real_images):
    """R1 / 2 * mean of |gradient of D's logit at x with respect to x|^2. [R1, eq. 9]

    Takes real images x, [B, 1, 28, 28]. The gradient says which change of the pixels makes an image
    look more real to D, and G follows it. D's loss fixes its logits at the images that it is shown,
    but not the gradients there. Without the penalty, these can be long at real images, so they push
    away even a G whose images are right. D corrects itself, G turns back, and the chase goes on.
    With the penalty, small enough steps near the goal let it die down. The paper's R1 is 10, for
    larger images: with fewer pixels, the same R1 is stronger. Ours was found by trials.
    """
    real_images = real_images.clone().requires_grad_()
    logits = discriminator(real_images)  # [B, 1]
    # Each logit depends only on its own image, so the gradient of the sum of all logits holds the
    # gradient for each image. create_graph=True lets backward() differentiate it once more.
    (gradient,) = torch.autograd.grad(logits.sum(), real_images, create_graph=True)
    return R1 / 2 * gradient.square().sum((1, 2, 3)).mean()


# %% 7. One training step
#   1. G draws fake images from new latents.
#   2. D judges real images and the fake ones: D's loss. In some steps, R1's penalty is added.
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
    # Only D learns now. Without detach(), the backward pass would go through G as well, which would
    # cost time and delete G's part of the graph, which generator_step still needs. Real and fake
    # images go through D in one batch, because this is faster. (BatchNorm in D would mix them.)
    logits = discriminator(torch.cat([real_images, fake_images.detach()]))  # [2B, 1]
    real_logits, fake_logits = logits.chunk(2)  # [B, 1] each
    loss = discriminator_loss(real_logits, fake_logits)
    penalty = penalty_weight * r1_penalty(discriminator, real_images) if penalty_weight else 0
    optimizer.zero_grad()
    (loss + penalty).backward()
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


def train_step(gan, real_images, rng):
    """One step of D, then one of G. Returns loss D, loss G, D(x) and D(G(z)) in a tensor [4]."""
    latents = sample_latents(len(real_images), rng, real_images.device)
    fake_images = gan.generator(latents)  # [B, 1, 28, 28]
    # The penalty costs more passes through D. To save time, only every 8th step adds it, 8 times as
    # strong, so that its mean gradient is the same. [LAZY, app. B] But Adam divides by the size of
    # recent gradients, which a rare, strong penalty makes larger, so its steps become smaller.
    every = 8
    penalty_weight = every if R1 and gan.step % every == 0 else 0
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
    """Random numbers for one use, such as "weights": the same for the same seed, on any device.

    Each use has a stream of its own. If the seed itself started both the first weights and the
    latents, these would be made from the same random numbers.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{use}, seed {seed}".encode()))


def build_gan(device):
    """Make all parts of a run, in one namespace. A checkpoint keeps every entry of it."""
    torch.manual_seed(random_stream("weights", SEED).initial_seed())  # Layers draw their weights.
    gan = SimpleNamespace(step=0)
    gan.generator, gan.discriminator = Generator().to(device), Discriminator().to(device)
    gan.average = copy.deepcopy(gan.generator) if AVERAGE else gan.generator  # Draws the pictures.
    adam = {"lr": LEARNING_RATE, "betas": BETAS, "fused": True}  # fused: only faster.
    gan.optimizer_g = torch.optim.Adam(gan.generator.parameters(), **adam)
    gan.optimizer_d = torch.optim.Adam(gan.discriminator.parameters(), **adam)
    gan.frames = []  # The images of the same 64 latents after each epoch, each uint8 [64, 28, 28].
    gan.history = []  # The rows of the table, a dictionary each.
    gan.warned = []  # What was warned of. Once is enough.
    return gan


def train_epoch(gan, images, epoch):
    """Show each image of [N, 1, 28, 28] once. Returns the means of train_step's four numbers."""
    # Each epoch has streams of its own, so a resumed run sees what an unbroken one would see.
    torch.manual_seed(random_stream(f"layers in epoch {epoch}", SEED).initial_seed())  # Dropout's.
    rng = random_stream(f"epoch {epoch}", SEED)
    order = torch.randperm(len(images), generator=rng).to(images.device)
    batches = order.split(BATCH_SIZE)  # The last one may be smaller.
    totals = torch.zeros(4, device=images.device)
    for number, batch in enumerate(batches, start=1):
        totals += train_step(gan, images[batch], rng)
        show_progress(number, len(batches))
    return (totals / len(batches)).tolist()  # The sums go to the CPU only here.


def train(gan, images, folder):
    """Train until the end of epoch EPOCHS. After each epoch, print its row and save the state."""
    for epoch in range(len(gan.history) + 1, EPOCHS + 1):
        start = time.perf_counter()
        means = train_epoch(gan, images, epoch)
        end_epoch(gan, images, folder, epoch, means, time.perf_counter() - start)


@torch.no_grad()
def generate(generator, latents):
    """Images of the latents as bytes, uint8 [N, 28, 28]: -1 always becomes 0, and 1 becomes 255."""
    generator.eval()  # A BatchNorm layer, if any, then treats each image by itself.
    images = torch.cat([generator(part).cpu() for part in latents.split(1000)])  # [N, 1, 28, 28]
    generator.train()
    return images.add(1).mul(127.5).round().byte().squeeze(1)


def diagnose(gan, images):
    """Look for visible problems. Returns a sentence for each, which says what to change."""
    last, found = gan.history[-3:], []
    cure = "Try another LEARNING_RATE, or a D of another size." if R1 else "Try R1 = 0.3."
    if len(last) == 3 and all(row["D(x)"] > 0.95 and row["D(G(z))"] < 0.05 for row in last):
        found.append(f"D has won: D(x) is near 1 and D(G(z)) near 0. {cure}")
    # How much a pixel varies from picture to picture, compared with real images.
    variety = gan.frames[-1].float().std(0).mean() / images[:1000].cpu().mul(127.5).std(0).mean()
    if len(last) == 3 and variety < 0.3:  # Healthy runs stay above 0.5.
        found.append(f"the pictures are nearly all alike (mode collapse). {cure}")
    return found


# %% 9. Main
def main():
    check_constants()
    device = find_device()
    images, _, data_name = load_images()
    images = check_images(images).to(device)
    gan = build_gan(device)
    folder = begin(gan, images, data_name)  # A new folder. With RESUME, loads an earlier run.
    train(gan, images, folder)
    save_results(gan, images, folder)
    print(f"\nThe files of this GAN on {data_name} are in {folder.absolute()}.\n"
          f"To go on, set RESUME = True and raise EPOCHS.")


# %% 10. Plumbing: the device, files and resuming, pictures, data
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


def begin(gan, images, data_name):
    """Make this run's folder. With RESUME, load an earlier run. Print what it is, as in run.txt."""
    runs, start = Path(OUTPUT_DIR).expanduser(), ""
    runs.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(path.name[4:]) for path in runs.glob("run_*") if path.name[4:].isdecimal())
    gan.made_with = {**settings(), "data": data_name}
    if RESUME:
        wanted = [f"run_{number}" for number in numbers] if RESUME is True else [str(RESUME)]
        saved = [runs / name for name in wanted if (runs / name / "checkpoint.pt").exists()]
        if not saved:
            raise SystemExit(f"RESUME = {RESUME!r}: there is no such checkpoint in {runs}.")
        load_checkpoint(gan, saved[-1] / "checkpoint.pt")
        start = f", from {saved[-1]}"
    # Each start makes a folder, also if it resumes, so no run ever touches the files of another.
    for number in range(max(numbers, default=0) + 1, 1_000_000):
        folder = runs / f"run_{number}"
        with contextlib.suppress(FileExistsError):  # Another start may be faster.
            folder.mkdir()
            break
    device = torch.cuda.get_device_name(images.device) if images.is_cuda else images.device.type
    sizes = [sum(w.numel() for w in net.parameters()) for net in (gan.generator, gan.discriminator)]
    text = (f"Data      {data_name}, {len(images):,} images of 28 x 28 pixels\n"
            f"Device    {device}, {torch.get_num_threads()} CPU threads\n"
            f"Versions  Python {sys.version.split()[0]}, torch {torch.__version__}\n"
            f"Networks  generator {sizes[0]:,} parameters, discriminator {sizes[1]:,}\n"
            f"Output    {folder}\n"
            f"Start     after epoch {len(gan.history)} of {EPOCHS}{start}\n")
    print(text)
    constants = {**settings(), "EPOCHS": EPOCHS}
    text += "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    write(folder / "run.txt", lambda file: file.write(text.encode(errors="replace")))
    print("epoch   loss D   loss G    D(x)  D(G(z))  seconds  minutes left", flush=True)
    return folder


def settings():
    """The constants that a checkpoint must agree with to be resumed, by name."""
    names = ("DATASET", "LATENT_DIM", "GENERATOR_HIDDEN", "DISCRIMINATOR_HIDDEN", "BATCH_SIZE",
             "LEARNING_RATE", "BETAS", "R1", "AVERAGE", "SEED")
    return {name: globals()[name] for name in names}


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


def end_epoch(gan, images, folder, epoch, means, seconds):
    """Save the state, print the row of an epoch, and warn. Draw, if it is a picture's turn."""
    if not math.isfinite(sum(means)):
        raise SystemExit(f"Stopped: a loss in epoch {epoch} is not a finite number. Resuming would "
                         f"repeat it: lower LEARNING_RATE, and start anew.")
    names = "epoch", "loss D", "loss G", "D(x)", "D(G(z))", "seconds", "data"
    gan.history.append(dict(zip(names, (epoch, *means, seconds, gan.made_with["data"]))))
    latents = sample_latents(64, random_stream("pictures", SEED), images.device)  # The same ones.
    gan.frames.append(generate(gan.average, latents))
    new = [warning for warning in diagnose(gan, images) if warning not in gan.warned]
    gan.warned += new
    if epoch < EPOCHS and (epoch == 1 or epoch % SAMPLE_EVERY == 0):  # main() writes the last.
        save_results(gan, images, folder)
    state = {name: part.state_dict() if hasattr(part, "state_dict") else part
             for name, part in vars(gan).items()}
    write(folder / "checkpoint.pt", lambda file: torch.save(state, file))
    # The row comes after the checkpoint, so what stands in the table is never trained again.
    print(f"{epoch:5d} {means[0]:8.4f} {means[1]:8.4f} {means[2]:7.3f} {means[3]:8.3f} "
          f"{seconds:8.1f} {(EPOCHS - epoch) * seconds / 60:13.1f}", flush=True)
    print("".join(f"Warning: {warning}\n" for warning in new), end="", flush=True)


def save_results(gan, images, folder):
    """Write all that a run is for: pictures, curves, 10,000 images, and the weights of G."""
    title = f"{folder.name}: GAN on {gan.made_with['data']}"
    count = len(gan.frames)  # The GIF has at most 50 frames, the last one included.
    epochs = range(count, 0, -math.ceil(count / 50))[::-1]
    grids = [draw_grid(gan.frames[epoch - 1], f"{title}, epoch {epoch}") for epoch in epochs]
    write(folder / f"samples_epoch_{count:03d}.png", lambda file: grids[-1].save(file, "PNG"))
    small = [grid.reduce(2) for grid in grids]
    times = [max(120, 5000 // len(small))] * (len(small) - 1) + [2000]  # Milliseconds.
    write(folder / "training.gif", lambda file: small[0].save(
        file, "GIF", save_all=True, append_images=small[1:], duration=times, loop=0))
    curves = draw_curves(gan.history, title)
    write(folder / "losses.png", lambda file: curves.savefig(file, dpi=150))
    latents = sample_latents(10_000, random_stream("10,000 images", SEED), images.device)
    generated = generate(gan.average, latents).numpy()
    write(folder / "generated.npy", lambda file: np.save(file, generated))
    weights = {name: tensor.cpu() for name, tensor in gan.average.state_dict().items()}
    write(folder / "generator.pt", lambda file: torch.save(weights, file))
    table = [gan.history[0], *(row.values() for row in gan.history)]  # The keys first, as headings.
    text = "".join(",".join(map(str, row)) + "\n" for row in table)
    write(folder / "history.csv", lambda file: file.write(text.encode(errors="replace")))
    if "ipykernel" in sys.modules and (folder / "losses.png").exists():  # Below the cell.
        sys.modules["IPython"].display.display(grids[-1], Image.open(folder / "losses.png"))


def draw_grid(images, title, columns=8):
    """Arrange images, uint8 [N, 28, 28], in rows below a title. Returns a Pillow image."""
    grid = torchvision.utils.make_grid(images.unsqueeze(1), columns, pad_value=96)[0]
    picture = ImageOps.scale(Image.fromarray(grid.numpy()), 4, Image.Resampling.NEAREST)
    picture = ImageOps.expand(picture, (0, 48, 0, 0), 255)  # A white strip above, for the title.
    font = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    font = ImageFont.truetype(font, 1600 // max(66, len(title)))  # A long title has to fit, too.
    ImageDraw.Draw(picture).text((8, 10), title, 0, font)
    return picture


def draw_curves(history, title):
    """Draw the table over the epochs, with the value that each column has if D can only guess."""
    guess = {"loss D": 2 * math.log(2), "loss G": math.log(2), "D(x)": 0.5, "D(G(z))": 0.5}
    figure = Figure(figsize=(10, 4.5), layout="constrained")  # Needs no display.
    figure.suptitle(title)
    for axes, names in zip(figure.subplots(1, 2), (("loss D", "loss G"), ("D(x)", "D(G(z))"))):
        for name, color, style, line in zip(names, ("C0", "C1"), ("o-", "s--"), ("-.", ":")):
            points = [(row["epoch"], row[name]) for row in history]
            axes.plot(*zip(*points), style, color=color, ms=4, label=name)
            axes.axhline(guess[name], color=color, ls=line, label=f"{name} of a mere guess")
        axes.set(xlabel="epoch", ylabel="mean over the epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    axes.set_ylim(0, 1)  # Probabilities, on the right.
    return figure


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
    for name, low in {"LATENT_DIM": 1, "EPOCHS": 1, "BATCH_SIZE": 1, "SAMPLE_EVERY": 1,
                      "LEARNING_RATE": 1e-7, "R1": 0.0, "AVERAGE": 0.0}.items():
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
