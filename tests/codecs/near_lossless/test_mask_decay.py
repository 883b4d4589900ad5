"""The residual network as a client of the library."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from maskdecay.codecs.near_lossless import (
    Hooks,
    NearLossless,
    NearLosslessCodec,
    ResidualConfig,
    ResidualNetwork,
    TrainConfig,
    exact_network,
    load_network,
    save_network,
    train,
)
from maskdecay.codecs.near_lossless._band_compiled import CompiledBands
from maskdecay.codecs.near_lossless._band_torch import TorchBands
from maskdecay.codecs.near_lossless._residual_coding import no_ground, read_residual, write_residual
from maskdecay.codecs.near_lossless._students import StudentConfig, example_for, plan_student
from maskdecay.codecs.near_lossless._train_watch import Watch

import maskdecay as md


def test_a_pruned_network_codes(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NearLossless(ResidualConfig(width=16, blocks=1, inner=8, head=8, components=2)).eval()
        inputs = (torch.rand(4, 116), torch.rand(4, 2))
    groups = md.find_groups(network.residual, inputs)
    prunable = [group for group in groups if group.prunable]
    assert sorted(group.width for group in prunable) == [8, 8, 8, 8, 16]  # inner, three heads, the trunk
    masks = md.insert_masks(network.residual, md.Plan.ratio(groups, keep=0.5))
    masks.collapse()
    before = network.residual.macs()
    network.residual = md.shrink(network.residual, masks)
    assert network.residual.macs() < 0.6 * before
    noise = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact = exact_network(network, [noise])
    pixels = noise.permute(1, 2, 0).numpy()
    data = NearLosslessCodec(exact).encode(pixels, max_error=1)
    md.save(exact, tmp_path / "pruned.safetensors")
    loaded = NearLosslessCodec(load_network(tmp_path / "pruned.safetensors"))
    assert np.abs(loaded.decode(data).astype(int) - pixels).max() <= 1


@pytest.fixture(scope="module")
def teacher() -> NearLossless:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NearLossless(ResidualConfig(width=20, blocks=1, inner=12, head=9, components=3)).eval()


def test_any_widths_code_the_same_compiled_and_in_torch(teacher: NearLossless) -> None:
    """Widths that no configuration has: each head its own."""
    network = copy.deepcopy(teacher)
    groups = md.find_groups(network.residual, example_for(network.residual))
    wanted = dict(zip([g.name for g in groups.prunable], [11, 3, 7, 1, 8], strict=True))
    masks = md.insert_masks(network.residual, md.Plan(groups=groups, keep=wanted))
    masks.collapse()
    network.residual = md.shrink(network.residual, masks)
    assert [head.net[0].out_features for head in network.residual.heads] == [7, 1, 8]
    x = torch.randint(0, 256, (9, 14, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)) // 2
    exact = exact_network(network, [x.permute(2, 0, 1)]).residual
    assert exact.macs() == network.residual.macs()
    ground = no_ground(14, 3)
    streams, decoded = write_residual(CompiledBands(exact), x, 2, ground)
    assert write_residual(TorchBands(exact), x, 2, ground)[0] == streams
    for coder in (CompiledBands(exact), TorchBands(exact)):
        assert torch.equal(read_residual(coder, streams, (9, 14, 3), 2, ground), decoded)


def test_a_budget_narrows_the_inside_alone(teacher: NearLossless) -> None:
    plan = plan_student(ResidualNetwork(), StudentConfig(macs=0.5))
    keep = {name: (plan.groups[name].width, kept) for name, kept in plan.keep.items() if plan.groups[name].prunable}
    assert sorted(width for width, _ in keep.values()) == [32, 32, 32, 48, 96]  # heads, the block, the trunk
    assert all(kept % 8 == 0 and kept < width for width, kept in keep.values())
    read_back = plan_student(teacher.residual, StudentConfig(plan=plan.to_json()))
    assert read_back.keep == plan.keep


@pytest.mark.parametrize("bad", [{}, {"macs": 0.5, "plan": "{}"}, {"macs": 1.5}, {"macs": 0.5, "decay_share": 1.0}])
def test_bad_students(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"once, by macs or by plan|must"):
        StudentConfig(**bad)


@pytest.mark.slow
@pytest.mark.parametrize("decay_share", [0.5, 0.0])
def test_a_training_narrows_its_teacher(tmp_path: Path, decay_share: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NearLossless(ResidualConfig(width=24, blocks=1, inner=16, head=16, components=2))
    rows, columns = torch.arange(24)[:, None], torch.arange(24)[None, :]
    noise = torch.randint(0, 4, (3, 24, 24), generator=torch.Generator().manual_seed(0))
    image = (rows * 2 + columns + noise).to(torch.uint8)
    before, masks_left, floats = network.residual.macs(), [], []
    hooks = Hooks(on_float=floats.append, watch=Watched(masks_left))
    config = TrainConfig(steps=40, batch=64, learning_rate=1e-2)
    trained = train(network, [image], config, hooks, student=StudentConfig(macs=0.5, decay_share=decay_share))
    assert 0.2 * before < trained.residual.macs() <= 0.5 * before
    assert floats == [network]
    if decay_share:
        assert masks_left[0] > 0
        assert masks_left[-1] == 0
    else:
        assert not masks_left, "they were cut before the first step"
    save_network(trained, tmp_path / "small.safetensors", {})
    loaded = load_network(tmp_path / "small.safetensors")
    pixels = image.permute(1, 2, 0).numpy()
    data = NearLosslessCodec(trained).encode(pixels, max_error=1)
    assert np.abs(NearLosslessCodec(loaded).decode(data).astype(int) - pixels).max() <= 1


class Watched(Watch):
    """Counts masks after each step in which they decay."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.counts = counts

    def step(
        self, loop: object, stage: str, step: object, done: int, seconds: float, masks_left: Callable[[], int | None]
    ) -> None:
        left = masks_left()
        self.counts += [] if left is None else [left]
