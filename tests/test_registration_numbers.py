"""Ribs numbered one off are told by the vertebrae that they meet, both ways, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shapemodel.mesh import Mesh
from shapemodel.phantom.shape import surface
from shapemodel.phantom.subject import draw_population, mean_subject
from shapemodel.reasons import StudyError
from shapemodel.registration import Prepared, register
from shapemodel.registration.numbers import Leanings, check_numbers, usual_leanings
from shapemodel.registration.target import sample_target

LABELS = np.arange(1, 38)


@pytest.fixture(scope="module", params=[0, 1])
def person(request: pytest.FixtureRequest) -> Mesh:
    return surface(draw_population(1, 1, 3)[request.param])


@pytest.fixture(scope="module")
def usual() -> Leanings:
    """Of the template: the mean subject."""
    return usual_leanings(surface(mean_subject()))


def checked(mesh: Mesh, usual: Leanings) -> None:
    check_numbers(sample_target(mesh, LABELS, 1000), LABELS, usual)


def renumbered(mesh: Mesh, step: int, sides: tuple[int, ...]) -> Mesh:
    """The ribs of these sides (0 left, 1 right) numbered ``step`` off; what falls off the end is no bone any more."""
    bone = mesh.bone.astype(int)
    for side in sides:
        own = (mesh.bone > 12 * side) & (mesh.bone <= 12 * (side + 1))
        level = bone[own] - 12 * side + step
        bone[own] = np.where((level >= 1) & (level <= 12), level + 12 * side, 40)
    return replace(mesh, bone=bone.astype(np.uint8))


def test_right_numbers_pass(person: Mesh, usual: Leanings) -> None:
    checked(person, usual)


@pytest.mark.parametrize(("step", "true"), [(-1, "next"), (1, "previous")])
@pytest.mark.parametrize("sides", [(0, 1), (1,)], ids=["both", "right"])
def test_numbers_one_off_are_refused_with_the_side(
    person: Mesh, step: int, true: str, sides: tuple[int, ...], usual: Leanings
) -> None:
    with pytest.raises(
        StudyError, match=f"{'left' if 0 in sides else 'right'} ribs .* truly the {true} rib"
    ) as refusal:
        checked(renumbered(person, step, sides), usual)
    assert refusal.value.code == "bad_labels"


def test_two_exchanged_ribs_are_not_a_matter_of_numbers(person: Mesh, usual: Leanings) -> None:
    """They are put right elsewhere."""
    bone = person.bone.copy()
    bone[person.bone == 5], bone[person.bone == 6] = 6, 5
    checked(replace(person, bone=bone), usual)


def test_few_vertebrae_prove_nothing(person: Mesh, usual: Leanings) -> None:
    off = renumbered(person, -1, (0, 1))
    faces = off.faces[(off.bone[off.faces[:, 0]] < 26) | (off.bone[off.faces[:, 0]] > 33)]
    checked(replace(off, faces=faces), usual)


def test_a_registration_compares_with_its_template(prepared: Prepared, target: Mesh) -> None:
    with pytest.raises(StudyError, match="truly the next rib") as refusal:
        register(prepared, renumbered(target, -1, (0, 1)))
    assert refusal.value.code == "bad_labels"
