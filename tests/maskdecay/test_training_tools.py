"""A masked model under the tools people train with: AMP, DDP, EMA, compile, export, and a whole mask decay."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import Branches
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import maskdecay as md
from maskdecay._masks import masks_of


@pytest.fixture(scope="module")
def plan():
    return md.Plan.ratio(md.find_groups(Branches(), torch.rand(4, 3, 6, 6)), keep=0.5)


@pytest.fixture
def inputs():
    return torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Branches()


def gradients(model, inputs, run):
    """Runs one backward pass; returns the output and every gradient by name."""
    model.zero_grad()
    out = run(inputs)
    out.square().sum().backward()
    return out.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


def uneven(masks):
    """Gives masks values that are not 1, so that what reads them shows."""
    with torch.no_grad():
        for i, mask in enumerate(masks.values()):
            mask.copy_(torch.linspace(0.5, 1.5 + i, mask.numel()))


# --- AMP ---


def test_autocast_trains_masks_in_float32(model, plan, inputs):
    masks = md.insert_masks(model.train(), plan)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(inputs)
        loss = out.square().sum()
    assert out.dtype == torch.bfloat16
    loss.backward()
    assert {m.grad.dtype for m in masks.values()} == {torch.float32}
    low = {n: m.grad.clone() for n, m in masks.items()}
    _, exact = gradients(model, inputs, model)
    for name, grad in low.items():
        reader = next(n for n in exact if n.endswith(".mask") and masks[name] is model.get_parameter(n))
        scale = exact[reader].abs().max()
        torch.testing.assert_close(grad, exact[reader], rtol=0.05, atol=0.05 * float(scale))


# --- EMA ---


def test_an_averaged_model_averages_masks_and_keeps_them_shared(model, plan, inputs):
    masks = md.insert_masks(model, plan)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    ema.update_parameters(model)  # the first update copies
    with torch.no_grad():
        masks["a"][3] = 0
    ema.update_parameters(model)
    inside = masks_of(ema)
    assert inside["a"].tolist() == [1, 1, 1, 0.5, 1, 1, 1, 1]
    assert (ema.module.c.weight[:, 3] == 0.5 * ema.module.c.parametrizations.weight.original[:, 3]).all()
    assert masks["a"][3] == 0


# --- compile and export ---


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_gives_the_same_outputs_and_gradients(model, plan, inputs, backend):
    uneven(md.insert_masks(model.eval(), plan))
    expected, grads = gradients(model, inputs, model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    out, found = gradients(model, inputs, compiled)
    torch.testing.assert_close(out, expected)
    assert found.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(found[name], grad)


def test_a_compiled_model_sees_masks_that_changed(model, plan, inputs):
    masks = md.insert_masks(model.eval(), plan)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    before = compiled(inputs)
    masks.collapse()
    assert not torch.equal(compiled(inputs), before)
    torch.testing.assert_close(compiled(inputs), model(inputs))


# the tests' own shape checks (jaxtyping's memory of shapes) are a side effect that strict export warns of
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects.*jaxtyping:UserWarning")
@pytest.mark.parametrize("strict", [False, True])
def test_export_gives_the_same_outputs(model, plan, inputs, strict):
    uneven(md.insert_masks(model.eval(), plan))
    exported = torch.export.export(model, (inputs,), strict=strict).module()
    torch.testing.assert_close(exported(inputs), model(inputs))


# --- DDP ---


@pytest.mark.long
def test_two_processes_agree_on_the_masks(plan, tmp_path):
    (tmp_path / "plan.json").write_text(plan.to_json())
    worker = Path(__file__).with_name("ddp_worker.py")
    running = [
        subprocess.Popen([sys.executable, worker, str(rank), tmp_path], stderr=subprocess.PIPE) for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert set(first) == {"a", "b", "c"}
    assert all(any(g != 0 for g in grad) and mask != [1.0] * len(mask) for grad, mask in first.values())


# --- a whole decay ---


def test_weight_decay_spares_masks(model, plan):
    masks = md.insert_masks(model, plan)
    optimizer = torch.optim.AdamW(md.parameter_groups(model, weight_decay=0.5), lr=0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    weight = model.c.parametrizations.weight.original
    before = weight.detach().clone()
    optimizer.step()
    assert all((m == 1).all() for m in masks.values())
    torch.testing.assert_close(weight.detach(), 0.95 * before)


def test_decay_to_zero_then_shrink_then_train_on(model, plan):
    generator = torch.Generator().manual_seed(2)
    masks = md.insert_masks(model.double().train(), plan)
    optimizer = torch.optim.AdamW(md.parameter_groups(model, weight_decay=1e-2), lr=1e-2)
    decay = md.MaskDecay(masks, steps=30)

    def step(network, optimizer, x):
        loss = (network(x) - x.mean((2, 3))).square().mean()
        (loss + (0 if decay.done else decay.loss())).backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    def batch():
        return torch.rand(8, 3, 6, 6, generator=generator, dtype=torch.float64)

    first = step(model, optimizer, batch())
    while not decay.done:
        step(model, optimizer, batch())
        decay.step()
    assert masks.alive() == {"a": 4, "b": 2, "c": 3}
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    small = md.shrink(model, masks, optimizer=optimizer)
    x = batch()
    torch.testing.assert_close(copy.deepcopy(small).eval()(x), copy.deepcopy(model).eval()(x), rtol=1e-9, atol=1e-9)
    assert small.training
    assert (small.a.out_channels, small.b.out_channels, small.norm.num_features, small.c.in_channels) == (4, 2, 6, 6)

    # kept masks were held at 1, so the small model's next step is the masked model's
    assert all(bool((m[m != 0] == 1).all()) for m in masks.values())
    step(small, optimizer, x)
    step(twin, twin_optimizer, x)
    with torch.no_grad():
        for name, mask in masks_of(twin).items():
            mask.copy_(masks[name])
    stepped = dict(md.shrink(twin, masks).named_parameters())
    for name, p in small.named_parameters():
        if name not in ("a.bias", "b.bias"):  # before a batch norm: Adam makes steps of their rounding errors
            torch.testing.assert_close(p, stepped[name], rtol=1e-6, atol=1e-9)
    assert [step(small, optimizer, batch()) for _ in range(20)][-1] < first
