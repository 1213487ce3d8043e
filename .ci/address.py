"""Stop a release of which pyproject.toml does not say where its repository is.

python .ci/address.py https://github.com/NAME/REPOSITORY
"""

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main(expected: str) -> str | None:
    """None if it is there; else what is wrong."""
    found = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["urls"]["Repository"]
    if found == expected:
        return None
    return (
        f"pyproject.toml: [project.urls] Repository is {found}, but this repository is {expected}. "
        "Pictures of the README, Colab and Binder are found by it: set it, and tag again"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
