# SPDX-License-Identifier: Apache-2.0
from torch import Tensor

_Triple = tuple[float, float, float]

def compact(
    hessian: Tensor,
    sh: Tensor,
    ridge: _Triple,
    drop_cost: _Triple,
    redundancy_cosine: float,
    redundancy_cost: float,
    result: Tensor,
    threads: int,
) -> None: ...
def newton_step(
    hessian: Tensor,
    gradient: Tensor,
    damping: Tensor,
    relative_prior: float,
    absolute_prior: float,
    result: Tensor,
    threads: int,
) -> None: ...
def round_coefficients(
    hessian: Tensor,
    sh: Tensor,
    steps: Tensor,
    rates: Tensor,
    bit_cost: _Triple,
    anchor: float,
    sweeps: int,
    result: Tensor,
    threads: int,
) -> None: ...
