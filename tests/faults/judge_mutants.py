"""Judges a picture with each mutant and prints a line of JSON: what came of it. Started by a test.

Arguments: kind of mutant, whole judge, picture, first seed, last seed (not included).
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from mutants import mutated, resealed

from beholder import Judge
from beholder.errors import BeholderError

MOST_MEMORY = 6_000_000_000  # bytes


def main() -> None:
    kind, whole, picture, first, last = sys.argv[1:]
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    except ImportError:
        pass
    content, path = Path(whole).read_bytes(), Path(whole).with_name(f"{kind}.mutant")
    make = {"bytes": mutated, "resealed": resealed}[kind]
    for seed in range(int(first), int(last)):
        path.write_bytes(make(content, random.Random(seed)))
        print(json.dumps({"seed": seed}), flush=True)  # which one, should it end the process
        begin = time.perf_counter()
        outcome: dict[str, object]
        try:
            outcome = {"verdict": Judge.load(path, "cpu", threads=1)(picture).to_dict()}
        except BeholderError as error:
            outcome = {"error": type(error).__name__, "what": error.what}
        except Exception as error:  # noqa: BLE001  # what the test looks for
            outcome = {"traceback": f"{type(error).__name__}: {error}"}
        print(
            json.dumps({"seed": seed, "seconds": time.perf_counter() - begin, **outcome}),
            flush=True,
        )


if __name__ == "__main__":
    main()
