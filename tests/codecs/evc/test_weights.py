import copy
from pathlib import Path

import pytest
import torch
from maskdecay.codecs.evc import EVC, PRESETS, EVCCodec, EVCConfig, _weights, bundled_names, load_network
from maskdecay.codecs.evc._exact import exact_priors, is_exact
from safetensors.torch import save_file
from torch import nn

import maskdecay as md


def test_a_saved_network_comes_back(tiny: EVC, tiny_weights: Path) -> None:
    loaded = load_network(tiny_weights)
    assert not loaded.training
    for (name, ours), (_, theirs) in zip(loaded.state_dict().items(), tiny.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_pruned_network_comes_back(tiny: EVC, tmp_path: Path) -> None:
    small = copy.deepcopy(tiny)
    for mix in (small.enc[1].block[1], small.dec[4].block[1], small.hyper_dec[0].block[1]):  # type: ignore[index,union-attr]
        mix.conv[0], mix.conv[2] = nn.Conv2d(mix.conv[0].in_channels, 3, 1), nn.Conv2d(3, mix.conv[2].out_channels, 1)
    md.save(small, tmp_path / "small.safetensors")
    loaded = load_network(tmp_path / "small.safetensors")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x).x_hat, small(x).x_hat)
    assert loaded.enc[1].block[1].conv[0].out_channels == 3  # type: ignore[index,union-attr]


@pytest.mark.parametrize("limit", [255, 63, 2047])
def test_exact_priors_come_back_exact(tiny: EVC, tmp_path: Path, limit: int) -> None:
    exact = exact_priors(tiny, rates=(0,), limit=limit)
    md.save(exact, tmp_path / "exact.safetensors")
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    loaded = load_network(tmp_path / "exact.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert is_exact(loaded)
    image = (torch.rand(3, 70, 70) * 255).to(torch.uint8)
    data = EVCCodec(exact).encode(image)
    assert (EVCCodec(loaded).decode(data) == EVCCodec(exact).decode(data)).all()


@pytest.mark.parametrize("told", [torch.tensor(1 << 30), torch.tensor(-5), torch.ones(3, dtype=torch.int)])
def test_a_damaged_limit_is_told(tiny: EVC, tmp_path: Path, told: torch.Tensor) -> None:
    exact = exact_priors(tiny, rates=(0,))
    exact.register_buffer("priors_limit", told)
    md.save(exact, tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match=r"limit=.* must be in 1\.\.2048|is damaged: its tensor priors_limit is no whole"
    ):
        load_network(tmp_path / "w.safetensors")


def test_a_public_checkpoint_is_taken(tiny: EVC, tmp_path: Path) -> None:
    torch.save({"state_dict": tiny.state_dict()}, tmp_path / "evc.pth.tar")
    assert EVCCodec.load(tmp_path / "evc.pth.tar").identity == EVCCodec(tiny).identity


def test_bundled_weights_go_by_name(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_weights, "BUNDLED", tiny_weights.parent)
    assert bundled_names() == ["tiny"]
    assert load_network("tiny").config.latent == 8
    with pytest.raises(
        ValueError, match=r"no weights 'large'; bundled are tiny\. Give the path of a \.safetensors file"
    ):
        load_network("large")


def test_no_bundled_weights_are_said_to_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_weights, "BUNDLED", tmp_path / "absent")
    with pytest.raises(ValueError, match="no weights 'small'; bundled are none yet"):
        EVCCodec.load("small")


def test_files_that_hold_no_evc_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        load_network(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match="no safetensors file, or a damaged one"):
        load_network(tmp_path / "text.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no EVC: it has no 4-dimensional tensor q_basic"):
        load_network(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "config",
    [
        EVCConfig(latent=8, encoder=(3, 5, 7, 8), decoder=(12, 9, 4, 8)),
        PRESETS["narrow-small"],
        PRESETS["ls"],
    ],
)
def test_widths_are_found_in_shapes(config: EVCConfig, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in EVC(config).state_dict().items()}
    assert _weights.infer_config(shapes, tmp_path) == config


def test_priors_narrower_than_any_share_get_a_wider_one(tmp_path: Path) -> None:
    config = EVCConfig(latent=64, encoder=(8, 8, 8, 64), decoder=(8, 8, 8, 64), priors=0.3)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in EVC(config).state_dict().items()}
    assert _weights.infer_config(shapes, tmp_path).priors == 0.5
