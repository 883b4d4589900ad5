"""EVC networks in and out of files, and those that come with the package."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

import maskdecay as md

from .._bundled import name_for, names_in
from ._config import EVCConfig, Widths
from ._exact import LIMIT_NAME, holds_exact_priors, hollow_priors
from ._network import EVC
from ._public_checkpoint import load_public_checkpoint
from ._scalable import ScalableEVC, count_encoders, widest_encoder

BUNDLED = Path(__file__).parent / "weights"
_SUFFIX = ".safetensors"
_STAGES = {  # which of the widths (c2, c4, c8) the blocks have
    "enc": {"0": 0, "1": 0, "2": 1, "3": 1, "4": 2, "5": 2},
    "dec": {"1": 2, "2": 2, "3": 1, "4": 1, "5": 0, "6": 0},
}
_PRIOR_SHARES = (0.1, 0.2, 0.5, 1.0)  # the narrower the network that weights are loaded into, the faster
_CHECKPOINT_SUFFIXES = (".tar", ".pth", ".pt")


def bundled_names() -> list[str]:
    """Names of the networks that come with the package."""
    return names_in(BUNDLED)


def bundled_name_for(identity: str) -> str:
    """The bundled network whose files carry this identity; see `name_for`."""
    return name_for(BUNDLED, identity)


def load_network(name_or_path: str | Path) -> EVC:
    """Load trained weights.

    Args:
        name_or_path: a bundled network's name; a `.safetensors` file written by `maskdecay.save`, of a network as it
            was built or pruned, its priors exact or not; or a public checkpoint (`.pth.tar`).

    Returns:
        The network in evaluation mode, float32, on the CPU; a `ScalableEVC` where it has several encoders.

    Raises:
        ValueError: there is no such name, or the file holds no EVC; the message lists what there is.
        OSError: the file cannot be read.
    """
    path = Path(name_or_path)
    if path.suffix == _SUFFIX:
        return _load_saved(path)
    if path.suffix in _CHECKPOINT_SUFFIXES:
        return load_public_checkpoint(path)
    names = bundled_names()
    if str(name_or_path) not in names:
        raise ValueError(
            f"there are no weights '{name_or_path}'; bundled are {', '.join(names) if names else 'none yet'}. "
            "Give the path of a .safetensors file (maskdecay.save) or of a public checkpoint (.pth.tar)"
        )
    return _load_saved(BUNDLED / f"{name_or_path}{_SUFFIX}")


def _load_saved(path: Path) -> EVC:
    shapes = _shapes(path)
    config, depths = infer_config(widest_encoder(shapes), path), count_encoders(shapes)
    limit = (_number(path, LIMIT_NAME),) if LIMIT_NAME in shapes else ()

    def build() -> EVC:
        with torch.random.fork_rng(devices=[]):
            network = ScalableEVC(config, depths=depths, initial=False) if depths else EVC(config, initial=False)
            if holds_exact_priors(shapes):
                hollow_priors(network, shapes, *limit)
            return network

    return md.load(path, build).float().eval()


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of each tensor in a file."""
    with path.open("rb"):  # safetensors tells less about a file that cannot be read
        pass
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{path}' is no safetensors file, or a damaged one") from error


def _number(path: Path, name: str) -> int:
    with safe_open(str(path), framework="pt") as file:
        tensor = file.get_tensor(name)
    if tensor.numel() != 1 or tensor.is_floating_point():
        raise ValueError(f"'{path}' is damaged: its tensor {name} is no whole number")
    return int(tensor)


def infer_config(shapes: dict[str, tuple[int, ...]], path: Path) -> EVCConfig:
    """Widths that contain a saved network, pruned or not, from the shapes of its tensors.

    Raises:
        ValueError: the file holds no EVC.
    """
    if len(shapes.get("q_basic", ())) != 4:
        raise ValueError(f"'{path}' holds no EVC: it has no 4-dimensional tensor q_basic")
    latent = shapes["q_basic"][1]
    encoder, decoder = _trunk(shapes, "enc", latent), _trunk(shapes, "dec", latent)
    configs = [EVCConfig(latent=latent, encoder=encoder, decoder=decoder, priors=share) for share in _PRIOR_SHARES]
    return next((config for config in configs if _holds_priors(config, shapes)), configs[-1])


def _holds_priors(config: EVCConfig, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether no prior in a file, in floats or integers, is wider anywhere than those of a new network."""
    with torch.random.fork_rng(devices=[]):  # torch's device "meta" would take 2 s to import
        new = EVC(config, initial=False).state_dict()
    names = {name: name.replace(".network.", ".") for name in shapes if name.startswith(("hyper_", "y_"))}
    return all(
        have <= room
        for name, plain in names.items()
        if plain in new and len(shapes[name]) == new[plain].dim()
        for have, room in zip(shapes[name], new[plain].shape, strict=True)
    )


def _trunk(shapes: dict[str, tuple[int, ...]], part: str, latent: int) -> Widths:
    """Widths at each resolution that are wide enough for each convolution; the hidden layers are 4 times as wide."""
    needed = [1, 1, 1]
    for name, shape in shapes.items():
        module, _, path = name.partition(".")
        stage = _STAGES[part].get(path.split(".")[0])
        if module == part and stage is not None and len(shape) == 4:
            quarter = path.endswith((".1.conv.0.weight", ".subpel_conv.0.weight", ".upsample.0.weight"))
            needed[stage] = max(needed[stage], -(-shape[0] // 4) if quarter else shape[0])
    c2, c4, c8 = needed
    return c2, c4, c8, latent
