"""The benchmark: it times what it says, only if that is right, and counts what is computed."""

import json
import shlex
import sys

import cublas_on_cpu
import cuda_on_cpu
import cupy_stand_in
import numpy as np
import pytest
from small_runs import SYSTEMS

from tinymixer import cli, engine, ops
from tinymixer.engine import Function, Tensor, Twin
from tinymixer.errors import TinymixerError
from tinymixer.fast import reference_ops
from tinymixer.fast.gpu import launches as launches_module
from tinymixer.fast.gpu.launches import Launches
from tinymixer.models import create_model
from tinymixer.summary import blueprint, summarise
from tinymixer.train import bench as bench_module
from tinymixer.train.bench import Bench
from tinymixer.train.evaluation import EVAL_BATCH
from tinymixer.train.parallel import Workers, micro_batches
from tinymixer.train.profile import (
    OperationTime,
    Product,
    ProductsAlone,
    Stopwatch,
    around,
    launch_table,
    products_of,
    profile_table,
)
from tinymixer.train.step import TrainingStep

SMALL = {"hidden_dim": 8, "num_blocks": 2, "tokens_mlp_dim": 5, "channels_mlp_dim": 11}
TINY = [
    *("--model", "mixer_pico", "--batch", "6", "--micro-batch", "4", "--workers", "2"),
    *("--steps", "3", "--warmup", "1"),
    *(word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")),
]

FEW_TOKENS = "--set", "patch_size=16"  # a kernel on a stand-in takes its time over each


def small_bench(*, batch=7, micro_batch=3, workers=2, infer=False, **options):
    model = create_model("mixer_pico", **SMALL, **options)
    return Bench(model, batch=batch, micro_batch=micro_batch, workers=workers, infer=infer)


def call(*argv):
    """The exit code of `tinymixer bench argv`, SystemExit included."""
    try:
        return cli.main(["bench", *map(str, argv)])
    except SystemExit as stop:
        return stop.code


# --- is it right? ---


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
@pytest.mark.parametrize("infer", [False, True], ids=["train", "infer"])
def test_a_right_step_passes_with_room_to_spare(infer, gelu):
    with small_bench(infer=infer, gelu=gelu) as bench:
        assert bench.check() < 0.5
        with reference_ops():
            assert bench.check() < 0.5


def plant(monkeypatch, reference, method, wrong):
    """Use a twin of `reference` whose `method` answers what `wrong` makes of the right answer."""
    parent, takes = engine.twins.get((reference, "cpu"), Twin(reference))

    def planted(self, *arrays):
        return wrong(getattr(parent, method)(self, *arrays))

    twin = Twin(type("Wrong", (parent,), {method: planted}), takes)
    monkeypatch.setitem(engine.twins, (reference, "cpu"), twin)


WRONG = {
    "y, by a part in 10,000": (ops.TokenMLP, "forward", lambda y: y * np.float32(1.0001)),
    "a sign": (ops.ChannelMLP, "backward", lambda dx: (-dx[0], *dx[1:])),
    "one gradient of many": (ops.LayerNorm, "backward", lambda dx: (*dx[:2], 1.001 * dx[2])),
    "NaN": (ops.ChannelMLP, "backward", lambda dx: (*dx[:4], dx[4] * np.float32(np.nan))),
}


@pytest.mark.parametrize(("reference", "method", "wrong"), WRONG.values(), ids=WRONG)
def test_a_planted_wrong_twin_is_refused(monkeypatch, reference, method, wrong):
    plant(monkeypatch, reference, method, wrong)
    with small_bench() as bench, pytest.raises(TinymixerError, match="is wrong and is not timed"):
        bench.check()


def test_a_wrong_forward_is_refused_in_inference(monkeypatch):
    plant(monkeypatch, ops.LayerNorm, "forward", lambda y: y * np.float32(1.0001))
    with small_bench(infer=True) as bench, pytest.raises(TinymixerError, match="the logits is off"):
        bench.check()


def test_micro_batches_that_all_weigh_the_same_are_refused(monkeypatch):
    right = TrainingStep.differentiate

    def mean_of_means(step, share, *inputs):
        return right(step, np.full_like(share, 0.5), *inputs)

    monkeypatch.setattr(TrainingStep, "differentiate", mean_of_means)
    with small_bench() as bench, pytest.raises(TinymixerError, match="the gradient of"):
        bench.check()


def test_the_command_refuses_in_one_line_and_times_nothing(monkeypatch, capsys):
    plant(monkeypatch, ops.ChannelMLP, "backward", lambda dx: (-dx[0], *dx[1:]))
    monkeypatch.setattr(Bench, "time", lambda *_: pytest.fail("timed a wrong step"))
    assert call(*TINY) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "the gradient of" in said.err


def test_without_twins_a_wrong_twin_is_of_no_concern(monkeypatch, capsys):
    plant(monkeypatch, ops.ChannelMLP, "backward", lambda dx: (-dx[0], *dx[1:]))
    assert call(*TINY, "--reference", "--json") == 0
    assert json.loads(capsys.readouterr().out)["reference"] is True


def test_steps_train_and_inference_does_not():
    with small_bench() as bench:
        losses = [bench.step() for _ in range(8)]
    assert losses[-1] < losses[0]
    with small_bench(infer=True) as bench:
        before = {name: x.copy() for name, x in bench.model.state().items()}
        first = bench.step()
        assert first == bench.step() == pytest.approx(losses[0], rel=1e-5)  # another sum, float32
        assert all((x == before[name]).all() for name, x in bench.model.state().items())


def test_a_training_step_does_what_training_does_and_the_check_draws_nothing():
    """Stochastic depth takes another branch away each time, and BatchNorm follows the batch."""
    model = create_model("hire_mlp_nano", depths=(1, 1, 1), drop_path_rate=0.5)
    with Bench(model, batch=2, micro_batch=2, workers=1) as bench:
        followed = {name: x.copy() for name, x in model.state().items() if "running" in name}
        assert bench.check() == bench.check()
        assert all((model.state()[name] == x).all() for name, x in followed.items())
        pieces = micro_batches(bench.batch, 2)
        first, second = (bench.training_step.gradient(pieces, 0, step)[0] for step in range(2))
        assert (first != second).any()
        bench.step()
        assert all((model.state()[name] != x).any() for name, x in followed.items())


# --- what is computed ---


def test_products_are_seen_with_their_shapes_and_their_memory_order():
    x, W = np.ones((4, 3), np.float32), np.ones((3, 5), np.float32)

    def compute():
        y = ops.ChannelLinear()(Tensor(x), Tensor(W), Tensor(np.ones(5, np.float32)))
        (y * y).sum().backward()

    assert products_of(compute) == [
        Product("ChannelLinear", (4, 3), (3, 5), (False, False), 2 * 4 * 3 * 5),
        Product("ChannelLinear", (4, 5), (5, 3), (False, True), 2 * 4 * 3 * 5),
        Product("ChannelLinear", (3, 4), (4, 5), (True, False), 2 * 4 * 3 * 5),
    ]
    assert "lambda" not in ops.ChannelLinear.forward.__qualname__  # no longer watched


@pytest.mark.parametrize("infer", [True, False], ids=["infer", "train"])
def test_flops_of_nano_are_those_of_a_hand_count(infer):
    embedding = 64 * 48 * 128  # S P² 3 C
    tokens, channels = 2 * 64 * 64 * 128, 2 * 128 * 512 * 64  # 2 S D_S C, 2 C D_C S
    forward = embedding + 8 * (tokens + channels) + 128 * 10
    assert forward == summarise(blueprint("mixer_nano")).multiply_accumulates
    # Backward takes two products for one of forward, but pixels need no gradient.
    macs = forward if infer else 3 * forward - embedding
    bench = Bench(create_model("mixer_nano"), batch=3, micro_batch=2, workers=1, infer=infer)
    flops = sum(product.flops for piece in bench.products() for product in piece)
    assert flops == 2 * macs * 3
    assert infer or flops == 3 * 454_565_376


@pytest.mark.parametrize("model", SYSTEMS)
@pytest.mark.parametrize("infer", [True, False], ids=["infer", "train"])
def test_products_of_many_images_are_known_from_a_few(model, infer, monkeypatch):
    bench = Bench(
        create_model(model, **SYSTEMS[model]), batch=12, micro_batch=11, workers=1, infer=infer
    )
    looked_at, loss_of = [], bench_module.loss_of
    monkeypatch.setattr(
        bench_module,
        "loss_of",
        lambda model, images, *rest, **options: (
            looked_at.append(len(images)) or loss_of(model, images, *rest, **options)
        ),
    )
    found = bench.products()
    assert sorted(looked_at) == ([1, 2, 3, 4, 11] if model == "sparse_mlp_nano" else [1, 2, 3, 4])
    monkeypatch.setattr(bench_module, "FEW", (12,))
    assert found == bench.products()


def test_twins_compute_no_other_products_than_the_plain_operations():
    bench = small_bench(batch=4, micro_batch=4)
    step = bench.training_step
    inputs = step.inputs(np.arange(4), 0, 0, 0)
    fast = products_of(lambda: step.loss(*inputs)[0].backward(into={}))
    assert sorted(map(repr, fast)) == sorted(map(repr, bench.products()[0]))


def test_watching_changes_no_bit():
    with small_bench() as watched, small_bench() as alone:
        products_of(watched.step)
        alone.step()
        np.testing.assert_array_equal(*(b.training_step.flat.weights for b in (watched, alone)))


def test_an_operand_has_the_memory_order_of_the_original():
    product = Product("", (4, 3), (3, 5), (True, False), 0)
    a, b, y = product.operands(np.random.default_rng(0))
    assert (a.shape, b.shape, y.shape) == ((4, 3), (3, 5), (4, 5))
    assert (a.flags.f_contiguous, b.flags.c_contiguous) == (True, True)
    assert a.dtype == b.dtype == y.dtype == np.float32
    ProductsAlone()([product, product])


# --- time ---


def test_the_stopwatch_counts_what_is_inside_only_once(monkeypatch):
    now = iter([0, 1, 3, 4, 6, 10])  # outer, inner, inner's end, inner, inner's end, outer's end
    monkeypatch.setattr("tinymixer.train.profile.clock", lambda: next(now))
    watch = Stopwatch()

    def outer():
        watch.run("inner", int)
        watch.run("inner", int)

    watch.run("outer", outer)
    assert (watch.seconds["inner"], watch.seconds["outer"]) == (4, 6)
    assert (watch.calls["inner"], watch.calls["outer"]) == (2, 1)


def test_an_attribute_that_failed_under_watch_is_put_back():
    methods = [vars(f).get("forward") for f in Function.__subclasses__()]
    with pytest.raises(ZeroDivisionError), around(lambda *_: 1 // 0):
        ops.GELU()(np.ones(3, np.float32))
    assert [vars(f).get("forward") for f in Function.__subclasses__()] == methods


def test_a_profile_has_every_operation_and_its_rows_add_up(monkeypatch):
    bench = small_bench()
    ticks = iter(range(10**6))
    monkeypatch.setattr("tinymixer.train.profile.clock", lambda: next(ticks))
    with bench:
        rows = {row.name: row for row in bench.profile(2)}
    assert {"ChannelMLP", "TokenMLP", "LayerNorm", "Add", "AdamW", "sum of gradients"} < set(rows)
    assert rows["ChannelMLP"].calls == 2 * 3  # blocks, micro-batches
    assert rows["AdamW"].calls == 1
    assert rows["ChannelMLP"].forward == rows["ChannelMLP"].backward == 6000.0  # a tick is 1 s
    assert rows["ChannelMLP"].products > 0 == rows["LayerNorm"].products
    rest = rows["tape and the rest"]
    watched = sum(row.calls for row in rows.values() if row.other and row is not rest)
    watched += sum(row.forward + row.backward for row in rows.values()) / 1000
    # From one reading of the clock to the next is one tick, so the step takes 2 n + 1 for n calls
    # inside of it, one each for them.
    assert sum(row.total for row in rows.values()) == pytest.approx(1000 * (2 * watched + 1))
    assert rest.total == pytest.approx(1000 * (watched + 1))
    assert "step" not in vars(bench.training_step.optimizer)  # nothing is watched any more


def test_the_table_of_a_profile_adds_up():
    rows = [
        OperationTime("Add", 8, 3.0, 4.5, 0.0, 0.0),
        OperationTime("AdamW", 1, 0.0, 0.0, 2.5, 0.0),
    ]
    *_, last = profile_table(rows).splitlines()
    assert last.split() == ["total", "3.0", "4.5", "10.0", "100.0%"]


def test_times_are_of_the_steps_after_the_warm_up(monkeypatch):
    seconds = iter([0, 9, 20, 29, 40, 41, 50, 53, 60, 62])  # 9, 9, then 1, 3, 2
    monkeypatch.setattr("tinymixer.train.bench.time.perf_counter", lambda: next(seconds))
    with small_bench(workers=1) as bench:
        found = bench.time(steps=5, warmup=2)
    assert (found["median_ms"], found["min_ms"], found["max_ms"]) == (2000, 1000, 3000)
    assert found["timed_steps"] == 3
    assert found["images_s"] == 3.5
    assert list(found["loss"]) == [0, 1]


# --- the command ---

FIELDS = {
    *("what", "model", "batch", "micro_batch", "processes", "threads", "gelu", "precision"),
    "reference",
    *("params", "timed_steps", "median_ms", "min_ms", "max_ms", "cpu_s_per_step", "images_s"),
    *("gflop_s", "products_ms", "products_cpu_s", "products_gflop_s", "share_of_products"),
    *("peak_rss_mib", "share_of_ranks", "loss", "tinymixer", "numpy"),
}


def test_json_is_one_line_with_all_fields(capsys):
    assert call(*TINY, "--json") == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    found = json.loads(said)
    assert set(found) == FIELDS
    assert (found["what"], found["model"], found["gelu"]) == ("train", "mixer_pico", "tanh")
    assert (found["batch"], found["micro_batch"], found["threads"]) == (6, 4, 2)
    assert found["timed_steps"] == 2
    assert found["processes"] == 2
    assert 0 < found["share_of_ranks"] < 1
    assert found["images_s"] == pytest.approx(6000 / found["median_ms"], rel=1e-3)  # rounded
    assert found["loss"]["1"] < found["loss"]["0"]


def test_it_says_all_of_that_in_words_and_draws_the_profile(capsys, tmp_path):
    picture = tmp_path / "profile.png"
    assert call(*TINY, "--infer", "--set", "gelu=erf", "--plot", picture) == 0
    said = capsys.readouterr().out
    for words in ("inference step, 6 images", "erf-GELU", "images/s", "GFLOP/s", "peak memory"):
        assert words in said
    assert "what crosses" not in said  # one process
    assert "ChannelMLP" in said
    assert "AdamW" not in said
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_it_says_what_share_of_the_time_is_for_what_crosses(capsys):
    assert call(*TINY, "--no-products") == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("processes")]
    assert 0 < float(line.split()[1].removesuffix("%")) < 100


@pytest.mark.parametrize(
    ("model", "options", "gelu"),
    [
        ("raft_mlp_nano", (), "erf"),
        ("vip_nano", ("--set", "gelu=tanh"), "tanh"),
        ("sparse_mlp_nano", (), "tanh"),
    ],
)
def test_it_tells_which_gelu_the_model_has(model, options, gelu, capsys):
    few = ("--batch", 1, "--steps", 1, "--warmup", 0, "--infer", "--no-products", "--json")
    assert call("--model", model, *few, *options) == 0
    assert json.loads(capsys.readouterr().out)["gelu"] == gelu


def test_a_batch_smaller_than_workers_times_micro_batch_is_shared(capsys, monkeypatch):
    monkeypatch.setattr(Workers, "of_this_machine", lambda count, device: Workers(count or 4))
    small = [word for word in TINY if word not in {"--micro-batch", "4"}]
    assert call(*small, "--json", "--no-products") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["micro_batch"] == 3
    assert "products_ms" not in found


def test_inference_computes_as_many_images_together_as_evaluation_does(capsys):
    small = [word for word in TINY if word not in {"--micro-batch", "4"}]
    many = ("--infer", "--batch", EVAL_BATCH["cpu"] + 1, "--workers", 1, "--json", "--no-products")
    assert call(*small, *many) == 0
    assert json.loads(capsys.readouterr().out)["micro_batch"] == EVAL_BATCH["cpu"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--batch", 0), "--batch 0: expected 1 or more"),
        (("--micro-batch", -1), "--micro-batch -1"),
        (("--steps", 3, "--warmup", 3), "--warmup 3: expected 0 to 2"),
        (("--set", "gelu=relu"), "model mixer_nano"),
        (("--against", "true", "--profile"), "leave it out beside --against"),
        (("--graph",), "--graph replays the kernel launches of a GPU; add --device gpu"),
        (("--graph", "--infer", "--device", "gpu"), "--graph replays steps of training"),
    ],
)
def test_mistakes_cost_one_line(argv, says, capsys):
    assert call(*argv) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


# --- on a GPU: the stand-in for CuPy ---

ON_GPU = {"device", "peak_gflop_s", "share_of_peak", "copy_gb_s", "own_launches", "products"}


@pytest.fixture
def gpu_with_twins(monkeypatch):
    """A GPU of small ceilings."""
    if missing := cuda_on_cpu.why_not():
        pytest.skip(missing)
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)
    monkeypatch.setattr(bench_module, "SIDE", 64)
    monkeypatch.setattr(launches_module, "REPEATS", 2)


@pytest.fixture
def gpu(gpu_with_twins, monkeypatch):
    """The same without twins."""
    monkeypatch.setattr(engine, "twins", {})


@pytest.mark.parametrize("infer", [False, True], ids=["train", "infer"])
def test_the_bench_runs_on_a_gpu_and_beside_its_ceilings(gpu, capsys, infer):
    flags = ["--infer"] if infer else []
    assert call(*TINY, "--device", "gpu", "--json", *flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == FIELDS | ON_GPU | (set() if infer else {"share_of_copy"})
    assert call(*TINY, "--device", "gpu", *flags) == 0
    said = capsys.readouterr().out
    assert "1 thread\n" in said
    assert "in a large product" in said
    assert ("memory traffic" in said) is not infer
    assert "0 a step of kernels of our own, 0 of products; CuPy's" in said


def test_the_step_on_a_gpu_is_that_of_the_cpu_and_waits_for_it(gpu, monkeypatch):
    waited = []
    monkeypatch.setattr("tinymixer.train.bench.synchronize", waited.append)
    model = create_model("mixer_pico", **SMALL)
    with (
        small_bench(workers=1) as here,
        Bench(model, batch=7, micro_batch=3, workers=1, device="gpu") as there,
    ):
        assert here.check() == there.check()
        assert here.time(4, 1)["loss"] == there.time(4, 1)["loss"]
        found, expected = (b.training_step.flat.weights for b in (there, here))
        np.testing.assert_array_equal(found.get(), expected)
        assert here.products() == there.products()
        assert here.least_traffic() == there.least_traffic()
    assert waited == ["cpu"] * 4 + ["gpu"] * 4


@pytest.mark.parametrize("infer", [False, True], ids=["train", "infer"])
def test_launches_are_those_of_a_hand_count(gpu_with_twins, infer):
    # Per block two norms, MLPs, sums; a norm; biases of embedding and head; a loss and its sum.
    forward = 2 * (2 * 1 + 2 * 2 + 2 * 1) + 1 + 2 * 1 + 3
    backward = 2 * (2 * 2 + 2 * 4) + 2 + 2 * 2 + 1  # what is summed is summed in two stages
    # A micro-batch has its images picked, a key to draw from, and its gradients gathered; AdamW
    # follows both.
    kernels = 2 * forward if infer else 2 * (1 + 1 + forward + backward + 1) + 1
    products = 2 * (2 * 4 + 2 + (0 if infer else 2 * 8 + 3))  # the images need no gradient
    model = create_model("mixer_pico", **SMALL)
    bench = Bench(model, batch=3, micro_batch=2, workers=1, infer=infer, device="gpu")

    def counted():
        kinds = bench.launches()
        return [sum(kind.count for kind in kinds if bool(kind.flops) == of) for of in (False, True)]

    with bench:
        assert [counted() for _ in range(2)] == [[kernels, products]] * 2
        flops = sum(product.flops for piece in bench.products() for product in piece)
        assert sum(kind.count * kind.flops for kind in bench.launches()) == flops
        with reference_ops():
            # what the step has chosen stays: images, key, gathering, and AdamW
            assert counted() == [0 if infer else 2 * 3 + 1, 0]


def test_kinds_are_told_apart_by_what_they_are_launched_on(gpu_with_twins):
    bench = Bench(
        create_model("mixer_pico", **SMALL), batch=4, micro_batch=4, workers=1, device="gpu"
    )
    with bench:
        kinds = {(kind.name, kind.bytes): kind for kind in bench.launches()}
        rows = bench.timed(kinds.values())
    S, C, D_C = 64, SMALL["hidden_dim"], SMALL["channels_mlp_dim"]
    sums = {kind.bytes for kind in kinds.values() if kind.name == "sum_parts"}
    assert len(sums) > 3  # of C, of 2 C, of tokens, of hidden widths, of classes
    gelu = kinds["gelu_columns", 4 * (2 * S * 4 * D_C + D_C)]  # h and a (S*B, D_C), b
    assert (gelu.count, gelu.flops) == (SMALL["num_blocks"], 0)
    left, right, made = S * 4 * C, C * D_C, S * 4 * D_C
    first = kinds[f"product {S * 4} x {C} x {D_C}", 4 * (left + right + made)]
    assert first.flops == 2 * left * D_C
    assert [row.total_ms for row in rows] == sorted((row.total_ms for row in rows), reverse=True)
    assert sum(row.count for row in rows) == sum(kind.count for kind in kinds.values())
    assert all(row.ms > 0 and row.gb_s > 0 for row in rows)


def test_the_profile_of_a_gpu_is_its_kernels_and_products(gpu_with_twins, capsys):
    assert call(*TINY, *FEW_TOKENS, "--device", "gpu", "--profile") == 0
    said = capsys.readouterr().out
    table = said[said.index("kernel or product") :].splitlines()
    names = [line.split("  ")[0] for line in table[2:]]
    assert {"gelu_columns", "gelu_backward_rows", "layer_norm_backward", "adamw"} <= set(names)
    assert names[-1] == "all else"
    assert len({len(line) for line in table}) == 1
    assert call(*TINY, *FEW_TOKENS, "--device", "gpu", "--profile", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["profile"]
    assert {row["name"] for row in rows} == set(names[:-1])


def test_shares_of_a_launch_are_of_the_ceiling_that_it_comes_closer_to():
    rows = [Launches("copy", 4, 0.5, 1_000_000), Launches("product", 1, 1.0, 1000, 3_000_000)]
    _head, _rule, *lines = launch_table(
        rows, step_ms=4.0, peak_gflop_s=6.0, copy_gb_s=10.0
    ).splitlines()
    assert lines[0].split() == ["copy", "4", "2.000", "50.0%", "2", "20.0%"]
    assert lines[1].split() == ["product", "1", "1.000", "25.0%", "0", "3", "50.0%"]
    assert lines[2].split() == ["all", "else", "1.000", "25.0%"]


def test_a_wrong_twin_on_a_gpu_is_refused(gpu, monkeypatch):
    wrong = type("Wrong", (ops.LayerNorm,), {"forward": lambda self, *x: 1.01 * x[0]})
    monkeypatch.setitem(engine.twins, (ops.LayerNorm, "gpu"), Twin(wrong))
    model = create_model("mixer_pico", **SMALL)
    bench = Bench(model, batch=4, micro_batch=4, workers=1, infer=True, device="gpu")
    with bench, pytest.raises(TinymixerError, match="is wrong and is not timed"):
        bench.check()


def test_fewer_bits_are_used_named_and_allowed_for(gpu_with_twins, capsys):
    losses = {}
    for precision in ("fp32", "tf32", "bf16"):
        assert call(*TINY, *FEW_TOKENS, "--device", "gpu", "--json", "--precision", precision) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["precision"] == precision
        losses[precision] = found["loss"]["0"]
    off = {name: abs(loss - losses["fp32"]) for name, loss in losses.items()}
    assert 0 < off["tf32"] < 1e-3 < 1e-2 * losses["fp32"]
    assert off["tf32"] < off["bf16"] < 1e-2


def test_a_graph_is_replayed_and_its_nodes_are_counted(gpu_with_twins, monkeypatch, capsys):
    cublas_on_cpu.put_in_place(monkeypatch)
    steps = [*TINY, *FEW_TOKENS, "--device", "gpu", "--steps", "4"]
    assert call(*steps, "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert call(*steps, "--json", "--graph") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == plain["loss"]
    kinds = "own_launches", "products"
    assert [found[kind] for kind in kinds] == [plain[kind] for kind in kinds]
    assert len(found["graph"]) == 2  # micro-batches of four and of two
    optimizer = 1
    assert sum(graph["KERNEL"] for graph in found["graph"]) > sum(map(plain.get, kinds)) - optimizer
    assert call(*steps, "--graph") == 0
    said = capsys.readouterr().out
    assert "KERNEL), 0 copies between host and device; " in said


def test_why_there_is_no_graph_is_said(gpu_with_twins, capsys):
    assert call(*TINY, *FEW_TOKENS, "--device", "gpu", "--graph") == 0
    said = capsys.readouterr().out
    assert "graph            none, launch by launch instead: cuBLAS cannot be called" in said


def test_no_processor_time_is_drawn_for_a_gpu(gpu, capsys):
    assert call(*TINY, "--device", "gpu", "--plot", "profile.png") == 2
    assert "a GPU has its own" in capsys.readouterr().err


# --- beside another program ---


def program(*lines):
    """A command that prints `lines`."""
    return shlex.join([sys.executable, "-c", f"print({chr(10).join(lines)!r})"])


@pytest.fixture
def own_runs(monkeypatch):
    """Our own side is no process but a row of results; the order of all calls is kept."""
    from tinymixer.cli import against as command

    order, result = [], command._result
    speeds = iter([100.0, 400.0, 200.0])

    def fake(words):
        order.append("this" if "tinymixer" in words else "that")
        if order[-1] == "that":
            return result(words)
        work = {"what": "train", "batch": 6, "threads": 2, "gelu": "tanh", "precision": "tf32"}
        found = {"loss": {"0": 2.0, "1": 1.0, "19": 0.5}, "timed_steps": 2, "cpu_s_per_step": 0.5}
        return {**work, "params": 9, **found, "images_s": next(speeds)}

    monkeypatch.setattr(command, "_result", fake)
    return order


def test_two_programs_run_in_turn_and_the_medians_are_compared(own_runs, capsys):
    other = program("warming up", json.dumps({"images_s": 50, "batch": 7, "cpu_s_per_step": 0.25}))
    assert call(*TINY, "--against", other, "--rounds", 3, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert own_runs == ["this", "that"] * 3
    assert found["ratio"] == 4.0
    assert [line["images_s"] for line in found["this"]] == [100, 400, 200]
    assert found["differing"] == {"batch": [6, 7]}


def test_the_comparison_in_words_says_what_is_not_alike(own_runs, capsys):
    other = program(json.dumps({"images_s": 50, "batch": 7, "peak_rss_mib": "much"}))
    assert call(*TINY, "--against", other, "--rounds", 3) == 0
    said = capsys.readouterr().out
    assert "4.000 times as many images/s" in said
    assert "200.0 images/s (100.0 to 400.0)" in said
    assert "batch is 6 here and 7 there" in said


@pytest.mark.parametrize(
    ("loss", "note"),
    [
        ({"0": 2.001, "1": 1.0005, "19": 0.1}, {}),
        ({"0": 2.001, "1": 1.002}, {"loss in step 2": [1.0, 1.002]}),
        ({"0": 1.997}, {"loss in step 1": [2.0, 1.997]}),
        ({"0": None, "1": "low"}, {}),
        (2.5, {}),
    ],
    ids=["as near as the bits allow", "the update", "the start", "nonsense", "a single one"],
)
def test_losses_that_disagree_are_no_same_work(own_runs, capsys, loss, note):
    other = program(json.dumps({"images_s": 50, "loss": loss}))
    assert call(*TINY, "--against", other, "--rounds", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["differing"] == note


def test_our_own_side_is_this_command_in_a_process_of_its_own(capsys):
    other = program(json.dumps({"images_s": 1.0}))
    assert call(*TINY, "--infer", "--against", other, "--rounds", 1, "--json") == 0
    (own,) = json.loads(capsys.readouterr().out)["this"]
    assert set(own) == FIELDS - {field for field in FIELDS if "products" in field}
    assert (own["what"], own["micro_batch"], own["threads"]) == ("infer", 4, 2)
    assert own["params"] == create_model("mixer_pico", **SMALL).num_parameters()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("no-such-program --fast", "cannot run no-such-program --fast"),
        (shlex.join([sys.executable, "-c", "raise SystemExit('no luck')"]), "exit code 1: no luck"),
        (program("hello"), "expected a last line of JSON with images_s above 0, got 'hello'"),
        (program("[]"), "expected a last line of JSON"),
        (program(json.dumps({"images_s": None})), "expected a last line of JSON"),
        (program(json.dumps({"images_s": 0})), "with images_s above 0, got '{"),
        ("'unclosed", "No closing quotation; quote it as in a shell"),
        ("  ", "expected a program and its arguments"),
    ],
    ids=["missing", "failing", "no JSON", "a list", "no number", "zero", "a quote", "blank"],
)
def test_another_program_that_does_not_answer_costs_one_line(own_runs, other, says, capsys):
    assert call(*TINY, "--against", other, "--rounds", 1) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
