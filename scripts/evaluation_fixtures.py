"""Writes crates/langevin/tests/reference/evaluation.json: numpy's and scipy's values that `langevin evaluate` is tested against.

    pip install numpy scipy
    python scripts/evaluation_fixtures.py crates/langevin/tests/reference/evaluation.json
"""

import json
import sys

import numpy as np
from scipy.linalg import sqrtm

rng = np.random.default_rng(0)
# Values that float32 and JSON hold exactly.
draw = lambda *shape: np.round(rng.standard_normal(shape) * 64) / 64
real, drawn, few = draw(40, 5) * [1, 2, 1, 0.5, 1], draw(30, 5) + [0, 1, 0.5, 0, 0], draw(3, 5)


def frechet(a, b):
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The trace of sqrtm(s @ t) by its eigenvalues: sqrtm itself is inexact where the product is singular.
    root = np.sqrt(np.maximum(np.linalg.eigvals(s @ t).real, 0)).sum()
    if np.linalg.matrix_rank(s) == len(s):
        assert abs(root - np.trace(sqrtm(s @ t)).real) < 1e-10
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root)


def inside(rows, cloud, k=3):
    distances = np.linalg.norm(cloud[:, None] - cloud[None], axis=-1)
    radii = np.sort(distances, axis=1)[:, k]
    return float((np.linalg.norm(rows[:, None] - cloud[None], axis=-1) <= radii).any(1).mean())


def square_root(matrix):
    return {"matrix": matrix.tolist(), "sqrtm": np.real(sqrtm(matrix)).tolist()}


full = np.cov(draw(40, 6), rowvar=False)
half = draw(6, 3)
json.dump(
    {
        "square_roots": [square_root(m) for m in (full, half @ half.T, np.diag([4.0, 0.0, 9.0]), np.eye(2) * 1e-8)],
        "real": real.tolist(),
        "drawn": drawn.tolist(),
        "few": few.tolist(),
        "frechet": frechet(real, drawn),
        "frechet_few": frechet(few, drawn),
        "precision": inside(drawn, real),
        "recall": inside(real, drawn),
    },
    open(sys.argv[1], "w"),
)
