"""A codebook: what the values of attributes are called, e.g. 0 of daily-ness is `formal`.

A mapping in JSON or YAML of attribute to its classes, either a list of names by index from 0, or a
mapping of value to name; or a CSV or TSV with the columns attribute, value, name:

```yaml
daily: [formal, casual, sport]
gender: {0: male, 1: female}
```
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from beholder.data.formats.delimited import ROW, parse_delimited
from beholder.data.formats.text import read_text
from beholder.errors import DataError, Problem

COLUMNS = ("attribute", "value", "name")

Codebook = Mapping[str, Mapping[str, str]]
"""Attribute in small letters -> value in the table -> name, in the order of the class indices."""


def read_codebook(path: str | Path) -> dict[str, dict[str, str]]:
    """Read a codebook. Whole numbers as values are put in their order; others stay in the file's.

    Raises:
        DataError: with everything wrong with it at once.
    """
    path, file = Path(path), str(path)
    fix = "Give attribute -> list of names in JSON or YAML, or a CSV of attribute, value, name."
    if not path.is_file():
        raise _refused("There is no such codebook.", file, fix)
    text = read_text(path)
    problems = [problem for problem in text.problems if problem.severity == "error"]
    first = text.content.strip().partition("\n")[0]
    if {name.strip().casefold() for name in re.split(r"[,;\t]", first)} >= set(COLUMNS):
        entries = _from_table(text.content, file, problems)
    else:
        entries = _from_mapping(text.content, file, problems)
    if not entries and not problems:
        problems.append(Problem("error", "codebook", "The codebook is empty.", file=file))
    book: dict[str, dict[str, str]] = {}
    for attribute, value, name, row in entries:
        names = book.setdefault(attribute.casefold(), {})
        message = ""
        if not (attribute and value and name):
            message = "An attribute, value or name is empty."
        elif value in names:
            message = f"The value {value!r} is there already."
        elif name in names.values():
            message = f"Two values have the name {name!r}."
        if message:
            problems.append(Problem("error", "codebook", message, file, row, attribute or None))
        names[value] = name
    if problems:
        raise _refused("The codebook can't be used.", file, fix, problems)
    return {attribute: _in_order(names) for attribute, names in book.items()}


_Entries = list[tuple[str, str, str, int | None]]


def _from_table(text: str, file: str, problems: list[Problem]) -> _Entries:
    parsed = parse_delimited(text, file)
    problems += parsed.problems
    if any(problem.code == "header" for problem in parsed.problems):
        return []
    spelt = {name.casefold(): name for name in parsed.header}
    columns = [spelt[name] for name in COLUMNS]
    return [
        (attribute.strip(), value.strip(), name.strip(), row)
        for attribute, value, name, row in parsed.frame.select(*columns, ROW).iter_rows()
    ]


def _from_mapping(text: str, file: str, problems: list[Problem]) -> _Entries:
    try:
        content = yaml.load(text, Loader=_TextLoader)  # JSON is YAML too
    except yaml.YAMLError as error:
        message = f"It is neither JSON nor YAML: {str(error).splitlines()[0]}."
        problems.append(Problem("error", "codebook", message, file=file))
        return []
    if not content:
        return []
    if not isinstance(content, dict):
        message = "It is not a mapping of attributes to their classes."
        problems.append(Problem("error", "codebook", message, file=file))
        return []
    entries: _Entries = []
    for attribute, classes in content.items():
        pairs = dict(enumerate(classes)) if isinstance(classes, list) else classes
        if not isinstance(pairs, dict) or not all(isinstance(n, str) for n in pairs.values()):
            message = "Its classes are neither a list of names nor a mapping of value to name."
            problems.append(Problem("error", "codebook", message, file=file, field=attribute))
            continue
        if not pairs:
            message = "It has no class."
            problems.append(Problem("error", "codebook", message, file=file, field=attribute))
        entries += [(attribute, str(v).strip(), n.strip(), None) for v, n in pairs.items()]
    return entries


class _TextLoader(yaml.BaseLoader):
    """Everything is text: `no` and 01 stay what they are. A key twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(
                    f"{key.value!r} is there twice, line {key.start_mark.line + 1}"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _in_order(names: dict[str, str]) -> dict[str, str]:
    if all(re.fullmatch(r"-?\d+", value) for value in names):
        return dict(sorted(names.items(), key=lambda entry: int(entry[0])))
    return names


def _refused(what: str, file: str, fix: str, problems: list[Problem] | None = None) -> DataError:
    listed = problems or [Problem("error", "codebook", what, file=file)]
    return DataError(what, where=file, fix=fix, problems=listed)
