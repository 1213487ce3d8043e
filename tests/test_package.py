"""The package as it is published: what is in it, what its page shows, and that it works alone."""

import os
import re
import runpy
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import tinymixer
from tinymixer.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
COURSE = {path.name for path in (ROOT / "lessons").iterdir() if path.is_file()}


def build(folder, *what, source=ROOT):
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *what]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, and the archive of sources."""
    wheel, sources = build(tmp_path_factory.mktemp("dist"))
    return wheel, sources


@pytest.fixture(scope="module")
def members(built):
    """What is in the wheel, by name."""
    with zipfile.ZipFile(built[0]) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def test_the_wheel_holds_the_package_and_the_course_and_nothing_else(members):
    about = f"tinymixer-{tinymixer.__version__}.dist-info/"
    names = {name for name in members if not name.startswith(about)}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tinymixer").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == package | {f"tinymixer/lessons/{name}" for name in COURSE}
    assert "tinymixer/py.typed" in names
    assert f"{about}licenses/LICENSE" in members


def test_the_sources_make_the_same_wheel(built, members, tmp_path):
    with tarfile.open(built[1]) as sources:
        sources.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    (wheel,) = build(tmp_path / "dist", "-t", "wheel", source=unpacked)
    with zipfile.ZipFile(wheel) as again:
        assert {name: again.read(name) for name in again.namelist()} == members


def test_its_page_finds_pictures_and_files(members):
    (about,) = (text for name, text in members.items() if name.endswith("/METADATA"))
    page = message_from_bytes(about)
    assert page["License-Expression"] == "MIT"
    assert page["Description-Content-Type"] == "text/markdown"
    readme = (ROOT / "README.md").read_text("utf-8")
    found = page.get_payload(decode=True).decode()
    assert found.count("](") == readme.count("](")
    assert not re.findall(r"\]\((?!https://|#)", found)
    tag = f"v{tinymixer.__version__}"
    assert f"]({ADDRESS}/raw/{tag}/lessons/mixer.png)" in found
    assert f"]({ADDRESS}/blob/{tag}/lessons/README.md)" in found


def test_every_name_of_the_package_is_there():
    for name in dir(tinymixer):
        getattr(tinymixer, name)


ALONE = """
import contextlib, sys
from pathlib import Path
from tinymixer import cli

assert not Path(cli.__file__).is_relative_to(sys.argv[1]), cli.__file__
for argv in ([], *([name] for name in cli.COMMANDS)):
    with contextlib.suppress(SystemExit):
        raise AssertionError(cli.main([*argv, "--help"]))
sys.exit(cli.main(["lessons", "course"]))
"""


def alone(python, paths, tmp_path):
    """The help of every command, and the course copied, by a Python that knows no checkout."""
    environment = {key: x for key, x in os.environ.items() if key != "PYTHONPATH"} | paths
    command = [python, "-c", ALONE, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.findall(r"^usage: tinymixer ([\w-]+)", done.stdout, re.MULTILINE)
    assert [name for name in shown if name in COMMANDS] == list(COMMANDS)
    copied = {path.name: path.read_bytes() for path in (tmp_path / "course").iterdir()}
    assert copied == {name: (ROOT / "lessons" / name).read_bytes() for name in COURSE}


def test_every_command_starts_from_the_wheel_alone(built, tmp_path):
    """With the libraries of this environment, so that it is quick."""
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(tmp_path / "site")
    alone(sys.executable, {"PYTHONPATH": str(tmp_path / "site")}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sources"])
def test_it_installs_in_an_environment_of_its_own(kind, built, tmp_path):
    """With what it asks for, from the package index."""
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    package = built[["wheel", "sources"].index(kind)]
    for words in (["install", "-q", str(package)], ["check"]):
        subprocess.run([python, "-m", "pip", *words], cwd=tmp_path, check=True)
    alone(python, {}, tmp_path)
    for name in COMMANDS:
        subprocess.run([str(programs / "tinymixer"), name, "--help"], cwd=tmp_path, check=True)
    command = [str(programs / "tinymixer"), "train", "--dataset", "shapes", "--epochs", "1"]
    small = ["--train-size", "64", "--test-size", "32", "--workers", "1", "--quiet"]
    subprocess.run(command + small, cwd=tmp_path, check=True)


# --- What is said in several places ---------------------------------------------------------------


def test_versions_of_python_are_the_same_everywhere():
    classifiers = "\n".join(PROJECT["classifiers"])
    versions = re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    workflow = (ROOT / ".github" / "workflows" / "package.yml").read_text("utf-8")
    (tested,) = re.findall(r"python: \[(.*)\]", workflow)
    assert re.findall(r'"(.*?)"', tested) == versions
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_a_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {tinymixer.__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_the_address_of_the_repository_is_written_once():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    paths = [ROOT / name for name in listed.stdout.split("\0")[:-1]]
    found = [path for path in paths if path.is_file() and ADDRESS.encode() in path.read_bytes()]
    assert found == [ROOT / "pyproject.toml"]


def test_a_release_from_elsewhere_is_stopped():
    check = runpy.run_path(str(ROOT / ".ci" / "address.py"))["main"]
    assert check(ADDRESS) is None
    assert f"Repository is {ADDRESS}, but" in check("https://github.com/somewhere/else")
