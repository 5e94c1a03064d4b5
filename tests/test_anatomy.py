"""The vocabulary is complete, one to one, and mirrors onto itself."""

import pytest

from shapemodel import anatomy


def test_labels_are_the_published_numbers():
    assert anatomy.LABEL["rib_left_01"] == 1
    assert anatomy.LABEL["rib_left_12"] == 12
    assert anatomy.LABEL["rib_right_01"] == 13
    assert anatomy.LABEL["rib_right_12"] == 24
    assert anatomy.LABEL["sternum"] == 25
    assert anatomy.LABEL["vertebra_T01"] == 26
    assert anatomy.LABEL["vertebra_T12"] == 37
    assert anatomy.LABEL["other_bone"] == 40
    assert anatomy.LABEL["costal_cartilage"] == 41


def test_every_name_number_and_colour_is_unique():
    bones = (*anatomy.BONES, *anatomy.RESIDUE)
    assert len(bones) == 39
    assert len({b.name for b in bones}) == len({b.label for b in bones}) == 39
    assert len({b.color for b in bones}) == 39
    assert all(0 <= c <= 255 for b in bones for c in b.color)


def test_mirror_changes_side_and_nothing_else():
    for b in anatomy.BONES:
        m = anatomy.bone(b.mirror)
        assert m.mirror == b.label
        assert (m.kind, m.level) == (b.kind, b.level)
        assert {b.side, m.side} == ({"left", "right"} if b.kind == "rib" else {"middle"})


@pytest.mark.parametrize("key", [0, 38, 255, "rib_left_13", "T5"])
def test_unknown_bones_are_refused(key):
    with pytest.raises(KeyError, match="no bone"):
        anatomy.bone(key)
