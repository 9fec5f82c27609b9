"""Time the scripts beside the tutorials' own loops and beside their bare arithmetic.

Run it:  python tests/benchmark.py    (There are no options: edit the constants below.)
It needs MNIST in the scripts' DATA_DIR, seen from the current folder, and about six minutes on two
idle processor cores. It is no test: nothing can fail. The loops take turns of STEPS steps, ROUNDS
times over, so that whatever slows the machine down slows all of them:

tutorial  The tutorial's own loop, written anew from its text: a DataLoader whose transforms convert
          image by image, Sigmoid and BCELoss, the step as printed.
ours      The script's train_epoch in float32, and in bfloat16 if the machine is faster in it.
floor     Nothing but the matrix products and convolutions that our step cannot do without, on
          random tensors of the shapes, layouts and precision that they have there. Forward: G on
          latents, D on real and on fake images (in one batch or two, as in the script), D on fake
          images again. Gradients in D's step: of D's weights, and of its layers' inputs but for
          the first layer's. In G's step: of D's layers' inputs, the first's as well; of G's
          weights, and of its layers' inputs but for the first's. Left out: biases, activations,
          BatchNorm, losses, optimizers, random numbers, choosing the images.

Each loop has a process of its own, because train_dcgan_variant.py changes how memory is handled in the
whole process (keep_freed_memory): for ours and the floor, but not for the tutorial.

The scripts have no constant for torch.compile: there was no GPU to measure what it would bring.

Seconds an epoch are the median of the rounds (and their range), scaled to 60,000 images, without
loading, warming up, pictures and saving. Seconds to first batch go from the start of Python to the
end of the first step; peak memory is that of main() for one epoch, without a GPU's own. These two
are measured on processes of their own, which run the script on all of MNIST in float32.
"""

import importlib
import itertools
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision import transforms

STEPS = 100  # Steps of a loop in each of its turns. With few, a turn's cold start weighs more.
ROUNDS = 4  # Turns of each loop, after one to warm up. More make the median surer.
STARTS = 5  # How often a script is started to time its first batch.
SCRIPTS = {  # Each script's tutorial, and in how many batches real and fake images go through D.
    "train_gan": ("tutorial A", 1),
    "train_dcgan_variant": ("tutorial C", 2),
}
ROOT = Path(__file__).resolve().parent.parent  # The folder of the scripts.
sys.path.insert(0, str(ROOT))


# %% The tutorials' loops
def tutorial_loop(tutorial, data_dir, device):
    """Build what tutorial A or C trains. Returns a function that takes STEPS steps."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = torchvision.datasets.MNIST(data_dir, train=True, transform=transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=128, shuffle=True)
    batches = (images for _ in itertools.count() for images, _ in loader)  # Epoch after epoch.
    is_a = tutorial == "tutorial A"
    shape = (-1, 784) if is_a else (-1, 1, 28, 28)
    if is_a:
        generator = nn.Sequential(nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(),
                                  nn.Linear(512, 784), nn.Tanh()).to(device)
        discriminator = nn.Sequential(nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256),
                                      nn.LeakyReLU(0.2), nn.Linear(256, 1), nn.Sigmoid()).to(device)
    else:
        generator = nn.Sequential(
            nn.Linear(100, 256), nn.BatchNorm1d(256, momentum=0.8), nn.ReLU(True),
            nn.Linear(256, 512), nn.BatchNorm1d(512, momentum=0.8), nn.ReLU(True),
            nn.Linear(512, 1024), nn.BatchNorm1d(1024, momentum=0.8), nn.ReLU(True),
            nn.Linear(1024, 784), nn.Tanh()).to(device)
        discriminator = nn.Sequential(
            nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True),
            nn.Conv2d(64, 128, 4, stride=2, padding=1), nn.BatchNorm2d(128, momentum=0.8),
            nn.LeakyReLU(0.2, True), nn.Flatten(), nn.Linear(6272, 1), nn.Sigmoid()).to(device)
    bce, adam = nn.BCELoss(), partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))
    optimizer_g, optimizer_d = adam(generator.parameters()), adam(discriminator.parameters())

    def run():
        for real_images in itertools.islice(batches, STEPS):
            count, real_images = len(real_images), real_images.view(shape).to(device)
            ones, zeros = torch.ones(count, 1).to(device), torch.zeros(count, 1).to(device)
            loss_real = bce(discriminator(real_images), ones)
            fake_images = generator(torch.randn(count, 100).to(device)).view(shape)
            shown = fake_images if is_a else fake_images.detach()  # In A it goes back into G.
            loss_d = loss_real + bce(discriminator(shown), zeros)
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()
            if is_a:  # New images for G's step. C uses the same again.
                fake_images = generator(torch.randn(count, 100).to(device))
            loss_g = bce(discriminator(fake_images), ones)
            optimizer_g.zero_grad()
            loss_g.backward()
            optimizer_g.step()
            if not is_a:  # C adds up the losses as plain numbers.
                loss_d.item(), loss_g.item()
    return run


# %% The floor
def products(network, inputs, dtype, through=False):
    """The products of a network's forward and backward pass, as functions without arguments. With
    through, the gradient only passes through the network, from its output to its input."""
    forward, weights, entering = [], [], []  # For the gradients of weights, of layers' inputs.

    def note(layer, inputs, outputs):
        x, y, w = (torch.randn_like(t, dtype=dtype) for t in (*inputs, outputs, layer.weight))
        if isinstance(layer, nn.Linear):  # It stores its weights as [outputs, inputs].
            forward.append(partial(torch.mm, x, w.t()))
            weights.append(partial(torch.mm, y.t(), x))
            entering.append(partial(torch.mm, y, w))
        else:
            form = (None, layer.stride, layer.padding, layer.dilation, layer.transposed,
                    layer.output_padding, layer.groups)
            backward = partial(torch.ops.aten.convolution_backward, y, x, w, *form)
            forward.append(partial(torch.convolution, x, w, *form))
            weights.append(partial(backward, [False, True, False]))
            entering.append(partial(backward, [True, False, False]))

    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            layer.register_forward_hook(note)  # Called with what enters and what leaves the layer.
    network(inputs)
    return forward + (entering if through else weights + entering[1:])


# %% Measuring
def run_main(script, only_first_step):
    """Run main() for an epoch in float32, in a process and a folder of its own. Returns its peak
    memory in GB or, if it stops there, the seconds to the end of the first step."""
    unit = 1 if sys.platform == "darwin" else 1024  # Bytes, or kilobytes.
    code = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
import {script.__name__} as script
script.EPOCHS, script.PRECISION = 1, "float32"
script.DATA_DIR = {str(Path(script.DATA_DIR).resolve())!r}
def first_step(gan, images, train_step=script.train_step):
    train_step(gan, images).tolist()  # Reading the numbers waits for a GPU.
    print(time.time() - {time.time()}, flush=True)
    os._exit(0)
if {only_first_step}:
    script.train_step = first_step
script.main()
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * {unit} / 1e9)
"""
    with tempfile.TemporaryDirectory() as folder:
        return float(subprocess.check_output([sys.executable, "-c", code], cwd=folder).split()[-1])


def timed(device, function, *arguments):
    """Seconds that a call takes, until the GPU has finished its work as well."""
    start = time.perf_counter()
    function(*arguments)
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def show(text):
    print(f"{text:<60}", end="\r", file=sys.stderr, flush=True)


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def prepare(name, loop, precision):
    """In the process of a loop: build all that its turns need."""
    global run
    script, device = importlib.import_module(name), find_device()
    (tutorial, chunks), size = SCRIPTS[name], script.BATCH_SIZE
    script.PRECISION = precision
    script.show_progress = lambda number, count: None  # It would write over our own line.
    if loop != "tutorial" and hasattr(script, "keep_freed_memory"):
        script.keep_freed_memory()  # As main() does.
    images = script.load_images()[0].to(device)
    if loop == "tutorial":
        steps = tutorial_loop(tutorial, script.DATA_DIR, device)
    elif loop == "ours":
        steps = partial(script.train_epoch, script.build_gan(device), images[: STEPS * size])
    else:
        dtype = getattr(torch, precision)
        latents = torch.randn(size, script.LATENT_DIM, device=device)
        calls = products(script.Generator().to(device), latents, dtype)
        for batch in images[: 2 * size].chunk(chunks):
            calls += products(script.Discriminator().to(device), batch, dtype)
        calls += products(script.Discriminator().to(device), images[:size], dtype, through=True)

        def steps():
            for call in calls * STEPS:
                call()

    def run():  # For turn(), which is called later in this process.
        return timed(device, steps) * len(images) / (STEPS * size)


def turn():
    """Seconds an epoch, from one turn of the loop that prepare has built in this process."""
    return run()


def benchmark(name, precisions):
    """Time a script's loops in turns. Returns the seconds an epoch of each, in lists."""
    loops = [("tutorial", "float32")]
    for precision in precisions:
        loops += [("ours", precision), ("floor", precision)]
    times, processes = {loop: [] for loop in loops}, {}
    for loop in loops:
        processes[loop] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        processes[loop].submit(prepare, name, *loop).result()
    for number in range(ROUNDS + 1):
        for loop in loops:
            show(f"{name}: round {number} of {ROUNDS}, {', '.join(loop)}")
            times[loop].append(processes[loop].submit(turn).result())
    for process in processes.values():
        process.shutdown()
    return {loop: seconds[1:] for loop, seconds in times.items()}  # Round 0 was to warm up.


def find_device():
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    return torch.device("cuda" if cuda else "mps" if mps else "cpu")


def main():
    device = find_device()
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else device
    info = Path("/proc/cpuinfo")  # On Linux alone.
    name = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    print(f"Machine   {name[1] if name else platform.processor()}, {os.cpu_count()} cores, "
          f"{platform.system()}\nDevice    {device_name}, {torch.get_num_threads()} CPU threads\n"
          f"Versions  Python {platform.python_version()}, torch {torch.__version__}, "
          f"torchvision {torchvision.__version__}", flush=True)
    square = torch.randn(1024, 1024, device=device)
    slow, fast = (min(timed(device, torch.mm, factor, factor) for _ in range(9))
                  for factor in (square, square.bfloat16()))
    precisions = ["float32", "bfloat16"]
    if fast >= slow:
        print(f"Skipped   {precisions.pop()}, in which this machine does not multiply faster")
    alone = {}
    for name in SCRIPTS:
        if not (ROOT / f"{name}.py").exists():
            print(f"Skipped   {name}.py, which is not there")
            continue
        script = importlib.import_module(name)
        if not Path(script.DATA_DIR, "MNIST", "raw", "train-images-idx3-ubyte").exists():
            raise SystemExit(f"MNIST is not in {script.DATA_DIR!r}: {name}.py downloads it there.")
        show(f"{name}: an epoch for its peak memory, {STARTS} starts")
        # Now, while this process is small: Linux counts its memory as that of those it starts.
        memory = run_main(script, False) if sys.platform != "win32" else float("nan")
        starts = [run_main(script, True) for _ in range(STARTS)]
        alone[script] = [spread(starts), f"{memory:.2f} GB"]
    rows = [["script", "loop", "seconds an epoch", "images a second", "tutorial / ours",
             "ours / floor", "seconds to first batch", "peak memory"], ["---"] * 8]
    for script, its_own in alone.items():
        times = benchmark(script.__name__, precisions)
        medians = [statistics.median(seconds) for seconds in times.values()]
        for number, (loop, seconds) in enumerate(times.items()):
            shown = SCRIPTS[script.__name__][0] if number == 0 else ", ".join(loop)
            rows.append([f"`{script.__name__}.py`", shown, spread(seconds),
                         f"{60_000 / medians[number]:,.0f}", "", "", "", ""])
            if loop[0] == "ours":  # The tutorial's is the first loop, the floor's the next.
                rows[-1][4] = f"{medians[0] / medians[number]:.2f}"
                rows[-1][5] = f"{medians[number] / medians[number + 1]:.2f}"
            if loop == ("ours", "float32"):
                rows[-1][6:] = its_own
    print("", *("| " + " | ".join(row) + " |" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
