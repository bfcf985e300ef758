"""Prints the lowest versions that pyproject.toml allows, as pip's requirements.

python scripts/lowest_versions.py [EXTRA ...]
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(requirement: str) -> str:
    """`name[extra]>=1.2; marker` with its floor as the only version."""
    return re.sub(r">=\s*", "==", requirement, count=1)


def main(extras: list[str]) -> None:
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    wanted = project["dependencies"] + [
        requirement for extra in extras for requirement in project["optional-dependencies"][extra]
    ]
    print("\n".join(lowest(requirement) for requirement in wanted))


if __name__ == "__main__":
    main(sys.argv[1:])
