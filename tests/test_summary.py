"""The summary is read off the tape: it must agree with the papers and with the tape itself."""

import numpy as np
import pytest

from tinymixer import create_model, engine, list_models, nn
from tinymixer.engine import no_grad
from tinymixer.summary import blueprint, summarise

# parameters (1000 classes at 224 pixels, 10 at 32) and multiply-accumulates for one image; the
# largest first, as memory that one blueprint hands back would be cleared for the next
PUBLISHED = {
    "mixer_h14": (432_350_952, 120_989_911_040),
    "mixer_l16": (208_196_168, 44_547_678_208),
    "mixer_l32": (206_939_264, 11_253_293_056),
    "mixer_b32": (60_293_428, 3_237_722_112),
    "mixer_b16": (59_880_472, 12_601_767_936),
    "mixer_s32": (19_104_624, 1_002_426_368),
    "mixer_s16": (18_528_264, 3_776_958_464),
    "mixer_nano": (1_132_170, 75_891_968),
    "mixer_nano_slim": (673_418, 75_891_968),
    "mixer_pico": (154_058, 64 * 48 * 64 + 4 * (2 * 64 * 32 * 64 + 2 * 64 * 64 * 256) + 64 * 10),
}


LARGE = ("mixer_b16", "mixer_l32", "mixer_l16", "mixer_h14")


@pytest.fixture(autouse=True)
def _reference_operations(monkeypatch):
    """Faster twins may keep other arrays for backward; the numbers here are the clear code's."""
    monkeypatch.setattr(engine, "twins", {})


@pytest.fixture
def nano():
    return summarise(blueprint("mixer_nano"))


def test_every_published_mixer_is_checked():
    assert set(PUBLISHED) == {name for name in list_models() if name.startswith("mixer_")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_blueprints_have_the_published_size(name):
    assert blueprint(name).num_parameters() == PUBLISHED[name][0]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in PUBLISHED]
)
def test_totals_are_as_published(name):
    summary = summarise(blueprint(name))
    assert (summary.parameters, summary.multiply_accumulates) == PUBLISHED[name]


def test_a_blueprint_and_the_model_have_the_same_summary(nano):
    assert nano == summarise(create_model("mixer_nano"))
    assert not any(W.any() for name, W in blueprint("mixer_nano").state().items() if "W" in name)


def test_changes_reach_the_blueprint():
    small = summarise(blueprint("mixer_nano", num_classes=7, image_size=(8, 12), num_blocks=1))
    assert [row.output for row in small.rows[:2]] == ["(6, B, 48)", "(6, B, 128)"]
    assert small.rows[-1].output == "(B, 7)"


def test_rows_follow_the_computation(nano):
    block = [
        ("blocks.{}.token_norm", "LayerNorm"),
        ("blocks.{}.token_mlp", "TokenMLP"),
        ("", "Add"),
        ("blocks.{}.channel_norm", "LayerNorm"),
        ("blocks.{}.channel_mlp", "ChannelMLP"),
        ("", "Add"),
    ]
    assert [(row.layer, row.function) for row in nano.rows] == [
        ("", "Patchify"),
        ("patch_embed.linear", "ChannelLinear"),
        *((layer.format(i), function) for i in range(8) for layer, function in block),
        ("norm", "LayerNorm"),
        ("", "Mean"),
        ("head", "ChannelLinear"),
    ]


def test_memory_is_what_backward_keeps_each_array_once(nano):
    S, C, D_S, D_C = 64, 128, 64, 512
    token_mlp, channel_norm, channel_mlp = nano.rows[3], nano.rows[5], nano.rows[6]
    assert token_mlp.memory == 4 * (S * C + 2 * D_S * C)  # x, and h and g(h)
    assert channel_norm.memory == 4 * (S * C + S)  # x̂ and 1/σ
    assert channel_mlp.memory == 4 * (S * C + 2 * S * D_C)
    assert nano.rows[1].memory == 4 * S * 48  # the patches
    assert nano.rows[-1].memory == 4 * C  # the mean token
    assert nano.memory == sum(row.memory for row in nano.rows)


class Twice(nn.Module):
    """y = (x W + b) W + b + x x: uses its weights twice, and keeps x three times."""

    image_size = (2, 5)

    def __init__(self):
        self.linear = nn.ChannelLinear(3, 3, rng=np.random.default_rng(0))

    def forward(self, images):
        x = images.reshape(10, 1, 3)
        return self.linear(self.linear(x)) + x * x


def test_shared_weights_and_shared_arrays_count_once():
    summary = summarise(Twice())
    assert summary.parameters == 12 == Twice().num_parameters()
    assert summary.multiply_accumulates == 2 * 10 * 9
    assert summary.memory == 4 * 2 * 30  # x, a view of the images, and x W


def test_weights_in_one_flat_buffer_are_not_activations(nano):
    model = blueprint("mixer_nano")
    flat = np.zeros(model.num_parameters(), np.float32)
    at = 0
    for parameter in model.parameters():
        parameter.data = flat[at : at + parameter.size].reshape(parameter.shape)
        at += parameter.size
    assert summarise(model) == nano


def test_products_composed_from_primitives_are_counted():
    class Composed(Twice):
        def forward(self, images):
            return images.reshape(5, 2, 1, 3) @ self.linear.W

    assert summarise(Composed()).multiply_accumulates == 10 * 3 * 3


def test_a_summary_under_no_grad_is_the_same(nano):
    with no_grad():
        assert summarise(blueprint("mixer_nano")) == nano


def test_text_folds_equal_blocks_and_aligns(nano):
    head, rule, *body, rule_again, total, _ = str(nano).splitlines()
    assert rule == rule_again == "-" * len(head)
    assert {len(line) for line in [head, *body, total]} == {len(head)}
    assert len(body) == 2 + 6 + 3
    assert sum(line.startswith("8 x") for line in body) == 6
    assert "blocks.*.channel_mlp" in body[6]
    assert body[6].split()[-3:] == ["131,712", "8,388,608", "294,912"]
    assert total.split() == ["total", "1,132,170", "75,891,968", f"{nano.memory:,}"]


def test_text_does_not_fold_what_differs():
    text = str(summarise(blueprint("mixer_pico", num_blocks=1)))
    assert " x " not in text
    assert "blocks.0.token_mlp" in text
