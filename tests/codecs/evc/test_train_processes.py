"""Two gloo processes on the CPU, as `accelerate launch` and `torchrun` start them, against one."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from maskdecay.codecs._train_processes import Processes
from maskdecay.codecs.evc import _network
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("train_worker.py")


def launch(count: int, *words: str | Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, WORKER, *words],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=300)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0] * count, errors


@pytest.mark.slow
def test_gradients_are_those_of_the_joint_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(2, tmp_path, "gradients")
    monkeypatch.setattr(_network, "add_uniform_noise", _network.add_uniform_noise)  # puts back what the worker replaces
    runpy.run_path(str(WORKER))["gradients"](Processes(), tmp_path)
    first, second, joint = (load_file(tmp_path / f"gradients-{name}.safetensors") for name in ("2-0", "2-1", "1-0"))
    assert first.keys() == second.keys() == joint.keys()
    assert {"q_scale", "q_basic"} <= joint.keys()
    assert any("parametrizations" in name and name.endswith("mask") for name in joint)
    for name, expected in joint.items():
        assert torch.equal(first[name], second[name]), name
        size = expected.abs().max().item()
        assert torch.allclose(first[name], expected, atol=1e-4 * size + 1e-7), name


@pytest.mark.long
def test_processes_end_with_equal_weights_stopped_or_not(tmp_path: Path) -> None:
    launch(2, tmp_path, "train")
    whole, other, *resumed = (
        load_file(tmp_path / f"{name}.safetensors") for name in ("whole-0", "whole-1", "resumed-0", "resumed-1")
    )
    for found in (other, *resumed):
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], whole[name]) for name in whole)
    scalable = [load_file(tmp_path / f"scalable-{rank}.safetensors") for rank in range(2)]
    assert all(torch.equal(scalable[0][name], scalable[1][name]) for name in scalable[0])
    steps = [load_file(tmp_path / f"steps-{rank}.safetensors")["steps"].item() for rank in range(2)]
    assert steps[0] == steps[1] > 0


def test_without_accelerate_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"several processes need accelerate: pip install 'maskdecay\[train\]'"):
        Processes()


def test_one_process_needs_no_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    alone = Processes()
    assert (alone.first, alone.count, alone.agree(0.1)) == (True, 1, 0.1)
    assert alone.gather(torch.ones(2))[0].tolist() == [1, 1]
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        Processes("cpu", "float16")
