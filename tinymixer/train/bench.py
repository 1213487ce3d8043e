"""How fast a step is: timed only once its result is known to be right.

A training step is the `TrainingStep` that `Trainer` uses: forward with all that is drawn in
training, mean softmax cross-entropy, backward, one sum of gradients, AdamW. It is repeated on the
same batch of random images, at a fixed learning rate, without augmentation and without clipping
the gradient. Weight decay is 0.05 for matrices and none for vectors, as in training. An inference
step is forward and loss, and records nothing.
"""

import copy
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, cached_property
from itertools import chain
from typing import Any

import numpy as np

from tinymixer import data, fast
from tinymixer.backend import (
    Array,
    synchronize,
    to_device,
)
from tinymixer.data import draws
from tinymixer.data.draws import Stream
from tinymixer.engine import no_grad
from tinymixer.errors import TinymixerError
from tinymixer.fast.gpu.graphs import Replay
from tinymixer.fast.gpu.launches import Kind, Launches, gpu_ms, noted, timed
from tinymixer.fast.gpu.products import operand_type, product
from tinymixer.fast.gpu.products import precision as precision_of_products
from tinymixer.summary import summarise
from tinymixer.train.agreement import check_step, evaluate, loss_of, mean_loss
from tinymixer.train.config import Config
from tinymixer.train.parallel import GradientSum, Workers, micro_batches
from tinymixer.train.processes import Processes
from tinymixer.train.profile import (
    OperationTime,
    Product,
    ProductsAlone,
    Stopwatch,
    around,
    continued,
    products_of,
    profile_rows,
    replaced,
)
from tinymixer.train.ranks import ALONE, Ranks
from tinymixer.train.step import TrainingStep

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05
SHOWN_LOSSES = (0, 1, 19)  # the steps whose loss is reported

STEP, END = "step", "end"  # what the first rank tells the others
FEW = 2, 3, 4  # images, whose products are looked at in place of those of more

SIDE = 8192  # of the square matrices that a device's ceilings are measured with


class Bench:
    """A model, a fixed batch, and the step that is timed. Use it `with bench:` around all calls.

    model has an `image_size` and `num_classes`; its weights are changed a little, and then trained.
    `processes`, or `ranks` that a launcher started, share a training step as in `Trainer`; all else
    is done by `workers` threads of this process.
    precision is that of a GPU's products, see fast.gpu. With `graph`, on a GPU, training
    steps are replayed, all but AdamW in one launch.
    """

    def __init__(
        self,
        model: Any,
        *,
        batch: int,
        micro_batch: int,
        workers: int,
        processes: int = 1,
        ranks: Ranks = ALONE,
        infer: bool = False,
        device: str = "cpu",
        precision: str = "fp32",
        graph: bool = False,
    ):
        rng = np.random.default_rng(1)
        self.model, self.infer, self.device = model.to(device), infer, device
        dataset = _random_dataset(rng, batch, model.image_size, model.num_classes)
        self.config = Config(
            batch_size=batch,
            micro_batch=micro_batch,
            weight_decay=WEIGHT_DECAY,
            clip_norm=0.0,
            label_smoothing=0.0,
            precision=precision,
        )
        self.workers = Workers(workers)
        self.processes, self.together = processes, Workers(workers, ranks)
        self.replay = Replay() if graph else None
        self.dataset = dataset.to(device)
        self.images = data.normalise(self.dataset.train_images, dataset.mean, dataset.std)
        self.labels = self.dataset.train_labels
        self.batch = to_device(np.arange(batch), device)
        self.steps_done, self.seconds_elsewhere = 0, 0.0
        # A head that starts at zero lets no gradient through, and would hide what is wrong below.
        for parameter in model.parameters():
            noise = 0.02 * rng.standard_normal(parameter.shape, dtype=np.float32)
            parameter.data += to_device(noise, device)

    @cached_property
    def training_step(self) -> TrainingStep:
        """Made by the first step, so that the check before it can use its memory."""
        work = self.model, self.dataset, self.together
        return TrainingStep(self.config, *work, replay=self.replay)

    def __enter__(self) -> "Bench":
        with ExitStack() as stack:
            stack.enter_context(precision_of_products(self.config.precision, self.device))
            if self.processes > 1:
                work = self.config, self.model, self.dataset
                started = stack.enter_context(Processes(self.processes, follow, *work))
                self.together = Workers(1, started)
            stack.enter_context(self.workers)
            stack.enter_context(self.together)
            stack.push(self._let_go)
            self._left_at_exit = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._left_at_exit.__exit__(*exception)

    def _let_go(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.together.ranks.gather(END)

    def step(self) -> float:
        """One step; the mean loss, before the update if there is one."""
        pieces = micro_batches(self.batch, self.config.micro_batch)
        losses: Sequence[Array]
        if self.infer:
            losses = self.workers.map(self._evaluate, pieces)
        else:
            self.together.ranks.gather(STEP)
            losses = one_step(self.training_step, self.batch, self.steps_done)
            self.seconds_elsewhere += sum(self.together.ranks.gather(0.0))
        self.steps_done += 1
        return mean_loss(losses, pieces)

    def _processor_time(self) -> float:
        """Seconds so far, those of the other processes included."""
        return time.process_time() + self.seconds_elsewhere

    def _evaluate(self, piece: Array) -> Array:
        loss, _ = evaluate(self.model, self.images[piece], self.labels[piece])
        return loss

    def check(self) -> float:
        """Raise TinymixerError unless the step is right, see agreement.check_step."""
        return check_step(self.model, self.dataset, self.config, self.workers, infer=self.infer)

    def time(self, steps: int, warmup: int) -> dict[str, Any]:
        """Times of `steps` steps, of which the first `warmup` do not count.

        The peak of memory is the process's, the check of the result included.
        """
        wall, cpu, losses, ranks, crossed = [], [], [], self.together.ranks, 0.0
        for number in range(steps):
            if number == warmup:
                crossed = ranks.seconds
            c, t = self._processor_time(), time.perf_counter()
            losses.append(self.step())
            synchronize(self.device)  # the update is still on its way
            wall.append(1e3 * (time.perf_counter() - t))
            cpu.append(self._processor_time() - c)
        if not math.isfinite(losses[-1]):
            raise TinymixerError(f"the loss became {losses[-1]}: what was timed means nothing")
        timed = wall[warmup:]
        median = statistics.median(timed)
        return {
            "timed_steps": len(timed),
            "median_ms": round(median, 3),
            "min_ms": round(min(timed), 3),
            "max_ms": round(max(timed), 3),
            "cpu_s_per_step": round(statistics.median(cpu[warmup:]), 4),
            "images_s": round(1e3 * len(self.images) / median, 1),
            "peak_rss_mib": peak_memory(),
            "share_of_ranks": round(1e3 * (ranks.seconds - crossed) / sum(timed), 4),
            "loss": {i: losses[i] for i in SHOWN_LOSSES if i < len(losses)},
        }

    def products(self) -> list[list[Product]]:
        """For each micro-batch the matrix products of the plain operations: none can be spared.

        They are looked at on the host. Those of many images are continued from a few, if they can
        be: where a router decides how much is computed, they cannot.
        """
        model = copy.deepcopy(self.model).to("cpu")

        @cache
        def seen(count: int) -> list[Product]:
            few = self.images[:count], self.labels[:count]

            def compute() -> None:
                if self.infer:
                    with no_grad():
                        loss_of(model, *few)
                else:
                    rng = draws.generator(0, Stream.DROPOUT)
                    loss, _ = loss_of(model, *few, rng=rng)
                    loss.backward(into={})

            return products_of(compute)

        @cache
        def of_images(count: int) -> list[Product]:
            if count > sum(FEW):
                two, three, four = map(seen, FEW)
                if continued(two, three, 4) == four:
                    return continued(two, three, count)
            return seen(count)

        with fast.reference_ops():
            return [
                of_images(len(piece))
                for piece in micro_batches(self.batch, self.config.micro_batch)
            ]

    def time_products(self, times: int) -> tuple[float, float]:
        """A step's matrix products alone, in the same threads: ms and CPU seconds, medians."""
        products, alone, wall, cpu = self.products(), ProductsAlone(self.device), [], []
        for _ in range(times + 1):
            c, t = time.process_time(), time.perf_counter()
            self.workers.map(alone, products)
            synchronize(self.device)
            wall.append(1e3 * (time.perf_counter() - t))
            cpu.append(time.process_time() - c)
        return statistics.median(wall[1:]), statistics.median(cpu[1:])  # the first makes the arrays

    def launches(self) -> list[Kind]:
        """What kernels and products of fast/gpu one more step launches, by kind; no replay."""
        self.training_step.replay = None
        with noted() as kinds:
            self.step()
        return kinds

    def timed(self, kinds: Sequence[Kind]) -> list[Launches]:
        """Each of these kinds, repeated and timed; the arrays are worth nothing afterwards."""
        return timed(kinds, _large_product())

    def ceilings(self, times: int) -> tuple[float, float]:
        """What a GPU can do at most: GFLOP/s in a large product, GB/s in a copy; means.

        A copy's bytes are those read and those written.
        """
        product = _large_product()
        x, y = (to_device(np.zeros((SIDE, SIDE), np.float32), "gpu") for _ in range(2))
        ms = gpu_ms(product, times, ahead=product)
        copy_ms = gpu_ms(lambda: y.__setitem__(..., x), times, ahead=product)
        return 2e-6 * SIDE**3 / ms, 2e-6 * x.nbytes / copy_ms

    def least_traffic(self) -> int:
        """Bytes that a training step of the plain operations cannot avoid moving.

        What the tape keeps is written in forward and read in backward. Of AdamW's arrays the
        weights and the two moments are read and written, gradients and decay read.
        """
        kept = summarise(copy.deepcopy(self.model).to("cpu")).memory * len(self.images)
        return 2 * kept + 8 * 4 * self.model.num_parameters()

    def profile(self, steps: int) -> list[OperationTime]:
        """Where the time of a step goes, if one thread does it all; the longest first."""
        watch, step, add = Stopwatch(), self.training_step, GradientSum.add
        self.workers = self.together = step.workers = one = Workers(1)
        summing = ("sum of gradients", "other")
        with one:
            self.step()
            with (
                around(lambda f, way, g, xs: watch.run((type(f).__name__, way), g, *xs)),
                watch.on(("AdamW", "other"), step.optimizer, "step"),
                watch.on(summing, step.flat, "gather"),
                replaced(GradientSum, "add", lambda *xs: watch.run(summing, add, *xs)),
            ):
                for _ in range(steps):
                    watch.run(("tape and the rest", "other"), self.step)
            alone, by_name = ProductsAlone(), defaultdict(list)
            for product in chain(*self.products()):
                by_name[product.by].append(product)
            for products in by_name.values():
                alone(products)
            for _ in range(steps):
                for name, products in by_name.items():
                    watch.run((name, "products"), alone, products)
        return profile_rows(watch, steps)


def one_step(training_step: TrainingStep, batch: Array, number: int) -> Sequence[Array]:
    """Training step `number` of a benchmark; the loss of each micro-batch."""
    return training_step(batch, 0, number, number=number, lr=LEARNING_RATE).losses


def follow(ranks: Ranks, config: Config, model: Any, dataset: data.Dataset) -> None:
    """What another rank of a benchmark does: the same steps, until rank 0 is done."""
    batch, number = np.arange(config.batch_size), 0
    with Workers(1, ranks) as workers:
        training_step = TrainingStep(config, model, dataset, workers)
        while ranks.gather(None)[0] == STEP:
            cpu = time.process_time()
            one_step(training_step, batch, number)
            ranks.gather(time.process_time() - cpu)
            number += 1


def _large_product() -> Callable[[], Any]:
    """A call of a product that keeps a GPU at work for a millisecond at least."""
    made = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    x = to_device(made, "gpu").astype(operand_type(), copy=False)
    return lambda: product(x, x, x.dtype)


def _random_dataset(
    rng: np.random.Generator, images: int, sides: tuple[int, int], K: int
) -> data.Dataset:
    """Images of uniform pixels with random labels of K classes."""
    pixels = rng.integers(0, 256, (images, *sides, 3), np.uint8)
    labels = rng.integers(0, K, images)
    mean, std = (127.5,) * 3, (255 / math.sqrt(12),) * 3  # of such pixels
    names = tuple(map(str, range(K)))
    return data.Dataset("random pixels", pixels, labels, pixels, labels, names, mean, std)


def peak_memory() -> float | None:
    """The most memory that this process has had so far, in MiB; None where that is not known."""
    try:
        import resource
    except ImportError:  # on Windows, in a browser
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
