"""Stage B: one Gauss-Newton step over the thorax-wide and all bone-wise coefficients at once.

The cost of coefficients c is ``|c|^2 + sum w [ (d.e)^2 / sigma_n^2 + |e - d (d.e)|^2 / sigma_t^2 ]`` with e the
vector from the deformed vertex to its partner and d the symmetric normal. Bones couple through the thorax-wide
block only, so their blocks are eliminated (Schur complement) and the solve is as small as the thorax' basis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapemodel.registration.match import Pairs


@dataclass(frozen=True)
class Field:
    """Coefficients of the thorax-wide (r, 3) and the bone-wise (B, q, 3) field."""

    thorax: NDArray[np.float64]
    bone: NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """(B, K, 3r) and (B, K, 3q) derivatives by the two kinds of coefficients and (B, K) what they should add up to,
    all in standard deviations."""

    thorax: NDArray[np.float32]
    bone: NDArray[np.float32]
    e: NDArray[np.float32]


def displacement(field: Field, thorax: NDArray, bone: NDArray, index: NDArray) -> NDArray[np.float64]:
    """(V, 3) mm at vertices with these bases (V, r), (V, q) and bone indices (V,)."""
    u = thorax @ field.thorax.astype(np.float32)
    for b, coefficients in enumerate(field.bone.astype(np.float32)):
        own = np.flatnonzero(index == b)
        u[own] += bone[own] @ coefficients
    return u.astype(np.float64)


def rows(basis: NDArray[np.float32], direction: NDArray) -> NDArray[np.float32]:
    """(..., 3r) derivative of the distance along ``direction`` by the coefficients of ``basis`` (..., r)."""
    out = np.empty((*basis.shape, 3), np.float32)
    for k in range(3):  # one axis at a time: the inner loop then runs along the basis and not over three numbers
        np.multiply(basis, direction[..., k, None].astype(np.float32), out=out[..., k])
    return out.reshape(*basis.shape[:-1], -1)


def isotropic(block: NDArray) -> NDArray[np.float64]:
    """(..., 3a, 3b) of (..., a, b): the same for x, y and z, as the order of ``rows`` has it."""
    a, b = block.shape[-2:]
    out = np.zeros((*block.shape[:-2], 3 * a, 3 * b))
    add_isotropic(out, block)
    return out


def add_isotropic(matrix: NDArray, block: NDArray) -> None:
    """Add ``isotropic(block)`` to a contiguous matrix, in place."""
    a, b = block.shape[-2:]
    split = matrix.reshape(*block.shape[:-2], a, 3, b, 3)
    for k in range(3):
        split[..., :, k, :, k] += block


def solve(
    thorax: NDArray[np.float32],
    bone: NDArray[np.float32],
    pairs: Pairs,
    gap: NDArray,
    sigma: tuple[float, float],
    more: Rows,
) -> Field:
    """The coefficients that minimise the cost.

    Parameters
    ----------
    thorax, bone : (B, R, r), (B, R, q) bases at the vertices of the pairs
    gap : (B, R, 3) partner minus undeformed vertex, mm
    sigma : normal and tangential standard deviation, mm
    more : what is known besides the pairs
    """
    n_bones, _, r = thorax.shape
    jb, tb, e, g = weighted(bone, pairs, gap, sigma)
    jb, e = np.concatenate([jb, more.bone], axis=1), np.concatenate([e, more.e], axis=1)
    hbb, rb = normal_equations(jb, tb, e, g)
    jg, tg, _, _ = weighted(thorax, pairs, gap, sigma)
    jg = np.concatenate([jg, more.thorax], axis=1)
    side = tb.transpose(0, 2, 1) @ tg
    hbg = jb.transpose(0, 2, 1) @ jg
    add_isotropic(hbg, side)
    eliminated = np.linalg.solve(hbb, np.concatenate([hbg, rb[..., None]], axis=2))
    x, own = np.ascontiguousarray(eliminated[..., :-1]), eliminated[..., -1]
    flat_x, flat_t = x.reshape(-1, 3 * r), tg.reshape(-1, r)
    # The complement as a sum of squares: what the bones leave of each row. The difference of two matrices of size 1e8
    # in single precision would not see the prior, which is 1, and has steps that lead anywhere.
    jg -= jb @ x.astype(np.float32)
    left = jg.reshape(-1, 3 * r)
    schur = (left.T @ left).astype(np.float64) + np.eye(3 * r)
    right = (left.T @ e.ravel()).astype(np.float64)
    add_isotropic(schur, flat_t.T @ flat_t)
    right += (flat_t.T @ g.reshape(-1, 3)).ravel()
    held = isotropic(tb.transpose(0, 2, 1) @ tb) + np.eye(hbb.shape[-1])
    cross = held @ x
    add_isotropic(cross, -2.0 * side)
    mixed = flat_x.T @ cross.reshape(-1, 3 * r)
    schur += 0.5 * (mixed + mixed.T)
    right -= flat_x.T @ (tb.transpose(0, 2, 1) @ g).reshape(-1).astype(np.float64)
    cg = np.linalg.solve(schur, right)
    cb = own - x @ cg
    return Field(cg.reshape(r, 3), cb.reshape(n_bones, -1, 3))


def solve_bones(
    bone: NDArray[np.float32], pairs: Pairs, gap: NDArray, sigma: tuple[float, float], more: Rows
) -> NDArray:
    """(B, q, 3) bone-wise coefficients while the thorax-wide field rests; ``gap`` is measured from under that."""
    j, t, e, g = weighted(bone, pairs, gap, sigma)
    j, e = np.concatenate([j, more.bone], axis=1), np.concatenate([e, more.e], axis=1)
    matrix, right = normal_equations(j, t, e, g)
    return np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0].reshape(*bone.shape[::2], 3))


def weighted(basis: NDArray, pairs: Pairs, gap: NDArray, sigma: tuple[float, float]) -> tuple[NDArray, ...]:
    """Whitened rows: along the normal (B, R, 3r) and e (B, R), isotropic (B, R, r) and g (B, R, 3)."""
    loose = pairs.weight / sigma[1] ** 2
    firm = np.sqrt(pairs.weight / sigma[0] ** 2 - loose)
    root = np.sqrt(loose)
    j = rows(basis, pairs.direction * firm[..., None])
    t = basis * root.astype(np.float32)[..., None]
    e = (firm * (pairs.direction * gap).sum(-1)).astype(np.float32)
    return j, t, e, (root[..., None] * gap).astype(np.float32)


def normal_equations(j: NDArray, t: NDArray, e: NDArray, g: NDArray) -> tuple[NDArray, NDArray]:
    """(B, 3q, 3q) matrix with the prior, (B, 3q) right side of each bone."""
    jt, tt = j.transpose(0, 2, 1), t.transpose(0, 2, 1)
    matrix = (jt @ j).astype(np.float64) + isotropic((tt @ t).astype(np.float64)) + np.eye(j.shape[2])
    right = (jt @ e[..., None])[..., 0] + (tt @ g).reshape(len(j), -1)
    return matrix, right.astype(np.float64)


def solve_held(
    basis: NDArray[np.float32], pairs: Pairs, gap: NDArray, sigma: tuple[float, float]
) -> NDArray[np.float64]:
    """(B, q, 3) coefficients of each bone on its own; the tangential term holds vertices where they are.

    ``gap`` is measured from where the vertices are before this field; only its normal part pulls.
    """
    q = basis.shape[2]
    firm = np.sqrt(pairs.weight / sigma[0] ** 2)
    hold = np.full(pairs.weight.shape, 1.0 / sigma[1]).astype(np.float32)
    j = rows(basis, pairs.direction) * firm.astype(np.float32)[..., None]
    e = (firm * (pairs.direction * gap).sum(-1)).astype(np.float32)
    # hold (I - d d'): isotropic part minus normal part
    t = basis * hold[..., None]
    back = rows(basis, pairs.direction) * hold[..., None]
    h = isotropic((t.transpose(0, 2, 1) @ t).astype(np.float64)) - (back.transpose(0, 2, 1) @ back).astype(np.float64)
    h += (j.transpose(0, 2, 1) @ j).astype(np.float64) + np.eye(3 * q)
    right = (j.transpose(0, 2, 1) @ e[..., None]).astype(np.float64)
    return np.linalg.solve(h, right)[..., 0].reshape(len(basis), q, 3)
