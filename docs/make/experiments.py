"""Run the experiments of docs/, and print their tables.

Run it:  python docs/make/experiments.py gan     (One or several groups of the table below.)

An experiment is a copy of a script with some of its lines changed. It trains in a folder of its
own, outputs/experiments/SCRIPT_HASH. HASH stands for the copy's code without comments, so what is
finished is not run again (also if another group has the same copy), what was interrupted goes on,
and other code is never mixed in. The judge of compare_losses.py, which is trained once, measures
the 10,000 images of each run. Its figures stand in outputs/experiments/GROUP.csv as soon as there
are any, and belong to one judge. WORKERS experiments run at the same time, with a thread each.
"""

import ast
import collections
import csv
import datetime
import hashlib
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import compare_losses  # noqa: E402  It is only found now.

WORKERS = os.cpu_count()
OUTPUT = Path("outputs", "experiments").absolute()
compare_losses.OUTPUT_DIR = OUTPUT  # Where the judge is kept.
MEASURING = threading.Lock()  # One at a time: precision and recall take much memory.
TRAINING = collections.defaultdict(threading.Lock)  # One for each copy: two groups may have it.
# The scripts as they are now: they may be edited while the experiments run.
SOURCES = {name: (ROOT / f"{name}.py").read_text(encoding="utf-8")
           for name in ("train_gan", "train_dcgan_variant", "compare_losses")}


def epochs_of(text):
    """The constant EPOCHS in the text of a script."""
    return int(re.search(r"(?m)^EPOCHS = (\d+)", text)[1])


def entry(loss, **settings):
    """The changes that train one loss of compare_losses.py with other settings in its entry."""
    new = f"LOSS_TABLE[{loss!r}] = replace(LOSS_TABLE[{loss!r}], **{settings})\n"
    return {"LOSSES": [loss], "if __name__ ==": f"{new}if __name__ =="}


def rates(rate_d, rate_g=None, **others):
    """The settings of an entry with these learning rates: one for both, or one for each."""
    return {"critic_lr": rate_d, "generator_lr": rate_g or rate_d, **others}


def one_by_one(**constants):
    """An experiment for each value of each constant, and one without a change."""
    return {"as it is": {}, **{f"{name} = {value!r}": {name: value}
                               for name, values in constants.items() for value in values}}


def extension(title):
    """The changes of the diff below a heading of docs/extensions.md: new text by the old one."""
    page = (ROOT / "docs" / "extensions.md").read_text(encoding="utf-8")
    diff = re.search(r"^```diff\n(.*?)^```$", page.split(f"\n## {title}")[1], re.M | re.S)[1]
    pieces = [piece.splitlines()[1:] for piece in re.split(r"^@@", diff, flags=re.M)[1:]]
    return {"\n".join(line[1:] for line in piece if line[:1] in " -"):
            "\n".join(line[1:] for line in piece if line[:1] in " +") for piece in pieces}


GAN = {"script": "train_gan", "epochs": 4, "seeds": [0]}
DCGAN = {"script": "train_dcgan_variant", "epochs": 3, "seeds": [0]}
TRICK = {**DCGAN, "seeds": [0, 1]}
LOSSES = {"script": "compare_losses", "epochs": None, "seeds": [0, 1, 2]}
LOG = ["loss D", "loss G", "D(x)", "D(G(z))"]  # Columns of history.csv.
GAN_EPOCHS, DCGAN_EPOCHS = map(epochs_of, list(SOURCES.values())[:2])
# The tutorials' settings. Batches of 128 need twice the epochs for as many steps as the defaults.
A = {"BATCH_SIZE": 128, "LEARNING_RATE": 2e-4, "BETAS": (0.5, 0.999), "R1": 0, "AVERAGE": 0}
B = {**A, "BATCH_SIZE": 64, "BETAS": (0.9, 0.999), "GENERATOR_HIDDEN": [128],
     "DISCRIMINATOR_HIDDEN": [128]}
C = {**A, "DISCRIMINATOR": "flatten"}
RATE, R1, MEAN = {"LEARNING_RATE": 1e-3}, {"R1": 0.3}, {"AVERAGE": 8}
ADAM, HIDDEN = {"BETAS": (0.0, 0.99)}, {"DISCRIMINATOR": "hidden"}
CURES = {"as it is": {}, "rate": RATE, "R1": R1, "average": MEAN,
         "rate, R1, average": {**RATE, **R1, **MEAN},
         "rate, R1, average, Adam": {**RATE, **R1, **MEAN, **ADAM}}
SATURATING = {"return F.binary_cross_entropy_with_logits(fake_logits, torch.ones":
              "return -F.binary_cross_entropy_with_logits(fake_logits, torch.zeros"}
NO_NORM = {'nn.Identity if "spectral_norm" in TRICKS else nn.BatchNorm2d': "nn.Identity"}
TRICKS = {"none": {}, **{trick: {"TRICKS": [trick]} for trick in (
    "label_smoothing", "spectral_norm", "minibatch_stddev", "feature_matching",
    "historical_averaging", "ttur", "frequency_separation")}}
NOISE = {**TRICK, "extension": "A new trick", "TRICKS": ["instance_noise"]}
SOME_TRICKS = {name: TRICKS[name] for name in ("none", "spectral_norm", "ttur")}
ADAMS = [*(rates(rate, betas=(0.5, 0.999)) for rate in (5e-4, 1e-3, 2e-3)), rates(1e-3)]
LOSS_SEARCH = {
    "BCE": ADAMS, "LSGAN": ADAMS, "hinge": ADAMS,
    "BCE-R1": [rates(5e-4), rates(1e-3), rates(2e-3), rates(1e-3, r1=1.0)],
    "WGAN": [rates(5e-5), rates(5e-5, 1e-3), rates(1e-4, 1e-3), rates(2e-4, 1e-3)],
    "R3GAN": [rates(1e-3), rates(1e-3, r1=0.3, r2=0.3), rates(1e-3, r1=0.1, r2=0.1), rates(2e-3)],
    "WGAN-GP": [rates(1e-4), rates(5e-4), rates(1e-3), rates(1e-3, betas=(0.0, 0.99))]}
SEARCHED = one_by_one(LEARNING_RATE=[1e-3, 3e-3], R1=[0.1, 0.3, 3])
CONV_NETWORKS = {  # Other conv generators: more maps, or one layer less or more.
    "from 7 x 7": {
        "nn.Linear(LATENT_DIM, 128 * 4 * 4),": "nn.Linear(LATENT_DIM, 64 * 7 * 7),",
        "nn.Unflatten(1, (128, 4, 4)),": "nn.Unflatten(1, (64, 7, 7)),",
        "                nn.BatchNorm2d(128),\n                nn.ReLU(),\n": "",
        "                nn.ConvTranspose2d(128, 64, 3, stride=2, padding=1),": ""},
    "192, 96 and 48 maps": {
        "nn.Linear(LATENT_DIM, 128 * 4 * 4),": "nn.Linear(LATENT_DIM, 192 * 4 * 4),",
        "nn.Unflatten(1, (128, 4, 4)),": "nn.Unflatten(1, (192, 4, 4)),",
        "                nn.BatchNorm2d(128),": "                nn.BatchNorm2d(192),",
        "nn.ConvTranspose2d(128, 64, 3,": "nn.ConvTranspose2d(192, 96, 3,",
        "                nn.BatchNorm2d(64),": "                nn.BatchNorm2d(96),",
        "nn.ConvTranspose2d(64, 32, 4": "nn.ConvTranspose2d(96, 48, 4",
        "nn.BatchNorm2d(32),": "nn.BatchNorm2d(48),",
        "nn.ConvTranspose2d(32, 1, 4": "nn.ConvTranspose2d(48, 1, 4"},
    "3 x 3 at 14 x 14": {
        "nn.ConvTranspose2d(32, 1, 4":
            "nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),\n"
            "                nn.ConvTranspose2d(32, 1, 4"}}
SEARCH = {"epochs": 5, "seeds": [0], "search": True}
# Each group: a script, its epochs (None: the script's own) and seeds, what "all" of its experiments
# change, and what "each" does, which may also have another script, epochs or seeds. NAME: value
# sets a constant. Any other text is replaced in the script, where it must stand once. If "search",
# the GAN does not see the last sixth of the training images, and is measured against these.
GROUPS = {
    "defaults": {**GAN, "epochs": None, "seeds": range(10), "each": {"train_gan.py": {}}},
    "defaults_dcgan": {**DCGAN, "epochs": None, "seeds": range(5), "each": {"mlp": {}}},
    "conv": {**DCGAN, "epochs": None, "seeds": range(3), "each": {"conv": {"GENERATOR": "conv"}}},
    "longer": {**GAN, "epochs": 2 * GAN_EPOCHS, "each": {"twice the epochs": {}}},
    "losses": {**LOSSES, "each": {loss: {"LOSSES": [loss]} for loss in (
        "BCE", "LSGAN", "WGAN", "hinge", "BCE-R1", "R3GAN", "R3GAN-lazy")}},
    # As many steps as the default runs have, and then the tutorials' own epochs.
    "tutorials": {**GAN, "epochs": GAN_EPOCHS, "each": {
        "A": {**A, "epochs": 2 * GAN_EPOCHS}, "B": B}},
    "tutorial_c": {**DCGAN, "seeds": [42], "epochs": 2 * DCGAN_EPOCHS, "each": {"C": C}},
    "tutorials_whole": {**GAN, "epochs": 100, "each": {"A": A, "B": B}},
    "tutorial_c_whole": {**DCGAN, "seeds": [42], "epochs": 50, "each": {"C": C}},
    "gan": {**GAN, "each": {
        **one_by_one(
            LEARNING_RATE=[2e-4, 5e-3], BATCH_SIZE=[1024], BETAS=[(0.5, 0.999), (0.9, 0.999)],
            R1=[0, 100], AVERAGE=[0], LATENT_DIM=[2], DISCRIMINATOR_HIDDEN=[[16]]),
        "R1 = 0, BETAS = (0.5, 0.999)": {"R1": 0, "BETAS": (0.5, 0.999)},
        "G minimises log(1 - D)": SATURATING,
        "ten steps of G": {"    loss_g = generator_step(gan.gen": """    for _ in range(10):
        latents = sample_latents(len(real_images), rng, real_images.device)
        fake_images = gan.generator(latents)
        loss_g = generator_step(gan.gen"""},
        "images from 0 to 1": {"(images).to(device)": "(images).add(1).div(2).to(device)"}}},
    "lab_tasks": {**GAN, "each": {  # The numbers of the tasks in docs/lab.md.
        "1, 6: R1 = 0.3": {"seeds": range(5)}, "6: R1 = 0": {"seeds": range(5), "R1": 0},
        "2: tiny D": {"DISCRIMINATOR_HIDDEN": [16]}, "3: log(1 - D(G(z)))": SATURATING,
        "4: R1 = 1": DCGAN, "4: R1 = 0": {**DCGAN, "R1": 0}}},
    "extensions": {**GAN, "epochs": None, "each": {
        "conditional": {"extension": "A conditional GAN", "seeds": [0, 1]},
        **{f"{count:,} pictures": {  # What the diff does with a folder of the first images.
            "images = dataset.data": f"images = dataset.data[:{count}].repeat({repeat}, 1, 1)"}
           for count, repeat in ((500, 120), (5_000, 12))},
        "noise": NOISE, "noise, R1 = 0": {**NOISE, "R1": 0},
        "no noise": TRICK, "no noise, R1 = 0": {**TRICK, "R1": 0},
        "Pearson": {**LOSSES, "seeds": [0, 1], "extension": "A new loss", "LOSSES": ["Pearson"]}}},
    "cures_a": {**GAN, "epochs": 10, "all": A, "each": {
        **CURES, "batch": {"BATCH_SIZE": 64}, "rate, R1": {**RATE, **R1},
        "rate, average": {**RATE, **MEAN}}},
    "cures_c": {**DCGAN, "all": C, "each": {
        **CURES, "hidden layer": HIDDEN,
        "rate, R1, average, hidden layer": {**CURES["rate, R1, average"], **HIDDEN},
        "all of them": {**CURES["rate, R1, average, Adam"], **HIDDEN}}},
    "tricks": {**TRICK, "each": TRICKS},
    # spectral_norm takes BatchNorm out of D, so "no_norm" does this alone.
    "tricks_no_r1": {**TRICK, "all": {"R1": 0}, "each": {**TRICKS, "no_norm": NO_NORM}},
    "tricks_conv": {**TRICK, "all": {"GENERATOR": "conv"}, "each": SOME_TRICKS},
    "tricks_conv_no_r1": {**TRICK, "all": {"GENERATOR": "conv", "R1": 0}, "each": SOME_TRICKS},
    "gan_search": {**GAN, **SEARCH, "each": one_by_one(
        LEARNING_RATE=[5e-4, 2e-3], R1=[0, 0.1, 1], BATCH_SIZE=[32, 128], AVERAGE=[4, 16])},
    "dcgan_search": {**DCGAN, **SEARCH, "each": {
        **SEARCHED, "minibatch_stddev": {"TRICKS": ["minibatch_stddev"]}}},
    "conv_search": {**DCGAN, **SEARCH, "all": {"GENERATOR": "conv"}, "each": {
        **SEARCHED, **CONV_NETWORKS}},
    "losses_search": {**LOSSES, **SEARCH, "epochs": 4, "each": {
        f"{loss}: {settings}": entry(loss, **settings)
        for loss, found in LOSS_SEARCH.items() for settings in found}},
}


def settings_of(group, name):
    """The plan of one experiment: that of its group, with what it has of its own."""
    plan = {"search": False, "all": {}, **GROUPS[group]}
    changes = {**plan["all"], **plan["each"][name]}
    own = {key: changes.pop(key) for key in ("script", "epochs", "seeds") if key in changes}
    if "extension" in changes:
        changes |= extension(changes.pop("extension"))
    return {**plan, **own, "changes": changes}


def copy_of(group, name, seed):
    """The text of the script for one experiment. Each change must fit exactly one place."""
    plan = settings_of(group, name)
    compares = plan["script"] == "compare_losses"
    changes = {"OUTPUT_DIR": "runs", "DATA_DIR": str(Path("data").absolute()),
               "EPOCHS": plan["epochs"] or epochs_of(SOURCES[plan["script"]])}
    changes |= {"SEEDS": [seed]} if compares else {"SEED": seed}
    if plan["search"]:  # In main() alone, where the training is called.
        call = "    train(gans, images, " if compares else "    train(gan, images, "
        changes[call] = call.replace("images", "images[: len(images) * 5 // 6]")
    start, mark, text = SOURCES[plan["script"]].partition("# %% 3. Constants\n")
    for old, new in {**changes, **plan["changes"]}.items():
        if re.fullmatch("[A-Z][A-Z_0-9]*", old):
            lines = re.findall(rf"(?m)^{old} = .*$", text)
            old, new = lines[0] if len(lines) == 1 else old, f"{old} = {new!r}"
        if start.count(old) == 1:  # A diff may also change the docstring.
            start = start.replace(old, new)
            continue
        if text.count(old) != 1:
            raise SystemExit(f"{old!r} stands {text.count(old)} times in {plan['script']}.py")
        text = text.replace(old, new)
    return start + mark + text


def code_hash(text):
    """A hash of a script's code, without its comments and docstrings."""
    tree = ast.parse(text)  # It has no comments. Docstrings do not count, either.
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant("")
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def place(group, name, seed, judge_hash=""):
    """The text of an experiment's copy, what identifies its row, and the folder of its runs."""
    text = copy_of(group, name, seed)
    key = {"group": group, "name": name, "seed": str(seed), "judge": judge_hash,
           "copy": code_hash(text)}
    return text, key, OUTPUT / f"{settings_of(group, name)['script']}_{key['copy']}" / "runs"


def latest(runs):
    """The newest of the folders run_1, run_2, ... of a script. run_1 if there is none."""
    return max(runs.glob("run_*"), key=lambda run: int(run.name[4:]), default=runs / "run_1")


def read(file):
    """The rows of a CSV file, as dictionaries: none if there is no file."""
    return list(csv.DictReader(file.read_text("utf-8").splitlines())) if file.exists() else []


def find(key):
    """The rows of GROUP.csv that agree with key in each of its columns: one at most."""
    return [row for row in read(OUTPUT / f"{key['group']}.csv") if row.items() >= key.items()]


def train(text, file, runs):
    """Save a copy as file and train it, from the latest checkpoint in the folder runs, if any."""
    runs.mkdir(parents=True, exist_ok=True)
    shutil.copy(OUTPUT / "judge.pt", runs)  # For compare_losses.py: it trains no other.
    resume = any(runs.glob("run_*/checkpoint*.pt"))
    file.write_text(text.replace("\nRESUME = False", f"\nRESUME = {resume}"), encoding="utf-8")
    with open(file.with_name("log.txt"), "a") as log:
        subprocess.run([sys.executable, file], cwd=file.parent, stdout=log, stderr=log,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(judge, judge_hash, group, name, seed):
    """Train and measure one experiment, as far as that is still to be done: a row in GROUP.csv."""
    text, key, runs = place(group, name, seed, judge_hash)
    if find(key):
        return
    with TRAINING[key["copy"]]:
        if len(read(latest(runs) / "history.csv")) < epochs_of(text):
            train(text, runs.parent / f"{settings_of(group, name)['script']}.py", runs)
    history = read(latest(runs) / "history.csv")
    if len(history) < epochs_of(text):  # An error, or a Ctrl-C.
        return print(f"{group}, {name}, seed {seed}: failed, see {runs.parent}/log.txt", flush=True)
    if (file := latest(runs) / "comparison.md").exists():  # Of compare_losses.py: its last row.
        cells = [line.split("|") for line in file.read_text("utf-8").splitlines() if "|" in line]
        history[-1]["G itself"] = dict(zip(map(str.strip, cells[0]), cells[-1]))["G itself"]
    (images,) = latest(runs).glob("generated*.npy")
    with MEASURING:
        figures = compare_losses.measure(judge, compare_losses.read_digits(images))
        row = {**key, "epochs": len(history), "date": datetime.date.today().isoformat(),
               "torch": torch.__version__, "processor": processor(), **figures,
               "G itself": history[-1].get("G itself"), "D steps": history[-1].get("D steps"),
               "seconds": sum(float(epoch["seconds"]) for epoch in history)}
        for when, epoch in (("first", history[0]), ("last", history[-1])):
            row |= {f"{when} {column}": epoch.get(column) for column in LOG}
        with open(OUTPUT / f"{group}.csv", "a", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, row)
            if not out.tell():
                writer.writeheader()
            writer.writerow(row)
    print(f"{', '.join(key.values())}: distance {figures['distance']:.2f}", flush=True)


def processor():
    """The name of this machine's processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")  # On Linux alone.
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor()


def table(group, judge_hash):
    """A group's results in Markdown: means over the seeds, and the range of the distance.

    "More": how much larger it is than in the first row, over the seeds, with its standard error.
    """
    mean, first = statistics.mean, {}
    columns = {"G itself": 2, "KID": 4, "IS": 2, "readable": 2, "digits": 1, "precision": 2,
               "recall": 2, **{f"last {name}": 2 for name in LOG}, "D steps": 0, "seconds": 0}
    lines = [["", "distance", "more", *columns]]
    for name in GROUPS[group]["each"]:
        rows = {seed: row for seed in settings_of(group, name)["seeds"]
                for row in find(place(group, name, seed, judge_hash)[1])}
        if not rows:  # It has failed.
            continue
        found = {seed: float(row["distance"]) for seed, row in rows.items()}
        first = first or found
        more = [found[seed] - first[seed] for seed in found if seed in first]
        cells = [name, f"{mean(found.values()):.2f}", ""]
        if len(found) > 1:
            cells[1] += f" ({min(found.values()):.2f} to {max(found.values()):.2f})"
        if len(more) > 1 and found is not first:
            cells[2] = f"{mean(more):+.2f} ± {statistics.stdev(more) / len(more) ** 0.5:.2f}"
        for column, digits in columns.items():
            values = [float(row[column]) for row in rows.values() if row[column]]
            cells.append(f"{mean(values):,.{digits}f}" if values else "")
        lines.append(cells)
    kept = [[head, "---", *cells] for head, *cells in zip(*lines) if any(cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*kept))


def main():
    groups = sys.argv[1:]
    if not groups or set(groups) - set(GROUPS):
        raise SystemExit(f"Name one or several of these groups: {', '.join(GROUPS)}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for group in groups:
        judge = compare_losses.prepare_judge(*compare_losses.load_images())
        torch.set_num_threads(1)
        if GROUPS[group].get("search"):
            judge.real_features = compare_losses.look_at(judge, judge.other_images)[0]
            judge.other_images = compare_losses.load_images(train=False)[0]
        judge_hash = hashlib.sha256((OUTPUT / "judge.pt").read_bytes()).hexdigest()[:12]
        jobs = [(seed, number, name) for number, name in enumerate(GROUPS[group]["each"])
                for seed in settings_of(group, name)["seeds"]]
        with ThreadPoolExecutor(WORKERS) as pool:  # All of the first seed, then the second.
            list(pool.map(lambda job: run(judge, judge_hash, group, job[2], job[0]), sorted(jobs)))
        real = {"real images": [compare_losses.measure(judge, judge.other_images[:10_000])]}
        print(f"\n{group}: {processor()}, torch {torch.__version__}, {datetime.date.today()}\n\n"
              f"{compare_losses.figure_table(real)}\n{table(group, judge_hash)}", flush=True)


if __name__ == "__main__":
    main()
