"""A network that computes in integers, and a self-test of what it computed when it was sealed."""

from __future__ import annotations

import copy
import hashlib

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ._fixed_point import STREAM_LIMIT, to_stream
from ._integer import LIMIT, IntegerLayer
from ._integer_convert import Conversion, Observation, stream_units

_HALF = (torch.float16, torch.bfloat16)


class IntegerNetwork(nn.Module):
    """A network whose results agree to the bit on any device, thread count, layout and batch size.

    In training mode it computes the same numbers with gradients that pass the rounding; train it, then `seal` it.

    Args:
        network: of convolutions, linear layers, (leaky) ReLUs and pixel shuffles; its own forward functions may add,
            concatenate and move values, nothing else. It stays as it is.
        observation: what it saw on typical inputs, from `observe`.
        tail: maps the result, elementwise or moving, in the units of the float network; part of the self-test.
        limit: of operands and weights, in steps.
        sealed: False where a file's weights take the place of these, before anything runs.

    Raises:
        TypeError: a layer has no form in integers.
        ValueError: a layer was not observed, the network's forward does more than add and move, or weights are not
            finite.
    """

    per_unit: Tensor
    """() how many units of the stream make 1."""
    test_input: Tensor
    """Of the self-test, in units of the stream."""
    test_digest: Tensor
    """SHA-256 of what the network made of it when it was sealed."""

    def __init__(
        self,
        network: nn.Module,
        observation: Observation,
        tail: nn.Module | None = None,
        limit: int = LIMIT,
        *,
        sealed: bool = True,
    ) -> None:
        super().__init__()
        if observation.example is None or not observation.layers:
            raise ValueError("the network did not run during the observation; let run() call the model that holds it")
        per_unit = stream_units(observation)
        self.register_buffer("per_unit", per_unit)
        self.register_buffer("test_input", _test_input(observation, per_unit))
        self.register_buffer("test_digest", torch.zeros(32, dtype=torch.uint8, device=per_unit.device))
        self.network = Conversion(observation, per_unit, limit).convert(copy.deepcopy(network), "")
        self.network.eval()
        self.tail = nn.Identity() if tail is None else tail
        if sealed:
            self.seal()
        self.train(network.training)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*out_shape"]:
        """What the float network computes, nearly.

        Raises:
            TypeError: numbers or weights are of half precision.
        """
        if self.per_unit.dtype in _HALF or (x.dtype in _HALF and not self.training):
            raise TypeError(
                f"integer networks need float32 or float64, input and weights are {x.dtype} and {self.per_unit.dtype}: "
                "keep autocast and .half() away from what feeds them"
            )
        with torch.autocast(x.device.type, enabled=False):
            stream = to_stream((x.to(self.per_unit.dtype) * self.per_unit).contiguous())
            return self.tail(self.network(stream) / self.per_unit)

    @torch.no_grad()
    def seal(self) -> None:
        """Put the weights on their grid, prove that sums are exact, and remember the self-test's result.

        Nothing that the network computes changes. Needed after training, before the weights are saved.

        Raises:
            OverflowError: a sum could reach 2^24 steps.
            ValueError: weights are not finite, or a forward function does more than add and move.
        """
        for layer in self.modules():
            if isinstance(layer, IntegerLayer):
                layer.refit()
                layer.settle()
                layer.prove()
        digest = self._digest()
        if not torch.equal(digest, copy.deepcopy(self).double()._digest()):
            raise ValueError(
                f"{type(self.network).__name__} computes otherwise in float64 than in float32: its forward functions, "
                "or its tail's, may only add, concatenate and move values"
            )
        self.test_digest.copy_(digest)

    @torch.no_grad()
    def self_test(self) -> None:
        """Compare the result for a fixed input with what it was when the network was sealed.

        Raises:
            RuntimeError: it differs.
        """
        try:
            digest = self._digest()
        except OverflowError as error:
            raise RuntimeError(f"self-test failed: weights were changed or damaged, for {error}") from error
        if not torch.equal(digest, self.test_digest):
            raise RuntimeError(
                f"self-test failed: the integer network makes {_hex(digest)} of its test input on "
                f"{self.per_unit.device}, and made {_hex(self.test_digest)} when it was sealed; weights were changed "
                "or damaged since, or this machine does not add exactly"
            )

    def _digest(self) -> UInt8[Tensor, " 32"]:
        training = self.training
        try:
            result = self.eval()(self.test_input.to(self.per_unit.dtype) / self.per_unit)
        finally:
            self.train(training)
        numbers = (result.double().cpu() + 0.0).contiguous().numpy().astype("<f8")  # + 0: no negative zeros
        digest = hashlib.sha256(numbers.tobytes()).digest()
        return torch.tensor(list(digest), dtype=torch.uint8, device=self.per_unit.device)


def _hex(digest: Tensor) -> str:
    return bytes(digest.tolist()).hex()[:12]


def _test_input(observation: Observation, per_unit: Tensor) -> Tensor:
    """Noise in the shape of the example, a little beyond what the first layers saw."""
    assert observation.example is not None
    noise = torch.rand(observation.example.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reach = 2 * float(observation.example.abs().amax()) + 1
    return (noise.to(per_unit.device) * reach * per_unit).round().clamp(-STREAM_LIMIT, STREAM_LIMIT).int()
