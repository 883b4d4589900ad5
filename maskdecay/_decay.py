"""Mask decay: the chosen masks go to exactly zero, in a number of steps that is known beforehand."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ._decay_config import DecayConfig, Prediction, Rerank
from ._decayable import DecayableMasks, count_drops, rank_channels
from ._losses import sparsity_loss
from ._proximal import choose_channels, shrink_masks
from ._trajectory import Recorder, Trajectory

# What has one number per channel, all groups in a row; all of it that makes a resumed decay equal.
VECTORS = ("_start", "_previous", "_flaws", "_chosen", "_rate", "_limit")
CHECK_EVERY = 64  # steps between looks at the non-finite flags on an accelerator, where each look waits for it


class MaskDecay:
    """Drives the masks that a plan drops to exactly zero while the model trains.

        decay = MaskDecay(masks, steps=20_000)
        loss = task_loss(model(batch)) + decay.loss()
        loss.backward(); optimizer.step(); optimizer.zero_grad()
        decay.step()

    Two forces. `loss()` is a term of the training loss, on the chosen masks only: it works through the
    optimizer, and against it the task's own gradient decides which channels go early. `step()` is a
    proximal step that does not depend on optimizer or learning rate: up to the deadline it takes from each
    chosen mask its share of the schedule, so that without resistance it is zero at the deadline; from there
    to `steps` a limit on |mask| shrinks linearly to 0, so that everything chosen is zero at `steps`,
    resistance or not. A chosen mask that reaches or crosses zero is 0 from then on, whatever momentum an
    optimizer keeps. With a fixed choice, the masks of kept channels are held at what they were (1): the
    weights they scale can do all they could do, and `shrink` can then carry an optimizer along exactly. With
    re-ranking they train, so that the task can tell channels apart. Groups that keep all are left alone.

    Between an optimizer's step and `step()` a dead mask may be off zero, so evaluate after `step()`. A dead
    mask still has a task gradient, which counts in gradient clipping by norm.

    Args:
        masks: what `insert_masks` returns, or anything like it (`DecayableMasks`).
        steps: optimizer steps until everything chosen is zero.
        loss: kind of `sparsity_loss`, over all chosen masks together.
        strength: factor on it, in units of the task loss; 0 leaves the work to `step()`.
        schedule: "constant", or the ramps "linear" and "cosine", of strength and shares up to the deadline.
        select: "fixed" chooses once, here; "rerank" or a `Rerank` chooses anew while training.
        importance: what `masks.scores` ranks by. Of equal channels the highest index goes. "taylor" needs
            gradients, here and (with "rerank") in `step()`: call that before `optimizer.zero_grad()`. "fisher" needs
            some `masks.observe()` before, and with "rerank" one before each `step()`; "given" `masks.set_scores()`.
        deadline: where in 0..1 of the steps resistance starts to be cut off.

    Raises:
        ValueError: a setting out of range, a plan that drops nothing, masks or scores that do not fit.
    """

    def __init__(
        self,
        masks: DecayableMasks,
        *,
        steps: int,
        loss: str = "evc",
        strength: float = 1.0,
        schedule: str = "constant",
        select: str | Rerank = "fixed",
        importance: str = "weight_norm",
        deadline: float = 0.8,
    ) -> None:
        self.config = DecayConfig(
            steps=steps,
            loss=loss,
            strength=strength,
            schedule=schedule,
            select=select,
            importance=importance,
            deadline=deadline,
        )
        self._timing = self.config.timing
        self._masks = masks
        self._drops = count_drops(masks)
        self._widths = [len(masks[name]) for name in self._drops]
        self._step = 0
        values = self._gather().detach()
        self._start = self._previous = values
        self._flaws = ~values.isfinite()
        self._refuse_flaws()
        self._chosen = torch.zeros_like(values, dtype=torch.bool)
        self._limit = torch.full_like(values, torch.finfo(values.dtype).max)
        self._choose(values)
        self._recorder = Recorder()
        self._recorder.record(0, values)

    def loss(self) -> Float[Tensor, ""]:
        """Return the scheduled strength times the sparsity loss of the chosen masks; it has a gradient."""
        self._follow_device()
        strength = self.config.strength * self._timing.weight(self._step + 1)
        return strength * sparsity_loss(self._gather()[self._index], self.config.loss)

    @torch.no_grad()
    def step(self) -> None:
        """Decay the chosen masks by one step, after the optimizer's; harmless once done.

        Waits for no accelerator but to choose anew and, every 64 steps, to check for non-finite masks.

        Raises:
            ValueError: masks that are not finite, by the group's name.
        """
        self._follow_device()
        self._step += 1
        values = self._gather()
        self._flaws |= ~values.isfinite()
        if values.device.type == "cpu" or self._step % CHECK_EVERY == 0 or self._step == self.config.steps:
            self._refuse_flaws()
        if self.config.chooses_at(self._step):
            self._choose(values)
        threshold = self._rate * self._timing.share(self._step)
        limit = self._limit * self._timing.room(self._step)
        kept = self._start if self.config.select == "fixed" else values
        decayed = shrink_masks(values, self._previous, self._chosen, threshold, limit)
        self._previous = torch.where(self._chosen, decayed, kept)
        if self._step == self._timing.settle:
            self._limit = self._previous.abs()
        for name, part in self._split(self._previous).items():
            self._masks[name].copy_(part)
        self._recorder.record(self._step, self._previous)

    @property
    def predicted_steps(self) -> Prediction:
        """How many steps the whole decay takes, counted from its start."""
        return Prediction(unresisted=self._timing.settle, guaranteed=self.config.steps)

    @property
    def chosen(self) -> dict[str, Bool[Tensor, " _"]]:
        """Per group that drops channels, which are chosen to go."""
        return {name: part.clone() for name, part in self._split(self._chosen).items()}

    @property
    def remaining(self) -> int:
        """How many chosen channels are not yet exactly zero; waits for the device, as the next two do."""
        return int((self._chosen & (self._previous != 0)).sum())

    @property
    def done(self) -> bool:
        """Whether every chosen channel is exactly zero."""
        return self.remaining == 0

    @property
    def progress(self) -> float:
        """How much of the chosen masks' size at the start is gone, 0..1; 1.0 exactly when done.

        It can fall, where the task enlarges masks or where channels are chosen anew.
        """
        if self.done:
            return 1.0
        left = self._previous[self._chosen].abs().double().sum()
        whole = self._start[self._chosen].abs().double().sum()
        return min(max(0.0, 1 - float(left / whole)), math.nextafter(1.0, 0.0)) if whole > 0 else 0.0

    @property
    def trajectory(self) -> Trajectory:
        """The masks over time, up to now, of all groups that drop channels: at most about 200 samples."""
        steps, values = self._recorder.samples(self._step, self._previous)
        parts = np.split(values, np.cumsum(self._widths)[:-1], axis=1)
        return Trajectory(
            steps=steps,
            masks=dict(zip(self._drops, parts, strict=True)),
            chosen={name: part.cpu().numpy() for name, part in self.chosen.items()},
            deadline=self._timing.settle,
            end=self.config.steps,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to resume: numbers, strings, lists and tensors that `weights_only` loads.

        The masks themselves are part of the model's state.
        """
        return {
            "settings": asdict(self.config),
            "groups": list(self._drops),
            "widths": list(self._widths),
            "drops": list(self._drops.values()),
            "step": self._step,
            "recorder": self._recorder.state_dict(),
            **{name.strip("_"): getattr(self, name).clone() for name in VECTORS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume a saved decay; load the model's state as well, before the next step.

        Raises:
            ValueError: a state of other settings or of other masks, by what differs.
        """
        own = self.state_dict()
        for key in ("settings", "groups", "widths", "drops"):
            if key not in state or state[key] != own[key]:
                found = state.get(key, "nothing")
                raise ValueError(f"this is the state of another decay: its {key} are {found}, here {own[key]}")
        device = self._previous.device
        self._step = int(state["step"])
        self._recorder.load_state_dict(state["recorder"], device)
        for name in VECTORS:
            setattr(self, name, state[name.strip("_")].to(device, copy=True))
        self._index = self._chosen.nonzero().squeeze(1)

    def _gather(self) -> Float[Tensor, " channels"]:
        """Return all masks in a row, so that a step is a few kernels however many groups there are."""
        masks = [self._masks[name] for name in self._drops]
        return torch.cat([mask.to(masks[0].device) for mask in masks])

    def _split(self, row: Shaped[Tensor, " channels"]) -> dict[str, Tensor]:
        return dict(zip(self._drops, row.split(self._widths), strict=True))

    def _choose(self, values: Float[Tensor, " channels"]) -> None:
        """Choose channels, and set how fast each group's must go to be zero at the deadline."""
        widths = dict(zip(self._drops, self._widths, strict=True))
        scores = rank_channels(self._masks, self.config.importance, widths)
        dead = self._split((values == 0) | (self._chosen & (self._previous == 0)))
        chosen = {
            name: choose_channels(scores[name].to(values.device), dead[name], drop)
            for name, drop in self._drops.items()
        }
        sizes = {name: (part.abs() * chosen[name]).max() for name, part in self._split(values).items()}
        # float32 rounds each of the subtractions to come: aim past zero by as much as that can add up to
        aim = 1 + self._timing.settle * torch.finfo(values.dtype).eps
        aim /= 1 - self._timing.passed(max(self._step - 1, 0))
        self._rate = torch.cat([aim * sizes[name] * marks for name, marks in chosen.items()])
        self._chosen = torch.cat(list(chosen.values()))
        self._index = self._chosen.nonzero().squeeze(1)

    def _refuse_flaws(self) -> None:
        """Raise where a mask is or was not finite; waits for the device."""
        if not self._flaws.any():
            return
        for name, part in self._split(self._flaws).items():
            channels = part.nonzero().squeeze(1).tolist()
            if channels:
                raise ValueError(
                    f"{len(channels)} masks of group {name!r} are not finite at step {self._step}, the first "
                    f"in channel {channels[0]}: lower the learning rate, look for NaN in the task loss, with "
                    "a GradScaler unscale before clipping, and resume from the last good checkpoint"
                )

    def _follow_device(self) -> None:
        """Move the state to where the masks are: a model may move after its decay was made."""
        device = next(iter(self._masks[name].device for name in self._drops))
        if device != self._previous.device:
            for name in (*VECTORS, "_index"):
                setattr(self, name, getattr(self, name).to(device))
            self._recorder.load_state_dict(self._recorder.state_dict(), device)
