"""How atoms travel through shapes, on small literals: which positions end up as one unit, and what is refused."""

import numpy as np
import pytest

from maskdecay._atoms import AtomSets
from maskdecay._labels import Label, broadcast, concatenate, part, reshape


def units(sets, atoms):
    """Numbers the units along a dimension in order of appearance: equal numbers go together."""
    order = {}
    return [order.setdefault(root, len(order)) for root in sets.roots(atoms).tolist()]


def test_joined_atoms_share_the_lowest_number():
    sets = AtomSets()
    a, b, c = sets.fresh(3), sets.fresh(3), sets.fresh(3)
    sets.join(b, c)
    sets.join(a[::-1], b)
    assert sets.roots(c).tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="3 channels meet 2"):
        sets.join(a, b[:2])


def test_the_first_reason_in_the_pass_is_told_with_its_layer():
    sets = AtomSets()
    early, late = sets.fresh(1), sets.fresh(1)
    sets.where = "blocks.1"
    sets.refuse(late, "is first")
    sets.where = ""
    sets.refuse(early, "is second")
    sets.join(early, late)
    assert sets.reasons() == {0: "is first (in layer 'blocks.1')"}


def test_flattening_repeats_each_channel_for_its_pixels():
    sets = AtomSets()
    channels = sets.fresh(3)
    batch, flat = reshape(sets, (None, channels, None, None), (5, 3, 2, 2), (5, 12))
    assert batch is None
    assert flat.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert reshape(sets, (None, flat), (5, 12), (5, 3, 2, 2))[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("inner", "parts", "wanted"),
    [(True, [None, "units"], [0, 1, 2, 0, 1, 2]), (False, ["units", None], [0, 0, 0, 1, 1, 1])],
)
def test_a_split_channel_dimension_can_be_read_in_two_ways(inner, parts, wanted):
    sets = AtomSets()
    channels = sets.fresh(6)
    dims = reshape(sets, (None, channels), (4, 6), (4, 2, 3), keep_inner=inner)
    assert [d is not None for d in dims[1:]] == [p is not None for p in parts]
    assert units(sets, channels) == wanted
    assert len(sets.undecided) == 1


def test_folding_two_parameters_dimensions_is_refused_but_a_constants_size_gives_way():
    sets = AtomSets()
    rows, columns = sets.fresh(2), sets.fresh(3)
    sets.anchor()
    assert reshape(sets, (rows, columns), (2, 3), (6,)) == (None,)
    assert len(sets.reasons()) == 5
    mesh = AtomSets()
    channels = mesh.fresh(2)
    mesh.anchor()
    (flat,) = reshape(mesh, (channels, mesh.fresh(3)), (2, 3), (6,))
    assert flat.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(mesh.reasons()) == {2, 3, 4}


def test_broadcasting_joins_from_the_right_and_leaves_single_positions_alone():
    sets = AtomSets()
    x, scale, one = sets.fresh(4), sets.fresh(4), sets.fresh(1)
    left = (Label((None, x, None), True), (2, 4, 5))
    right = (Label((scale, one), False), (4, 1))
    dims = broadcast(sets, [left, right], (2, 4, 5))
    assert dims[1].tolist() == x.tolist()
    assert sets.roots(scale).tolist() == [0, 1, 2, 3]
    assert sets.roots(one).tolist() == [8]
    assert not sets.reasons()


def test_channels_added_to_an_input_of_their_size_are_refused():
    sets = AtomSets()
    x = sets.fresh(4)
    broadcast(sets, [(Label((None, x), True), (2, 4)), (Label((None, None), True), (2, 4))], (2, 4))
    assert set(sets.reasons().values()) == {"meets an input or a constant, whose size pruning cannot change"}


def test_concatenation_keeps_the_place_of_what_no_parameter_decides():
    sets = AtomSets()
    a = sets.fresh(2)
    raw, made = Label((None, None), True), Label((None, a), True)
    joined = concatenate(sets, [(raw, (5, 3)), (made, (5, 2))], -1)[1]
    assert joined.tolist() == [2, 3, 4, 0, 1]


@pytest.mark.parametrize(("start", "stop", "wanted"), [(0, 3, [0, 1, 2, 0, 1, 2]), (4, 6, [0, 1, 0, 1, 0, 1])])
def test_equal_parts_shrink_alike(start, stop, wanted):
    sets = AtomSets()
    atoms = sets.fresh(6)
    assert part(sets, atoms, start, stop).tolist() == list(range(start, stop))
    assert units(sets, atoms) == wanted
    assert not sets.reasons()


def test_other_parts_are_literals():
    sets = AtomSets()
    atoms = sets.fresh(6)
    assert np.array_equal(part(sets, atoms, 1, 5), atoms[1:5])
    assert set(sets.reasons().values()) == {"is sliced at literal channel numbers (1:5 of 6)"}
