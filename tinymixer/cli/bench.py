"""tinymixer bench: the speed of a step, where its time goes, and a comparison with a program."""

import argparse
import json
from contextlib import nullcontext
from typing import Any

import numpy as np

import tinymixer
from tinymixer.cli import against
from tinymixer.cli.bench_report import report
from tinymixer.cli.options import (
    add_device,
    add_graph,
    add_set,
    add_workers,
    check_graph,
    check_precision,
    load_figures,
    output_file,
)
from tinymixer.engine import no_grad
from tinymixer.errors import TinymixerError, counted
from tinymixer.fast import reference_ops
from tinymixer.fast.gpu.launches import Launches
from tinymixer.fast.gpu.products import PRECISIONS
from tinymixer.models import create_model, list_models, options_of
from tinymixer.train.bench import Bench, follow
from tinymixer.train.evaluation import EVAL_BATCH
from tinymixer.train.mpi import world
from tinymixer.train.parallel import Workers
from tinymixer.train.processes import AVAILABLE
from tinymixer.train.profile import OperationTime, launch_table, profile_table
from tinymixer.train.ranks import Ranks

SMALL_IMAGES, LARGE_IMAGES = 128, 8  # the default batch; small: sides below 100 pixels
ON_A_GPU = 8  # times as many images
MOST = 2**31  # of images, steps and the like, as in training
MICRO_BATCH = 16  # images at most, as in training
PROFILED_STEPS, CEILING_TIMES = 3, 5


def add_options(parser: Any) -> None:
    parser.description = (
        "Time the steps of training on one batch of random images, after checking that their loss "
        "and gradients are right. Exit code 2 if they are not. On a GPU it also counts the kernels "
        "of tinymixer that a step launches; those of CuPy are not counted."
    )
    parser.set_defaults(func=run, for_ranks=True)
    add_work(parser, list_models())
    add_graph(parser)
    parser.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help=f"images of a batch computed together; default {MICRO_BATCH} at most, "
        f"{EVAL_BATCH['cpu']} with --infer, on a GPU all",
    )
    add_workers(parser)
    parser.add_argument(
        "--reference",
        action="store_true",
        help="time the plain operations instead of their fast twins",
    )
    parser.add_argument(
        "--no-products", action="store_true", help="do not time the matrix products alone"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    parser.add_argument("--profile", action="store_true", help="show the time of each operation")
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="draw the time of each operation into FILE"
    )
    parser.add_argument(
        "--against",
        metavar="COMMAND",
        help="run this benchmark and COMMAND in turn and compare them; COMMAND has to print such a "
        "line of JSON",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="runs of each program with --against; default 5",
    )


def add_work(parser: Any, models: list[str]) -> None:
    """The options that say what is timed, here and in a program to compare with."""
    parser.add_argument(
        "--model",
        default="mixer_nano",
        metavar="NAME",
        choices=models,
        help=f"model to time, one of {', '.join(models)}; default mixer_nano",
    )
    add_device(parser)
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=PRECISIONS,
        help="number format of matrix products on a GPU; default fp32",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help=f"images for each step; default {SMALL_IMAGES}, or {LARGE_IMAGES} with sides of 100 "
        f"pixels or more; on a GPU {ON_A_GPU} times as many",
    )
    parser.add_argument(
        "--steps", type=int, default=20, metavar="N", help="steps to run; default 20"
    )
    parser.add_argument(
        "--warmup",
        type=int,
        default=3,
        metavar="N",
        help="first steps that are not timed; default 3",
    )
    parser.add_argument(
        "--infer", action="store_true", help="time the forward pass and the loss only"
    )
    add_set(parser)


def work_of(args: argparse.Namespace) -> tuple[Any, int]:
    """The model and the number of images that `args` ask for."""
    try:
        model: Any = create_model(args.model, **dict(args.set))
        with no_grad():  # refuses a size of images that it cannot take
            model(np.zeros((1, *model.image_size, 3), np.float32))
    except (ValueError, TypeError) as error:
        raise TinymixerError(f"model {args.model}: {error}") from error
    usual = SMALL_IMAGES if max(model.image_size) < 100 else LARGE_IMAGES
    return model, args.batch or usual * (ON_A_GPU if args.device == "gpu" else 1)


def run(args: argparse.Namespace) -> int:
    _check(args)
    if args.plot:
        load_figures()  # before the work, in case matplotlib does not start
    if args.against:
        return against.compare(args)
    with world() as ranks:
        return _bench(args, ranks)


def _bench(args: argparse.Namespace, ranks: Ranks) -> int:
    model, batch = work_of(args)
    workers = Workers.of_this_machine(args.workers, args.device).count
    on_gpu = args.device == "gpu"
    in_turn = args.infer or args.reference or on_gpu or ranks.size > 1 or not AVAILABLE
    processes = 1 if in_turn else workers  # as `train` does
    most = EVAL_BATCH["cpu"] if args.infer else MICRO_BATCH
    usual = batch if on_gpu else min(most, -(-batch // workers))
    bench = Bench(
        model,
        batch=batch,
        micro_batch=args.micro_batch or usual,
        workers=workers,
        processes=processes,
        ranks=ranks,
        infer=args.infer,
        device=args.device,
        precision=args.precision,
        graph=args.graph,
    )
    if ranks.rank > 0:
        follow(ranks, bench.config, bench.model, bench.dataset)
        return 0
    rows: list[OperationTime] = []
    of_gpu: list[Launches] = []
    with reference_ops() if args.reference else nullcontext(), bench:
        bench.check()
        found = {
            "what": "infer" if args.infer else "train",
            "model": args.model,
            "batch": batch,
            "micro_batch": bench.config.micro_batch,
            "processes": max(processes, ranks.size),
            "threads": workers * ranks.size,
            "gelu": options_of(args.model, **dict(args.set))["gelu"],
            "precision": args.precision,
            "reference": args.reference,
            "params": model.num_parameters(),
            **bench.time(args.steps, args.warmup),
        }
        if bench.replay:
            found["graph"] = bench.replay.why_not or bench.replay.nodes()
        flops = sum(product.flops for piece in bench.products() for product in piece)
        found["gflop_s"] = _rate(flops, found["median_ms"])
        if not args.no_products:
            ms, cpu = bench.time_products(args.steps - args.warmup)
            found["products_ms"], found["products_cpu_s"] = round(ms, 3), round(cpu, 4)
            found["products_gflop_s"] = _rate(flops, found["products_ms"])
            found["share_of_products"] = round(found["products_ms"] / found["median_ms"], 4)
        if on_gpu:
            found |= _beside_ceilings(bench, found)
            kinds = bench.launches()
            found["own_launches"] = sum(kind.count for kind in kinds if not kind.flops)
            found["products"] = sum(kind.count for kind in kinds if kind.flops)
        if args.profile and on_gpu:
            of_gpu = bench.timed(kinds)
            found["profile"] = [{**vars(row), "total_ms": row.total_ms} for row in of_gpu]
        elif args.profile or args.plot:
            rows = bench.profile(PROFILED_STEPS)
            found["profile"] = [{**vars(row), "total": row.total} for row in rows]
    found |= {"tinymixer": tinymixer.__version__, "numpy": np.__version__}
    print(json.dumps(found) if args.json else report(found))
    if of_gpu and not args.json:
        ceilings = found["peak_gflop_s"], found["copy_gb_s"]
        print(
            "\nKernels and products of a step, each repeated alone. Those of CuPy, such as sums of "
            f"two arrays, are in all else.\n"
            f"{launch_table(of_gpu, found['median_ms'], *ceilings)}"
        )
    if rows and not args.json:
        print(
            f"\nTime of a step in ms, one thread for all of "
            f"{counted(batch, 'image')}. The tape also adds the "
            f"gradients that meet in one Tensor.\n{profile_table(rows)}"
        )
    if args.plot:
        what = "Inference" if args.infer else "Training"
        title = f"{what} step of {args.model}, {counted(batch, 'image')}: where the time goes"
        figures = load_figures()
        figures.save(figures.profile(rows, title), args.plot)
        if not args.json:
            print(f"wrote {args.plot}")
    return 0


def check_work(args: argparse.Namespace) -> None:
    """Raise TinymixerError for numbers that ask for nothing, and what a device does not know."""
    for name in ("batch", "micro_batch", "workers", "threads", "steps", "rounds"):
        value = getattr(args, name, None)
        if value is not None and not 1 <= value <= MOST:
            expected = "1 or more" if value < 1 else f"{MOST} at most"
            raise TinymixerError(f"--{name.replace('_', '-')} {value}: expected {expected}")
    if not 0 <= args.warmup < args.steps:
        raise TinymixerError(
            f"--warmup {args.warmup}: expected 0 to {args.steps - 1}, as --steps is {args.steps}"
        )
    check_precision(args.device, args.precision)


def _check(args: argparse.Namespace) -> None:
    check_work(args)
    check_graph(args)
    if args.graph and args.infer:
        raise TinymixerError("--graph replays steps of training; leave it out beside --infer")
    if args.device == "gpu" and args.plot:
        raise TinymixerError("--plot draws processor time, and a GPU has its own; use --profile")
    if args.against and (args.profile or args.plot):
        raise TinymixerError("--profile shows one program; leave it out beside --against")


def _beside_ceilings(bench: Bench, found: dict[str, Any]) -> dict[str, Any]:
    """What the GPU can do at most, and what part of it the step reaches."""
    peak, copied = bench.ceilings(CEILING_TIMES)
    shares = {
        "device": "gpu",
        "peak_gflop_s": round(peak, 1),
        "share_of_peak": round(found["gflop_s"] / peak, 4),
        "copy_gb_s": round(copied, 1),
    }
    if not bench.infer:
        gb_s = bench.least_traffic() / found["median_ms"] / 1e6
        shares["share_of_copy"] = round(gb_s / copied, 4)
    return shares


def _rate(flops: int, ms: float) -> float:
    return round(flops / ms / 1e6, 2)
