"""PyTorch's step for the work of `tinymixer bench`, to hold beside it.

    tinymixer bench --model mixer_nano --against "python tests/bench_torch.py --model mixer_nano"

Weights, batch, settings of the optimizer and clock are those of `tinymixer bench`; the layers and
AdamW are PyTorch's own, batch first. Prints one line of JSON. The options of both have to agree,
--threads here with --workers there. It needs PyTorch 2.4 or newer beside tinymixer.

BatchNorm and the loss of a router look at the whole batch here, at a micro-batch there, and the
noise of gates is another: for the same losses, --micro-batch there is the batch, and a Sparse-MLP
has --set noisy_gates=False.
"""

import json
import sys

import numpy as np

from tinymixer.cli import Parser
from tinymixer.cli.bench import add_work, check_work, work_of
from tinymixer.errors import TinymixerError
from tinymixer.models import (
    ASMLP,
    HireMLP,
    MLPMixer,
    RaftMLP,
    SparseMLP,
    VisionPermutator,
    list_models,
    options_of,
)
from tinymixer.train.bench import LEARNING_RATE, WEIGHT_DECAY, Bench
from tinymixer.train.parallel import Workers

try:
    import torch
    import torch_grids
    import torch_isotropic
    from torch.nn import functional as F
    from torch_layers import state_dict
except ImportError as error:
    sys.exit(f"bench_torch: {error}. It needs PyTorch: pip install torch")

MODES = ("default", "reduce-overhead", "max-autotune")  # of torch.compile
NETWORKS = {
    MLPMixer: torch_isotropic.Isotropic,
    SparseMLP: torch_isotropic.Isotropic,
    ASMLP: torch_grids.ASMLP,
    HireMLP: torch_grids.HireMLP,
    VisionPermutator: torch_grids.VisionPermutator,
    RaftMLP: torch_grids.RaftMLP,
}


def network(model, options):
    """The network of a model of ours, built with the same `options`, and with its weights."""
    net = NETWORKS[type(model)](**options | {"image_size": model.image_size})
    net.load_state_dict(state_dict(model))
    return net


class TorchBench(Bench):
    """The model, the batch and the clock of `tinymixer bench`, on the host; PyTorch's step."""

    def __init__(self, model, sizes, *, batch, infer, device, precision="fp32", mode=None):
        super().__init__(model, batch=batch, micro_batch=batch, workers=1, infer=infer)
        self.place = "cuda" if device == "gpu" else "cpu"
        self.images = torch.from_numpy(self.images).to(self.place)
        self.labels = torch.from_numpy(self.labels).to(self.place)
        net = network(model, sizes).to(self.place).train(not infer)
        matrices = [p for p in net.parameters() if p.ndim >= 2]
        vectors = [p for p in net.parameters() if p.ndim < 2]
        self.adamw = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors}],
            lr=LEARNING_RATE,
            weight_decay=0.0,
            fused=True,
        )
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        self.bf16 = precision == "bf16"
        self.net = torch.compile(net, mode=mode) if mode else net

    def step(self):
        if self.infer:
            with torch.inference_mode():
                loss = self.loss()
        else:
            self.adamw.zero_grad()
            loss = self.loss()
            loss.backward()
            self.adamw.step()
        if self.place == "cuda":
            torch.cuda.synchronize()  # AdamW is still on its way, and the clock is read next
        return loss.item()

    def loss(self):
        with torch.autocast(self.place, torch.bfloat16, enabled=self.bf16):
            loss = F.cross_entropy(self.net(self.images), self.labels)
            return loss if self.infer else sum(self.net.auxiliary, loss)


def parse(argv=None):
    parser = Parser(prog="bench_torch", description=__doc__.splitlines()[0])
    add_work(parser, list_models())
    parser.add_argument("--threads", type=int, help="default: one for each processor")
    parser.add_argument(
        "--compile", nargs="?", const=MODES[0], choices=MODES, help="by torch.compile, in a mode"
    )
    return parser.parse_args(argv)


def timed(args):
    """What `tinymixer bench --json` tells, of PyTorch."""
    check_work(args)
    if args.device == "gpu" and not torch.cuda.is_available():
        raise TinymixerError("--device gpu: PyTorch finds no GPU here")
    model, batch = work_of(args)
    sizes = options_of(args.model, **dict(args.set))
    threads = Workers.of_this_machine(args.threads, args.device).count
    torch.set_num_threads(threads)
    bench = TorchBench(
        model,
        sizes,
        batch=batch,
        infer=args.infer,
        device=args.device,
        precision=args.precision,
        mode=args.compile,
    )
    return {
        "what": "infer" if args.infer else "train",
        "model": args.model,
        "batch": batch,
        "threads": threads,
        "gelu": sizes["gelu"],
        "precision": args.precision,
        "compile": args.compile,
        "params": sum(p.numel() for p in bench.net.parameters()),
        **bench.time(args.steps, args.warmup),
        "device": torch.cuda.get_device_name() if args.device == "gpu" else "cpu",
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def main(argv=None):
    args = parse(argv)
    try:
        print(json.dumps(timed(args)))
    except TinymixerError as error:
        sys.exit(f"bench_torch: {error}")


if __name__ == "__main__":
    main()
