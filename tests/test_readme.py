"""What the README prints is what runs, and what it lists is what is there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_its_ten_lines_print_what_they_say(tmp_path):
    """In an interpreter of their own: a reader has imported nothing before them."""
    (example,) = re.findall(r"```pycon\n(.*?)```", README, flags=re.DOTALL)
    assert 8 <= example.count(">>>") <= 10
    (tmp_path / "example.txt").write_text(example, "utf-8")
    options = ("-o", "ELLIPSIS", "-o", "NORMALIZE_WHITESPACE")
    command = [sys.executable, "-m", "doctest", *options, str(tmp_path / "example.txt")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_tree_names_files_that_are_there():
    tree = README[README.index("| floor |") : README.index("## Test it")]
    for line in tree.splitlines()[2:]:
        for path in re.findall(r"`([a-z_/]+(?:\.py|/))`", line):
            found = [
                p for p in (ROOT / "tinymixer").rglob("*") if p.as_posix().endswith(path.strip("/"))
            ]
            assert found, path


def test_no_room_is_missing_in_its_tree():
    found = [p for p in (ROOT / "tinymixer").iterdir() if p.suffix in ("", ".py")]
    rooms = {p.stem for p in found if not p.name.startswith("__")}
    tree = README[README.index("| floor |") : README.index("## Test it")]
    assert {room for room in rooms if f"`{room}" not in tree} == set()
