# SPDX-License-Identifier: Apache-2.0
import torch
from torch import Tensor

from potr.model.rotation import canonical_axes, matrices_to_quats, multiply_quats, quats_to_matrices


def covariance(quats: Tensor, log_scales: Tensor) -> Tensor:
    rotation = quats_to_matrices(quats)
    return rotation @ torch.diag_embed((2 * log_scales).exp()) @ rotation.transpose(1, 2)


def random_quats(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_product_of_quaternions_is_product_of_matrices() -> None:
    a, b = random_quats(40).chunk(2)
    expected = quats_to_matrices(a) @ quats_to_matrices(b)
    torch.testing.assert_close(quats_to_matrices(multiply_quats(a, b)), expected)


def test_matrices_to_quats_is_the_inverse_also_where_components_are_zero() -> None:
    half = 0.5**0.5
    special = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [half, 0, half, 0], [0, half, 0, -half]]
    some = [[half, -half, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, half, half], [1e-9, 1, 0, 0]]
    quats = torch.cat([random_quats(200), torch.tensor([*special, *some], dtype=torch.float64)])
    units = quats / quats.norm(dim=1, keepdim=True)
    found = matrices_to_quats(quats_to_matrices(quats).reshape(30, 7, 3, 3)).reshape(-1, 4)
    sign = (found * units).sum(1, keepdim=True).sign()
    torch.testing.assert_close(found * sign, units, atol=1e-12, rtol=0)


def test_canonical_axes_keep_the_ellipsoid_and_shrink_the_rotation() -> None:
    quats = random_quats(2000)
    log_scales = torch.randn(2000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    canonical, permuted = canonical_axes(quats, log_scales)
    torch.testing.assert_close(covariance(canonical, permuted), covariance(quats, log_scales))
    torch.testing.assert_close(canonical.norm(dim=1), torch.ones(2000, dtype=torch.float64))
    assert float(canonical[:, 0].min()) > 0.85
    assert float(canonical[:, 1:].abs().max()) < 0.39
