"""Whether a wheel holds what it should, and works in a clean environment.

    python scripts/try_wheel.py dist/beholder-*.whl [--train]

The wheel must hold every file of `src/beholder` that git knows, and nothing else but its metadata.
The light install must then judge with a file, read a table, and say in a sentence what training
needs; `--train` also installs the extras `train` and `demo` and runs a recipe's tiny twin.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEFORE = ROOT / "tests" / "golden" / "before"  # a judge in one file, pictures, a table


def check_contents(wheel: Path) -> None:
    """Raises SystemExit where a file is missing, or one too many."""
    command = ["git", "-C", str(ROOT), "ls-files", "src/beholder"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    wanted = {name.removeprefix("src/") for name in listed}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        if names != wanted:
            sys.exit(f"missing: {sorted(wanted - names)}; too many: {sorted(names - wanted)}")
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")


def try_it(wheel: Path, extras: str, folder: Path) -> Path:
    """A clean environment with the wheel; returns its `beholder`."""
    venv.create(folder, with_pip=True)
    install = [folder / "bin" / "pip", "install", "--quiet", f"{wheel.resolve()}[{extras}]"]
    subprocess.run(install, check=True)
    return folder / "bin" / "beholder"


def run(command: list[object], status: int, *, says: str, cwd: Path) -> None:
    """Run a command outside of the checkout; it must end with `status` and say something."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=cwd, check=False
    )
    printed = done.stdout + done.stderr
    if done.returncode != status or says not in printed or "Traceback" in printed:
        sys.exit(f"{command}: exit code {done.returncode}, expected {status}:\n{printed}")
    print(f"ok: beholder {' '.join(str(part) for part in command[1:])}")


def main(wheel: Path, *, train: bool) -> None:
    check_contents(wheel)
    with tempfile.TemporaryDirectory() as scratch:
        cwd = Path(scratch)
        beholder = try_it(wheel, "cpu", cwd / "light")
        judge, picture = BEFORE / "run" / "judge.beholder", BEFORE / "pictures" / "00.png"
        run([beholder, "--help"], 0, says="evaluate", cwd=cwd)
        run([beholder, "judge", judge, picture, "--format", "jsonl"], 0, says='"score"', cwd=cwd)
        table, pictures = BEFORE / "table.csv", BEFORE / "pictures"
        run([beholder, "check", table, "--images", pictures], 0, says="No problems", cwd=cwd)
        run([beholder, "demo"], 2, says="beholder[train]", cwd=cwd)
        run([beholder, "fit", "demo"], 2, says="beholder[train]", cwd=cwd)
        if train:
            beholder = try_it(wheel, "cpu,train,demo", cwd / "train")
            tiny = ROOT / "src" / "beholder" / "recipes" / "tiny" / "demo.yaml"
            run([beholder, "fit", tiny], 0, says="Report:", cwd=cwd)


if __name__ == "__main__":
    main(Path(sys.argv[1]), train="--train" in sys.argv[2:])
