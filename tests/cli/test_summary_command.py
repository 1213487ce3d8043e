"""What `tinymixer summary` says of a model."""

import pytest
from command_line import call, no_network, refused


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("mixer_pico", "154,058"),
        ("mixer_nano", "1,132,170"),
        ("mixer_nano_slim", "673,418"),
        ("as_mlp_nano", "983,946"),
        ("hire_mlp_nano", "791,162"),
        ("vip_nano", "948,106"),
        ("sparse_mlp_nano", "808,714"),
        ("raft_mlp_nano", "959,170"),
    ],
)
def test_summary_gives_the_totals(name, total, capsys):
    assert call("summary", name) == 0
    assert total in capsys.readouterr().out


def test_summary_follows_changes(capsys):
    assert call("summary", "mixer_nano", "--num-classes", 100, "--set", "gelu=erf") == 0
    assert "1,143,780" in capsys.readouterr().out
    assert call("summary", "mixer_nano", "--set", "num_classes=3", "--num-classes", 100) == 0
    assert "1,143,780" in capsys.readouterr().out
    assert call("summary", "mixer_nano", "--set", "num_classes=100") == 0
    assert "1,143,780" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("summary", "mixer_nano", "--set", "patch_size=0"), "patch_size=0: expected a whole"),
        (("summary", "hire_mlp_nano", "--set", "image_size=2"), "Use larger images"),
        (("summary", "mixer_nano", "--set", "rng=3"), "no option 'rng'"),
        (("summary", "mixer_nano", "--num-classes", "few"), "a whole number, got 'few'"),
        (("summary", "mixer_xxl"), "mixer_pico"),
        (("summary", "mixer_nano", "--set", "patch_size=7"), "7x7"),
        (
            ("summary", "mixer_nano", "--num-classes", "99999999999999"),
            "expected a whole number from 1",
        ),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)


def test_too_little_memory_is_one_line(here, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("tinymixer.cli.summary.blueprint", full)
    refused(capsys, here, ("summary", "mixer_nano"), "not enough memory (Unable to allocate 9 TiB)")
