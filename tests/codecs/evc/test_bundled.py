"""Weights that come with the package, and how a file finds its own."""

import copy
from pathlib import Path

import pytest
import torch
from maskdecay.codecs.evc import EVC, EVCCodec, _file_work, _weights, load_network
from maskdecay.codecs.evc._exact import exact_priors
from maskdecay.codecs.evc._file_work import DecodeFiles
from maskdecay.codecs.evc._train_files import save_trained
from safetensors import safe_open


@pytest.fixture(scope="module")
def shelf(tiny: EVC, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundled weights: one network with exact priors, one in floats."""
    folder = tmp_path_factory.mktemp("bundled")
    save_trained(exact_priors(tiny, rates=(0,)), folder / "exact.safetensors", {}, half=True)
    save_trained(copy.deepcopy(tiny), folder / "float.safetensors", {}, half=True)
    return folder


@pytest.fixture
def bundled(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_weights, "BUNDLED", shelf)
    return shelf


def test_half_rounds_what_computes_in_floats_alone(shelf: Path, tiny: EVC) -> None:
    exact = exact_priors(tiny, rates=(0,))
    loaded = load_network(shelf / "exact.safetensors")
    for (name, ours), (_, theirs) in zip(exact.state_dict().items(), loaded.state_dict().items(), strict=True):
        rounds = name.startswith(("enc.", "dec.", "hyper_enc.")) and name.endswith(".weight")
        assert torch.equal(ours.half().float() if rounds else ours, theirs), name


@pytest.mark.parametrize("name", ["exact", "float"])
def test_half_stores_weights_in_16_bits(shelf: Path, name: str) -> None:
    with safe_open(str(shelf / f"{name}.safetensors"), framework="pt") as file:
        kinds = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert {kind for key, kind in kinds.items() if key.endswith(".weight")} == {torch.float16}
    assert kinds["q_scale"] == torch.float32


def test_a_file_finds_its_weights(bundled: Path, tmp_path: Path) -> None:
    pixels = (torch.rand(3, 40, 50) * 255).to(torch.uint8)
    for name in ("exact", "float"):
        codec = EVCCodec.load(name)
        assert _weights.bundled_name_for(codec.identity) == name
        (tmp_path / "a.evc").write_bytes(codec.encode(pixels, rate=20))
        decode = DecodeFiles(model=None, device="cpu", max_pixels=10_000)()
        assert decode(tmp_path / "a.evc", tmp_path / "a.png") == "50x40 RGB"


def test_a_file_of_other_weights_asks_for_them(bundled: Path, other_codec: EVCCodec, tmp_path: Path) -> None:
    (tmp_path / "a.evc").write_bytes(other_codec.encode((torch.rand(3, 40, 50) * 255).to(torch.uint8)))
    decode = DecodeFiles(model=None, device="cpu", max_pixels=10_000)()
    words = rf"needs the weights {other_codec.identity}, which are not among the bundled ones \(exact, float\)"
    with pytest.raises(ValueError, match=words):
        decode(tmp_path / "a.evc", tmp_path / "a.png")


def test_codecs_are_loaded_once(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.evc").write_bytes(EVCCodec.load("exact").encode((torch.rand(3, 8, 8) * 255).to(torch.uint8)))
    loads: list[str] = []
    load = EVCCodec.load

    def counted(name: str, **given: object) -> EVCCodec:
        loads.append(name)
        return load(name, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(_file_work.EVCCodec, "load", counted)
    decode = DecodeFiles(model=None, device="cpu", max_pixels=10_000)()
    for _ in range(2):
        decode(tmp_path / "a.evc", tmp_path / "a.png")
    assert loads == ["exact"]
