"""Which runs a config file asks for, in its order, and the file that each leaves."""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from methods import has_strength
from tasks import Budget, Stage

FULL = "full"
"""The target of teachers."""
TEACHERS = ("teacher", "teacher-half")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network trained and judged.

    Args:
        arm: name of the method.
        target: name of the widths.
        seed: of weights and batches.
        tuned: the strength to try where the run only serves to choose one; such runs see no test data.
    """

    arm: str
    target: str
    seed: int
    tuned: float | None = None

    @property
    def name(self) -> str:
        """Name of its file, without suffix."""
        tuning = "" if self.tuned is None else f"tune.{self.tuned:g}."
        return f"{tuning}{self.arm}.{self.target}.s{self.seed}"


def expand(config: Mapping[str, Any]) -> list[Run]:
    """Returns every run of a config, in the order of its waves; in a wave seeds come first, then targets, then arms.

    A wave with `tune = true` tries every strength of the arm's grid.
    """
    runs: list[Run] = []
    for wave in config["wave"]:
        for seed in wave["seeds"]:
            for target in wave["targets"]:
                for arm in wave["arms"]:
                    tries = grid(config, arm) if wave.get("tune", False) else (None,)
                    runs += [Run(arm=arm, target=target, seed=seed, tuned=value) for value in tries]
    return list(dict.fromkeys(runs))


def grid(config: Mapping[str, Any], arm: str) -> tuple[float, ...]:
    """Returns the strengths to try for an arm.

    Raises:
        ValueError: no pattern of `[grids]` matches it.
    """
    for pattern, values in config.get("grids", {}).items():
        if fnmatch.fnmatchcase(arm, pattern):
            return tuple(float(value) for value in values)
    raise ValueError(f"no pattern in [grids] matches the arm {arm!r}; add one, or leave it out of the tuned waves")


def strength_of(run: Run, config: Mapping[str, Any], folder: Path) -> float | None:
    """Returns the strength of a run: its own, the best of the tuning runs, or that of `[strengths]`.

    The best has the highest mean validation score over the tuning runs' seeds and targets. None where the arm has no
    strength.

    Raises:
        LookupError: tuning runs of the arm are planned and not all there yet.
        ValueError: neither tuning nor `[strengths]` speaks of the arm.
    """
    if run.tuned is not None:
        return run.tuned
    if not has_strength(run.arm):
        return None
    planned = [other for other in expand(config) if other.tuned is not None and other.arm == run.arm]
    missing = [other.name for other in planned if not path_of(folder, other).exists()]
    if missing:
        raise LookupError(f"{run.name} waits for {len(missing)} tuning runs, the first {missing[0]}")
    if planned:
        scores: dict[float, list[float]] = {}
        for other in planned:
            data = json.loads(path_of(folder, other).read_text(encoding="utf-8"))
            scores.setdefault(data["strength"], []).append(data["val"]["score"])
        return max(scores, key=lambda value: fmean(scores[value]))
    for pattern, value in config.get("strengths", {}).items():
        if fnmatch.fnmatchcase(run.arm, pattern):
            return float(value)
    raise ValueError(f"the arm {run.arm!r} has a strength: tune it in a wave, or give it in [strengths]")


def path_of(folder: Path, run: Run) -> Path:
    """Returns the file of a run."""
    return folder / "runs" / f"{run.name}.json"


def make_budget(table: Mapping[str, Any]) -> Budget:
    """Returns the budget that `[budget]` describes."""
    stages = {name: Stage(steps=1, **table[name]) for name in ("scratch", "narrow", "tune")}
    shares = {name: table[name] for name in ("narrowing", "teacher") if name in table}
    return Budget(steps=table["steps"], **shares, **stages)


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a run file so that a kill leaves none or a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def surroundings(command: str) -> dict[str, Any]:
    """Returns what a number depends on besides the config: command, commit, machine and versions."""
    return {
        "command": command,
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }


def describe(run: Run) -> dict[str, Any]:
    """Returns a run as data."""
    return asdict(run)


def command_line() -> str:
    """Returns how the script was called, without the folders of this machine."""
    return " ".join(["python benchmarks/mask_decay/run.py", *(_short(part) for part in sys.argv[1:])])


def _short(part: str) -> str:
    return Path(part).name if part.startswith("/") else part


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()
