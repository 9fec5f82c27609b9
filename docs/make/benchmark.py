"""Time the scripts: how long a step takes, and how long it takes until there are digits.

Run it:  python docs/make/benchmark.py speed     (About ten minutes on two idle processor cores.)
         python docs/make/benchmark.py digits    (Two hours, the first five minutes on idle cores.
                                                  Both need MNIST in data/, and use the CPU.)

speed   Each script beside its tutorial's own loop, which is written anew here from its text: a
        DataLoader whose transforms convert image by image, Sigmoid and BCELoss, the step as
        printed. All have the tutorial's settings. Then what R1 and the average add. The loops take
        turns of STEPS steps, so that whatever slows the machine down slows all of them. Each has a
        process of its own.
digits  How long the settings below train until there are digits. First it times a step of each on
        the idle cores. Then it counts the steps, with each seed: the judge of compare_losses.py
        looks at 10,000 images every LOOK steps, later every thirtieth part of the steps so far. It
        notes when all ten digits are drawn, and when the distance is below each of MARKS. Steps
        times the time of a step are the seconds. What has not happened after LIMIT seconds is
        given as more than these. (The tutorials' settings, which take that long, have one seed.)
        The counting does not need idle cores: WORKERS runs go on at the same time, with one thread
        each. Each of them adds a row to outputs/experiments/digits.csv, and one that has a row
        there is not run again, unless the script's code has changed.
"""

import csv
import importlib
import itertools
import multiprocessing
import os
import platform
import re
import statistics
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import experiments
import torch
import torchvision
from torch import nn
from torchvision import transforms

ROOT = experiments.ROOT  # The folder of the scripts, where they can be imported from by now.
STEPS = 100  # Steps of a loop in each of its turns. With few, a turn's cold start weighs more.
ROUNDS = 4  # Turns of each loop, after one to warm up. More make the median surer.
LOOK = 100  # Steps from one look of the judge to the next, at first.
MARKS = (4.0, 2.0, 1.0)  # Distances: strokes, rough digits, digits.
LIMIT = 400  # Seconds of training.
WORKERS = os.cpu_count()

GOALS = ("ten digits", *(f"distance {mark}" for mark in MARKS))
JUDGE_DIR = "outputs/experiments"  # Where the judge is kept, and the rows.
LOCK = threading.Lock()

PLAIN = {"BATCH_SIZE": 128, "LEARNING_RATE": 2e-4, "BETAS": (0.5, 0.999), "R1": 0, "AVERAGE": 0}
C = {**PLAIN, "DISCRIMINATOR": "flatten"}
SPEED = {"tutorial A": ("train_gan", PLAIN), "tutorial C": ("train_dcgan_variant", C)}
DIGITS = {  # A script, settings, and seeds.
    "train_gan.py": ("train_gan", {}, (0, 1, 2)),
    "tutorial A's settings": ("train_gan", PLAIN, (0,)),
    "train_dcgan_variant.py": ("train_dcgan_variant", {}, (0, 1, 2)),
    'GENERATOR = "conv"': ("train_dcgan_variant", {"GENERATOR": "conv"}, (0, 1, 2)),
    "tutorial C's settings": ("train_dcgan_variant", C, (0,)),
    "compare_losses.py, BCE-R1": ("compare_losses", {"LOSSES": ("BCE-R1",)}, (0, 1, 2)),
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


def build(name, settings):
    """Import a script, set constants, and take its progress line away. Returns it and its GAN."""
    script = importlib.import_module(name)
    for constant, value in settings.items():
        setattr(script, constant, value)
    script.show_progress = lambda number, count: None
    which = (script.LOSSES[0], script.SEEDS[0]) if name == "compare_losses" else ()
    return script, script.build_gan(torch.device("cpu"), *which)


def prepare(tutorial, name, settings):
    """In the process of a loop: build all that its turns need. Without a name: the tutorial's."""
    global take_steps
    if name:
        script, gan = build(name, settings)
        images = script.load_images()[0][: STEPS * script.BATCH_SIZE]
        take_steps = partial(script.train_epoch, gan, images)
    else:
        take_steps = tutorial_loop(tutorial)


def turn():
    """Milliseconds a step, in one turn of the loop that prepare has built in this process."""
    start = time.perf_counter()
    take_steps()
    return 1000 * (time.perf_counter() - start) / STEPS


def time_steps(loops):
    """Milliseconds a step of each loop, by its name, in each of ROUNDS turns."""
    processes, times = {}, {loop: [] for loop in loops}
    for loop, what in loops.items():
        processes[loop] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        processes[loop].submit(prepare, *what).result()
    for number in range(ROUNDS + 1):
        for loop, process in processes.items():
            took = process.submit(turn).result()
            times[loop] += [took] if number else []  # Round 0 is to warm up.
    return times


def speed():
    rows = [["loop", "milliseconds a step", "images a second", "times as fast as the tutorial"]]
    for tutorial, (name, settings) in SPEED.items():
        ours = f"{name}.py with the settings of {tutorial}"
        times = time_steps({
            tutorial: (tutorial, "", {}), ours: ("", name, settings),
            "the same with R1": ("", name, {**settings, "R1": 0.3}),
            "the same with R1 and the average": ("", name, {**settings, "R1": 0.3, "AVERAGE": 8}),
        })  # fmt: skip
        first = statistics.median(times[tutorial])
        for loop, took in times.items():
            middle = statistics.median(took)
            rows.append([loop, f"{middle:.1f} ({min(took):.1f} to {max(took):.1f})",
                         f"{128_000 / middle:,.0f}", f"{first / middle:.2f}"])
    return rows


# %% Time to digits
def steps_to(name, settings, seed, limit):
    """Steps of G until each goal is reached, by its name, in at most about limit steps."""
    compare_losses = experiments.compare_losses
    torch.set_num_threads(1)
    compare_losses.OUTPUT_DIR = JUDGE_DIR
    judge = compare_losses.prepare_judge(*compare_losses.load_images())
    script, gan = build(name, {**settings, "SEED": seed, "SEEDS": (seed,)})
    latents = script.sample_latents(10_000, script.random_stream("judged latents", seed))
    found, due = {}, LOOK

    def look(number, count):  # The scripts call it after each step of G.
        nonlocal due
        if gan.step < due:
            return
        due = gan.step + max(LOOK, gan.step // 30)
        if hasattr(script, "renew_statistics"):
            script.renew_statistics(gan)
        pixels = script.generate(gan.average, latents)
        features, probabilities = compare_losses.look_at(judge, compare_losses.read_digits(pixels))
        distance = compare_losses.frechet_distance(judge.real_features, features)
        best, digit = probabilities.max(1)
        drawn = (torch.bincount(digit[best > 0.9], minlength=10) >= 100).all()  # Of 10,000.
        reached = [drawn, *(distance < mark for mark in MARKS)]
        for goal in itertools.compress(GOALS, reached):
            found.setdefault(goal, gan.step)
        if len(found) == len(GOALS) or gan.step > limit:
            raise StopIteration

    script.show_progress = look
    images = script.load_images()[0]
    try:
        while True:
            script.train_epoch(gan, images)
    except StopIteration:
        return found


def count_steps(title, seed, limit):
    """A row of digits.csv: the steps of one run. Trains it unless the row is there already."""
    name, settings, _ = DIGITS[title]
    code = experiments.code_hash((ROOT / f"{name}.py").read_text(encoding="utf-8"))
    key = {"row": title, "seed": str(seed), "code": code, "settings": f"{settings} {LOOK} {MARKS}"}
    file = Path(JUDGE_DIR, "digits.csv")
    for row in csv.DictReader(file.read_text().splitlines()) if file.exists() else []:
        if all(row[column] == value for column, value in key.items()):
            return row
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        found = process.submit(steps_to, name, settings, seed, limit).result()
    row = {**key, "limit": limit, **{goal: found.get(goal, "") for goal in GOALS}}
    with LOCK, open(file, "a", newline="") as out:
        writer = csv.DictWriter(out, row)
        if not out.tell():
            writer.writeheader()
        writer.writerow(row)
    print(title, seed, found, flush=True)
    return row


def digits():
    compare_losses = experiments.compare_losses
    Path(JUDGE_DIR).mkdir(parents=True, exist_ok=True)
    compare_losses.OUTPUT_DIR = JUDGE_DIR
    compare_losses.prepare_judge(*compare_losses.load_images())  # Kept there for all processes.
    times = time_steps({title: ("", *what[:2]) for title, what in DIGITS.items()})
    step = {title: statistics.median(took) / 1000 for title, took in times.items()}
    rows = [["median of the seeds, their range, and steps of G", "milliseconds a step", *GOALS]]
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = {title: [pool.submit(count_steps, title, seed, round(LIMIT / step[title]))
                        for seed in what[2]] for title, what in DIGITS.items()}  # fmt: skip
        for title in DIGITS:
            rows.append([title, f"{1000 * step[title]:.1f}"])
            runs = [job.result() for job in jobs[title]]
            for goal in GOALS:
                found = sorted((not row[goal], int(row[goal] or row["limit"])) for row in runs)
                shown = [f"{'> ' * late}{steps * step[title]:.0f}" for late, steps in found]
                late, steps = found[len(found) // 2]
                rows[-1].append(f"{shown[len(found) // 2]} s ({shown[0]} to {shown[-1]}), "
                                f"{'> ' * late}{steps:,}")  # fmt: skip
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
