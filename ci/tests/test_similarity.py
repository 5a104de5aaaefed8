"""analysis/similarity.py: CKA against its definition, what it must and must not see, what unrelated features score."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4d_lib.analysis.similarity import CKA, cka

N, P, Q = 12, 5, 7


def features(seed: int, n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sides that share a part."""
    chance = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 2, generator=chance, dtype=torch.float64)
    a, b = (torch.randn(n, width, generator=chance, dtype=torch.float64) for width in (P, Q))
    return a + torch.cat([common, common, common[:, :1]], 1), b + torch.cat([common] * 3 + [common[:, :1]], 1)


def orthogonal(size: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed),
                                       dtype=torch.float64)).Q


def by_definition(a: torch.Tensor, b: torch.Tensor) -> float:
    """Kornblith et al. 2019: |YᵀX|² / |XᵀX||YᵀY|, Frobenius, of centred features."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()))


def u_statistic(a: torch.Tensor, b: torch.Tensor) -> float:
    """HSIC as the mean of its kernel over all ordered quadruples of different samples (Song et al. 2012)."""
    k, l = a @ a.T, b @ b.T
    total = count = 0
    for i, j, q, r in itertools.permutations(range(len(a)), 4):
        total += float(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]))
        count += 1
    return total / count


def test_biased_cka_is_its_definition():
    a, b = features(0)
    assert cka(a, b, debiased=False) == pytest.approx(by_definition(a, b))


def test_debiased_cka_is_the_u_statistic_over_all_quadruples():
    a, b = features(1, n=7)
    expected = u_statistic(a, b) / (u_statistic(a, a) * u_statistic(b, b)) ** 0.5
    assert cka(a, b) == pytest.approx(expected)


@given(st.integers(0, 10**6), st.floats(1e-4, 1e4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_rotation_scale_shift_order_of_samples_and_of_sides_do_not_matter(seed, scale, debiased):
    a, b = features(seed)
    plain = cka(a, b, debiased)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    assert cka(scale * a @ orthogonal(P, seed) + 3, b @ orthogonal(Q, seed + 1), debiased) == pytest.approx(plain)
    assert cka(a[order], b[order], debiased) == pytest.approx(plain)
    assert cka(b, a, debiased) == pytest.approx(plain)
    assert cka(a, a @ orthogonal(P, seed), debiased) == pytest.approx(1)


def test_an_invertible_map_that_is_no_rotation_does_matter():
    a, b = features(2)
    stretched = a * torch.tensor([1.0, 30, 1, 1, 0.1])
    for debiased in (True, False):
        assert abs(cka(stretched, b, debiased) - cka(a, b, debiased)) > 0.05
        assert cka(stretched, a, debiased) < 0.95
    shuffled = cka(a, b[torch.randperm(N, generator=torch.Generator().manual_seed(0))])
    assert shuffled < cka(a, b) - 0.2, "control: other pairs of samples, other value"


def test_unrelated_wide_features_look_alike_only_when_biased():
    chance = torch.Generator().manual_seed(0)
    biased, debiased = [], []
    for _ in range(30):
        a, b = (torch.randn(20, 200, generator=chance) for _ in range(2))
        biased.append(cka(a, b, debiased=False))
        debiased.append(cka(a, b))
    assert min(biased) > 0.8
    assert abs(sum(debiased) / 30) < 0.03 and min(debiased) < 0


def test_minibatches_give_what_the_whole_gives():
    chance = torch.Generator().manual_seed(0)
    common = torch.randn(1200, 3, generator=chance)
    a, b = (torch.cat([common, torch.randn(1200, 9, generator=chance)], 1) for _ in range(2))
    whole, meter, biased = cka(a, b), CKA(), CKA(debiased=False)
    for one, other in zip(a.split(16), b.split(16)):
        meter.update(one, other)
        biased.update(one, other)
    assert meter.value() == pytest.approx(whole, abs=0.03)
    assert biased.value() > whole + 0.1, "control: without the correction, small batches inflate"
    single = CKA()
    single.update(a, b)
    assert single.value() == whole


def test_what_cannot_be_aligned_is_refused():
    a, b = features(3)
    for debiased in (True, False):
        with pytest.raises(ValueError, match="never varies"):
            cka(a, torch.full_like(b, 0.1), debiased)
    with pytest.raises(ValueError, match="same n samples"):
        cka(a, b[:-1])
    with pytest.raises(ValueError, match="too few"):
        cka(a[:3], b[:3])
    with pytest.raises(ValueError, match="no batch"):
        CKA().value()
