import numpy as np
import pytest

from longplay.evaluate.frechet import frechet_distance, gaussian_distance


def test_gaussians_with_diagonal_covariance_have_the_closed_form() -> None:
    mean_1, mean_2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    std_1, std_2 = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 1.0])

    found = gaussian_distance(mean_1, np.diag(std_1**2), mean_2, np.diag(std_2**2))

    assert found == pytest.approx(np.square(mean_1 - mean_2).sum() + np.square(std_1 - std_2).sum())


def test_correlated_gaussians_agree_with_a_general_matrix_square_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 6, 6))
    first, second = a @ a.T, b @ b.T
    expected = np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)

    assert gaussian_distance(np.zeros(6), first, np.zeros(6), second) == pytest.approx(expected)


def test_rotation_of_both_sets_changes_nothing() -> None:
    random = np.random.default_rng(1)
    first, second = random.standard_normal((50, 5)), random.standard_normal((60, 5)) @ np.diag([1, 2, 3, 4, 5])
    rotation = np.linalg.qr(random.standard_normal((5, 5)))[0]

    assert frechet_distance(first @ rotation, second @ rotation) == pytest.approx(frechet_distance(first, second))


def test_a_set_is_at_no_distance_from_itself_even_with_fewer_rows_than_dimensions() -> None:
    embeddings = np.random.default_rng(2).standard_normal((20, 200)).astype(np.float32)

    assert frechet_distance(embeddings, embeddings) == pytest.approx(0, abs=1e-5)


def test_a_shift_counts_squared() -> None:
    embeddings = np.random.default_rng(3).standard_normal((100, 4))

    assert frechet_distance(embeddings, embeddings + 3) == pytest.approx(4 * 9)


@pytest.mark.parametrize("shape", [(1, 4), (5, 3), (5,)])
def test_sets_that_cannot_be_compared_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        frechet_distance(np.zeros((5, 4)), np.zeros(shape))
