"""Run the experiments of docs/, and print their tables.

Run it:  python docs/make/experiments.py gan     (One or several groups of the table below.)

An experiment is a copy of a script with some of its lines changed. Copies of one experiment that
differ in any line of code have folders of their own: outputs/experiments/GROUP/NAME_SEED_HASH. So
what is finished is not run again, what was interrupted goes on, and nothing is ever mixed in that
other code made. (The hash leaves comments out. Another version of Python may make another hash.)
The judge of compare_losses.py, which is trained once, measures the 10,000 images of each run. Its
figures stand in outputs/experiments/GROUP.csv as soon as there are any, and belong to one judge.
WORKERS experiments run at the same time, with a thread each.
"""

import ast
import csv
import datetime
import functools
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
LOCK = threading.Lock()
OUTPUT = Path("outputs", "experiments").absolute()


def entry(loss, **settings):
    """The changes that train one loss of compare_losses.py with other settings in its entry."""
    guard = 'if __name__ == "__main__":\n'
    new = f"""def loss_table(table=loss_table):
    entries = table()
    vars(entries[{loss!r}]).update({settings})
    return entries


"""
    return {"LOSSES": (loss,), guard: new + guard}


def rates(rate_d, rate_g=None, **others):
    """The settings of an entry with these learning rates: one for both, or one for each."""
    return {"critic_lr": rate_d, "generator_lr": rate_g or rate_d, **others}


def extension(number):
    """The changes of a diff in docs/extensions.md: what each piece of it replaces, and by what."""
    page = (ROOT / "docs" / "extensions.md").read_text(encoding="utf-8")
    diff = re.findall(r"^```diff\n(.*?)^```$", page, re.M | re.S)[number]
    pieces = [piece.splitlines()[1:] for piece in re.split(r"^@@", diff, flags=re.M)[1:]]
    return {"\n".join(line[1:] for line in piece if line[:1] != "+"):
            "\n".join(line[1:] for line in piece if line[:1] != "-") for piece in pieces}  # fmt: skip


A = {"BATCH_SIZE": 128, "LEARNING_RATE": 2e-4, "BETAS": (0.5, 0.999), "R1": 0, "AVERAGE": 0}
B = {**A, "BATCH_SIZE": 64, "BETAS": (0.9, 0.999), "GENERATOR_HIDDEN": (128,),
     "DISCRIMINATOR_HIDDEN": (128,)}  # fmt: skip
C = {**A, "DISCRIMINATOR": "flatten"}
TRICKS = ("label_smoothing", "spectral_norm", "minibatch_stddev", "feature_matching",
          "historical_averaging", "ttur", "frequency_separation")  # fmt: skip
ONE_EACH = {"none": {}, **{trick: {"TRICKS": (trick,)} for trick in TRICKS}}
SOME_EACH = {name: ONE_EACH[name] for name in ("none", "spectral_norm", "ttur")}
GAN = {"script": "train_gan", "epochs": 4, "seeds": (0,)}
DCGAN = {"script": "train_dcgan_variant", "epochs": 3, "seeds": (0,)}
OLD, FAST = {"betas": (0.5, 0.999)}, {"betas": (0.0, 0.99)}
ADAMS = [rates(5e-4, **OLD), rates(1e-3, **OLD), rates(2e-3, **OLD), rates(1e-3, **FAST)]
SEARCH = {
    "BCE": ADAMS, "LSGAN": ADAMS, "hinge": ADAMS,
    "BCE-R1": [rates(5e-4), rates(1e-3), rates(2e-3), rates(1e-3, r1=1.0)],
    "WGAN": [rates(5e-5), rates(5e-5, 1e-3), rates(1e-4, 1e-3), rates(2e-4, 1e-3)],
    "R3GAN": [rates(1e-3), rates(1e-3, r1=0.3, r2=0.3), rates(1e-3, r1=0.1, r2=0.1), rates(2e-3)],
    "WGAN-GP": [rates(1e-4), rates(5e-4), rates(1e-3), rates(1e-3, **FAST)],
}  # fmt: skip

# Each group: a script, its epochs and seeds (None: as many as the script itself has), what all of
# its experiments change, and what each one does. NAME: value sets a constant. Any other text is
# replaced in the script, where it must stand once. With "search", the GAN does not see the last
# sixth of the training images, and is measured against these.
GROUPS = {
    "defaults": {**GAN, "epochs": None, "seeds": tuple(range(10)), "each": {"as it is": {}}},
    "defaults_dcgan": {**DCGAN, "epochs": None, "seeds": tuple(range(5)), "each": {"mlp": {}}},
    "conv": {**DCGAN, "epochs": 15, "each": {"conv": {"GENERATOR": "conv"}}},
    "longer": {**GAN, "epochs": 50, "each": {"50 epochs": {}}},
    "defaults_drawn": {**GAN, "epochs": None, "all": {"DATASET": "drawn"}, "each": {"drawn": {}}},
    # As many steps as the default runs have, and then the tutorials' own epochs.
    "tutorials": {**GAN, "each": {"A": {**A, "EPOCHS": 28}, "B": {**B, "EPOCHS": 14}}},
    "tutorial_c": {**DCGAN, "seeds": (42,), "all": C, "each": {"C": {"EPOCHS": 16}}},
    "tutorials_whole": {**GAN, "each": {"A": {**A, "EPOCHS": 100}, "B": {**B, "EPOCHS": 100}}},
    "tutorial_c_whole": {**DCGAN, "seeds": (42,), "all": C, "each": {"C": {"EPOCHS": 50}}},
    "gan": {**GAN, "each": {
        "as it is": {},
        "LEARNING_RATE = 2e-4": {"LEARNING_RATE": 2e-4},
        "LEARNING_RATE = 5e-3": {"LEARNING_RATE": 5e-3},
        "BATCH_SIZE = 1024": {"BATCH_SIZE": 1024},
        "BETAS = (0.9, 0.999)": {"BETAS": (0.9, 0.999)},
        "R1 = 0": {"R1": 0},
        "R1 = 100": {"R1": 100},
        "AVERAGE = 0": {"AVERAGE": 0},
        "LATENT_DIM = 2": {"LATENT_DIM": 2},
        "DISCRIMINATOR_HIDDEN = (16,)": {"DISCRIMINATOR_HIDDEN": (16,)},
        "G minimises log(1 - D)": {
            "return F.binary_cross_entropy_with_logits(fake_logits, torch.ones":
            "return -F.binary_cross_entropy_with_logits(fake_logits, torch.zeros"},
        "ten steps of G": {
            "    loss_g = generator_step(gan.gen": """    for _ in range(10):
        latents = sample_latents(len(real_images), gan.latents_rng, real_images.device)
        fake_images = gan.generator(latents)
        loss_g = generator_step(gan.gen"""},
        "images from 0 to 1": {".div_(127.5).sub_(1)  # [N": ".div_(255)  # [N"},
    }},
    "extensions": {**GAN, "epochs": None, "each": {"conditional": extension(0)}},
    "lab": {**GAN, "seeds": (0, 1, 2, 3, 4), "each": {"R1 = 0.3": {}, "R1 = 0": {"R1": 0}}},
    "lab_dcgan": {**DCGAN, "each": {"R1 = 0.3": {}, "R1 = 0": {"R1": 0}}},
    "cures_a": {**GAN, "epochs": 10, "all": A, "each": {
        "tutorial A": {},
        "rate": {"LEARNING_RATE": 1e-3},
        "batch": {"BATCH_SIZE": 64},
        "R1": {"R1": 0.3},
        "average": {"AVERAGE": 8},
        "rate, R1": {"LEARNING_RATE": 1e-3, "R1": 0.3},
        "rate, average": {"LEARNING_RATE": 1e-3, "AVERAGE": 8},
        "rate, R1, average": {"LEARNING_RATE": 1e-3, "R1": 0.3, "AVERAGE": 8},
        "all, Adam": {"LEARNING_RATE": 1e-3, "R1": 0.3, "AVERAGE": 8, "BETAS": (0.0, 0.99)},
    }},
    "cures_c": {**DCGAN, "all": C, "each": {
        "tutorial C": {},
        "rate": {"LEARNING_RATE": 1e-3},
        "R1": {"R1": 0.3},
        "average": {"AVERAGE": 8},
        "hidden layer": {"DISCRIMINATOR": "hidden"},
        "rate, R1, average": {"LEARNING_RATE": 1e-3, "R1": 0.3, "AVERAGE": 8},
        "all, hidden layer": {"LEARNING_RATE": 1e-3, "R1": 0.3, "AVERAGE": 8,
                              "DISCRIMINATOR": "hidden"},
        "all but the hidden layer, Adam": {"LEARNING_RATE": 1e-3, "R1": 0.3, "AVERAGE": 8,
                                           "BETAS": (0.0, 0.99)},
        "all, Adam": {"LEARNING_RATE": 1e-3, "R1": 0.3, "AVERAGE": 8, "BETAS": (0.0, 0.99),
                      "DISCRIMINATOR": "hidden"},
    }},
    "tricks": {**DCGAN, "seeds": (0, 1, 2), "each": ONE_EACH},
    "tricks_no_r1": {**DCGAN, "seeds": (0, 1, 2), "all": {"R1": 0}, "each": ONE_EACH},
    # The convolutional G only for those that make a difference above.
    "tricks_conv": {**DCGAN, "seeds": (0, 1, 2), "all": {"GENERATOR": "conv"}, "each": SOME_EACH},
    "tricks_conv_no_r1": {**DCGAN, "seeds": (0, 1, 2), "all": {"GENERATOR": "conv", "R1": 0},
                          "each": SOME_EACH},
    "losses_search": {"script": "compare_losses", "epochs": 4, "seeds": (0,), "search": True,
                      "each": {f"{loss}: {settings}": entry(loss, **settings)
                               for loss, found in SEARCH.items() for settings in found}},
}  # fmt: skip


@functools.cache
def source(script):
    """The text of a script, as it is when it is first read: it may be edited meanwhile."""
    return (ROOT / f"{script}.py").read_text(encoding="utf-8")


def edited(script, changes):
    """The text of a script after the changes, each of which must fit exactly one place."""
    text = source(script)
    docstring, mark, text = text.partition("# %% 3. Constants\n")
    for old, new in changes.items():
        if re.fullmatch("[A-Z][A-Z_0-9]*", old):
            found = re.findall(rf"(?m)^{old} = .*$", text)
            count, text = len(found), text.replace(f"\n{found[0]}\n", f"\n{old} = {new!r}\n")
        else:
            text, count = text.replace(old, new), text.count(old)
        if count != 1:
            raise SystemExit(f"{old!r} stands {count} times in {script}.py")
    return docstring + mark + text


def copy_of(plan, name, seed):
    """The text of the script for one experiment."""
    changes = {"RESUME": True, "OUTPUT_DIR": "run", "DATA_DIR": str(Path("data").absolute())}
    changes |= {"EPOCHS": plan["epochs"]} if plan["epochs"] else {}
    changes |= {**plan.get("all", {}), **plan["each"][name]}
    compares = plan["script"] == "compare_losses"
    changes |= {"SEEDS": (seed,)} if compares else {"SEED": seed}
    if plan.get("search"):  # In main() alone, where the training is called.
        call = "            train(gans, images, " if compares else "            train(gan, images"
        changes[call] = call.replace("images", "images[: len(images) * 5 // 6]")
    return edited(plan["script"], changes)


def code_hash(text):
    """A hash of a script's code, without its comments and docstrings."""
    tree = ast.parse(text)  # It has no comments. Docstrings do not count, either.
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant):
                body[0] = ast.Pass()
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def place(group, name, seed):
    """The text of an experiment's copy, the hash of its code, and its folder."""
    text = copy_of(GROUPS[group], name, seed)
    code = code_hash(text)
    return text, code, OUTPUT / group / re.sub("[^A-Za-z0-9.-]+", "_", f"{name} {seed} {code}")


def run(judge, judge_hash, group, name, seed):
    """Train one experiment, as far as that is still to be done. Adds its figures to GROUP.csv."""
    text, code, folder = place(group, name, seed)
    key = {"group": group, "name": name, "seed": str(seed), "judge": judge_hash, "copy": code}
    if find(key):
        return
    (folder / "run").mkdir(parents=True, exist_ok=True)
    shutil.copy(OUTPUT / "judge.pt", folder / "run")  # For compare_losses.py: it trains no other.
    file = folder / f"{GROUPS[group]['script']}.py"
    file.write_text(text, encoding="utf-8")
    with open(folder / "log.txt", "a") as log:  # A finished run only writes its files again.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, file], cwd=folder, env=environment, stdout=log, stderr=log)
    found = sorted((folder / "run").glob("generated*.npy"))
    history = read(folder / "run" / "history.csv") if found else []
    if not re.search(rf"(?m)^EPOCHS = {len(history)}\b", text):  # An error, or a Ctrl-C.
        return print(f"{group}, {name}, seed {seed}: failed, see {folder / 'log.txt'}", flush=True)
    with LOCK:  # Measuring sets PyTorch's one seed, so that it must happen one at a time.
        figures = compare_losses.measure(judge, compare_losses.read_digits(found[0]))
        write(key, history, figures)


def write(key, history, figures):
    """Add a row to GROUP.csv, and say so."""
    row = {**key, "epochs": len(history), "date": datetime.date.today().isoformat(),
           "torch": torch.__version__, "processor": processor(), **figures,
           "seconds": sum(float(epoch["seconds"]) for epoch in history),
           **{f"last {column}": history[-1].get(column) for column in
              ("loss D", "loss G", "D(x)", "D(G(z))")}}  # fmt: skip
    with open(OUTPUT / f"{key['group']}.csv", "a", newline="") as out:
        writer = csv.DictWriter(out, row)
        if not out.tell():
            writer.writeheader()
        writer.writerow(row)
    print(f"{', '.join(key.values())}: distance {figures['distance']:.2f}", flush=True)


def find(key):
    """The rows of GROUP.csv that agree with key in each of its columns."""
    file = OUTPUT / f"{key['group']}.csv"
    rows = read(file) if file.exists() else []
    return [row for row in rows if all(row[column] == value for column, value in key.items())]


def read(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def processor():
    """The name of this machine's processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")  # On Linux alone.
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor()


def table(group, judge_hash):
    """The results of a group in Markdown: means over the seeds, and the range of the distance."""
    plan, columns = GROUPS[group], {"readable": 2, "digits": 1, "precision": 2,
                                    "recall": 2, "last loss D": 2, "last loss G": 2, "last D(x)": 2,
                                    "last D(G(z))": 2, "seconds": 0}  # fmt: skip
    lines = [["", "distance", *columns], ["---"] * (2 + len(columns))]
    for name in plan["each"]:
        rows = [row for seed in plan["seeds"] for row in find({
            "group": group, "name": name, "seed": str(seed), "judge": judge_hash,
            "copy": place(group, name, seed)[1]})]  # fmt: skip
        if rows:
            distances = sorted(float(row["distance"]) for row in rows)
            spread = f" ({distances[0]:.2f} to {distances[-1]:.2f})" if len(rows) > 1 else ""
            cells = [name, f"{statistics.mean(distances):.2f}{spread}"]
            for column, digits in columns.items():
                values = [float(row[column]) for row in rows if row[column]]
                cells.append(f"{statistics.mean(values):.{digits}f}" if values else "")
            lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main():
    groups = sys.argv[1:]
    if not groups or set(groups) - set(GROUPS):
        raise SystemExit(f"Name one or several of these groups: {', '.join(GROUPS)}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    compare_losses.OUTPUT_DIR = str(OUTPUT)  # Where the judge is kept.
    images, labels, data_name = compare_losses.load_images()
    for group in groups:
        plan = GROUPS[group]
        judge = compare_losses.prepare_judge(images, labels, data_name, bool(plan.get("search")))
        weights = b"".join(part.numpy().tobytes() for part in judge.state_dict().values())
        judge_hash = hashlib.sha256(weights).hexdigest()[:12]
        torch.set_num_threads(1)
        with ThreadPoolExecutor(WORKERS) as pool:
            jobs = [pool.submit(run, judge, judge_hash, group, name, seed)
                    for seed in plan["seeds"] for name in plan["each"]]  # fmt: skip
            for job in jobs:
                job.result()
        real = compare_losses.measure(judge, judge.other_images[:10_000])
        real = {figure: round(value, 3) for figure, value in real.items()}
        print(f"\n{group}: {plan['epochs'] or 'all'} epochs, seeds {plan['seeds']}, "
              f"{processor()}, torch {torch.__version__}\nReal images: {real}\n")  # fmt: skip
        print(table(group, judge_hash), flush=True)


if __name__ == "__main__":
    main()
