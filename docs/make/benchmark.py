"""Time the scripts: how long a step takes, and how long it takes until there are digits.

Run it:  python docs/make/benchmark.py speed     (A few minutes on two idle processor cores.)
         python docs/make/benchmark.py digits    (About two hours. Both need MNIST in data/, and
                                                  both use the CPU.)

speed   Each script beside its tutorial's own loop, which is written anew here from its text: a
        DataLoader whose transforms convert image by image, Sigmoid and BCELoss, the step as
        printed. All have the tutorial's settings. Then what R1 and the average add. The loops take
        turns of STEPS steps, so that whatever slows the machine down slows all of them. Each has a
        process of its own.
digits  The settings below, with each of SEEDS. Every LOOK steps the clock stands still while the
        judge of compare_losses.py looks at 10,000 images. It notes the seconds of training until
        all ten digits are drawn, and until the distance is below each of MARKS. What has not
        happened after LIMIT seconds is given as more than these.
"""

import importlib
import itertools
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision import transforms

ROOT = Path(__file__).resolve().parents[2]  # The folder of the scripts.
sys.path.insert(0, str(ROOT))

STEPS = 100  # Steps of a loop in each of its turns. With few, a turn's cold start weighs more.
ROUNDS = 4  # Turns of each loop, after one to warm up. More make the median surer.
SEEDS = (0, 1, 2)
LOOK = 100  # Steps from one look of the judge to the next.
MARKS = (4.0, 2.0, 1.0)  # Distances: strokes, rough digits, digits.
LIMIT = 600  # Seconds of training.

PLAIN = {"BATCH_SIZE": 128, "LEARNING_RATE": 2e-4, "BETAS": (0.5, 0.999), "R1": 0, "AVERAGE": 0}
C = {**PLAIN, "DISCRIMINATOR": "flatten"}
SPEED = {"tutorial A": ("train_gan", PLAIN), "tutorial C": ("train_dcgan_variant", C)}
DIGITS = {
    "train_gan.py": ("train_gan", {}),
    "tutorial A's settings": ("train_gan", PLAIN),
    "train_dcgan_variant.py": ("train_dcgan_variant", {}),
    'GENERATOR = "conv"': ("train_dcgan_variant", {"GENERATOR": "conv"}),
    "tutorial C's settings": ("train_dcgan_variant", C),
    "compare_losses.py, BCE-R1": ("compare_losses", {"LOSSES": ("BCE-R1",)}),
}  # fmt: skip


# %% Speed
def tutorial_loop(tutorial):
    """Build what tutorial A or C trains. Returns a function that takes STEPS steps."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = torchvision.datasets.MNIST("data", train=True, transform=transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=128, shuffle=True)
    batches = (images for _ in itertools.count() for images, _ in loader)  # Epoch after epoch.
    is_a = tutorial == "tutorial A"
    shape = (-1, 784) if is_a else (-1, 1, 28, 28)
    if is_a:
        generator = nn.Sequential(nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(),
                                  nn.Linear(512, 784), nn.Tanh())
        discriminator = nn.Sequential(nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256),
                                      nn.LeakyReLU(0.2), nn.Linear(256, 1), nn.Sigmoid())
    else:
        generator = nn.Sequential(
            nn.Linear(100, 256), nn.BatchNorm1d(256, momentum=0.8), nn.ReLU(True),
            nn.Linear(256, 512), nn.BatchNorm1d(512, momentum=0.8), nn.ReLU(True),
            nn.Linear(512, 1024), nn.BatchNorm1d(1024, momentum=0.8), nn.ReLU(True),
            nn.Linear(1024, 784), nn.Tanh())
        discriminator = nn.Sequential(
            nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True),
            nn.Conv2d(64, 128, 4, stride=2, padding=1), nn.BatchNorm2d(128, momentum=0.8),
            nn.LeakyReLU(0.2, True), nn.Flatten(), nn.Linear(6272, 1), nn.Sigmoid())
    bce, adam = nn.BCELoss(), partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))
    optimizer_g, optimizer_d = adam(generator.parameters()), adam(discriminator.parameters())

    def take_steps():
        for real_images in itertools.islice(batches, STEPS):
            count, real_images = len(real_images), real_images.view(shape)
            ones, zeros = torch.ones(count, 1), torch.zeros(count, 1)
            loss_real = bce(discriminator(real_images), ones)
            fake_images = generator(torch.randn(count, 100)).view(shape)
            shown = fake_images if is_a else fake_images.detach()  # In A it goes back into G.
            loss_d = loss_real + bce(discriminator(shown), zeros)
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()
            if is_a:  # New images for G's step. C uses the same again.
                fake_images = generator(torch.randn(count, 100))
            loss_g = bce(discriminator(fake_images), ones)
            optimizer_g.zero_grad()
            loss_g.backward()
            optimizer_g.step()
            if not is_a:  # C adds up the losses as plain numbers.
                loss_d.item(), loss_g.item()
    return take_steps


def adjust(name, settings):
    """Import a script, and give it these constants, no progress line, and memory as in main()."""
    script = importlib.import_module(name)
    for constant, value in settings.items():
        setattr(script, constant, value)
    script.show_progress = lambda number, count: None
    return script


def prepare(tutorial, name, settings):
    """In the process of a loop: build all that its turns need. Without a name: the tutorial's."""
    global take_steps
    if name:
        script = adjust(name, settings)
        images = script.load_images()[0][: STEPS * script.BATCH_SIZE]
        take_steps = partial(script.train_epoch, script.build_gan(torch.device("cpu")), images)
    else:
        take_steps = tutorial_loop(tutorial)


def turn():
    """Milliseconds a step, in one turn of the loop that prepare has built in this process."""
    start = time.perf_counter()
    take_steps()
    return 1000 * (time.perf_counter() - start) / STEPS


def speed():
    rows = [["loop", "milliseconds a step", "images a second", "times as fast as the tutorial"]]
    for tutorial, (name, settings) in SPEED.items():
        ours = f"{name}.py with the settings of {tutorial}"
        loops = {tutorial: ("", {}), ours: (name, settings),
                 "the same with R1": (name, {**settings, "R1": 0.3}),
                 "the same with R1 and the average": (name, {**settings, "R1": 0.3, "AVERAGE": 8})}
        processes, times = {}, {loop: [] for loop in loops}
        for loop, (script, its_settings) in loops.items():
            processes[loop] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            processes[loop].submit(prepare, tutorial, script, its_settings).result()
        for number in range(ROUNDS + 1):
            for loop, process in processes.items():
                took = process.submit(turn).result()
                times[loop] += [took] if number else []  # Round 0 is to warm up.
        first = statistics.median(times[tutorial])
        for loop, took in times.items():
            middle = statistics.median(took)
            rows.append([loop, f"{middle:.1f} ({min(took):.1f} to {max(took):.1f})",
                         f"{128_000 / middle:,.0f}", f"{first / middle:.2f}"])
    return rows


# %% Time to digits
def seconds_to(name, settings, seed):
    """Seconds of training until each goal is reached, by its name, and the steps of G till then."""
    import compare_losses

    script = adjust(name, {**settings, "SEED": seed, "SEEDS": (seed,)})
    compare_losses.OUTPUT_DIR = "outputs/experiments"  # Where the judge is kept.
    Path(compare_losses.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    judge = compare_losses.prepare_judge(*compare_losses.load_images())
    images, device = script.load_images()[0], torch.device("cpu")
    compares = name == "compare_losses"
    gan = script.build_gan(device, script.LOSSES[0], seed) if compares else script.build_gan(device)
    latents = script.sample_latents(10_000, script.random_stream("judged latents", seed))
    found, trained, start = {}, 0.0, time.perf_counter()

    def look(number, count):  # The scripts call it after each step of G.
        nonlocal trained, start
        if gan.step % LOOK:
            return
        trained += time.perf_counter() - start
        if hasattr(script, "renew_statistics"):
            script.renew_statistics(gan)
        pixels = script.generate(gan.average, latents)
        features, probabilities = compare_losses.look_at(judge, compare_losses.read_digits(pixels))
        distance = compare_losses.frechet_distance(judge.real_features, features)
        best, digit = probabilities.max(1)
        drawn = (torch.bincount(digit[best > 0.9], minlength=10) >= 100).all()  # Of 10,000.
        goals = {"ten digits": drawn, **{f"distance {mark}": distance < mark for mark in MARKS}}
        for goal, reached in goals.items():
            if reached:
                found.setdefault(goal, (trained, gan.step))
        if len(found) == len(goals) or trained > LIMIT:
            raise StopIteration
        start = time.perf_counter()

    script.show_progress = look
    try:
        while True:
            script.train_epoch(gan, images)
    except StopIteration:
        return found


def digits():
    goals = ["ten digits", *(f"distance {mark}" for mark in MARKS)]
    rows = [["median of the seeds, their range, and steps of G", *goals]]
    for title, (name, settings) in DIGITS.items():
        runs = []
        for seed in SEEDS:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                runs.append(process.submit(seconds_to, name, settings, seed).result())
        rows.append([title])
        for goal in goals:
            took = sorted(run[goal] for run in runs if goal in run)
            took += [(float("inf"), 0)] * (len(runs) - len(took))
            shown = [f"{seconds:.0f}" if seconds < LIMIT else f"> {LIMIT}" for seconds, _ in took]
            middle = len(took) // 2
            rows[-1].append(f"{shown[middle]} s ({shown[0]} to {shown[-1]}), {took[middle][1]:,}")
        print(rows[-1], flush=True)
    return rows


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in ("speed", "digits"):
        raise SystemExit("python docs/make/benchmark.py speed     (or digits)")
    info = Path("/proc/cpuinfo")  # On Linux alone.
    name = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    print(f"{time.strftime('%Y-%m-%d')}, {name[1] if name else platform.processor()}, "
          f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, "
          f"Python {platform.python_version()}, torch {torch.__version__}", flush=True)
    rows = {"speed": speed, "digits": digits}[sys.argv[1]]()
    rows.insert(1, ["---"] * len(rows[0]))
    print("", *("| " + " | ".join(row) + " |" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
