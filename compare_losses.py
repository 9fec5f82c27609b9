# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.9"]
# ///
# %% 1. What and how
"""Train one GAN with three losses, BCE, LSGAN and WGAN, and measure which draws better digits.

A loss says what the two networks of a GAN play for. Each loss starts from the same weights here,
meets the same real images and random numbers in the same order, and has the same number of
generator steps. Optimizer, learning rates and steps of D before each step of G are its own: see
section 6. (WGAN takes 5 of these, so it gets 5 times as far in the images and random numbers.) Then
a judge compares their images with real ones: a small classifier of real digits, whom the GANs
never meet.

D is a critic here, as [WGAN] says: it gives an image a score D(x), the higher, the more real it
finds it. Only with BCE is the score a logit, whose sigmoid is a probability.

Run it:  python compare_losses.py     (There are no options: edit the constants in section 3.)

It writes to outputs/compare_losses/:
    comparison.png                     images, loss curves and distances of all losses: look here
    comparison.md, comparison.csv      the final table, to paste into a report and as a file
    history.csv                        the table that it prints while it trains
    generator_bce.pt, generator_lsgan.pt, generator_wgan.pt     weights, those of the first seed
    judge.pt                           the judge, used again by later runs on the same data
    checkpoint.pt                      all that RESUME = True needs to go on with what is missing
A new run moves the files of an earlier one to outputs/compare_losses/earlier_1/ (then 2, 3, ...).

How to read the tables:
    loss D, loss G   what D and G minimise: means over the epoch. If D takes several steps before
                     one of G, its last counts. Each loss has a scale of its own, so they cannot be
                     compared, and they do not say how good the images are.
    D(x), D(G(z))    mean scores of real and fake images. For WGAN the difference is an estimate of
                     how far apart real and fake images are, up to a factor, as long as D keeps up:
                     then it falls as the images get better.
    distance         Frechet distance between what the judge sees in fake and in real images. Less
                     is better, and it is this that compares the losses. With the network Inception
                     as the judge it is called FID.
    kernel           KID with this judge: less is better
    score, digits, evenness, precision, recall    more is better; section 9 explains them
    seconds          of training, without the judge's work
    time left        of this loss and seed
    real images      training images in place of fake ones: hardly a GAN gets nearer
Small differences mean nothing: with another seed they may be the other way round. A large study
that tuned each loss with care found none that was always better. [EQUAL]

[GAN]     Goodfellow et al. 2014, Generative Adversarial Nets, arxiv.org/abs/1406.2661
[DCGAN]   Radford et al. 2015, arxiv.org/abs/1511.06434
[LSGAN]   Mao et al. 2016, Least Squares GANs, arxiv.org/abs/1611.04076
[WGAN]    Arjovsky et al. 2017, Wasserstein GAN, arxiv.org/abs/1701.07875
[WGAN-GP] Gulrajani et al. 2017, Improved Training of Wasserstein GANs, arxiv.org/abs/1704.00028
[HINGE]   Miyato et al. 2018, Spectral Normalization for GANs, arxiv.org/abs/1802.05957
[EQUAL]   Lucic et al. 2018, Are GANs Created Equal?, arxiv.org/abs/1711.10337
[IS]      Salimans et al. 2016, Improved Techniques for Training GANs, arxiv.org/abs/1606.03498
[FID]     Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, arxiv.org/abs/1706.08500
[KID]     Binkowski et al. 2018, Demystifying MMD GANs, arxiv.org/abs/1801.01401
[PR]      Kynkaanniemi et al. 2019, Improved Precision and Recall, arxiv.org/abs/1904.06991
"""

# %% 2. Imports
import csv
import io
import math
import platform
import statistics
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
# What is compared
LOSSES = ("BCE", "LSGAN", "WGAN")  # Also "WGAN-GP", "hinge", and what you add in section 6.
SEEDS = (0,)  # One run of each loss for each seed. (0, 1, 2) shows how much is chance. [EQUAL]
# Networks
LATENT_DIM = 100  # Random numbers that make an image: 100 as in [DCGAN]. Try 2 to 500.
GENERATOR_HIDDEN = (128, 256, 512)  # Widths of G's hidden layers, one to four of them.
DISCRIMINATOR_HIDDEN = (512, 256)  # The same for D. If D is far stronger than G, G stops learning.
# Training (learning rates stand with the losses, in section 6)
EPOCHS = 15  # In each, G takes a step for each batch of the data, WGAN's D 5. More: better digits.
BATCH_SIZE = 128  # Real images in a step: 128 in [DCGAN]. Smaller: more, noisier steps.
PRECISION = "float32"  # "bfloat16" is faster on processors and GPUs that have it, and less exact.
RESUME = False  # True goes on from checkpoint.pt. To train for longer, raise EPOCHS as well.
# Output
SAMPLES = 10_000  # Images of each G that are judged. With fewer, distances come out larger.
OUTPUT_DIR = "outputs/compare_losses"  # Relative to the folder that you start in, as DATA_DIR is.


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
        hidden = []  # [B, 128], then [B, 256], then [B, 512]
        for inputs, outputs in zip(widths, widths[1:]):
            # BatchNorm gives each value mean 0 and standard deviation 1 over the batch, and then
            # those that it learns.
            hidden += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
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
    """Turns images [B, 1, 28, 28] into a score each, [B, 1]: the higher, the more real.

    It ends without a Sigmoid: BCE has it in its loss, and the others need scores without bounds. It
    has no BatchNorm: that would mix an image's score with the other images of its batch, while the
    gradient penalty is about each image by itself [WGAN-GP, sec. 4].
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
def loss_table():
    """Every loss by its name. To add a sixth, add an entry, and its name to LOSSES.

    critic, generator    what each minimises, a mean over the batch; real and fake: scores [B, 1]
    optimizer, settings  how both networks learn, each at its own rate (_lr)
    critic_steps         steps of the critic before each step of the generator
    clip, penalty        what keeps the critic Lipschitz, which means that its score changes from an
                         image to another at most by a constant times their difference. Without
                         it, WGAN's critic could part the scores as far as it likes. clip: the
                         largest weight; penalty: the factor of the gradient penalty; None: the
                         loss does without. With one, the picture shows the estimate, no losses.
    """
    # Rates tried on MNIST, and the distance after 6 epochs, one seed each. The three losses share
    # one, so that only the loss differs.
    #     BCE    2e-4: 8.1  5e-4: 4.1  1e-3: 3.6      LSGAN  2e-4: 6.4  5e-4: 2.8  1e-3: 4.0
    #     hinge  2e-4: 9.3  5e-4: 4.6  1e-3: 4.0
    return {
        "BCE": SimpleNamespace(  # [GAN, eq. 1; sec. 3 for G]. With P = sigmoid(score):
            # -log P(x) - log(1 - P(G(z))). softplus(-score) is -log P without ever a log(0).
            critic=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
            generator=lambda fake: F.softplus(-fake).mean(),  # -log P(G(z))
            # betas: how long Adam remembers, as in [DCGAN, sec. 4]. fused is only faster.
            optimizer=torch.optim.Adam, settings={"betas": (0.5, 0.999), "fused": True},
            critic_lr=5e-4, generator_lr=5e-4, critic_steps=1, clip=None, penalty=None),
        "LSGAN": SimpleNamespace(  # [LSGAN, eq. 9]: real images are to score 1, fake ones 0.
            # (D(x) - 1)^2 / 2 + D(G(z))^2 / 2
            critic=lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
            generator=lambda fake: (fake - 1).square().mean() / 2,  # (D(G(z)) - 1)^2 / 2
            optimizer=torch.optim.Adam, settings={"betas": (0.5, 0.999), "fused": True},
            critic_lr=5e-4, generator_lr=5e-4, critic_steps=1, clip=None, penalty=None),
        # Some tutorials keep a Sigmoid at the end of D and never clip. Then D(x) - D(G(z)) goes to
        # 1 as D gets sure, whatever the images are like, and it no longer estimates a distance.
        "WGAN": SimpleNamespace(  # [WGAN, eq. 3, alg. 1] No Adam: see its sec. 4.2.
            critic=lambda real, fake: fake.mean() - real.mean(),  # D(G(z)) - D(x)
            generator=lambda fake: -fake.mean(),  # -D(G(z))
            # The critic has the paper's rate, and G a higher one. Tried for G, and the distance
            # after 8 epochs:  2e-4: 3.6  5e-4: 2.5  1e-3: 2.2  2e-3: 3.0  (1e-4 for both: 4.3)
            optimizer=torch.optim.RMSprop, settings={},
            critic_lr=5e-5, generator_lr=1e-3, critic_steps=5, clip=0.01, penalty=None),
        "WGAN-GP": SimpleNamespace(  # [WGAN-GP, eq. 3, alg. 1]: a penalty in place of the clip.
            critic=lambda real, fake: fake.mean() - real.mean(),  # critic_step adds the penalty.
            generator=lambda fake: -fake.mean(),  # -D(G(z))
            optimizer=torch.optim.Adam, settings={"betas": (0.0, 0.9), "fused": True},
            critic_lr=1e-4, generator_lr=1e-4, critic_steps=5, clip=None, penalty=10),
        "hinge": SimpleNamespace(  # [HINGE, eqs. 16, 17], there with spectral normalisation.
            # max(0, 1 - D(x)) + max(0, 1 + D(G(z))): nothing more to gain beyond 1 and -1.
            critic=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
            generator=lambda fake: -fake.mean(),  # -D(G(z))
            optimizer=torch.optim.Adam, settings={"betas": (0.5, 0.999), "fused": True},
            critic_lr=5e-4, generator_lr=5e-4, critic_steps=1, clip=None, penalty=None),
    }


def gradient_penalty(critic, real_images, fake_images, share):
    """The batch mean of (slope - 1)^2, at points between real (share 1) and fake images (0).

    The slope is the length of the gradient of the score with respect to the image. A critic that
    is best for WGAN has slope 1 between real and fake images. [WGAN-GP, prop. 1, eq. 3]
    """
    points = (share * real_images + (1 - share) * fake_images).requires_grad_()
    # create_graph, because the penalty, too, is differentiated: for the critic's weights.
    (gradients,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return (gradients.flatten(1).norm(dim=1) - 1).square().mean()


# %% 7. One training step
def sample_latents(count, rng):
    """Draw latent vectors from the standard normal distribution: [count, LATENT_DIM]."""
    return torch.randn(count, LATENT_DIM, generator=rng, device=rng.device)


def next_batch(gan, images):
    """The next BATCH_SIZE real images. Shuffles all of them anew when too few are left."""
    if len(gan.order) < BATCH_SIZE:
        gan.order = torch.randperm(len(images), generator=gan.rng, device=images.device)
    batch, gan.order = gan.order[:BATCH_SIZE], gan.order[BATCH_SIZE:]
    return images[batch]


def critic_step(critic, optimizer, loss, real_images, fake_images, share):
    """Teach D to score real above fake images. Returns loss D, mean D(x), mean D(G(z))."""
    fake_images = fake_images.detach()  # Keeps the gradient out of G: only D learns now.
    # One pass with both halves is faster than two, and the same: D has no BatchNorm to mix them.
    real_scores, fake_scores = critic(torch.cat([real_images, fake_images])).chunk(2)  # [B, 1] each
    value = loss.critic(real_scores, fake_scores)
    if loss.penalty:
        value = value + loss.penalty * gradient_penalty(critic, real_images, fake_images, share)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    if loss.clip:
        with torch.no_grad():
            for weights in critic.parameters():
                weights.clamp_(-loss.clip, loss.clip)
    return value.detach(), real_scores.detach().mean(), fake_scores.detach().mean()


def generator_step(generator, critic, optimizer, loss, fake_images):
    """Teach G to make D take its images [B, 1, 28, 28] for real. Returns loss G."""
    value = loss.generator(critic(fake_images))  # D has just changed, so it looks again.
    optimizer.zero_grad()
    # The gradient reaches G through D. inputs: compute it for G's weights only, not for D's too.
    value.backward(inputs=list(generator.parameters()))
    optimizer.step()
    return value.detach()


def train_step(gan, images):
    """The critic steps of gan.loss, then one step of G. Returns loss D, loss G, D(x), D(G(z)) [4].

    G learns from the fake images of the last critic step. (In [WGAN, alg. 1] it draws new ones.)
    Loss D, D(x) and D(G(z)) are those of that step, too.
    """
    loss = loss_table()[gan.loss]
    for _ in range(loss.critic_steps):
        real_images = next_batch(gan, images)  # [B, 1, 28, 28]
        fake_images = gan.generator(sample_latents(len(real_images), gan.rng))  # [B, 1, 28, 28]
        # Drawn even if unused, so that all losses meet the same random numbers.
        share = torch.rand(len(real_images), 1, 1, 1, generator=gan.rng, device=images.device)
        loss_d, d_real, d_fake = critic_step(
            gan.discriminator, gan.optimizer_d, loss, real_images, fake_images, share
        )
        gan.critic_steps += 1
    loss_g = generator_step(gan.generator, gan.discriminator, gan.optimizer_g, loss, fake_images)
    gan.generator_steps += 1
    return torch.stack([loss_d, loss_g, d_real, d_fake])


# %% 8. Training
def build_gan(device, loss, seed):
    """Make all that a training needs to go on: a checkpoint holds each entry of this namespace.

    For one seed, each loss gets the same first weights, fixed latents and random numbers.
    """
    torch.manual_seed(seed)  # For the first weights.
    gan = SimpleNamespace(loss=loss, seed=seed, generator_steps=0, critic_steps=0)
    gan.generator, gan.discriminator = Generator().to(device), Discriminator().to(device)
    entry = loss_table()[loss]
    weights_g, weights_d = gan.generator.parameters(), gan.discriminator.parameters()
    gan.optimizer_g = entry.optimizer(weights_g, lr=entry.generator_lr, **entry.settings)
    gan.optimizer_d = entry.optimizer(weights_d, lr=entry.critic_lr, **entry.settings)
    gan.rng = torch.Generator(device).manual_seed(seed)  # A source of random numbers.
    gan.fixed_latents = sample_latents(64, gan.rng)  # Always the same in pictures: only G changes.
    gan.order = torch.empty(0, dtype=torch.int64, device=device)  # Indices of images yet to come.
    gan.history = []  # The rows of the table, a dictionary each.
    return gan


def train_epoch(gan, images):
    """Take an epoch's generator steps. Returns the means of train_step's four numbers."""
    steps = max(1, len(images) // BATCH_SIZE)
    totals = torch.zeros(4, device=images.device)
    for number in range(1, steps + 1):
        totals += train_step(gan, images)
        show_progress(number, steps)
    return (totals / steps).tolist()  # Only here does the program wait for a GPU.


def train(gan, images, judge, states, data_name):
    """Train to the end of epoch EPOCHS. Measures, saves and prints a row after every epoch."""
    for epoch in range(len(gan.history) + 1, EPOCHS + 1):
        start = time.perf_counter()
        loss_d, loss_g, d_real, d_fake = train_epoch(gan, images)
        seconds = time.perf_counter() - start
        if not math.isfinite(loss_d + loss_g):
            raise SystemExit(f"Stopped: a loss of {gan.loss} in epoch {epoch} is not a finite "
                             f"number. Lower its rates in section 6. What was saved is kept.")
        distance = frechet_distance(judge.real_features, look_at_samples(judge, gan.generator)[0])
        gan.history.append({
            "loss": gan.loss, "seed": gan.seed, "epoch": epoch, "loss_d": loss_d, "loss_g": loss_g,
            "d_real": d_real, "d_fake": d_fake, "distance": distance, "seconds": seconds,
            "generator_steps": gan.generator_steps, "critic_steps": gan.critic_steps,
            "data": data_name})
        save_checkpoint(gan, states, data_name)
        left = timedelta(seconds=round((EPOCHS - epoch) * (time.perf_counter() - start)))
        print(f"{gan.loss:8}{gan.seed:4d} {epoch:6d} {loss_d:9.4f} {loss_g:9.4f} {d_real:8.3f} "
              f"{d_fake:9.3f} {distance:9.2f} {seconds:8.1f}  {left!s:>9}", flush=True)


# %% 9. The judge and its metrics
# Compare only values that the same judge has given: those of another run's judge, or of
# a paper's, are on another scale.
class Judge(nn.Module):
    """A small CNN that names the digit in images [B, 1, 28, 28]: features [B, 64], logits [B, 10].

    The features are what it sees in an image just before it decides: images that look alike to it
    have features near to each other, which their pixels need not be. [FID] does so with Inception,
    a far larger network that was trained on photographs and has never seen a digit.
    """

    def __init__(self):
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),  # [B, 16, 14, 14]
            nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU(),  # [B, 32, 7, 7]
            nn.Flatten(),  # [B, 1568]
            # BatchNorm gives the features, and with them the distances, a fixed scale.
            nn.Linear(1568, 64), nn.BatchNorm1d(64, affine=False), nn.ReLU(),  # [B, 64]
        )
        self.decide = nn.Linear(64, 10)  # [B, 10]
        self.real_features = None  # What it sees in the real test images, once it has seen them.

    def forward(self, images):
        features = self.see(images)
        return features, self.decide(features)


def train_judge(images, labels):
    """A judge that has learnt the labels, int64 [N], of images [N, 1, 28, 28] in three rounds."""
    torch.manual_seed(0)
    judge = Judge().to(images.device)
    batches = torch.cat([torch.randperm(len(images)) for _ in range(3)]).split(128)
    optimizer = torch.optim.Adam(judge.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, len(batches))
    for number, batch in enumerate(batches, start=1):
        loss = F.cross_entropy(judge(images[batch])[1], labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()  # Smaller and smaller steps, to settle.
        show_progress(number, len(batches))
    return judge.eval()


@torch.no_grad()
def look_at(judge, images):
    """What the judge sees in images [N, 1, 28, 28]: features [N, 64] and probabilities [N, 10]."""
    features, logits = zip(*[judge(part) for part in images.split(1000)])
    return torch.cat(features).cpu().double(), torch.cat(logits).cpu().double().softmax(1)


def look_at_samples(judge, generator):
    """The same for SAMPLES images that a generator makes, always from the same latents."""
    device = judge.decide.weight.device
    latents = sample_latents(SAMPLES, torch.Generator(device).manual_seed(1))
    samples = generate(generator, latents).unsqueeze(1).to(device)  # [N, 1, 28, 28], as bytes
    return look_at(judge, samples.float().div_(127.5).sub_(1))  # As load_images does.


def measure(judge, features, probabilities):
    """All figures by name, from what look_at returned for one set of images."""
    digits, evenness = digits_covered(probabilities)
    precision, recall = precision_and_recall(judge.real_features, features)
    return {"distance": frechet_distance(judge.real_features, features),
            "kernel": kernel_distance(judge.real_features, features),
            "score": classifier_score(probabilities), "digits": digits, "evenness": evenness,
            "precision": precision, "recall": recall}


def frechet_distance(real, fake):
    """How far apart two sets of features [N, 64] are, each taken for a Gaussian distribution.

    |mean_r - mean_f|^2 + trace(C_r + C_f - 2 (C_r C_f)^(1/2)), C: covariances. [FID, eq. 6]
    Sees bad images and missing kinds of image alike, but does not say which, and knows only means
    and covariances. It is a squared distance, as in the paper, and larger for fewer images: compare
    equal numbers only. A GAN that copied its training images would have the best value.
    """
    # A trace is the sum of the eigenvalues, and (C_r C_f)^(1/2) has the roots of those of C_r C_f.
    cov_r, cov_f = real.T.cov(), fake.T.cov()
    roots = torch.linalg.eigvals(cov_r @ cov_f).real.clamp(min=0).sqrt()  # Rounding may go below 0.
    means = (real.mean(0) - fake.mean(0)).square().sum()
    return (means + cov_r.trace() + cov_f.trace() - 2 * roots.sum()).item()


def kernel_distance(real, fake):
    """The squared distance of the means after a map to all products of up to three features (MMD).

    E k(r, r') + E k(f, f') - 2 E k(r, f), with k(a, b) = (a.b / 64 + 1)^3, never of an image with
    itself: so it is unbiased, few images will do, and the value may be just below 0. [KID, sec. 4]
    The mean over parts of at most 1,000 images, which need little memory. Sees what the Frechet
    distance sees, and more than means and covariances, but does not say what is wrong.
    """
    values, parts = [], math.ceil(len(fake) / 1000)
    for r, f in zip(real.chunk(parts), fake.chunk(parts)):
        rr, ff, rf = [(a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((r, r), (f, f), (r, f))]
        within = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (rr, ff)]
        values.append(within[0] + within[1] - 2 * rf.mean())
    return torch.stack(values).mean().item()


def classifier_score(probabilities):
    """exp(mean over images of KL(p(y | image) || p(y))), from 1 to 10. [IS, sec. 4]

    High if the judge is sure of each image and all digits are equally frequent. Blind to whether
    the images of one digit are all the same, and it never looks at a real image.
    """
    mean = probabilities.mean(0, keepdim=True)
    divergence = torch.xlogy(probabilities, probabilities) - torch.xlogy(probabilities, mean)
    return divergence.sum(1).mean().exp().item()


def digits_covered(probabilities):
    """How many digits are drawn, and how evenly: 1 if all ten are equally frequent, 0 if one is.

    A digit counts if the judge names it, at 90 % or surer, for at least 1 % of the images. Evenness
    is the entropy of the shares of all ten, unsure images included, by its maximum. Says nothing
    of variety within a digit, and noise that the judge takes for an 8 is an 8.
    """
    best, digit = probabilities.max(1)
    sure = torch.bincount(digit[best >= 0.9], minlength=10) / len(digit)
    shares = torch.bincount(digit, minlength=10) / len(digit)
    return (sure >= 0.01).sum().item(), torch.special.entr(shares).sum().item() / math.log(10)


def precision_and_recall(real, fake):
    """Share of fakes that look real, and share of real images that the fakes come near. [PR]

    A fake looks real if it lies within the ball around some real image that reaches to that
    image's third nearest real neighbour (eqs. 1, 2); recall is the same with the sides swapped.
    Precision is fidelity, recall is variety. A single odd image has a large ball, which flatters
    both. Taken from the first 5,000 of each, to need less memory.
    """
    real, fake = real[:5000].float(), fake[:5000].float()
    distances = torch.cdist(real, fake)  # [real, fake]
    # The fourth smallest distance, because the smallest is that of an image to itself.
    real_radius, fake_radius = [torch.cdist(x, x).kthvalue(4).values for x in (real, fake)]
    precision = (distances <= real_radius.unsqueeze(1)).any(0).double().mean().item()
    return precision, (distances <= fake_radius).any(1).double().mean().item()


# %% 10. Plumbing: pictures, files and resuming, drawn digits, checks
@torch.no_grad()
def generate(generator, latents):
    """Images of the latents as bytes, uint8 [N, 28, 28]: black is always 0, white always 255."""
    generator.eval()  # A BatchNorm layer, if any, then treats each image by itself.
    images = generator(latents).cpu()  # [N, 1, 28, 28]
    generator.train()
    return images.add(1).mul(127.5).round().byte().squeeze(1)


def draw_comparison(gans, figures, floor, data_name):
    """A row of images and loss curves for each loss, the distances of all below. Returns a Figure.

    figures: those of each of gans. Rows show the first seed, distances have a line for each seed.
    """
    colors = {name: f"C{number}" for number, name in enumerate(LOSSES)}
    rows = [(gan, found) for gan, found in zip(gans, figures) if gan.seed == gans[0].seed]
    figure = Figure(figsize=(12, 2.4 * len(rows) + 4), layout="constrained")  # Needs no display.
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.4 * len(rows) + 0.4, 3.6))
    title = (f"One GAN on {data_name}, different losses, the same start. Distance from real "
             f"images: less is better, real ones have {floor['distance']:.2f}")
    top.suptitle(title, fontsize="x-large")
    panels = top.subplots(len(rows), 2, squeeze=False, width_ratios=(8, 5))
    for (samples, curves), (gan, found) in zip(panels, rows):
        grid = generate(gan.generator, gan.fixed_latents).view(4, 16, 28, 28)
        grid = grid.transpose(1, 2).reshape(112, 448).numpy()
        samples.imshow(grid, cmap="gray", vmin=0, vmax=255)
        samples.set(xticks=[], yticks=[])
        title = (f"{gan.loss}: distance {found['distance']:.2f}, {found['digits']} of 10 digits, "
                 f"{found['G steps']:,} generator steps in {found['seconds']:,.0f} s")
        samples.set_title(title, loc="left", color=colors[gan.loss], weight="bold")
        columns = {key: [row[key] for row in gan.history] for key in gan.history[0]}
        entry = loss_table()[gan.loss]
        if entry.clip or entry.penalty:  # WGAN and its like.
            gap = [real - fake for real, fake in zip(columns["d_real"], columns["d_fake"])]
            lines = {"estimate D(x) - D(G(z))": (gap, ".-")}
        else:
            lines = {"loss D": (columns["loss_d"], ".-"), "loss G": (columns["loss_g"], ".--")}
        for label, (values, style) in lines.items():
            curves.plot(columns["epoch"], values, style, color=colors[gan.loss], label=label)
        curves.set(xlim=(0, EPOCHS + 0.5), ylim=(min(0, curves.get_ylim()[0]), None))
        curves.xaxis.get_major_locator().set_params(integer=True)
        curves.legend(fontsize="small")
    panels[0, 1].set_title("Each loss has a scale of its own:\nnever compare these, ...")
    panels[-1, 1].set_xlabel("epoch")
    left, right = bottom.subplots(1, 2, sharey=True)
    for gan in gans:
        distances = [row["distance"] for row in gan.history]
        steps = [row["generator_steps"] for row in gan.history]
        seconds = torch.tensor([row["seconds"] for row in gan.history]).cumsum(0).tolist()
        label = gan.loss if gan.seed == gans[0].seed else None
        for axes, places in ((left, steps), (right, seconds)):
            axes.plot(places, distances, ".-", color=colors[gan.loss], label=label)
    for axes, label in ((left, "generator steps"), (right, "seconds of training")):
        axes.axhline(floor["distance"], color="grey", ls=":", label="real training images")
        axes.set(yscale="log", xlabel=label)
    left.set(ylabel="distance from real test images", title="... but compare these: less is better")
    right.set_title("The same against time")
    left.legend(fontsize="small")
    return figure


def png(figure, dpi=110):
    """The bytes of the PNG file that shows a Figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def final_table(gans, figures, floor):
    """The figures as a Markdown table: a row for each loss, mean ± deviation over the seeds."""
    columns = {  # With the number of decimals.
        "distance": 2, "kernel": 3, "score": 2, "digits": 1, "evenness": 3, "precision": 3,
        "recall": 3, "G steps": 0, "D steps": 0, "seconds": 0,
    }
    rows = [["", *columns]]
    groups = {gan.loss: [] for gan in gans}
    for gan, found in zip(gans, figures):
        groups[gan.loss].append(found)
    for name, group in {"real images": [floor], **groups}.items():
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


def save_comparison(gans, images, judge, data_name):
    """Measure what each of gans has come to. Write figure and tables, and print the final one."""
    # Ctrl-C may have left a G amid an epoch. The file has its weights after the latest whole one.
    saved = torch.load(Path(OUTPUT_DIR, "checkpoint.pt"), map_location="cpu", weights_only=True)
    gans = [gan for gan in gans if f"{gan.loss}, seed {gan.seed}" in saved["states"]]
    for gan in gans:
        state = saved["states"][f"{gan.loss}, seed {gan.seed}"]
        gan.generator.load_state_dict(state["generator"])
    floor = measure(judge, *look_at(judge, images[:SAMPLES]))
    figures = []
    for gan in gans:
        figures.append(measure(judge, *look_at_samples(judge, gan.generator)))
        last = gan.history[-1]  # Of the last whole epoch, as the weights are.
        figures[-1].update({"G steps": last["generator_steps"], "D steps": last["critic_steps"]})
        figures[-1]["seconds"] = sum(row["seconds"] for row in gan.history)
    write_whole("comparison.png", png(draw_comparison(gans, figures, floor, data_name)))
    table = final_table(gans, figures, floor)
    note = (f"\n{data_name}, seeds {SEEDS}, {SAMPLES:,} images of each generator against real "
            f"test images. Real images: training images against them, for orientation. "
            f"Figures compare within one judge only.\n")
    write_whole("comparison.md", (table + note).encode())
    print(f"\n{table}{note}")
    final = [{"loss": gan.loss, "seed": gan.seed, **found} for gan, found in zip(gans, figures)]
    final = [{**row, "data": data_name} for row in (*final, {"loss": "real images", **floor})]
    history = [row for gan in gans for row in gan.history]
    for name, rows in (("comparison.csv", final), ("history.csv", history)):
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(name, text.getvalue().encode())


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


def save_tensors(name, content):
    """Write what torch.save makes of content to OUTPUT_DIR/name."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(name, buffer.getvalue())


def entry_of(gan):
    """What section 6 says of a loss: a checkpoint must agree with it. Formulas are not compared."""
    entry = vars(loss_table()[gan.loss])
    return {key: getattr(value, "__name__", value) for key, value in entry.items()}


def save_checkpoint(gan, states, data_name):
    """Write checkpoint.pt, the states of all trainings, and the first seed's generator alone."""
    state = {"entry": entry_of(gan)}
    for name, part in vars(gan).items():
        state[name] = part.state_dict() if hasattr(part, "state_dict") else part
    state["rng"] = gan.rng.get_state()
    states[f"{gan.loss}, seed {gan.seed}"] = state
    now = {**check_constants(), "data": data_name, "device": gan.rng.device.type}
    save_tensors("checkpoint.pt", {"made with": now, "states": states})
    if gan.seed == SEEDS[0]:
        weights = {name: tensor.cpu() for name, tensor in gan.generator.state_dict().items()}
        save_tensors(f"generator_{gan.loss.lower()}.pt", weights)


def load_checkpoint(gans, data_name):
    """Put what checkpoint.pt has into gans. Exits if it is damaged or of another kind of run.

    Returns the states of all trainings in it, also of losses and seeds that are not wanted now.
    """
    path = Path(OUTPUT_DIR, "checkpoint.pt")
    anew = "or set RESUME = False to start anew; the earlier files are kept."
    now = {**check_constants(), "data": data_name, "device": gans[0].rng.device.type}
    try:
        file = torch.load(path, map_location="cpu", weights_only=True)  # Runs no code from it.
        saved = file["made with"]
    except Exception as error:  # A damaged file fails in many ways.
        raise SystemExit(f"{path} is damaged ({type(error).__name__}). Delete it, {anew}") from None
    if saved.keys() != now.keys():
        raise SystemExit(f"{path} is of a script with other constants. Change OUTPUT_DIR, {anew}")
    may_change = {"LOSSES", "SEEDS", "EPOCHS", "RESUME", "OUTPUT_DIR", "DATA_DIR"}
    for name in now.keys() - may_change:
        if saved[name] != now[name]:
            raise SystemExit(f"{path} was made with {name} = {saved[name]!r}, and now it is "
                             f"{now[name]!r}. Change it back, {anew}")
    states = file["states"]
    for gan in gans:
        if state := states.get(f"{gan.loss}, seed {gan.seed}"):
            if state["entry"] != entry_of(gan):
                raise SystemExit(f"{path} was made with another entry for {gan.loss} in section 6: "
                                 f"{state['entry']}. Change it back, {anew}")
            try:
                for name, part in vars(gan).items():
                    if hasattr(part, "load_state_dict"):
                        part.load_state_dict(state[name])
                    elif name != "rng":
                        setattr(gan, name, state[name])
            except (KeyError, RuntimeError, ValueError):
                raise SystemExit(f"{path} is of other networks than section 5 has. Change them "
                                 f"back, {anew}") from None
            gan.rng.set_state(state["rng"])
            gan.order = gan.order.to(gan.rng.device)
            gan.fixed_latents = gan.fixed_latents.to(gan.rng.device)
    return states


def prepare_judge(images, labels, data_name):
    """The judge in judge.pt, or a new one if there is none for this data.

    Takes the training images and their labels. With the judge comes what it sees in test images.
    """
    try:
        saved = torch.load(Path(OUTPUT_DIR, "judge.pt"), map_location="cpu", weights_only=True)
        judge = Judge().to(images.device).eval()
        judge.load_state_dict(saved[data_name])
    except Exception:  # A missing or damaged file, other data, another network.
        judge = train_judge(images, labels.to(images.device))
    if data_name == "drawn digits":  # Then it has been said why.
        test_images, test_labels = draw_digits(10_000, seed=1)
    else:
        test_images, test_labels, _ = load_images(train=False)
    # The first half of MNIST's test images is neater handwriting than the second: mixed, here.
    mixed = torch.randperm(len(test_images), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    judge.real_features, probabilities = look_at(judge, test_images[mixed].to(images.device))
    right = (probabilities.argmax(1) == test_labels[mixed]).double().mean()
    print(f"Judge     names {right:.1%} right of {len(mixed):,} test images")
    return judge


def written_files():
    """The files of a run that are in OUTPUT_DIR now."""
    names = ["comparison.png", "comparison.md", "comparison.csv", "history.csv"]
    names += ["generator_*.pt", "judge.pt", "checkpoint.pt"]
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


def check_constants():
    """Return the constants by name. Raises SystemExit, in one line, if one cannot be used."""
    allowed = {
        "DATASET": ["MNIST", "FashionMNIST", "KMNIST", "drawn"],  # A list: one of these.
        "DATA_DIR": str,
        "LOSSES": loss_table(),  # A dictionary: a tuple of some of its names.
        "SEEDS": set,
        "LATENT_DIM": range(1, 10_001),  # A range: a whole number in it.
        "GENERATOR_HIDDEN": tuple,
        "DISCRIMINATOR_HIDDEN": tuple,
        "EPOCHS": range(1, 1000),
        "BATCH_SIZE": range(2, 60_001),  # BatchNorm needs two.
        "PRECISION": ["float32", "bfloat16"],
        "RESUME": [False, True],
        "SAMPLES": range(100, 10_001),
        "OUTPUT_DIR": str,
    }
    for name, rule in allowed.items():
        value = globals()[name]
        if rule is str:
            right, wanted = isinstance(value, str) and value.strip(), "the name of a folder"
        elif rule is tuple:
            right = isinstance(value, tuple) and 1 <= len(value) <= 4
            right = right and all(type(width) is int and 1 <= width <= 10_000 for width in value)
            wanted = "one to four widths such as (256, 512), or (128,) with its comma"
        elif rule is set:
            right = isinstance(value, tuple) and all(type(seed) is int for seed in value)
            right = right and all(0 <= seed < 2**32 for seed in value)
            right = right and 0 < len(value) == len(set(value))
            wanted = "different whole numbers such as (0, 1, 2), or (0,) with its comma"
        elif isinstance(rule, dict):
            right = isinstance(value, tuple) and all(word in list(rule) for word in value)
            right = right and 0 < len(value) == len(set(value))
            wanted = f"different names from {list(rule)}, or one such as ('BCE',) with its comma"
        elif isinstance(rule, list):
            right, wanted = value in rule, f"one of {rule}"
        else:
            right = type(value) is int and value in rule
            wanted = f"a whole number from {rule[0]} to {rule[-1]}"
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


# %% 11. Main
def main():
    check_constants()
    open_output()
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    device = torch.device("cuda" if cuda else "mps" if mps else "cpu")
    images, labels, data_name = load_images()
    images = images.to(device)
    gans = [build_gan(device, loss, seed) for seed in SEEDS for loss in LOSSES]
    announce(gans[0], images, data_name)
    states, judge = {}, None
    if RESUME and Path(OUTPUT_DIR, "checkpoint.pt").exists():
        states = load_checkpoint(gans, data_name)
        for gan in gans:
            done = len(gan.history)
            print(f"Resumed   {gan.loss}, seed {gan.seed}, after epoch {done} of {EPOCHS}")
    elif RESUME:
        print("Resumed   nothing, for there is no checkpoint.pt: a new run")
    try:
        judge = prepare_judge(images, labels, data_name)
        if not states:
            set_aside_earlier_run()
        save_tensors("judge.pt", {data_name: judge.state_dict()})
        print("\nloss    seed  epoch    loss D    loss G     D(x)   D(G(z))  distance  seconds"
              "  time left")
        for gan in gans:
            train(gan, images, judge, states, data_name)
    except KeyboardInterrupt:
        print("\nStopped. RESUME = True goes on after the last full epoch.")
    finally:  # Also after an error: the pictures so far may show what went wrong.
        saved = Path(OUTPUT_DIR, "checkpoint.pt").exists()
        if judge and saved and any(gan.history for gan in gans):
            save_comparison(gans, images, judge, data_name)
    print("\nWritten:", *written_files(), sep="\n  ")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped.")
