"""Time the scripts: how long a step takes, and how long it takes until there are digits.

Run it:  python docs/make/benchmark.py speed     (Ten minutes on two idle cores.)
         python docs/make/benchmark.py busy      (The same.)
         python docs/make/benchmark.py digits    (One hour, the first minutes on idle cores.)

All need MNIST in data/, and use the CPU. Each loop has a process of its own. They take turns of
STEPS steps, so that whatever slows the machine down slows all of them.

speed   Each script beside its tutorial's own loop, which is written anew here from its text: a
        DataLoader whose transforms convert image by image, Sigmoid and BCELoss, the step as
        printed. All have the tutorial's settings. Then what R1 and the average add. Ratios are of
        turns that follow each other.
busy    A step of each script on two cores: both idle, and then another program on one of them (if
        this is Linux), with what tells the waiting threads of GNU's OpenMP when to give way.
digits  How long the settings below train until there are digits: steps times the time of a step,
        which is measured first. Then the judge looks at 10,000 images every LOOK steps, later every
        fifteenth part of the steps so far, and notes when all ten digits are drawn, and when the
        distance is below each of MARKS, for LIMIT seconds at most. This needs no idle cores:
        WORKERS runs go on at the same time, with a thread each. Their rows stand in
        outputs/experiments/digits.csv, and are kept until the script's code changes.
"""

import csv
import importlib
import itertools
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import torch  # Before the scripts: see time_steps().
import torchvision
from torch import nn
from torchvision import transforms

import experiments
from experiments import compare_losses

STEPS = 100  # Steps of a loop in each of its turns. With few, a turn's cold start weighs more.
ROUNDS = 4  # Turns of each loop, after one to warm up. More make the median surer.
LOOK = 100  # Steps from one look of the judge to the next, at first.
MARKS = [4.0, 2.0, 1.0]  # Distances: strokes, rough digits, digits.
LIMIT = 120  # Seconds of training.
WORKERS = os.cpu_count()
GOALS = ["ten digits", *(f"distance {mark}" for mark in MARKS)]
LOCK = threading.Lock()
DIGITS = {  # A script, settings, and seeds.
    "train_gan.py": ("train_gan", {}, [0, 1, 2]),
    "tutorial A's settings": ("train_gan", experiments.A, [0]),
    "train_dcgan_variant.py": ("train_dcgan_variant", {}, [0, 1, 2]),
    'GENERATOR = "conv"': ("train_dcgan_variant", {"GENERATOR": "conv"}, [0, 1, 2]),
    "tutorial C's settings": ("train_dcgan_variant", experiments.C, [0]),
    "compare_losses.py, BCE-R1": ("compare_losses", {"LOSSES": ["BCE-R1"]}, [0, 1, 2]),
}
SCRIPTS = dict(re.findall(r'setdefault\("(\w+)", "(\d+)"\)', experiments.SOURCES["train_gan"]))
WAITING = {"no variable": {}, f"as the scripts set it: {SCRIPTS}": SCRIPTS,
           "GOMP_SPINCOUNT=0": {"GOMP_SPINCOUNT": "0"},
           "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}}


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
    for constant, value in {"DEVICE": "cpu", **settings}.items():
        setattr(script, constant, value)
    script.show_progress = lambda number, count: None
    which = (script.LOSSES[0], script.SEEDS[0]) if name == "compare_losses" else ()
    return script, script.build_gan(script.find_device(), *which)


def prepare(tutorial, name, settings):
    """In the process of a loop: build all that its turns need. Without a name: the tutorial's."""
    global take_steps
    if name:
        script, gan = build(name, settings)
        images, epochs = script.load_images()[0], itertools.count(1)
        images = images[: STEPS * script.BATCH_SIZE].clone()

        def take_steps():
            script.train_epoch(gan, images, next(epochs))
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
    for loop, (*what, variables) in loops.items():
        for variable in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            os.environ.pop(variable, None)
        os.environ.update(variables)  # Its process imports PyTorch, which reads them, at once.
        processes[loop] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        processes[loop].submit(prepare, *what).result()
    for number in range(ROUNDS + 1):
        for loop, process in processes.items():
            took = process.submit(turn).result()
            times[loop] += [took] if number else []  # Round 0 is to warm up.
    for process in processes.values():
        process.shutdown()
    return times


def spread(values, digits):
    """The median of the values, and their range, as text."""
    middle, *ends = [f"{fun(values):.{digits}f}" for fun in (statistics.median, min, max)]
    return f"{middle} ({' to '.join(ends)})"


def speed():
    rows = [["loop", "milliseconds a step", "times as fast as the tutorial"]]
    for tutorial, name, settings in (("tutorial A", "train_gan", experiments.A),
                                     ("tutorial C", "train_dcgan_variant", experiments.C)):
        times = time_steps({
            tutorial: (tutorial, "", {}, {}),
            f"{name}.py with the settings of {tutorial}": ("", name, settings, SCRIPTS),
            "the same with R1": ("", name, {**settings, "R1": 0.3}, SCRIPTS),
            "with R1 and the average": ("", name, {**settings, "R1": 0.3, "AVERAGE": 8}, SCRIPTS),
        })
        for loop, took in times.items():
            ratios = [theirs / ours for theirs, ours in zip(times[tutorial], took)]
            rows.append([loop, spread(took, 1), spread(ratios, 2)])
    return rows


def busy():
    program = "while True: pass"
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:2]
        os.sched_setaffinity(0, cores)  # The processes of the loops inherit this.
        program = f"import os; os.sched_setaffinity(0, [{cores[-1]}])\n{program}"
    rows = [["script", "variable", "both cores idle", "one core busy", "times as long"]]
    for name in experiments.SOURCES:
        loops = {title: ("", name, {}, variables) for title, variables in WAITING.items()}
        idle = time_steps(loops)
        other = subprocess.Popen([sys.executable, "-c", program])
        try:
            slowed = time_steps(loops)
        finally:
            other.kill()
        for title in WAITING:
            ratio = statistics.median(slowed[title]) / statistics.median(idle[title])
            rows.append([f"{name}.py", title, spread(idle[title], 1), spread(slowed[title], 1),
                         f"{ratio:.2f}"])
    return rows


def steps_to(name, settings, seed, limit):
    """Steps of G until each goal is reached, by its name, in at most about limit steps."""
    torch.set_num_threads(1)
    judge = compare_losses.prepare_judge(*compare_losses.load_images())
    script, gan = build(name, {**settings, "SEED": seed, "SEEDS": [seed]})
    latents = script.sample_latents(10_000, script.random_stream("10,000 images", seed))
    found, due = {}, LOOK

    def look(number, count):  # The scripts call it after each step of G.
        nonlocal due
        if gan.step < due:
            return
        due = gan.step + max(LOOK, gan.step // 15)
        if hasattr(script, "renew_statistics"):
            script.renew_statistics(gan.average, 0, latents.device)
        images = script.generate(gan.average, latents).unsqueeze(1).float().div_(127.5).sub_(1)
        features, probabilities = compare_losses.look_at(judge, images)
        torch.set_float32_matmul_precision("medium")  # The judge has set another one.
        distance = compare_losses.frechet_distance(judge.real_features, features)
        best, digit = probabilities.max(1)
        drawn = (torch.bincount(digit[best > 0.9], minlength=10) >= 100).all()  # Of 10,000.
        for goal in itertools.compress(GOALS, [drawn, *(distance < mark for mark in MARKS)]):
            found.setdefault(goal, gan.step)
        if len(found) == len(GOALS) or gan.step > limit:
            raise StopIteration

    script.show_progress = look
    images = script.load_images()[0]
    try:
        for epoch in itertools.count(1):
            script.train_epoch(gan, images, epoch)
    except StopIteration:
        return found


def count_steps(title, seed, limit):
    """A row of digits.csv: the steps of one run. Trains it unless the row is there already."""
    name, settings, _ = DIGITS[title]
    code = experiments.code_hash(experiments.SOURCES[name])
    key = {"row": title, "seed": str(seed), "code": code, "settings": f"{settings} {LOOK} {MARKS}"}
    file = experiments.OUTPUT / "digits.csv"
    for row in experiments.read(file):
        if row.items() >= key.items():
            return row
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        found = process.submit(steps_to, name, settings, seed, limit).result()
    row = {**key, "limit": limit, **{goal: found.get(goal, "") for goal in GOALS}}
    with LOCK, open(file, "a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, row)
        if not out.tell():
            writer.writeheader()
        writer.writerow(row)
    print(title, seed, found, flush=True)
    return row


def digits():
    experiments.OUTPUT.mkdir(parents=True, exist_ok=True)
    compare_losses.prepare_judge(*compare_losses.load_images())  # It is kept for all processes.
    times = time_steps({title: ("", *what[:2], SCRIPTS) for title, what in DIGITS.items()})
    step = {title: statistics.median(took) / 1000 for title, took in times.items()}
    rows = [["median of the seeds, their range, and steps of G", "milliseconds a step", *GOALS]]
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = {title: [pool.submit(count_steps, title, seed, round(LIMIT / step[title]))
                        for seed in what[2]] for title, what in DIGITS.items()}
        for title in DIGITS:
            rows.append([title, f"{1000 * step[title]:.1f}"])
            runs = [job.result() for job in jobs[title]]
            for goal in GOALS:
                found = sorted((not row[goal], int(row[goal] or row["limit"])) for row in runs)
                shown = [f"{'> ' * late}{steps * step[title]:.0f}" for late, steps in found]
                late, steps = found[len(found) // 2]
                rows[-1].append(f"{shown[len(found) // 2]} s ({shown[0]} to {shown[-1]}), "
                                f"{'> ' * late}{steps:,}")
    return rows


def main():
    tasks = {"speed": speed, "busy": busy, "digits": digits}
    if sys.argv[1:] not in [[task] for task in tasks]:
        raise SystemExit("python docs/make/benchmark.py speed     (or busy, or digits)")
    print(f"{time.strftime('%Y-%m-%d')}, {experiments.processor()}, "
          f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, "
          f"Python {platform.python_version()}, torch {torch.__version__}", flush=True)
    rows = tasks[sys.argv[1]]()
    rows.insert(1, ["---"] * len(rows[0]))
    print("", *("| " + " | ".join(row) + " |" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
