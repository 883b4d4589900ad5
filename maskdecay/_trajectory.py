"""Mask values over time: a recorder with bounded memory, and what it recorded as data."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SAMPLES = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Masks over time.

    Args:
        steps: at which steps samples were taken, ascending; 0 is before the first.
        masks: per group, the mask of each channel at these steps.
        chosen: per group, which channels were chosen to decay at the last sample.
        deadline: the step from which on what is left anneals to zero.
        end: the step at which everything chosen is zero at the latest.
    """

    steps: Int[np.ndarray, " samples"]
    masks: Mapping[str, Float[np.ndarray, "samples _"]]
    chosen: Mapping[str, Bool[np.ndarray, " _"]]
    deadline: int
    end: int

    def to_json(self) -> str:
        """Return the data as JSON; nine digits, so that float32 masks come back exactly."""
        masks = {name: [[float(f"{v:.9g}") for v in row] for row in rows.tolist()] for name, rows in self.masks.items()}
        chosen = {name: np.flatnonzero(marks).tolist() for name, marks in self.chosen.items()}
        fields = {"steps": self.steps.tolist(), "deadline": self.deadline, "end": self.end}
        return json.dumps({**fields, "chosen": chosen, "masks": masks})

    @classmethod
    def from_json(cls, text: str) -> "Trajectory":
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is not a trajectory.
        """
        try:
            fields = json.loads(text)
            masks = {name: np.array(rows, np.float32) for name, rows in fields["masks"].items()}
            chosen = {name: np.zeros(rows.shape[1], bool) for name, rows in masks.items()}
            for name, indices in fields["chosen"].items():
                chosen[name][indices] = True
            steps = np.array(fields["steps"], np.int64)
            return cls(steps=steps, masks=masks, chosen=chosen, deadline=fields["deadline"], end=fields["end"])
        except (KeyError, IndexError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"not the JSON of a trajectory: {type(error).__name__} {error}") from error

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the masks over time, chosen and kept in two colours, into an image file of any suffix."""
        from ._trajectory_plot import draw_trajectory  # matplotlib is slow to import and not always wanted

        draw_trajectory(self, path)


class Recorder:
    """Samples a vector over time; whenever there are more than `SAMPLES`, every other is dropped."""

    def __init__(self) -> None:
        self.interval = 1
        self.steps: list[int] = []
        self.values: list[Tensor] = []

    def record(self, step: int, values: Float[Tensor, " channels"]) -> None:
        """Keep a copy of `values` if `step` falls on the sampling grid; waits for no device."""
        if step % self.interval:
            return
        self.steps.append(step)
        self.values.append(values.detach().clone())
        if len(self.steps) > SAMPLES:
            self.interval *= 2
            self.steps, self.values = self.steps[::2], self.values[::2]

    def samples(
        self, step: int, values: Float[Tensor, " channels"]
    ) -> tuple[Int[np.ndarray, " samples"], Float[np.ndarray, "samples channels"]]:
        """Return steps and values, closed by what holds at `step`, now."""
        steps, kept = list(self.steps), list(self.values)
        if step not in steps[-1:]:
            steps, kept = [*steps, step], [*kept, values]
        return np.array(steps, np.int64), torch.stack(kept).float().cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes: numbers, lists and a tensor."""
        values = torch.stack(self.values) if self.values else torch.empty(0)
        return {"interval": self.interval, "steps": list(self.steps), "values": values}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue a saved recording on `device`."""
        self.interval, self.steps = int(state["interval"]), list(state["steps"])
        self.values = list(state["values"].to(device).clone().unbind())
