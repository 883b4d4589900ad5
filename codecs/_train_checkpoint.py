"""A folder from which a training goes on after it was stopped, at any moment: safetensors and JSON, no pickle."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

import maskdecay as md

from ._train_state import State
from ._writing import write_whole

_INDEX = "checkpoint.json"
_FORMAT = 1


class Checkpoints:
    """Writes and reads the checkpoints of one training.

    The index is replaced last and in one step, and names the other files: whenever the machine stops, the folder
    holds the last checkpoint or the one before, whole.

    Args:
        folder: is made with the first checkpoint.
        settings: what a training must have in common with the one that it goes on from, for JSON.
        every: seconds between checkpoints.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], every: float) -> None:
        self.folder, self.every = folder, every
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        self._last = time.monotonic()
        self._base: tuple[int, nn.Module] | None = None

    @property
    def there(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.folder / _INDEX).is_file()

    @property
    def due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._last >= self.every

    def write(self, state: State, base: nn.Module, stage: int) -> None:
        """Write one.

        Args:
            state: of the stage.
            base: the network as the stage found it; it is written once, so it must not change.
            stage: counted from 0.

        Raises:
            OSError: it cannot be written; the one before is as it was.
        """
        self.folder.mkdir(exist_ok=True)
        base_name, name = f"base-{stage}.safetensors", f"state-{stage}-{state.facts['step']}.safetensors"
        if not (self.folder / base_name).exists() or not self.there or self._index()["base"] != base_name:
            md.save(base, self.folder / base_name)
        write_whole(self.folder / name, save(state.tensors))
        index = {
            "format": _FORMAT,
            "settings": self.settings,
            "stage": stage,
            "base": base_name,
            "state": name,
            "facts": state.facts,
        }
        write_whole(self.folder / _INDEX, json.dumps(index, indent=1).encode())
        for path in self.folder.glob("*.safetensors"):
            if path.name not in (base_name, name):
                path.unlink()
        self._last = time.monotonic()

    def read(self) -> tuple[State, Path, int]:
        """Read it: the state, the file of the network as the stage found it, and the stage.

        Raises:
            ValueError: there is none, it is damaged, or it is of other settings, by what differs.
            OSError: a file cannot be read.
        """
        if not self.there:
            raise ValueError(f"there is no checkpoint in {self.folder} to resume from")
        index = self._index()
        self._compare(index["settings"])
        try:
            tensors = {name: value.clone() for name, value in load_file(self.folder / index["state"]).items()}
        except (SafetensorError, FileNotFoundError) as error:
            raise ValueError(f"the checkpoint in {self.folder} is damaged: {error}; remove it to start anew") from error
        return State(tensors, index["facts"]), self.folder / index["base"], index["stage"]

    def remove(self) -> None:
        """Remove the folder, with what a training put there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _index(self) -> dict[str, Any]:
        try:
            index = json.loads((self.folder / _INDEX).read_text())
        except ValueError as error:
            raise ValueError(f"{self.folder / _INDEX} is damaged: {error}; remove the folder to start anew") from error
        if not isinstance(index, dict) or index.get("format") != _FORMAT:
            raise ValueError(f"{self.folder / _INDEX} is no checkpoint of this release; remove the folder")
        return index

    def _compare(self, found: Mapping[str, Any]) -> None:
        names = [name for name in {**found, **self.settings} if found.get(name) != self.settings.get(name)]
        if names:
            told = "; ".join(f"{name} was {found.get(name)}, now {self.settings.get(name)}" for name in names)
            raise ValueError(
                f"the checkpoint in {self.folder} is of other settings: {told}. Give the same, or --overwrite to start "
                "anew"
            )
