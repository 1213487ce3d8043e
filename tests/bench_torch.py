"""PyTorch's step for the work of `tinymixer bench`, to hold beside it.

    tinymixer bench --model mixer_nano --against "python tests/bench_torch.py --model mixer_nano"

Weights, batch, settings of the optimizer and clock are those of `tinymixer bench`; the layers and
AdamW are PyTorch's own, batch first. Prints one line of JSON. The options of both have to agree,
--threads here with --workers there. It needs PyTorch 2.4 or newer beside tinymixer.
"""

import json
import sys

import numpy as np

from tinymixer.cli import Parser
from tinymixer.cli.bench import add_work, check_work, work_of
from tinymixer.errors import TinymixerError
from tinymixer.models import options_of
from tinymixer.models.mixer import CONFIGS
from tinymixer.train.bench import LEARNING_RATE, WEIGHT_DECAY, Bench
from tinymixer.train.parallel import Workers

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    sys.exit(f"bench_torch: {error}. It needs PyTorch: pip install torch")

MODES = ("default", "reduce-overhead", "max-autotune")  # of torch.compile
NAMES = {  # of a layer's arrays: ours, and PyTorch's
    "gamma": "weight",
    "beta": "bias",
    "W": "weight",
    "b": "bias",
    "W1": "0.weight",
    "b1": "0.bias",
    "W2": "2.weight",
    "b2": "2.bias",
}


class PatchEmbed(nn.Module):
    """images (B, height, width, 3)  ->  x (B, S, C)."""

    def __init__(self, P, C):
        super().__init__()
        self.P, self.linear = P, nn.Linear(3 * P * P, C)

    def forward(self, images):
        x = images.unflatten(2, (-1, self.P)).unflatten(1, (-1, self.P))  # (B, H, P, W, P, 3)
        return self.linear(x.transpose(2, 3).flatten(3).flatten(1, 2))


def mlp(width, hidden_dim, gelu):
    approximate = "tanh" if gelu == "tanh" else "none"
    return nn.Sequential(
        nn.Linear(width, hidden_dim), nn.GELU(approximate), nn.Linear(hidden_dim, width)
    )


class MixerBlock(nn.Module):
    """x (B, S, C)  ->  y (B, S, C)."""

    def __init__(self, S, C, tokens_mlp_dim, channels_mlp_dim, gelu, eps):
        super().__init__()
        self.token_norm = nn.LayerNorm(C, eps)
        self.token_mlp = mlp(S, tokens_mlp_dim, gelu)
        self.channel_norm = nn.LayerNorm(C, eps)
        self.channel_mlp = mlp(C, channels_mlp_dim, gelu)

    def forward(self, x):
        x = x + self.token_mlp(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.channel_norm(x))


class Mixer(nn.Module):
    """images (B, height, width, 3)  ->  logits (B, K)."""

    def __init__(
        self,
        *,
        image_size,
        patch_size,
        hidden_dim,
        num_blocks,
        tokens_mlp_dim,
        channels_mlp_dim,
        num_classes,
        gelu="tanh",
        eps=1e-6,
        **only_drawn_in_training,
    ):
        super().__init__()
        S, C = image_size[0] // patch_size * (image_size[1] // patch_size), hidden_dim
        self.patch_embed = PatchEmbed(patch_size, C)
        self.blocks = nn.Sequential(
            *(
                MixerBlock(S, C, tokens_mlp_dim, channels_mlp_dim, gelu, eps)
                for _ in range(num_blocks)
            )
        )
        self.norm = nn.LayerNorm(C, eps)
        self.head = nn.Linear(C, num_classes)

    def forward(self, images):
        x = self.blocks(self.patch_embed(images))
        return self.head(self.norm(x).mean(1))


def state_dict(model):
    """The weights of a Mixer of ours, by PyTorch's names and in its layout, W (out, in)."""
    arrays = {}
    for name, array in model.state().items():
        layer, _, last = name.rpartition(".")
        if array.ndim == 2 and not layer.endswith("token_mlp"):
            array = array.T
        arrays[f"{layer}.{NAMES[last]}"] = torch.from_numpy(array)
    return arrays


class TorchBench(Bench):
    """The model, the batch and the clock of `tinymixer bench`, on the host; PyTorch's step."""

    def __init__(self, model, sizes, *, batch, infer, device, precision="fp32", mode=None):
        super().__init__(model, batch=batch, micro_batch=batch, workers=1, infer=infer)
        self.place = "cuda" if device == "gpu" else "cpu"
        self.images = torch.from_numpy(self.images).to(self.place)
        self.labels = torch.from_numpy(self.labels).to(self.place)
        net = Mixer(**sizes | {"image_size": model.image_size})
        net.load_state_dict(state_dict(model))
        net = net.to(self.place).train(not infer)
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
            return F.cross_entropy(self.net(self.images), self.labels)


def parse(argv=None):
    parser = Parser(prog="bench_torch", description=__doc__.splitlines()[0])
    add_work(parser, list(CONFIGS))
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
