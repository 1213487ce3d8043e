"""What `tinymixer data` lists, downloads and adds."""

import pytest
from command_line import call, no_network, refused

from tinymixer import data


def test_data_shows_what_is_where(whole_cifar10, capsys):
    assert call("data", "--data-dir", whole_cifar10) == 0
    lines = capsys.readouterr().out.splitlines()
    assert str(whole_cifar10) in lines[0]
    assert "not found" in lines[1]
    assert "built in" in lines[list(data.NAMES).index("shapes")]
    assert [line.split()[0] for line in lines[-2:]] == ["folder:PATH", "npz:FILE"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("data", "add", "nowhere.tar.gz"), "nowhere.tar.gz"),
        (("data", "download", "imagenet"), "imagenet"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)
