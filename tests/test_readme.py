"""The README's examples are run as they stand there."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


def test_the_api_example_runs_and_leaves_a_smaller_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    assert [tuple(p.shape) for p in names["student"].parameters()] == [(16, 3, 3, 3), (16,), (3, 16, 3, 3), (3,)]
    torch.testing.assert_close(names["student"](names["images"]), names["model"](names["images"]))
    loaded = names["md"].load("student.safetensors", lambda: torch.nn.Sequential(*map(torch.nn.Module.requires_grad_, [
        torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 3, 3, padding=1)])))  # fmt: skip
    assert torch.equal(loaded(names["images"]), names["student"](names["images"]))


def test_the_groups_shown_are_the_groups_printed():
    import maskdecay as md

    images = torch.rand(1, 3, 32, 32)
    conv = torch.nn.Conv2d
    model = torch.nn.Sequential(conv(3, 32, 3, padding=1), torch.nn.ReLU(), conv(32, 3, 3, padding=1))
    shown = blocks("pycon")[0].splitlines()[1:]
    assert [line.split() for line in shown if not line.startswith("---")] == [
        line.split() for line in str(md.find_groups(model, images)).splitlines() if not line.startswith("---")
    ]


def test_the_codec_example_runs():
    names = {"images": torch.rand(1, 3, 64, 64), "picture": (torch.rand(3, 48, 64) * 255).to(torch.uint8)}
    exec(compile(blocks("python")[1], "README.md", "exec"), names)
    assert names["decoded"].shape == (48, 64, 3)
    assert names["x_hat"].shape == (1, 3, 64, 64)
    assert names["bits_y"].shape == names["bits_z"].shape == (1,)
