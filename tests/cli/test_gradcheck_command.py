"""What `tinymixer gradcheck` says when it cannot check; tests/test_gradcheck.py has the rest."""

import pytest
from command_line import no_network, refused

from tinymixer.cli import gradcheck


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("gradcheck", "--op", "SoftmaxCross"), "SoftmaxCrossEntropy"),
        (("gradcheck", "--op", "ReLU", "--plot", "."), ". is not a regular file"),
        (("gradcheck", "--op", "ReLU", "--json", "/"), "/ is not a regular file"),
        (("gradcheck", "--op", "ReLU", "--json", "file/x/y.json"), "file is not a folder"),
        (("gradcheck", "--mutants", "--plot", "x.png"), "leave it out beside --mutants"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr(gradcheck, "_check_operation", None)  # nothing is done in vain
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)
