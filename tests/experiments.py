"""Run the experiments of the README, and print their tables.

Run it:  python tests/experiments.py tricks_mlp     (Or other groups of the table below. None: all.)

An experiment is a copy of a script with some of its lines changed. The copy runs in a folder of its
own, outputs/experiments/GROUP/NAME/seed_N/, and stays there with its log, pictures and result.csv.
Then the judge of compare_losses.py, which is trained once, measures 10,000 images of its generator.
What is finished is not run again, and what was interrupted goes on: start it as often as you like.
All groups take hours. WORKERS experiments run at the same time.
"""

import csv
import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import compare_losses  # noqa: E402  It is only found now.

WORKERS = os.cpu_count()  # Experiments at the same time, a thread each: quicker than one by one.
OUTPUT = ROOT / "outputs" / "experiments"

# Every group: its script, epochs and seeds, what all its experiments change, and what each changes.
# NAME: value sets a constant. Any other text is replaced in the script, where it must stand once.
TRICKS = ["label_smoothing", "spectral_norm", "minibatch_stddev", "feature_matching",
          "historical_averaging", "ema", "ttur", "frequency_separation"]
DCGAN = {"script": "train_dcgan_variant", "epochs": 3, "seeds": (0, 1)}
ALONE = {"none": {}, **{name: {"TRICKS": (name,)} for name in TRICKS}}
GROUPS = {
    "tricks_mlp": {**DCGAN, "all": {"PRECISION": "bfloat16"}, "each": ALONE},
    "tricks_conv": {
        **DCGAN, "all": {"PRECISION": "bfloat16", "GENERATOR": "conv"}, "each": ALONE,
    },
    "more_mlp": {**DCGAN, "all": {"PRECISION": "bfloat16"}, "each": {
        "feature_matching + ema": {"TRICKS": ("feature_matching", "ema")},
        "one mixed batch for D": {
            "    real_logits = discriminator(real_images)  # [B, 1]\n": "",
            "    fake_logits = discriminator(fake_images.detach())  # [B, 1]\n":
            "    both = torch.cat([real_images, fake_images.detach()])\n"
            "    real_logits, fake_logits = discriminator(both).chunk(2)\n"},
        "no trick, D pool": {"DISCRIMINATOR": "pool"},
    }},
    "more_conv": {**DCGAN, "all": {"PRECISION": "bfloat16", "GENERATOR": "conv"}, "each": {
        "minibatch_stddev + ema": {"TRICKS": ("minibatch_stddev", "ema")},
    }},
    "default": {**DCGAN, "epochs": 50, "seeds": (42,), "all": {}, "each": {"as it is": {}}},
    "best": {**DCGAN, "epochs": 20, "seeds": (0,), "all": {"PRECISION": "bfloat16"}, "each": {
        "conv_minibatch_stddev": {"GENERATOR": "conv", "TRICKS": ("minibatch_stddev",)},
    }},
    "gan": {
        "script": "train_gan", "epochs": 10, "seeds": (0,), "all": {}, "each": {
            "as_it_is": {},
            "beta1_0.9": {"BETA1": 0.9},
            "batch_32": {"BATCH_SIZE": 32},
            "batch_1024": {"BATCH_SIZE": 1024},
            "rate_2e-3": {"LEARNING_RATE": 2e-3},
            "rate_2e-5": {"LEARNING_RATE": 2e-5},
            "latent_2": {"LATENT_DIM": 2},
            "latent_1000": {"LATENT_DIM": 1000},
            "weak_d": {"DISCRIMINATOR_HIDDEN": (16,)},
            "smooth_real": {"torch.ones_like(real_logits))": "torch.full_like(real_logits, 0.9))"},
            "smooth_both": {"torch.ones_like(real_logits))": "torch.full_like(real_logits, 0.9))",
                            "torch.zeros_like(fake_logits))": "torch.full_like(fake_logits, 0.1))"},
            "saturating": {
                "return F.binary_cross_entropy_with_logits(fake_logits, torch.ones":
                "return -F.binary_cross_entropy_with_logits(fake_logits, torch.zeros"},
            "ten_g_steps": {
                "    loss_g = generator_step(gan": """    for _ in range(10):
        fake_images = gan.generator(sample_latents(len(real_images), gan.rng))
        loss_g = generator_step(gan"""},
            "no_detach": {"fake_images.detach()": "fake_images"},
            "images_0_to_1": {".div_(127.5).sub_(1)": ".div_(255)"},
        },
    },
    "default_gan": {"script": "train_gan", "epochs": 100, "seeds": (0,), "all": {},
                    "each": {"as_it_is": {}}},
    "longer_gan": {"script": "train_gan", "epochs": 30, "seeds": (0, 1), "all": {},
                   "each": {"rate_2e-3": {"LEARNING_RATE": 2e-3}}},
    "cures": {  # Of the collapse that BETA1 = 0.9 brings.
        "script": "train_gan", "epochs": 10, "seeds": (0,), "all": {"BETA1": 0.9},
        "each": {"rate_5e-5": {"LEARNING_RATE": 5e-5}, "rate_1e-3": {"LEARNING_RATE": 1e-3}},
    },
    "precision": {
        "script": "train_gan", "epochs": 50, "seeds": (0, 1, 2), "all": {},
        "each": {"float32": {}, "bfloat16": {"PRECISION": "bfloat16"}},
    },
    "precision_dcgan": {**DCGAN, "all": {}, "each": {"float32": {}}},
    "wgan": {
        "script": "compare_losses", "epochs": 6, "seeds": (0,),
        "all": {"LOSSES": ("WGAN",), "PRECISION": "bfloat16"},
        "each": {
            "clip_0.01": {},
            "clip_0.001": {"clip=0.01": "clip=0.001"},
            "clip_0.03": {"clip=0.01": "clip=0.03"},
            "clip_1": {"clip=0.01": "clip=1.0"},
        },
    },
    "rates": {
        "script": "compare_losses", "epochs": 8, "seeds": (0,),
        "all": {"LOSSES": ("WGAN",), "PRECISION": "bfloat16"},
        "each": {f"critic {critic}, G {g}": {"critic_lr=5e-5": f"critic_lr={critic}",
                                             "generator_lr=1e-3": f"generator_lr={g}"}
                 for critic, g in (("5e-5", "1e-3"), ("1e-4", "1e-4"), ("5e-5", "2e-4"),
                                   ("5e-5", "5e-4"), ("5e-5", "2e-3"), ("2e-5", "5e-4"))},
    },
    "others": {
        "script": "compare_losses", "epochs": 6, "seeds": (0,), "all": {},
        "each": {"WGAN-GP": {"LOSSES": ("WGAN-GP",)}, "hinge": {"LOSSES": ("hinge",)}},
    },
    "fast": {
        "script": "compare_losses", "epochs": 6, "seeds": (0, 1, 2), "all": {},
        "each": {"BCE": {"LOSSES": ("BCE",)}, "LSGAN": {"LOSSES": ("LSGAN",)}},
    },
}


def edited(script, changes):
    """The text of a script after the changes, each of which must fit exactly one place."""
    text = (ROOT / f"{script}.py").read_text(encoding="utf-8")
    for old, new in changes.items():
        if old.isupper():
            line = f"{old} = {new!r}".replace("\\", "\\\\")
            text, count = re.subn(rf"(?m)^{old} = .*$", line, text)
        else:
            text, count = text.replace(old, new), text.count(old)
        assert count == 1, f"{old!r} stands {count} times in {script}.py"
    return text


def run(judge, group, name, seed):
    """Train one experiment, as far as that is still to be done, and write its result.csv."""
    plan = GROUPS[group]
    folder = OUTPUT / group / name / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.csv"
    if result.exists() and int(read(result)[-1]["epoch"]) >= plan["epochs"]:
        return
    file = folder / f"{plan['script']}.py"
    compares = plan["script"] == "compare_losses"
    changes = {"EPOCHS": plan["epochs"], "RESUME": True, "OUTPUT_DIR": "run",
               "DATA_DIR": str(ROOT / "data"), **plan["all"], **plan["each"][name]}
    changes |= {"SEEDS": (seed,)} if compares else {"SEED": seed}
    file.write_text(edited(plan["script"], changes), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if compares:  # It must not train a judge of its own: figures compare within one judge only.
        (folder / "run").mkdir(exist_ok=True)
        shutil.copy(OUTPUT / "judge.pt", folder / "run")
    with open(folder / "log.txt", "a") as log:
        subprocess.run([sys.executable, file], cwd=folder, env=environment, stdout=log, stderr=log)
    if not (folder / "run" / "history.csv").exists():
        print(f"{group}, {name}, seed {seed}: failed, see {folder / 'log.txt'}", flush=True)
        return
    rows = read(folder / "run" / "history.csv")
    seconds = statistics.median(float(row["seconds"]) for row in rows)
    if compares:
        figures = read(folder / "run" / "comparison.csv")[0]
    else:
        figures = measured(judge, file, folder / "run" / "generator.pt")
    row = {**rows[-1], **figures, "seconds": seconds}
    with open(result, "a", newline="") as out:  # A longer run of the same adds a line.
        writer = csv.DictWriter(out, row)
        if not out.tell():
            writer.writeheader()
        writer.writerow(row)
    print(f"{group}, {name}, seed {seed}: distance {float(row['distance']):.2f}", flush=True)


def measured(judge, file, weights):
    """The judge's figures of the generator with these weights, whose class is in file."""
    spec = importlib.util.spec_from_file_location("experiment", file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    generator = script.Generator().to(judge.decide.weight.device)
    generator.load_state_dict(torch.load(weights, weights_only=True))
    latents = script.sample_latents(compare_losses.SAMPLES, torch.Generator().manual_seed(1))
    samples = script.generate(generator, latents).unsqueeze(1).float().div(127.5).sub(1)
    return compare_losses.measure(judge, *compare_losses.look_at(judge, samples))


def read(file):
    """The rows of a CSV file, a dictionary each."""
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def table(group):
    """The results of a group in Markdown: means over the seeds, and the range of the distance."""
    plan = GROUPS[group]
    lines = ["| | distance | digits | precision | recall | D(x) | D(G(z)) | seconds an epoch |"]
    lines.append("|---" * 8 + "|")
    for name in plan["each"]:
        files = [OUTPUT / group / name / f"seed_{seed}" / "result.csv" for seed in plan["seeds"]]
        rows = [read(file)[-1] for file in files if file.exists()]
        if not rows:
            continue
        mean = {key: statistics.mean(float(row[key]) for row in rows)
                for key in ("digits", "precision", "recall", "d_real", "d_fake", "seconds")}
        distances = sorted(float(row["distance"]) for row in rows)
        spread = f" ({distances[0]:.2f} to {distances[-1]:.2f})" if len(rows) > 1 else ""
        lines.append(
            f"| {name} | {statistics.mean(distances):.2f}{spread} | {mean['digits']:.1f} | "
            f"{mean['precision']:.2f} | {mean['recall']:.2f} | {mean['d_real']:.2f} | "
            f"{mean['d_fake']:.2f} | {mean['seconds']:.0f} |")
    return "\n".join(lines)


def main():
    groups = sys.argv[1:] or list(GROUPS)
    compare_losses.OUTPUT_DIR = str(OUTPUT)  # Where the judge is kept.
    compare_losses.DATA_DIR = str(ROOT / "data")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    images, labels, data_name = compare_losses.load_images()
    judge = compare_losses.prepare_judge(images, labels, data_name)
    compare_losses.save_tensors("judge.pt", {data_name: judge.state_dict()})
    floor = compare_losses.measure(judge, *compare_losses.look_at(judge, images[:10_000]))
    print(f"Real training images: {floor}", flush=True)
    torch.set_num_threads(1)
    jobs = [(judge, group, name, seed) for group in groups for seed in GROUPS[group]["seeds"]
            for name in GROUPS[group]["each"]]
    with ThreadPoolExecutor(WORKERS) as pool:
        for job in [pool.submit(run, *job) for job in jobs]:
            job.result()
    for group in groups:
        print(f"\n{group}: {GROUPS[group]['epochs']} epochs, seeds {GROUPS[group]['seeds']}\n")
        print(table(group))


if __name__ == "__main__":
    main()
