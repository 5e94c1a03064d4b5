"""Flags of a labelled scan: raised beyond their limits and by the place of a cut, silent otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from shapemodel.anatomy import MODEL_LABELS, RIBS, STERNUM, rib
from shapemodel.labels.numbering import Numbering, _pair_flags
from shapemodel.labels.quality import study_flags
from shapemodel.labels.records import BoneStatus, Labelled
from shapemodel.labels.ribs import Start
from shapemodel.labels.spine import Discs
from shapemodel.reasons import Flag

FINE = {
    "level_share": 0.9,
    "canal_rays": 0.75,
    "disc_contrast": 1.1,
    "lung_ratio": 0.9,
    "contrast_ml": 0.0,
    "metal_ml": 0.0,
    "sternum_mm": 55.0,
    "sternum_bone": 0.9,
    "cartilage_ml": 0.0,
    "lumbar_hold": 0.95,
    "lumbar_neck": 0.95,
}


def codes(measures=None, bones=None, trimmed=None) -> set[str]:
    empty = np.zeros(0)
    numbering = Numbering(np.zeros((1, 1, 1), np.uint8), {}, Discs(empty, empty, empty), 0.9, 20, (), (), 1, ())
    all_bones = {k: BoneStatus("complete", (), 0.9, 20.0, 1) for k in MODEL_LABELS}
    all_bones |= {STERNUM: BoneStatus("complete", (), 0.9, 50.0, 1)} | (bones or {})
    return {f.code for f in study_flags(FINE | (measures or {}), numbering, all_bones, trimmed or {})}


def test_an_ordinary_study_is_not_flagged():
    assert codes() == set()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("level_share", 0.52, "numbering_weak"),
        ("canal_rays", 0.58, "canal_weak"),
        ("disc_contrast", 0.5, "disc_unsure"),
        ("lung_ratio", 0.3, "lung_uneven"),
        ("contrast_ml", 400.0, "contrast"),
        ("metal_ml", 0.3, "metal"),
        ("sternum_mm", 80.0, "sternum_odd"),
        ("sternum_bone", 0.45, "sternum_odd"),
        ("lumbar_hold", 0.45, "variant_pairs"),
        ("lumbar_neck", 0.6, "variant_pairs"),
    ],
)
def test_each_measure_has_its_flag(name, value, code):
    assert codes({name: value}) == {code}


def test_bones_are_flagged_for_what_they_are():
    assert codes(trimmed={rib("left", 1): 8.5}) == {"cartilage_bridge"}
    assert codes(trimmed={rib("left", 1): 3.5}) == set()
    assert codes(bones={STERNUM: BoneStatus("absent")}) == {"sternum_odd"}
    assert codes(bones={STERNUM: BoneStatus("complete", (), 0.9, 14.0, 1)}) == {"sternum_odd"}
    assert codes(bones={STERNUM: BoneStatus("cut", ("zmax",), 0.9, 14.0, 1)}) == set()
    assert codes(bones={RIBS[4]: BoneStatus("complete", (), 0.9, 8.0, 1)}) == {"side_ratio"}
    assert codes(bones={RIBS[4]: BoneStatus("complete", (), 0.9, 20.0, 2)}) == {"pieces"}


def test_a_top_that_cuts_more_than_first_ribs_is_flagged():
    cut = BoneStatus("cut", ("zmax",), 0.9, 8.0, 1)
    assert codes(bones={rib("left", 1): cut, rib("right", 1): cut}) == set()
    assert codes(bones={rib("left", 2): cut}) == {"field_of_view"}


def test_much_metal_asks_for_a_look_and_a_little_does_not():
    assert codes({"metal_ml": 3.0}) == {"metal", "metal_much"}


def test_facts_of_the_scan_are_remarks_and_ask_for_no_second_look():
    facts = tuple(Flag(c, 0, "") for c in ("contrast", "metal", "field_of_view", "stub"))
    labelled = Labelled(None, {}, (*facts, Flag("metal_much", 0, "")), (160.0, 220.0), 4000.0, "up", 0.9)
    assert [f.code for f in labelled.review] == ["metal_much"]


def test_a_bone_of_which_under_10_mm_is_seen_is_marked():
    stub = BoneStatus("cut", ("zmin",), 0.9, 0.3, 1, 8.0)
    assert codes(bones={rib("left", 12): stub}) == {"stub"}
    assert codes(bones={rib("left", 12): BoneStatus("cut", ("zmin",), 0.9, 0.3, 1, 12.0)}) == set()


def test_a_rib_without_partner_is_flagged_also_at_the_bottom():
    """A stump that only one side of the scan shows hid a wrong twelfth rib of a phantom."""
    left = [Start(s, "left", 1, (0.0, 0.0, 0.0), 0.6, False, -15.0) for s in (300, 275, 250, 225)]
    right = [Start(s, "right", 1, (0.0, 0.0, 0.0), 0.6, False, -15.0) for s in (301, 274, 252)]
    pairs = list(zip(left, [*right, None], strict=True))
    assert [f.code for f in _pair_flags(pairs, 9)] == ["rib_pairs"]
    assert _pair_flags(pairs[:3], 9) == []
