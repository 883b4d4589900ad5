"""Runs of a model on several batches side by side, which wait for each other before chosen layers.

Each run has a thread of its own, and one thread works at a time. What holds for the thread that starts them holds in
them: gradients off or on, autocast, default device, CUDA stream, context variables.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import torch
from torch import Tensor, nn

_current: ContextVar[_Run | None] = ContextVar("run side by side", default=None)


class SideBySide:
    """Runs that stand before layers; a context manager, at whose end they are given up.

    A run waits before each layer that was not released yet. Layers that are called from elsewhere meanwhile, by the
    model's other runs in the starting thread, are not waited for.

    Args:
        call: runs the model on one batch. What it raises is raised where it was set going.
        batches: one run for each.
        layers: to wait before, by path.
    """

    def __init__(self, call: Callable[[Any], object], batches: Sequence[Any], layers: Mapping[str, nn.Module]) -> None:
        self._layers, self._released = layers, set[str]()
        self._runs = [_Run(call, batch, self._released) for batch in batches]
        self._hooks: list[Any] = []

    def __enter__(self) -> SideBySide:
        self._hooks = [
            layer.register_forward_pre_hook(_stop_before(path), with_kwargs=True)
            for path, layer in self._layers.items()
        ]
        try:
            for run in self._runs:
                run.start()
                run.go_on()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._runs:
            run.give_up()
        for hook in self._hooks:
            hook.remove()

    def inputs(self, path: str) -> dict[int, Tensor]:
        """What the runs that wait before a layer are about to give it, by number of batch."""
        return {i: run.input for i, run in enumerate(self._runs) if run.at == path and run.input is not None}

    def release(self, path: str) -> None:
        """Sets those going that wait before a layer; none will wait there again."""
        waiting = [run for run in self._runs if run.at == path]
        self._released.add(path)
        for run in waiting:
            run.go_on()


class _Run(threading.Thread):
    """One batch's way through the model."""

    def __init__(self, call: Callable[[Any], object], batch: Any, released: set[str]) -> None:
        super().__init__(daemon=True)
        self.at: str | None = None
        self.input: Tensor | None = None
        self._call, self._batch, self._released, self._error = call, batch, released, None
        self._setting, self._context, self._given_up = _setting(), copy_context(), False
        self._own_turn, self._others_turn = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        self._own_turn.acquire()
        try:
            if not self._given_up:
                self._context.run(self._work)
        except _GivenUp:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._others_turn.release()

    def _work(self) -> None:
        _current.set(self)
        with self._setting():
            self._call(self._batch)

    def go_on(self) -> None:
        """Runs until it stands before a layer again, or ends."""
        self._own_turn.release()
        self._others_turn.acquire()
        if self._error is not None:
            raise self._error

    def stop_before(self, path: str, x: Tensor) -> None:
        """In its own thread: gives the turn away until it gets it back."""
        if path in self._released and not self._given_up:
            return
        if not self._given_up:
            self.at, self.input = path, x
            self._others_turn.release()
            self._own_turn.acquire()
            self.at = self.input = None
        if self._given_up:
            raise _GivenUp

    def give_up(self) -> None:
        """Ends it at the layer it stands before, or comes to next."""
        self._given_up = True
        if self.ident is not None:
            self._own_turn.release()
            self.join()


class _GivenUp(BaseException):
    """Ends a run; not an Exception, which models may catch."""


def _stop_before(path: str) -> Callable[[nn.Module, Any, Any], None]:
    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run = _current.get()
        if run is not None:
            run.stop_before(path, args[0] if args else kwargs["input"])

    return stop


def _setting() -> Callable[[], Any]:
    """What torch keeps for each thread, as this one has it: a context manager to enter in another."""
    device = torch.get_default_device()
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_initialized() else [])]
    casts = {kind: (torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in kinds}
    stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None
    learns, infers = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    @contextmanager
    def setting() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(infers))
            stack.enter_context(torch.set_grad_enabled(learns))
            for kind, (dtype, enabled) in casts.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
            if device != torch.device("cpu"):
                stack.enter_context(device)
            if stream is not None:
                stack.enter_context(torch.cuda.stream(stream))
            yield

    return setting
