"""Puts trained weights among the bundled ones, with the commit that trained them and without paths of the machine.

    python benchmarks/bundle_weights.py OUT/narrow-small.safetensors --commit f28d2e4

The tensors stay as they are, to the bit, but with `--half`. Paths in the recorded commands lose their folders but for
the last part.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from maskdecay.codecs import evc
from maskdecay.codecs._bundled import IDENTITY
from maskdecay.codecs.evc import _weights as evc_weights
from maskdecay.codecs.evc._train_files import RECORD, halved
from maskdecay.codecs.near_lossless import _weights as near_lossless_weights
from safetensors import safe_open
from safetensors.torch import save_file


def portable(command: str) -> str:
    """Returns the command with `DATA/name` for absolute folders and bare names for other paths."""
    words = [
        word if Path(word).suffix or not word.startswith("/") else f"DATA/{Path(word).name}" for word in command.split()
    ]
    return " ".join(word if word.startswith("DATA/") else Path(word).name for word in words)


def told(record: dict[str, Any], commits: list[str]) -> dict[str, Any]:
    """Returns a record, and those of what it started from, with portable commands and their commits."""
    start = record.get("start")
    following = None if not start else told(start, commits[1:] or commits)
    return {**record, "command": portable(record["command"]), "commit": commits[0], "start": following}


def main(
    weights: Path,
    commit: Annotated[list[str], typer.Option(help="That trained it; again for what that started from, and so on.")],
    name: Annotated[str | None, typer.Option(help="Of the bundled weights; the file's own by default.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store in 16 bits, as `evc train --half`.")] = False,
    before: Annotated[Path | None, typer.Option(help="Weights it started from, where its record does not say.")] = None,
) -> None:
    """Bundle a file of trained weights."""
    with safe_open(str(weights), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    record = json.loads(metadata[RECORD])
    if before is not None and not record.get("start"):
        with safe_open(str(before), framework="pt") as file:
            record["start"] = json.loads(file.metadata()[RECORD])
            record["start"].get("data", {}).pop("files", None)
    metadata[RECORD] = json.dumps(told(record, commit))
    if half:
        tensors = {key: halved(key, tensor) for key, tensor in tensors.items()}
    folder = _home(tensors)
    folder.mkdir(exist_ok=True)
    target = folder / f"{name or weights.stem}.safetensors"
    save_file(tensors, target, metadata)
    if half:  # other weights, another identity
        metadata[IDENTITY] = evc.EVCCodec.load(target).identity
        save_file(tensors, target, metadata)
    print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB, {metadata[IDENTITY]}")


def _home(tensors: Collection[str]) -> Path:
    """Returns the folder of the bundled weights of the codec that these are of."""
    near_lossless = any(name.startswith("residual.") for name in tensors)
    return near_lossless_weights.BUNDLED if near_lossless else evc_weights.BUNDLED


if __name__ == "__main__":
    typer.run(main)
