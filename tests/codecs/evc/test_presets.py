import json
from pathlib import Path

import pytest
import torch
from maskdecay.codecs.evc import EVC, PRESETS, build_preset

OFFICIAL = json.loads((Path(__file__).parent / "fixtures" / "official_shapes.json").read_text())
PLAIN = [name for name in OFFICIAL if name.startswith("EVC_")]


@pytest.mark.parametrize("official", PLAIN)
def test_public_state_dicts_fit(official: str) -> None:
    with torch.device("meta"):
        network = EVC(PRESETS[official.removeprefix("EVC_").lower()])
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert ours == OFFICIAL[official]


def test_there_are_five_public_shape_lists() -> None:
    assert sorted(PLAIN) == ["EVC_LL", "EVC_LS", "EVC_MM", "EVC_SL", "EVC_SS"]


@pytest.mark.parametrize(("name", "pair"), [("large", "ll"), ("medium", "mm"), ("small", "ss")])
def test_names_of_the_symmetric_presets(name: str, pair: str) -> None:
    assert PRESETS[name] == PRESETS[pair]


def test_the_first_letter_is_the_encoder() -> None:
    assert PRESETS["ls"].encoder == (192, 192, 192, 192)
    assert PRESETS["ls"].decoder == (64, 64, 128, 192)
    assert PRESETS["ms"].encoder == (128, 128, 192, 192)


@pytest.mark.parametrize(("preset", "millions"), [("large", 17.38), ("medium", 15.23), ("small", 12.78)])
def test_published_parameter_counts(preset: str, millions: float) -> None:
    with torch.device("meta"):
        network = EVC(PRESETS[preset])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("size", ["large", "medium", "small"])
def test_narrow_family_keeps_the_public_ratios(size: str) -> None:
    trunk, large, public = PRESETS[f"narrow-{size}"].decoder, PRESETS["narrow-large"].decoder, PRESETS[size].decoder
    assert [a / b for a, b in zip(trunk[:3], large[:3], strict=True)] == [width / 192 for width in public[:3]]


def test_built_networks_are_in_evaluation_mode_and_seeded() -> None:
    first, second, third = (build_preset("narrow-small", seed=seed) for seed in (1, 1, 2))
    assert not first.training
    assert torch.equal(first.enc[6].weight, second.enc[6].weight)
    assert not torch.equal(first.enc[6].weight, third.enc[6].weight)


def test_a_seed_leaves_the_global_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_preset("narrow-small", seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_unknown_presets_name_what_exists() -> None:
    with pytest.raises(ValueError, match="no EVC preset 'huge'; there are large, medium, small"):
        build_preset("huge")


def test_latents_of_a_new_network_survive_rounding() -> None:
    network = build_preset("narrow-large", seed=0)
    with torch.no_grad():
        y = network.encode(torch.rand(1, 3, 64, 64))
    assert y.std() > 1
