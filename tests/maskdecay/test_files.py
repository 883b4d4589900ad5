"""Files of small models: what comes back, and what every wrong file, model or folder is told."""

import contextlib
import json
import os
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import maskdecay as md
from maskdecay import _files


class Zoo(nn.Module):
    """Many kinds of layers; every width a choice."""

    def __init__(self, width=8, dtype=None, depth=1):
        super().__init__()
        w = width
        self.stem = nn.Conv2d(3, w, 3, padding=1)
        self.norms = nn.ModuleList(
            [
                nn.BatchNorm2d(w),
                nn.BatchNorm2d(w, affine=False),
                nn.InstanceNorm2d(w),
                nn.InstanceNorm2d(w, affine=True),
            ]
        )
        self.bare = nn.BatchNorm2d(w, affine=False, track_running_stats=False)
        self.deep, self.up = nn.Conv2d(w, w, 3, padding=1, groups=w), nn.ConvTranspose2d(w, 4, 2, stride=2)
        self.prelu, self.body = nn.PReLU(4), nn.Sequential(*[nn.Conv2d(4, 4, 1) for _ in range(depth)])
        self.head = nn.Linear(4, 2)
        self.to(dtype)

    def forward(self, x):
        x = self.stem(x)
        for norm in [*self.norms, self.bare]:
            x = torch.sigmoid(norm(x))
        x = self.body(self.prelu(self.up(self.deep(x))))
        return self.head(x.mean((2, 3)))


class GroupNormed(nn.Module):
    """GroupNorm with and without its own numbers."""

    def __init__(self, groups=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 2 * groups, 3)
        self.norm, self.bare = nn.GroupNorm(groups, 2 * groups), nn.GroupNorm(groups, 2 * groups, affine=False)
        self.head = nn.Conv2d(2 * groups, 2, 1)

    def forward(self, x):
        return self.head(torch.sigmoid(self.bare(torch.sigmoid(self.norm(self.stem(x))))))


def pictures():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def shrunk(model, x=None):
    x = pictures() if x is None else x
    masks = md.insert_masks(model, md.Plan.ratio(md.find_groups(model, x)))
    masks.collapse()
    return md.shrink(model, masks)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return shrunk(Zoo().eval())


@pytest.fixture
def file(small, tmp_path):
    path = tmp_path / "small.safetensors"
    md.save(small, path)
    return path


def rewrite(path, change):
    """Rewrites a file's header with a change; returns the path."""
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["maskdecay"])
    header = change(header, tensors) or header
    save_file(tensors, path, {"maskdecay": json.dumps(header)})
    return path


def refused(path, make_model=Zoo):
    """The one line that a load is refused with."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        md.load(path, make_model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- round trips ---


@pytest.mark.parametrize("width", [8, 4])
def test_a_small_model_comes_back_into_the_wide_and_the_narrow_network(small, file, width):
    back = md.load(file, lambda: Zoo(width).eval())
    assert {k: tuple(v.shape) for k, v in back.state_dict().items()} == {
        k: tuple(v.shape) for k, v in small.state_dict().items()
    }
    assert all(torch.equal(v, small.state_dict()[k]) for k, v in back.state_dict().items())
    assert torch.equal(back(pictures()), small(pictures()))
    assert (back.deep.groups, back.bare.num_features, back.norms[2].num_features, back.up.in_channels) == (4, 4, 4, 4)


def test_group_norms_come_back_with_their_groups(tmp_path):
    small = shrunk(GroupNormed().eval())
    assert (small.norm.num_groups, small.bare.num_groups, small.bare.num_channels) == (2, 2, 4)
    md.save(small, tmp_path / "x")
    for make in (GroupNormed, lambda: GroupNormed(2)):
        back = md.load(tmp_path / "x", make)
        assert (back.bare.num_groups, back.bare.num_channels) == (2, 4)
        assert torch.equal(back(pictures()), small(pictures()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_of_the_file_win(small, tmp_path, dtype):
    narrow = Zoo(4).to(dtype)
    md.save(narrow, tmp_path / "x")
    back = md.load(tmp_path / "x", Zoo)
    assert {p.dtype for p in back.parameters()} == {dtype}
    assert torch.equal(back.head.weight, narrow.head.weight)


@pytest.mark.parametrize("width", [8, 4])
def test_tensors_are_as_aligned_as_those_that_torch_makes(file, width):
    """A file's own lie at multiples of 8 bytes, where some kernels sum in another order."""
    state = md.load(file, lambda: Zoo(width)).state_dict()
    assert len(state) > 10
    assert {name: value.data_ptr() % 64 for name, value in state.items()} == dict.fromkeys(state, 0)


def test_mode_and_requires_grad_are_the_factorys(file):
    def make():
        model = Zoo().train()
        model.head.requires_grad_(False)
        return model

    back = md.load(file, make)
    assert back.training
    assert {n for n, p in back.named_parameters() if not p.requires_grad} == {"head.weight", "head.bias"}


def test_shared_tensors_are_saved_once_and_come_back_shared(tmp_path):
    def make(tied=True):
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4))
        if tied:
            net[2].weight = net[0].weight
        return net

    net = make()
    md.save(net, tmp_path / "x")
    with safe_open(str(tmp_path / "x"), framework="pt") as file:
        assert set(file.keys()) == {"0.weight", "0.bias", "2.bias", "3.weight", "3.bias"}
    for tied in (True, False):
        back = md.load(tmp_path / "x", lambda tied=tied: make(tied))
        assert back[2].weight is back[0].weight
        assert torch.equal(back[0].weight, net[0].weight)
    apart = make(tied=False)
    md.save(apart, tmp_path / "y")
    back = md.load(tmp_path / "y", make)
    assert torch.equal(back[0].weight, apart[0].weight)
    assert torch.equal(back[2].weight, apart[2].weight)


def test_one_layer_cannot_become_two(tmp_path):
    def make(shared):
        first = nn.Linear(4, 4)
        return nn.Sequential(first, nn.ReLU(), first if shared else nn.Linear(4, 4))

    md.save(make(False), tmp_path / "x")
    assert "'0.bias' is one tensor with another in make_model's network" in refused(tmp_path / "x", lambda: make(True))


def test_parametrized_layers_come_back(tmp_path):
    def make():
        return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4, bias=False)), nn.Linear(4, 2))

    net = make()
    md.save(net, tmp_path / "x")
    x = torch.rand(2, 3)
    assert torch.equal(md.load(tmp_path / "x", make)(x), net(x))


def test_saving_over_a_file_replaces_it(small, file):
    before = file.read_bytes()
    md.save(small, file)
    assert file.read_bytes() == before
    md.save(Zoo(2), str(file))
    assert md.load(file, Zoo).stem.out_channels == 2
    assert [p.name for p in file.parent.iterdir()] == ["small.safetensors"]


# --- wrong models ---


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (GroupNormed, "holds a Zoo; make_model gave a GroupNormed"),
        (
            lambda: Zoo(3),
            "layer 'stem': the file's 'stem.weight' is 4x3x3x3, which does not fit into the model's 3x3x3x3",
        ),
        (lambda: Zoo(depth=2), "'body.1.weight' is in the model but not in the file"),
        (lambda: Zoo(depth=0), "'body.0.bias' is in the file but not in the model"),
        (lambda: nn.Linear(2, 2).weight, "make_model gave a Parameter; it must return the network"),
    ],
)
def test_another_network_is_refused_with_the_layer(file, make, words):
    assert words in refused(file, make)


def test_masks_are_refused(file, tmp_path):
    def make():
        model = Zoo().eval()
        md.insert_masks(model, md.Plan.ratio(md.find_groups(model, pictures())))
        return model

    assert "make_model gave a model that holds masks" in refused(file, make)
    with pytest.raises(ValueError, match="holds masks; shrink it"):
        md.save(make(), tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_state_that_is_no_tensor_is_refused(tmp_path):
    class Extra(nn.Linear):
        def __init__(self, extra):
            super().__init__(2, 2)
            self.extra = extra

        def get_extra_state(self):
            return self.extra

        def set_extra_state(self, state):
            self.extra = state

    for extra, kind in (({"a": 1}, "dict"), (torch.ones(2), "Tensor")):
        with pytest.raises(
            ValueError, match=f"'_extra_state' in the model's state is a {kind} but no parameter or buffer"
        ):
            md.save(Extra(extra), tmp_path / "x")
    assert not list(tmp_path.iterdir())


# --- wrong files ---


def test_a_file_cut_anywhere_is_refused(file):
    whole = file.read_bytes()
    for end in range(0, len(whole), 50):
        file.write_bytes(whole[:end])
        assert "is no safetensors file, or a damaged one" in refused(file)


def test_a_flipped_byte_is_refused_or_only_changes_numbers(small, file):
    whole = file.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for at in range(0, header, 7):
        for flip in (0x01, 0x80):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            with contextlib.suppress(ValueError):
                assert md.load(file, Zoo).state_dict().keys() == small.state_dict().keys()


def test_a_huge_header_length_allocates_nothing(file):
    file.write_bytes(struct.pack("<Q", 2**62) + file.read_bytes()[8:])
    assert "damaged" in refused(file)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x04\x95", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert "is no safetensors file" in refused(tmp_path / "x")


def test_a_pickle_is_refused_unread(tmp_path):
    torch.save(Zoo().state_dict(), tmp_path / "x.pt")
    assert "is no safetensors file" in refused(tmp_path / "x.pt")


def test_somebody_elses_safetensors_is_refused(tmp_path):
    for metadata in (None, {"format": "pt"}, {"maskdecay": "[1]"}, {"maskdecay": "{}"}, {"maskdecay": "{"}):
        save_file({"a": torch.ones(1)}, tmp_path / "x", metadata)
        assert "was not written by maskdecay.save" in (line := refused(tmp_path / "x")) or "damaged one" in line
    save_file({"a": torch.ones(1)}, tmp_path / "x", {"maskdecay": "[" * 100_000})
    assert "damaged" in refused(tmp_path / "x")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("widths", {"widths": 3}), ("widths", []), ("widths", None), ("widths", {"stem": {"groups": "1"}}),
        ("widths", {"stem": {"groups": True}}), ("aliases", []), ("aliases", {"a": 3}), ("aliases", {"a": "missing"}),
        ("class", 3), ("aliases", {"stem.bias": "stem.weight"}),
    ],
)  # fmt: skip
def test_headers_of_the_wrong_form_are_refused(file, key, value):
    assert "has a damaged header" in refused(rewrite(file, lambda header, _: header.update({key: value})))


def test_headers_that_contradict_the_tensors_are_refused(file):
    def wide(header, _):
        header["widths"]["stem"]["out_channels"] = 5

    assert refused(rewrite(file, wide)) == (
        "layer 'stem': out_channels is 5 in the file, 4 in the model that make_model built"
    )
    assert "layer 'nowhere': groups is 1 in the file, None" in refused(
        rewrite(file, lambda h, _: h.update(widths={"nowhere": {"groups": 1}}))
    )


def test_newer_versions_are_refused(file):
    assert "is of version 2, this release reads 1; update maskdecay" in refused(
        rewrite(file, lambda h, _: h.update(version=2))
    )


def test_missing_extra_and_misshapen_tensors_are_refused(file):
    whole = file.read_bytes()
    for change, words in (
        (lambda t: t.pop("head.bias"), "'head.bias' is in the model but not in the file"),
        (lambda t: t.update(more=torch.ones(1)), "'more' is in the file but not in the model"),
        (lambda t: t.update({"head.bias": torch.ones(2, 1)}), "'head.bias' is 2x1, which does not fit"),
        (
            lambda t: t.update({"head.bias": torch.ones(2, dtype=torch.int32)}),
            "'head.bias' is torch.int32, the model's is",
        ),
        (lambda t: t.update({"head.weight": torch.ones(2, 3)}), "layer 'head': in_features is 2 in the file, 3"),
    ):
        file.write_bytes(whole)
        assert words in refused(rewrite(file, lambda _, t, change=change: (change(t), None)[1]))


# --- folders ---


def test_a_missing_file_or_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        md.load(tmp_path / "nothing", Zoo)
    with pytest.raises(FileNotFoundError, match=r"cannot save to '.*', for its folder cannot be written"):
        md.save(Zoo(), tmp_path / "no" / "x")
    with pytest.raises(IsADirectoryError):
        md.load(tmp_path, Zoo)
    with pytest.raises(OSError, match="cannot save to"):
        md.save(Zoo(), tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_says_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="its folder cannot be written"):
        md.save(Zoo(), tmp_path / "x")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), _files.SafetensorError("disk full")])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(file, monkeypatch, error):
    before = file.read_bytes()

    def fail(tensors, path, metadata):
        with open(path, "wb") as half:
            half.write(b"half")
        raise error

    monkeypatch.setattr(_files, "save_file", fail)
    with pytest.raises(OSError, match=r"cannot save to .*; the file is as it was"):
        md.save(Zoo(), file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]
