# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from potr.errors import ModelError
from potr.model.opponent import opponent_to_rgb, rgb_to_opponent
from potr.model.rotation import quats_to_matrices
from potr.model.sh import sh_basis
from potr.model.splats import SplatModel


def test_sh_basis_is_orthonormal_over_the_sphere() -> None:
    # Gauss-Legendre in z times uniform in azimuth integrates these polynomials exactly.
    nodes, weights = (
        torch.tensor([-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526]),
        (torch.tensor([0.3478548451374538, 0.6521451548625461, 0.6521451548625461, 0.3478548451374538])),
    )
    azimuth = torch.arange(8) * (2 * math.pi / 8)
    z, phi = torch.meshgrid(nodes.double(), azimuth.double(), indexing="ij")
    r = (1 - z * z).sqrt()
    basis = sh_basis(torch.stack([r * phi.cos(), r * phi.sin(), z], -1), 3)
    gram = torch.einsum("ijk,ijl,i->kl", basis, basis, weights.double()) * (2 * math.pi / 8)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=1e-6, rtol=0)


def test_opponent_colours_are_orthonormal() -> None:
    rgb = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(opponent_to_rgb(rgb_to_opponent(rgb)), rgb)
    torch.testing.assert_close(rgb_to_opponent(rgb).square().sum(), rgb.square().sum())


def test_opposite_quaternions_are_the_same_rotation() -> None:
    quats = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quats_to_matrices(-2.5 * quats), quats_to_matrices(quats))


def test_model_names_the_wrong_tensor() -> None:
    n = 3
    with pytest.raises(ModelError, match=r"quats: expected shape \(3, 4\), got \(3, 3\)"):
        SplatModel(
            torch.zeros(n, 3),
            torch.zeros(n, 3),
            torch.zeros(n, 3),
            torch.zeros(n),
            torch.zeros(n, 3),
            torch.zeros(n, 0, 3),
        )
