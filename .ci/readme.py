"""The README for the page of the package: there, links need whole addresses."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!#|\w+:)([^)]+)\)")  # a path: no anchor, no https:


def with_addresses(text: str, repository: str, version: str) -> str:
    """Pictures and links to files of the repository as they are at the tag of `version`."""

    def whole(link: re.Match[str]) -> str:
        picture, words, path = link.groups()
        kind = "raw" if picture else "blob"
        return f"{picture}{words}({repository}/{kind}/v{version}/{path})"

    return LINK.sub(whole, text)


class Readme(MetadataHookInterface):
    def update(self, metadata: dict) -> None:
        text = (Path(self.root) / "README.md").read_text("utf-8")
        whole = with_addresses(text, metadata["urls"]["Repository"], metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": whole}
