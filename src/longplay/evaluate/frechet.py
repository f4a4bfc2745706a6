"""Frechet distance of two sets of embeddings, each taken as one Gaussian with full covariance.

d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared 2-Wasserstein distance of the Gaussians (Dowson and
Landau 1982; as a score for generators: Heusel et al. 2017, for audio: Kilgour et al. 2019). The product of two
covariances is similar to the symmetric C1^(1/2) C2 C1^(1/2), whose eigenvalues give the trace without a general
matrix square root, also for singular covariances (fewer embeddings than dimensions).
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def frechet_distance(first: Array, second: Array) -> float:
    """Squared Frechet distance of two sets of embeddings [n, D] and [m, D], computed in float64.

    It shrinks with the number of embeddings, so compare only figures that come from sets of the same sizes.

    Raises:
        ValueError: fewer than two embeddings in a set, or different dimensions.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(f"embeddings {first.shape} and {second.shape}: expected [n, D] and [m, D] with n, m > 1")
    a, b = first.astype(np.float64), second.astype(np.float64)
    return gaussian_distance(a.mean(0), _covariance(a), b.mean(0), _covariance(b))


def gaussian_distance(mean_1: Array, covariance_1: Array, mean_2: Array, covariance_2: Array) -> float:
    """Squared Frechet distance of two Gaussians with means [D] and covariances [D, D]."""
    root = _root(covariance_1)
    eigenvalues = np.linalg.eigvalsh(root @ covariance_2 @ root)
    cross = np.sqrt(eigenvalues.clip(min=0)).sum()
    distance = np.square(mean_1 - mean_2).sum() + np.trace(covariance_1) + np.trace(covariance_2) - 2 * cross
    return max(0.0, float(distance))


def _covariance(embeddings: Array) -> Array:
    return np.atleast_2d(np.cov(embeddings, rowvar=False))


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
