# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.9"]
# ///
# %% 1. What and how
"""Train a GAN of two small fully connected networks on MNIST: noise in, handwritten digits out.

The generator G turns a latent vector z of random numbers into an image. The discriminator D looks
at an image and says how likely it is to be real. They play a game [GAN, eq. 1]: D is trained to
make the value below high, G to make it low. E is the mean over many images.

    E[log D(x)] + E[log(1 - D(G(z)))]          x: a real image, z: random numbers

(In fact G minimises -log D(G(z)). Section 6 says why.)

Run it:  python train_gan.py          (There are no options: edit the constants in section 3.)

It writes to outputs/train_gan/:
    samples_epoch_010.png ...  64 images from the same 64 latents, every SAMPLE_EVERY epochs
    training.gif               the same 64 images as they change over the epochs
    losses.png, history.csv    the table that it prints, as curves and as a file
    generator.pt               the generator's weights after the latest epoch
    checkpoint.pt              all that RESUME = True needs to go on from the latest epoch
A new run moves the files of an earlier one to outputs/train_gan/earlier_1/ (then 2, 3, ...).

How to read the table, one row an epoch, each number a mean over the epoch:
    loss D    2 ln 2 = 1.39 means that D can only guess. Falls to about 0.3 in the first ten epochs,
              in which D learns fast, then climbs to about 0.9 as the digits get good.
    loss G    ln 2 = 0.69 means that D can only guess. Moves against loss D: up to about 4, then
              down to about 1.5. Neither loss measures quality: look at the pictures.
    D(x)      how real D finds real images: 1 is certain, 0.5 is a guess. Ends near 0.7.
    D(G(z))   how real D finds the images of G. Ends near 0.3.
Failures, which the script points out: D(x) near 1 and D(G(z)) near 0 for many epochs (D has won
and G learns nothing), pictures that are all alike (mode collapse), a loss that is not a number.

Unlike in [GAN, alg. 1], D and G learn from the same batch of fake images: one pass less through G.

[GAN]    Goodfellow et al. 2014, Generative Adversarial Nets, arxiv.org/abs/1406.2661
[DCGAN]  Radford et al. 2015, Unsupervised Representation Learning with Deep Convolutional
         Generative Adversarial Networks, arxiv.org/abs/1511.06434
"""

# %% 2. Imports
import csv
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

# %% 3. Constants
# Data
DATASET = "MNIST"  # Or "FashionMNIST", "KMNIST", or "drawn": digits made on the spot, no download.
DATA_DIR = "data"  # The dataset is looked for here, and downloaded to here if it is missing.
# Networks
LATENT_DIM = 100  # Random numbers that make an image: 100 as in [DCGAN]. Try 2 to 500.
GENERATOR_HIDDEN = (256, 512)  # Widths of G's hidden layers, one to four of them.
DISCRIMINATOR_HIDDEN = (512, 256)  # The same for D. If D is far stronger than G, G stops learning.
# Training
EPOCHS = 100  # Passes over the data, up to 999. Strokes by 10, digits by 30, cleaner to 100.
BATCH_SIZE = 128  # Real images in a step: 128 in [DCGAN]. Smaller: more, noisier steps.
LEARNING_RATE = 2e-4  # Adam's step size, as in [DCGAN, sec. 4]. Try 2e-3: good digits in 10 epochs.
BETA1 = 0.5  # Adam's memory of past gradients. The usual 0.9 oscillated in [DCGAN, sec. 4].
PRECISION = "float32"  # "bfloat16" is faster on processors and GPUs that have it, and less exact.
SEED = 0  # The same seed gives the same run on the same machine. Another gives other digits.
RESUME = False  # True goes on from checkpoint.pt. To train for longer, raise EPOCHS as well.
# Output
OUTPUT_DIR = "outputs/train_gan"  # Relative to the folder that you start in, as DATA_DIR is.
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
        with mixed_precision(latents.device):
            return self.layers(latents).float()


class Discriminator(nn.Module):
    """Turns images [B, 1, 28, 28] into a logit each, [B, 1]: D(x) is the sigmoid of the logit.

    The losses apply the sigmoid, because log(sigmoid(logit)) in one go never rounds to log(0).
    """

    def __init__(self):
        super().__init__()
        widths = [28 * 28, *DISCRIMINATOR_HIDDEN]
        hidden = []
        for inputs, outputs in zip(widths, widths[1:]):
            # A slope of 0.2 below 0 [DCGAN, sec. 4] always lets some gradient through D to G.
            hidden += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]  # [B, 512], then [B, 256]
        self.layers = nn.Sequential(
            nn.Flatten(),  # [B, 784]
            *hidden,
            nn.Linear(widths[-1], 1),  # [B, 1]
        )

    def forward(self, images):
        with mixed_precision(images.device):
            return self.layers(images).float()


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
    loss_real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    loss_fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return loss_real + loss_fake


def generator_loss(fake_logits):
    """What G minimises: the batch mean of -log D(G(z)). [GAN, sec. 3]

    Takes logits [B, 1] of fake images. If all are 0, D only guesses: ln 2 = 0.693. Eq. 1 has
    G minimise log(1 - D(G(z))) instead. The best G is the same, but where D is sure that an image
    is fake, as it is at the start, that hardly changes with the logit: G would learn nothing.
    """
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


# %% 7. One training step
def sample_latents(count, rng):
    """Draw latent vectors from the standard normal distribution: [count, LATENT_DIM]."""
    return torch.randn(count, LATENT_DIM, generator=rng, device=rng.device)


def discriminator_step(discriminator, optimizer, real_images, fake_images):
    """Teach D to tell real from fake images [B, 1, 28, 28]. Returns loss D, mean D(x), D(G(z))."""
    # detach() keeps the gradient of D's loss out of G: only D learns now, and generator_step still
    # needs G's part of the graph. One pass with both halves is faster than two, but if you give D a
    # BatchNorm layer, make two, or real and fake images will share their statistics.
    logits = discriminator(torch.cat([real_images, fake_images.detach()]))  # [2B, 1]
    real_logits, fake_logits = logits.chunk(2)  # [B, 1] each
    loss = discriminator_loss(real_logits, fake_logits)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    d_real, d_fake = real_logits.detach().sigmoid(), fake_logits.detach().sigmoid()
    return loss.detach(), d_real.mean(), d_fake.mean()


def generator_step(generator, discriminator, optimizer, fake_images):
    """Teach G to make D take its images [B, 1, 28, 28] for real. Returns loss G."""
    loss = generator_loss(discriminator(fake_images))  # D has just changed, so it looks again.
    optimizer.zero_grad()
    # The gradient reaches G through D. inputs: compute it for G's weights only, not for D's too.
    loss.backward(inputs=list(generator.parameters()))
    optimizer.step()
    return loss.detach()


def train_step(gan, real_images):
    """One step of D, then one of G. Returns loss D, loss G, D(x) and D(G(z)) in a tensor [4]."""
    fake_images = gan.generator(sample_latents(len(real_images), gan.rng))  # [B, 1, 28, 28]
    loss_d, d_real, d_fake = discriminator_step(
        gan.discriminator, gan.optimizer_d, real_images, fake_images
    )
    loss_g = generator_step(gan.generator, gan.discriminator, gan.optimizer_g, fake_images)
    return torch.stack([loss_d, loss_g, d_real, d_fake])


# %% 8. Training
def build_gan(device):
    """Make all that a run needs to go on: a checkpoint holds each entry of this namespace."""
    torch.manual_seed(SEED)  # For the first weights.
    gan = SimpleNamespace()
    gan.generator, gan.discriminator = Generator().to(device), Discriminator().to(device)
    adam = {"lr": LEARNING_RATE, "betas": (BETA1, 0.999), "fused": True}  # fused is only faster.
    gan.optimizer_g = torch.optim.Adam(gan.generator.parameters(), **adam)
    gan.optimizer_d = torch.optim.Adam(gan.discriminator.parameters(), **adam)
    gan.rng = torch.Generator(device).manual_seed(SEED)  # A source of random numbers.
    gan.fixed_latents = sample_latents(64, gan.rng)  # Always the same in pictures: only G changes.
    gan.frames = []  # What G makes of the fixed latents after each epoch, uint8 [64, 28, 28].
    gan.history = []  # The rows of the table, a dictionary each.
    return gan


def train_epoch(gan, images):
    """Show each image of [N, 1, 28, 28] once. Returns the means of train_step's four numbers."""
    order = torch.randperm(len(images), generator=gan.rng, device=images.device)
    batches = order.split(BATCH_SIZE)  # The last one may be smaller.
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
    names = ["samples_epoch_*.png", "training.gif", "losses.png", "history.csv"]
    names += ["generator.pt", "checkpoint.pt"]
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
    if all(row["d_real"] > 0.95 and row["d_fake"] < 0.05 for row in last):
        found.add("D has won: D(x) near 1, D(G(z)) near 0. Try BETA1 = 0.5, another LEARNING_RATE.")
    variety = gan.frames[-1].float().std(0).mean() / images[:1000].cpu().mul(127.5).std(0).mean()
    if variety < 0.3:  # Healthy runs stay above 0.5 of the variety of the real images.
        found.add("the pictures are nearly all alike (mode collapse). Try BETA1 = 0.5, another "
                  "LEARNING_RATE, or a D of another size.")
    return found


def check_constants():
    """Return the constants by name. Raises SystemExit, in one line, if one cannot be used."""
    allowed = {
        "DATASET": ["MNIST", "FashionMNIST", "KMNIST", "drawn"],  # A list: one of these.
        "DATA_DIR": str,
        "LATENT_DIM": range(1, 10_001),  # A range: a whole number in it.
        "GENERATOR_HIDDEN": tuple,
        "DISCRIMINATOR_HIDDEN": tuple,
        "EPOCHS": range(1, 1000),
        "BATCH_SIZE": range(1, 60_001),
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
        elif rule is tuple:
            right = isinstance(value, tuple) and 1 <= len(value) <= 4
            right = right and all(type(width) is int and 1 <= width <= 10_000 for width in value)
            wanted = "one to four widths such as (256, 512), or (128,) with its comma"
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
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    device = torch.device("cuda" if cuda else "mps" if mps else "cpu")
    images, _, data_name = load_images()
    images = images.to(device)
    gan = build_gan(device)
    announce(gan, images, data_name)
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
        if gan.history:
            save_pictures(gan, data_name)
            save_gif(gan, data_name)
    print("\nWritten:", *written_files(), sep="\n  ")
    if SHOW_WINDOWS and gan.history:
        show_windows()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped.")
