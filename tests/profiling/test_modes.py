import shutil

import pytest
import torch
from maskdecay.profiling import ProfilingError, Timing, compare, latency
from maskdecay.profiling import _modes as module
from maskdecay.profiling._prepare import prepare
from torch import nn

BRIEF = Timing(seconds=0.05, min_repeats=3, max_repeats=5)
X = torch.rand(1, 3, 8, 8)


def test_modes_are_recorded(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "_compiled", lambda subject, args, kwargs: lambda: calls.append(1))
    model = nn.Conv2d(3, 3, 1)
    assert latency(model, X, timing=BRIEF).mode == "eager"
    assert not calls
    report = compare({"a": model}, X, mode="compile", timing=BRIEF)
    assert calls
    assert report["a"].mode == "compile"
    assert report["a"].latency is not None
    assert report["a"].latency.mode == "compile"
    assert [layer.kind for layer in report["a"].layers] == ["Conv2d"]  # always eager


def test_an_unknown_mode_and_a_graph_without_a_gpu_are_one_line():
    with pytest.raises(ProfilingError, match="there is no mode 'x'; there are eager, compile, cuda_graph"):
        latency(nn.Identity(), X, mode="x")
    with pytest.raises(ProfilingError, match="mode cuda_graph needs a CUDA device, not cpu"):
        latency(nn.Identity(), X, mode="cuda_graph", device="cpu")


def test_a_compiler_that_fails_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no compiler\nlong story")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(ProfilingError, match=r"in mode compile: no compiler$"):
        latency(nn.Conv2d(3, 3, 1), X, mode="compile")


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_call_computes_the_same():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    ready = prepare(model, X, mode="compile")
    with torch.no_grad():
        assert torch.allclose(ready.run(), model(X), atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["eager", "compile", "cuda_graph"])
def test_every_mode_computes_the_same_on_a_gpu(mode):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    ready = prepare(model, X, mode=mode, device="cuda")
    with torch.no_grad():
        assert torch.allclose(ready.run().cpu(), model(X), atol=1e-3)
