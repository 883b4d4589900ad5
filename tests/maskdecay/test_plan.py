"""Plans: ratios, overrides, a student's widths, text and JSON."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maskdecay.codecs.evc import EVC, PRESETS, build_preset
from torch import nn

import maskdecay as md
from maskdecay._groups_json import decode_index, encode_index


def chain(*widths):
    """1x1 convolutions 3 -> widths -> 2 with sigmoids between."""
    sizes = [3, *widths, 2]
    layers = [nn.Conv2d(a, b, 1) for a, b in pairwise(sizes)]
    return nn.Sequential(*[m for layer in layers for m in (layer, nn.Sigmoid())][:-1])


def pictures(size=4):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def groups():
    """Groups '0', '2', '4' of 8, 12 and 5 channels, and the output '6'."""
    return md.find_groups(chain(8, 12, 5), pictures())


def keeps(plan):
    return [plan.keep[g.name] for g in plan.groups]


# --- ratio ---


@pytest.mark.parametrize(
    ("keep", "options", "expected"),
    [
        (0.5, {}, [4, 6, 2, 2]),  # 2.5 rounds to even
        (1.0, {}, [8, 12, 5, 2]),
        (1, {}, [8, 12, 5, 2]),
        (0.01, {}, [1, 1, 1, 2]),
        (0.5, {"multiple_of": 4}, [4, 8, 4, 2]),  # 6 = 1.5 * 4 rounds to 8
        (0.1, {"multiple_of": 8}, [8, 8, 5, 2]),  # never more than there is
        (0.5, {"include": "2"}, [8, 6, 5, 2]),
        (0.5, {"include": ["0", "4"]}, [4, 12, 2, 2]),
        (0.5, {"exclude": "[02]"}, [8, 12, 2, 2]),
        (0.5, {"overrides": {"2": 0.25}}, [4, 3, 2, 2]),
        (0.5, {"overrides": {"2": 11}, "multiple_of": 4}, [4, 11, 4, 2]),  # a count is taken as it is
        (0.5, {"overrides": {"*": 1, "4": 0.8}}, [1, 1, 4, 2]),  # the last match wins; the output is not prunable
        (0.5, {"exclude": "2", "overrides": {"*": 3}}, [3, 12, 3, 2]),
    ],
)
def test_ratio(groups, keep, options, expected):
    assert keeps(md.Plan.ratio(groups, keep, **options)) == expected


def test_groups_not_named_keep_all(groups):
    assert keeps(md.Plan(groups=groups)) == [8, 12, 5, 2]
    assert keeps(md.Plan(groups=groups, keep={"2": 7})) == [8, 7, 5, 2]


def test_text(groups):
    assert str(md.Plan.ratio(groups)).splitlines() == [
        "group    width    keep    why not",
        "-------  -------  ------  ------------------------------",
        "0        8        4",
        "2        12       6",
        "4        5        2",
        "6        2        2       reaches an output of the model",
    ]


# --- JSON ---


@given(st.lists(st.integers(-1, 12), max_size=40))
def test_channel_tables_survive_their_text(table):
    assert decode_index(encode_index(tuple(table)), len(table)) == tuple(table)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 30), st.booleans()), min_size=1, max_size=4), st.randoms())
def test_plans_survive_json(sizes, random):
    groups, keep, shapes = [], {}, {}
    for i, (repeats, width, refused) in enumerate(sizes):
        index = [c for c in range(width) for _ in range(repeats)] + [-1] * random.randrange(3)
        random.shuffle(index)
        shapes[f"layer{i}.weight"] = (len(index), 3)
        piece = md.Slice(name=f"layer{i}.weight", dim=0, role="consumer", index=tuple(index))
        refusal = 'is "quoted" and ünïcode' if refused else None
        groups.append(md.Group(name=f"layer{i}", width=width, slices=(piece,), pinned=refused, refusal=refusal))
        keep[f"layer{i}"] = width if refused else random.randint(1, width)
    plan = md.Plan(groups=md.Groups(groups=tuple(groups), shapes=shapes), keep=keep)
    back = md.Plan.from_json(plan.to_json())
    assert back == plan
    assert back.to_json() == plan.to_json()


def test_a_plan_from_json_masks_the_model(groups):
    plan = md.Plan.from_json(md.Plan.ratio(groups).to_json())
    assert plan.groups.example_inputs is None
    masks = md.insert_masks(chain(8, 12, 5), plan)
    assert masks.keep == {"0": 4, "2": 6, "4": 2}


def test_json_is_small_and_diffable(groups):
    text = md.Plan.ratio(groups).to_json()
    assert json.loads(text)["keep"] == {"0": 4, "2": 6, "4": 2}
    assert json.loads(text)["groups"]["groups"][0]["slices"][0] == ["0.weight", 0, "producer", 8, "0+8"]


def spoil(data, path, value):
    """Returns JSON text with one entry replaced, or taken away."""
    data = json.loads(data)
    where = data
    for key in path[:-1]:
        where = where[key]
    if value is None:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["maskdecay_plan"], 2), (["maskdecay_plan"], None), (["keep"], 3), (["keep"], {"0": 3.5}),
        (["keep"], {"0": 9}),
        (["keep"], {"0": "4"}), (["keep"], {"nope": 1}), (["groups"], []), (["groups", "shapes"], {"a": 3}),
        (["groups", "groups"], 3), (["groups", "groups", 0], 3),
        (["groups", "groups", 0, "width"], "8"), (["groups", "groups", 0, "width"], 0),
        (["groups", "groups", 0, "name"], 3), (["groups", "groups", 0, "refusal"], 3),
        (["groups", "groups", 0, "name"], "2"),
        (["groups", "groups", 0, "slices", 0], []), (["groups", "groups", 0, "slices", 0, 1], "0"),
        (["groups", "groups", 0, "slices", 0, 2], "eater"), (["groups", "groups", 0, "slices", 0, 3], 10**12),
        (["groups", "groups", 0, "slices", 0, 4], "0+9"), (["groups", "groups", 0, "slices", 0, 4], "5+8"),
        (["groups", "groups", 0, "slices", 0, 4], "-2*8"),
        (["groups", "groups", 0, "slices", 0, 4], "0+99999999999999"),
        (["groups", "groups", 0, "slices", 0, 1], 4),
    ],
)  # fmt: skip
def test_text_that_is_no_plan_is_refused_in_one_line(groups, path, value):
    text = spoil(md.Plan.ratio(groups).to_json(), path, value)
    with pytest.raises(ValueError, match="this is no maskdecay plan of version 1") as caught:
        md.Plan.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "3", "[]", "null", "{", "[" * 100_000, '{"maskdecay_plan": 1}'])
def test_text_that_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match="this is no maskdecay plan of version 1"):
        md.Plan.from_json(text)


def test_a_plan_cannot_ask_for_tables_larger_than_itself(groups):
    data = json.loads(md.Plan.ratio(groups).to_json())
    data["groups"]["shapes"]["0.weight"] = [10**12, 3, 1, 1]
    data["groups"]["groups"][0]["slices"][0][3:] = [10**12, f"0*{10**12}"]
    with pytest.raises(ValueError, match="this is no maskdecay plan"):
        md.Plan.from_json(json.dumps(data))


# --- like ---


def test_like_reads_the_students_widths(groups):
    assert keeps(md.Plan.like(groups, chain(3, 12, 1))) == [3, 12, 1, 2]


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (chain(9, 12, 5), r"has 9 channels where group '0' has 8 \('0.weight'\), and it must be narrower"),
        (chain(8, 12), "another kind of network: only one of the two has '6.weight'"),
        (
            nn.Sequential(*chain(8, 12, 5)[:6], nn.Conv2d(5, 1, 1)),
            "group '6' has 2 .*cannot be pruned: it reaches an output",
        ),
        (
            nn.Sequential(nn.Conv2d(4, 8, 1), *chain(8, 12, 5)[1:]),
            "'0.weight' is 8x4x1x1 in the student; narrowing .* 8x3x1x1",
        ),
        (
            nn.Sequential(*chain(8, 12, 5)[:6], nn.Conv2d(5, 2, 3)),
            "'6.weight' is 2x5x3x3 in the student; narrowing .* 2x5x1x1",
        ),
    ],
)
def test_like_refuses_what_narrowing_does_not_explain(groups, student, words):
    with pytest.raises(ValueError, match=words) as caught:
        md.Plan.like(groups, student)
    assert "\n" not in str(caught.value)


def test_like_refuses_widths_that_do_not_agree():
    class Sum(nn.Module):
        def __init__(self, left, right):
            super().__init__()
            self.left, self.right, self.head = nn.Conv2d(3, left, 1), nn.Conv2d(3, right, 1), nn.Conv2d(left, 2, 1)

        def forward(self, x):
            return self.head(self.left(x) + self.right(x))

    groups = md.find_groups(Sum(8, 8), pictures())
    assert md.Plan.like(groups, Sum(4, 4)).keep["left"] == 4
    with pytest.raises(ValueError, match="widths do not agree within group 'left'"):
        md.Plan.like(groups, Sum(4, 6))


def becomes(teacher, student, picture, groups=None):
    """Shrinks a teacher to a student's widths; their states must be interchangeable."""
    plan = md.Plan.like(groups or md.find_groups(teacher, picture), student)
    masks = md.insert_masks(teacher, plan)
    masks.collapse()
    small = md.shrink(teacher, masks)
    assert {k: v.shape for k, v in small.state_dict().items()} == {k: v.shape for k, v in student.state_dict().items()}
    exact = picture.double()  # in float32, latents next to a half are rounded up by one and down by the other
    teacher_says = teacher.double()(exact).x_hat
    other = type(student)(student.config).eval()
    other.load_state_dict(small.state_dict())
    torch.testing.assert_close(other.double()(exact).x_hat, teacher_says, rtol=1e-4, atol=1e-4)
    small.load_state_dict(student.state_dict())
    assert torch.equal(small(picture).x_hat, student(picture).x_hat)
    assert str(small) == str(student)  # every layer's widths too
    return plan


@pytest.fixture(scope="module")
def codec_groups():
    return md.find_groups(build_preset("narrow-large"), pictures(64)[:1])


def test_a_narrow_codec_becomes_the_small_one_exactly(codec_groups):
    teacher, student = build_preset("narrow-large", seed=0), build_preset("narrow-small", seed=1)
    plan = becomes(teacher, student, pictures(64)[:1], codec_groups)
    assert plan.keep["enc.0.conv1"] == 8
    assert plan.keep["dec.1.subpel_conv.0"] == 64


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_one_side_of_a_codec_alone(codec_groups, side):
    small = EVC(replace(PRESETS["narrow-large"], **{side: getattr(PRESETS["narrow-small"], side)}))
    keep = md.Plan.like(codec_groups, small).keep
    narrowed = {name.split(".")[0] for name, count in keep.items() if count < codec_groups[name].width}
    assert narrowed == {side[:3]}


@pytest.mark.long
@pytest.mark.parametrize("name", ["small", "medium", "ls", "sl"])
def test_the_large_codec_becomes_the_others_exactly(name):
    becomes(build_preset("large", seed=0), build_preset(name, seed=1), pictures(64)[:1])
