# SPDX-License-Identifier: Apache-2.0
"""The SH solver's CUDA kernels against the native module: the same bits, emulated here and on a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from potr.encoder.sh_solver import RATE_LEVELS, CompactParameters, RateModel, compact, newton_step, round_coefficients
from potr.render.launcher import Launcher
from tests.helpers.sh_problems import of_every_kind
from tests.helpers.simt import SimtLauncher, needs_gxx

COUNTS = (0, 1, 13, 75)  # splats; a block has room for 8 problems, of which a splat makes 3 (a Newton step: 1)

Solve = Callable[..., Tensor]
RIDGE, DROP = (1e-3, 3e-3, 3e-3), (2e-3, 6e-3, 6e-3)
OPTIONS: dict[str, tuple[Solve, tuple[object, ...]]] = {
    "compact": (compact, (CompactParameters(RIDGE, DROP, 1.0, 2.0),)),
    "compact by redundancy": (compact, (CompactParameters(RIDGE, DROP, 0.6, 2.0),)),
    "compact at no cost": (compact, (CompactParameters((0.0,) * 3, (0.0,) * 3, 0.9, 1.0),)),
    "round": (round_coefficients, ((1e-4, 1e-3, 1e-2),)),
    "round at no cost": (round_coefficients, ((0.0,) * 3,)),
    "newton step": (newton_step, (0.1, 1e-3)),
}


def rates(coefficients: int) -> Tensor:
    return (torch.arange(96.0 * coefficients).double() % 7).reshape(coefficients, 3, RATE_LEVELS).cumsum(-1)


def solved(option: str, hessian: Tensor, sh: Tensor, launcher: Launcher | None = None) -> Tensor:
    solve, parameters = OPTIONS[option]
    n, k, _ = sh.shape
    if solve is round_coefficients:
        parameters = (RateModel(parameters[0], rates(k).to(sh.device)),)  # type: ignore[arg-type]
    between = {
        "round": [(0.02 + 0.01 * torch.arange(3 * k).reshape(k, 3) % 0.1)],
        "newton": [1 + torch.arange(n, dtype=torch.float64) ** 2],
    }.get(option.split()[0], [])
    return solve(hessian, sh, *(t.to(sh.device) for t in between), *parameters, launcher=launcher)


@needs_gxx
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_kernels_give_the_native_modules_bits(option: str, degree: int) -> None:
    for n in COUNTS:
        problem = of_every_kind(n, degree)
        for order in ("forward", "backward", "random:1"):
            emulated = solved(option, *problem, SimtLauncher(order=order))
            assert torch.equal(emulated, solved(option, *problem)), (n, order)


@pytest.mark.gpu
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_gpu_gives_the_native_modules_bits(option: str, degree: int) -> None:
    for n in (*COUNTS, 20_000):
        hessian, sh = of_every_kind(n, degree)
        found, expected = solved(option, hessian.cuda(), sh.cuda()), solved(option, hessian, sh)
        assert found.is_cuda
        assert torch.equal(found.cpu(), expected), n


def test_problems_have_every_kind_of_solution() -> None:
    hessian, sh = of_every_kind(75, 3)
    levels = solved("round", hessian, sh)
    assert int(levels.abs().max()) > 256
    assert 0.1 < float((levels == 0).double().mean()) < 0.9
    for option in ("compact", "compact by redundancy"):
        assert 0.1 < float((solved(option, hessian, sh)[:, 1:] == 0).double().mean()) < 0.95
    assert not torch.equal(solved("compact", hessian, sh), solved("compact by redundancy", hessian, sh))


@pytest.mark.parametrize("solve", [compact, newton_step, round_coefficients])
def test_what_does_not_fit_is_refused(solve: Solve) -> None:
    hessian, sh = of_every_kind(4, 1)
    rest = {
        compact: OPTIONS["compact"][1],
        newton_step: (torch.ones(4), 0.1, 1e-3),
        round_coefficients: (torch.ones(4, 3), RateModel((0.0,) * 3, rates(4))),
    }[solve]
    for problem, message in (
        ((hessian[:, :9], sh), r"hessian: expected float32 \[4, 10\] on cpu, got torch.float32 \[4, 9\] on cpu"),
        ((hessian.double(), sh), "hessian: expected float32"),
        ((hessian.to("meta"), sh), "on meta"),
        ((hessian, sh[:, :3]), "sh: expected float32"),
        ((hessian, sh.double()), "sh: expected float32"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(*problem, *rest)
    if solve is not compact:
        with pytest.raises(ValueError, match=r"damping: expected|steps: expected"):
            solve(hessian, sh, rest[0][:3], *rest[1:])
