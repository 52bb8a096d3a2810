# SPDX-License-Identifier: Apache-2.0
"""gsplat's PNG layout, and the sort and the palette that we put in the place of theirs."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from potr.errors import BitstreamError, ModelError
from potr.io.clean import MAX_MEAN
from potr.peers import peer
from potr.peers.grid_sort import sort_to_grid
from potr.peers.palette import palette
from potr.rasterizer.base import Rasterizer
from potr.rasterizer.select import select
from potr.splats import SplatModel
from tests.helpers.scenes import random_model

GEOMETRY = ("means", "log_scales", "opacity_logits", "sh_dc")


@pytest.fixture(scope="module")
def rasterizer() -> Rasterizer:
    return select("cpu", threads=1)


def matched(model: SplatModel, decoded: SplatModel) -> SplatModel:
    """The splats of ``model`` in the order of ``decoded``, by position."""
    return model.select(torch.cdist(decoded.means, model.means).argmin(1))


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_a_round_trip_is_within_half_a_step(sh_degree: int, rasterizer: Rasterizer) -> None:
    model = random_model(sh_degree, num_splats=256, sh_degree=sh_degree)
    codec = peer("gsplat_png")
    encoded = codec.encode(model, [], 0.5, rasterizer)
    decoded = codec.decode(encoded.data)
    assert (decoded.num_splats, decoded.sh_degree) == (256, sh_degree)
    original = matched(model, decoded)
    for name in GEOMETRY:
        a, b = getattr(original, name), getattr(decoded, name)
        step = (a.amax(0) - a.amin(0)) / 255
        if name == "means":
            step = step / 64  # 16 bits after a logarithm, whose slope is at most 1 + |x|
        assert bool(((a - b).abs() <= step / 2 + 1e-4).all()), name
    directions = torch.nn.functional.normalize(original.quats) * torch.nn.functional.normalize(decoded.quats)
    assert float(directions.sum(1).abs().min()) > 0.9995
    if sh_degree:  # fewer splats than entries: only the 6 bits are lost
        spread = float(model.sh_ac.max() - model.sh_ac.min())
        assert float((original.sh_ac - decoded.sh_ac).abs().max()) <= spread / 63 / 2 + 1e-4
    assert sum(encoded.sections.values()) < len(encoded.data)
    assert encoded.data == codec.encode(model, [], 0.9, rasterizer).data


def test_the_layout_is_gsplat_s(rasterizer: Rasterizer) -> None:
    data = peer("gsplat_png").encode(random_model(0, num_splats=100), [], 0.5, rasterizer).data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = set(archive.namelist())
        meta = json.loads(archive.read("meta.json"))
        with Image.open(io.BytesIO(archive.read("quats.png"))) as image:
            assert (image.size, image.mode) == ((10, 10), "RGBA")
    images = {f"{name}.png" for name in ("means_l", "means_u", "scales", "quats", "opacities", "sh0")}
    assert files == images | {"meta.json", "shN.npz"}
    assert meta["shN"]["shape"] == [100, 15, 3]
    assert meta["shN"]["quantization"] == 6
    assert meta["means"]["shape"] == [100, 3]


def test_the_least_opaque_go_until_a_square_is_left(rasterizer: Rasterizer) -> None:
    model = random_model(1, num_splats=110)
    encoded = peer("gsplat_png").encode(model, [], 0.5, rasterizer)
    decoded = peer("gsplat_png").decode(encoded.data)
    assert decoded.num_splats == encoded.stages[0].splats_after == 100
    assert float(decoded.opacity_logits.min()) == pytest.approx(float(model.opacity_logits.sort().values[10]), abs=1e-4)


def test_one_splat_and_none(rasterizer: Rasterizer) -> None:
    codec = peer("gsplat_png")
    one = random_model(2, num_splats=1)
    assert torch.allclose(codec.decode(codec.encode(one, [], 0.5, rasterizer).data).means, one.means, atol=1e-5)
    with pytest.raises(ModelError, match="empty model"):
        codec.encode(one.select(torch.zeros(1, dtype=torch.bool)), [], 0.5, rasterizer)


def test_the_sort_makes_neighbours_alike_and_the_file_smaller(rasterizer: Rasterizer) -> None:
    g = torch.Generator().manual_seed(0)
    model = random_model(3, num_splats=1024, sh_degree=0)
    smooth = torch.rand(1024, 1, generator=g)
    model = replace(model, sh_dc=smooth.repeat(1, 3), means=smooth.repeat(1, 3), log_scales=smooth.repeat(1, 3) - 3)
    sizes = [len(peer("gsplat_png", {"sort": s}).encode(model, [], 0.5, rasterizer).data) for s in (True, False)]
    assert sizes[0] < 0.95 * sizes[1]
    order = sort_to_grid(smooth)
    assert torch.equal(order.sort().values, torch.arange(1024))  # nobody is lost or doubled
    grid = smooth[order].view(32, 32)
    assert float(grid.diff(dim=0).abs().mean() + grid.diff(dim=1).abs().mean()) < 0.2  # 2/3 in random order
    assert torch.equal(order, sort_to_grid(smooth))


def test_the_palette_is_near_plain_k_means() -> None:
    g = torch.Generator().manual_seed(0)
    centers = torch.randn(16, 9, generator=g) * 4
    vectors = centers[torch.randint(16, (2000,), generator=g)] + 0.1 * torch.randn(2000, 9, generator=g)
    entries, labels = palette(vectors, 64)
    assert len(entries) <= 64
    assert int(labels.max()) < len(entries)
    assert float((entries[labels] - vectors).square().mean()) < 0.02  # 0.01 within the clusters, 13 over all
    few, own = palette(vectors[:10], 64)
    assert torch.equal(few[own], vectors[:10])
    assert len(palette(vectors[:100], 1)[0]) == 1
    same, labels = palette(torch.ones(50, 3), 7)
    assert torch.equal(same[labels], torch.ones(50, 3))


def test_a_palette_smaller_than_the_splats(rasterizer: Rasterizer) -> None:
    model = random_model(4, num_splats=256)
    codec = peer("gsplat_png", {"entries": 16})
    decoded = codec.decode(codec.encode(model, [], 0.5, rasterizer).data)
    assert len(decoded.sh_ac.flatten(1).unique(dim=0)) <= 16


def test_damaged_files_are_refused(rasterizer: Rasterizer) -> None:
    codec = peer("gsplat_png")
    data = codec.encode(random_model(5, num_splats=64), [], 0.5, rasterizer).data
    noise = np.random.default_rng(0)
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(BitstreamError):
            codec.decode(data[:cut])
    whole = codec.decode(data)
    for start in range(0, len(data), 61):  # every member has a CRC-32; a zip's dates and attributes mean nothing
        damaged = bytearray(data)
        damaged[start : start + 4] = noise.bytes(4)
        try:
            decoded = codec.decode(bytes(damaged))
        except BitstreamError:
            continue
        assert torch.equal(decoded.means, whole.means)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("means", "shape", [1 << 50, 3]),
        ("means", "shape", [63, 3]),
        ("means", "mins", [1e30, 0, 0]),
        ("means", "maxs", [9000, 9000, 9000]),
        ("scales", "mins", [float("nan")] * 3),
        ("sh0", "maxs", [0.0]),
        ("shN", "shape", [64, 1 << 40, 3]),
        ("shN", "quantization", 40),
    ],
)
def test_a_lying_table_is_refused(rasterizer: Rasterizer, part: str, key: str, value: object) -> None:
    data = peer("gsplat_png").encode(random_model(5, num_splats=64), [], 0.5, rasterizer).data
    forged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(forged, "w") as new:
        for file in old.namelist():
            content = old.read(file)
            if file == "meta.json":
                meta = json.loads(content)
                meta[part][key] = value
                content = json.dumps(meta).encode()
            new.writestr(file, content)
    with pytest.raises(BitstreamError):
        peer("gsplat_png").decode(forged.getvalue())


def test_a_range_in_the_shape_of_a_column_is_refused(rasterizer: Rasterizer) -> None:
    data = peer("gsplat_png").encode(random_model(5, num_splats=1), [], 0.5, rasterizer).data
    forged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(forged, "w") as new:
        for file in old.namelist():
            content = old.read(file)
            if file == "meta.json":
                meta = json.loads(content)
                for end in ("mins", "maxs"):
                    meta["scales"][end] = [[value] for value in meta["scales"][end]]
                content = json.dumps(meta).encode()
            new.writestr(file, content)
    with pytest.raises(BitstreamError, match="in shape"):
        peer("gsplat_png").decode(forged.getvalue())


def test_the_largest_positions_come_back(rasterizer: Rasterizer) -> None:
    model = random_model(6, num_splats=4)
    model.means[0], model.means[1] = MAX_MEAN, -MAX_MEAN
    codec = peer("gsplat_png", {"sort": False})
    means = codec.decode(codec.encode(model, [], 0.5, rasterizer).data).means
    torch.testing.assert_close(means[:2], model.means[:2], rtol=1e-5, atol=0)
    assert float(means.abs().max()) <= MAX_MEAN
