import json
from pathlib import Path
from typing import Any

import pytest
import torch
from maskdecay.codecs.evc import EVC, CheckpointError, EVCConfig, ScalableEVC, load_public_checkpoint
from maskdecay.codecs.evc._presets import SCALABLE_PRESETS
from torch import Tensor

OFFICIAL = json.loads((Path(__file__).parent / "fixtures" / "official_shapes.json").read_text())
CONFIG = EVCConfig(latent=8, encoder=(3, 4, 6, 8), decoder=(5, 6, 7, 8))


class Payload:
    """Anything but tensors and containers."""


@pytest.fixture(scope="module")
def network() -> EVC:
    torch.manual_seed(0)
    return EVC(CONFIG).eval()


@pytest.fixture(scope="module")
def state(network: EVC) -> dict[str, Tensor]:
    return network.state_dict()


def save(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "evc.pth.tar")
    return folder / "evc.pth.tar"


@pytest.mark.parametrize("wrapper", [None, "state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_wrapping_loads(
    network: EVC, state: dict[str, Tensor], tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    content: Any = {prefix + key: value for key, value in state.items()}
    loaded = load_public_checkpoint(save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path))
    assert loaded.config == CONFIG
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x).x_hat, network(x).x_hat)


def test_half_precision_becomes_single(state: dict[str, Tensor], tmp_path: Path) -> None:
    loaded = load_public_checkpoint(save({key: value.half() for key, value in state.items()}, tmp_path))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_wrong_keys_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    content = {key: value for key, value in state.items() if key != "hyper_enc.3.bias"}
    content["extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"1 missing: hyper_enc\.3\.bias; 1 unexpected: extra$"):
        load_public_checkpoint(save(content, tmp_path))


def test_wrong_shapes_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    content = dict(state) | {"hyper_enc.3.bias": torch.zeros(5)}
    with pytest.raises(CheckpointError, match=r"hyper_enc\.3\.bias is \(5,\) instead of \(8,\)"):
        load_public_checkpoint(save(content, tmp_path))


def test_widths_that_contradict_each_other_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    content = dict(state) | {"q_basic": torch.zeros(1, 10, 1, 1)}
    with pytest.raises(CheckpointError, match=r"does not fit the EVC network: encoder=.* ends in 8"):
        load_public_checkpoint(save(content, tmp_path))


def test_scalable_checkpoints_give_scalable_networks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ScalableEVC(CONFIG, depths=3).eval()
    content = {key.replace("enc.branches.", "encs."): value for key, value in network.state_dict().items()}
    loaded = load_public_checkpoint(save({"state_dict": content}, tmp_path))
    assert isinstance(loaded, ScalableEVC)
    assert (loaded.depths, loaded.config, loaded.training) == (3, CONFIG, False)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(loaded(x, 1.0, effort).x_hat, network(x, 1.0, effort).x_hat) for effort in (1, 2, 3))


def test_scalable_checkpoints_are_strict_in_their_own_names(tmp_path: Path) -> None:
    network = ScalableEVC(CONFIG, depths=2)
    content = {key.replace("enc.branches.", "encs."): value for key, value in network.state_dict().items()}
    del content["encs.1.6.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: encs\.1\.6\.bias$"):
        load_public_checkpoint(save(content, tmp_path))
    content["encs.1.6.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"encs\.1\.6\.bias is \(3,\) instead of \(8,\)"):
        load_public_checkpoint(save(content, tmp_path))
    content["encs.1.6.bias"] = torch.zeros(8)
    content = {key.replace("encs.0.", "encs.2."): value for key, value in content.items()}
    with pytest.raises(CheckpointError, match=r"50 missing: encs\.0\.0\.conv1.*50 unexpected: encs\.2\.0\.conv1"):
        load_public_checkpoint(save(content, tmp_path))


@pytest.mark.parametrize("name", ["Scale_EVC_SS", "Scale_EVC_SL"])
def test_the_public_scalable_checkpoints_load(tmp_path: Path, name: str) -> None:
    content = {key: torch.zeros(1).expand(shape) for key, shape in OFFICIAL[name].items()}
    loaded = load_public_checkpoint(save(content, tmp_path))
    assert isinstance(loaded, ScalableEVC)
    assert loaded.depths == 4
    assert loaded.config == SCALABLE_PRESETS["scalable-" + name[-2:].lower()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"epoch": 3}, "entry 'epoch' is a int, not a tensor"),
        ({"a": torch.zeros(1)}, "no EVC checkpoint: it has no 4-dimensional tensor q_basic"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_public_checkpoint(save(content, tmp_path))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Python objects besides tensors"):
        load_public_checkpoint(save({"state_dict": {}, "args": Payload()}, tmp_path))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short", bytes(range(256))])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evc.pth.tar"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a checkpoint that torch can read") as caught:
        load_public_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        load_public_checkpoint(tmp_path / "absent.pth.tar")
