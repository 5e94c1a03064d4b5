"""The published parameters of the registration, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PriorSettings:
    """What deformations are expected, as Gaussian processes (length, amplitude) in mm.

    Attributes
    ----------
    thorax : kernels of the thorax-wide field; ``rank`` of its basis, from ``landmarks`` Nystrom points
    thorax_shift, thorax_linear : standard deviation of a shift (mm) and of each entry of a linear map (1)
    bone : kernels of the motion that each bone has of its own, with ``bone_rank``
    bone_shift, bone_linear : the same for a bone about its centroid
    fine : kernels of the last, bone-wise fit, with ``fine_rank``
    nodes : template vertices a bone that carry the fit
    """

    thorax: tuple[tuple[float, float], ...] = ((200.0, 20.0), (100.0, 8.0), (60.0, 3.0))
    rank: int = 150
    landmarks: int = 400
    thorax_shift: float = 20.0
    thorax_linear: float = 0.15
    bone: tuple[tuple[float, float], ...] = ((60.0, 2.0), (20.0, 0.8))
    bone_rank: int = 25
    bone_shift: float = 3.0
    bone_linear: float = 0.1
    fine: tuple[tuple[float, float], ...] = ((20.0, 1.5), (10.0, 1.0))
    fine_rank: int = 60
    nodes: int = 400


@dataclass(frozen=True)
class RegistrationSettings:
    """How one target is fitted.

    Attributes
    ----------
    prior : the deformation prior; a template is prepared for one prior
    samples : points a bone that are drawn on the target; ``rib_samples`` those a rib that its relief is read from
    soft_template, soft_target : points a bone in the soft assignment
    soft_sigma : its widths, mm, each held for ``soft_steps`` steps
    soft_outlier : fraction of points taken to have no partner
    coarse_rank : modes of the thorax-wide field, widest first, in the soft assignment and in coarse steps
    coarse_steps, coarse_nodes : joint Gauss-Newton steps on the first so many nodes a bone
    anchor_steps : joint steps before which ends and places of shafts of ribs are looked for; between them they stay
    cut_steps : the first joint steps, in which what lies beyond the cut of a rib has no partner
    free_steps : the first joint steps, in which a rib of which one end only is known goes by the places of its shaft:
        the soft assignment leaves one that is longer than the template's 20 mm short, where nearest points hold it
    doubt : (least, most) times that standard deviations of places of shafts are taken: of bones whose surface is like
        the target's nowhere, and of those that have it; in between by how much they agree
    joint_steps, bone_steps : further ones on all nodes: of all fields together, of each bone alone
    sigma_normal : (first, last) standard deviation of the distance along the normal, mm
    sigma_tangent : (first, last) of the distance along the surface, mm; it only damps
    backward : weight of target-to-template pairs, of which there are ``backward_samples`` a bone
    contact_rounds : pushes that move bones apart again, for a template whose own bones do not cut each other
    fine_steps, fine_sigma, fine_tangent : the bone-wise fit: steps, sigma along and across the normal, mm
    """

    prior: PriorSettings = PriorSettings()
    samples: int = 4000
    rib_samples: int = 8000
    soft_template: int = 160
    soft_target: int = 200
    soft_sigma: tuple[float, ...] = (14.0, 10.0, 7.0, 5.0, 3.5)
    soft_steps: int = 7
    soft_outlier: float = 0.1
    coarse_rank: int = 84
    coarse_steps: int = 11
    coarse_nodes: int = 160
    anchor_steps: tuple[int, ...] = (0,)
    cut_steps: int = 4
    free_steps: int = 7
    doubt: tuple[float, float] = (0.1, 3.2)
    joint_steps: int = 2
    bone_steps: int = 4
    sigma_normal: tuple[float, float] = (3.0, 0.25)
    sigma_tangent: tuple[float, float] = (20.0, 200.0)
    backward: float = 0.5
    backward_samples: int = 120
    fine_steps: int = 3
    fine_sigma: float = 0.4
    fine_tangent: float = 0.6
    contact_rounds: int = 4
