"""Print the lowest version that pyproject.toml admits of each dependency, as pip constraints."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"] + project["optional-dependencies"]["test"]:
    print(re.sub(r">=", "==", requirement))
print("pyparsing<3.3")  # newer ones warn about names that the lowest matplotlib still uses
