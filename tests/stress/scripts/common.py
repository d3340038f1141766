"""What the scripts share: a watch over the time, and a last line of figures."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.setswitchinterval(1e-5)

faulthandler.dump_traceback_later(float(os.environ.get("SCRIPT_SECONDS", "90")), exit=True)

SEED = int(os.environ.get("STRESS_SEED", "7417"))


def seeded(name: str) -> random.Random:
    """Chance, the same in every run."""
    return random.Random(f"{SEED} {name}")


def report(**figures: object) -> None:
    """The last line."""
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(figures), flush=True)
