"""What ``import cancelable_core`` costs over ``import anyio``, alone and with asyncio, which async frameworks load anyway.

Each import happens in a process of its own, and is timed in there, so that starting Python is not part of it. Compiled files
lie in a folder of their own: what is measured is loading them, whatever this machine keeps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from _harness import Comparison, print_header

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 25
SUBJECT = "cancelable_core"
FLOORS = ("anyio", "asyncio, anyio")


def import_seconds(modules: str, compiled: str) -> float:
    """One import in a fresh process that has loaded none of it yet."""
    code = f"import time; started = time.perf_counter(); import {modules}; print(time.perf_counter() - started)"
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout)


def main() -> None:
    """Print the ratios."""
    print_header("import, fresh processes, interleaved")
    with TemporaryDirectory() as compiled:
        subjects = (SUBJECT, *FLOORS)
        for modules in subjects:
            import_seconds(modules, compiled)  # compiles
        rounds = [[import_seconds(modules, compiled) for modules in subjects] for _ in range(ROUNDS)]
    ours, *floors = zip(*rounds, strict=True)
    for name, floor in zip(FLOORS, floors, strict=True):
        print(Comparison(f"import {SUBJECT} over import {name}", ours, floor))


if __name__ == "__main__":
    main()
