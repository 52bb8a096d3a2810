# SPDX-License-Identifier: Apache-2.0
"""``codec=c3dgs`` and ``codec=mesongs``: round trips, what the options do, and bytes from strangers."""

import io
import re
import struct
import zipfile
from dataclasses import fields, replace

import pytest
import torch
import yaml

from potr.errors import BitstreamError, ConfigError, ModelError, SceneError
from potr.evaluate.metrics import psnr
from potr.experiment.peers import c3dgs_model, mesongs_model, peer, peer_class
from potr.experiment.peers.base import PeerEncoded
from potr.experiment.schema import conf_folder
from potr.model.cameras import View
from potr.model.check import check_model
from potr.model.splats import SplatModel
from potr.render.select import select
from tests.helpers.scene_folder import ball_of_splats, camera_around
from tests.helpers.scenes import random_model, random_views

CODECS = {"c3dgs": c3dgs_model, "mesongs": mesongs_model}
QUICK = {"steps": 8, "batch_size": 256, "codebook_size": 32}
EACH = pytest.mark.parametrize("name", CODECS)
RASTERIZER = select("cpu", threads=1)


def ball(sh_degree: int = 3) -> tuple[SplatModel, list[View]]:
    model = ball_of_splats(400, seed=1)
    model = replace(model, sh_ac=model.sh_ac[:, : (sh_degree + 1) ** 2 - 1])
    cameras = [camera_around(0.7 * i) for i in range(8)]
    return model, [View(f"v{i}", c, RASTERIZER.render(model, c, (0, 0, 0))) for i, c in enumerate(cameras)]


def encode(name: str, model: SplatModel, views: list[View], quality: float = 0.5, **options: object) -> PeerEncoded:
    return peer(name, {**QUICK, **options}).encode(model, views, quality, RASTERIZER)


def assert_equal(a: SplatModel, b: SplatModel) -> None:
    for field in fields(SplatModel):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


@EACH
@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_decoding_gives_the_encoders_own_reconstruction(
    name: str, sh_degree: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, views = ball(sh_degree)
    codec = peer(name, QUICK)
    quantized = []

    def serialize(packed: object) -> tuple[bytes, dict[str, int]]:
        quantized.append(packed)
        return CODECS[name].serialize(packed)

    monkeypatch.setattr(f"potr.experiment.peers.{name}.serialize", serialize)
    encoded = codec.encode(model, views, 0.5, RASTERIZER)
    decoded = codec.decode(encoded.data)
    assert_equal(decoded, CODECS[name].dequantize(quantized[0]))
    assert_equal(decoded, codec.decode(encoded.data))
    assert decoded.sh_degree == sh_degree
    check_model(decoded)
    assert encoded.data == codec.encode(model, views, 0.5, RASTERIZER).data
    assert 0 < sum(encoded.sections.values()) < len(encoded.data)
    assert encoded.stages[0].splats_before == model.num_splats
    assert encoded.stages[-1].splats_after == decoded.num_splats


@EACH
def test_renders_stay_close_and_quality_buys_it(name: str) -> None:
    model, views = ball()
    options = {"steps": 8, "batch_size": 256}
    found = []
    for quality in (0.2, 0.9):
        codec = peer(name, options)
        encoded = codec.encode(model, views, quality, RASTERIZER)
        decoded = codec.decode(encoded.data)
        images = [RASTERIZER.render(decoded, view.camera, (0, 0, 0)) for view in views]
        found.append(
            (len(encoded.data), sum(psnr(i, v.read()) for i, v in zip(images, views, strict=True)) / len(views))
        )
    assert found[0][1] <= found[1][1]
    assert found[0][0] <= found[1][0]
    assert found[1][1] > 30


@EACH
@pytest.mark.parametrize("num_splats", [0, 1, 2])
def test_few_splats(name: str, num_splats: int) -> None:
    model, views = ball()
    model = model.select(torch.arange(num_splats) * 7)
    for options in ({}, {"scale_bits": 12} if name == "mesongs" else {"prune_unseen": False}):
        decoded = peer(name).decode(encode(name, model, views, 1.0, **options).data)
        assert decoded.num_splats == num_splats
        torch.testing.assert_close(decoded.means, model.means, atol=2e-3, rtol=0)
        if name == "c3dgs" or "scale_bits" in options:
            order = torch.cdist(model.means, decoded.means).argmin(1) if num_splats else torch.arange(0)
            torch.testing.assert_close(decoded.scales[order].prod(1), model.scales.prod(1), atol=0, rtol=0.05)


@EACH
def test_the_model_is_left_alone_and_so_is_the_global_generator(name: str) -> None:
    model, views = ball()
    copies = {field.name: getattr(model, field.name).clone() for field in fields(SplatModel)}
    state = torch.get_rng_state()
    encode(name, model, views)
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(model, SplatModel(**copies))


@EACH
def test_what_cannot_be_encoded_is_one_clear_error(name: str) -> None:
    model, views = ball()
    with pytest.raises(SceneError, match="found none"):
        encode(name, model, [])
    far = random_model(0)
    far = replace(far, means=far.means + 1e5)
    with pytest.raises(SceneError, match="none of the 2 views has any of the 40 splats in sight"):
        encode(name, far, random_views(0))
    with pytest.raises(ModelError):
        encode(name, replace(model, means=model.means * float("nan")), views)
    with pytest.raises(ConfigError, match="quality"):
        encode(name, model, views, 0.0)


@EACH
def test_options_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown option 'bitz'; there are"):
        peer(name, {"bitz": 3})
    for value in (0, 1.5, True, "many", float("nan")):
        with pytest.raises(ConfigError, match="codebook_size: expected a whole number"):
            peer(name, {"codebook_size": value})
    with pytest.raises(ConfigError, match=r"seed: expected a whole number .* or null"):
        peer(name, {"seed": -1})
    assert peer(name, {"seed": None}).parameters(0.5)["seed"] == 0
    assert peer(name).parameters(0.5)["codebook_size"] == 4096
    assert peer(name, {"codebook_size": 7}).parameters(1.0)["codebook_size"] == 7


@EACH
def test_conf_lists_every_option_with_its_default(name: str) -> None:
    text = (conf_folder() / "codec" / f"{name}.yaml").read_text()
    config = yaml.safe_load(text)
    table = peer_class(name).options
    assert config == {"name": name, "options": {option: o.default for option, o in table.items()}}
    ranges = re.findall(r"\[(\S+), (\S+)\]\n  (\w+):", text)
    numbers = {option: o for option, o in table.items() if o.type is not bool}
    assert {option: (float(low), float(high)) for low, high, option in ranges} == {
        option: (o.low, o.high) for option, o in numbers.items()
    }


def test_positions_beyond_half_precision() -> None:
    model, views = ball()
    model = replace(model, means=torch.cat([model.means[:-1], torch.full((1, 3), 7e4)]))
    with pytest.raises(ModelError, match="half precision"):
        encode("c3dgs", model, views, prune_unseen=False)
    assert encode("c3dgs", model, views).stages[0].splats_after < 400  # nobody sees it, so it goes


def test_c3dgs_keeps_sensitive_splats_as_they_are() -> None:
    model, views = ball()
    sizes = []
    for threshold in (0.0, 1e-4, 1e30):
        encoded = encode("c3dgs", model, views, color_threshold=threshold)
        details = encoded.stages[1].details
        assert encoded.stages[1].name == "cluster colors"
        assert details["shared"] + (details["own"] > 0) > 0
        sizes.append((details["own"], encoded.sections["color.codebook"]))
    assert sizes[0][0] > sizes[1][0] > sizes[2][0] == 0
    assert sizes[0][1] > sizes[1][1] > sizes[2][1]


def test_mesongs_prunes_the_share_and_transforms_scales_of_many_bits() -> None:
    model, views = ball()
    decoded = peer("mesongs").decode(encode("mesongs", model, views, prune_share=0.25).data)
    assert decoded.num_splats == 300
    options = {"prune_share": 0.0, "octree_depth": 12, "bits": 14}
    for scale_bits in (8, 14):
        codec = peer("mesongs", {**QUICK, **options, "scale_bits": scale_bits, "codebook_size": 400})
        decoded = codec.decode(codec.encode(model, views, 0.5, RASTERIZER).data)
        order = torch.cdist(model.means, decoded.means).argmin(1)
        tolerance = 5e-3 if scale_bits == 14 else 2e-2
        torch.testing.assert_close(decoded.log_scales[order], model.log_scales, atol=tolerance, rtol=0)
        torch.testing.assert_close(decoded.sh_dc[order], model.sh_dc, atol=5e-3, rtol=0)
        torch.testing.assert_close(decoded.opacity_logits[order], model.opacity_logits, atol=2e-2, rtol=0)


def test_mesongs_keeps_splats_of_one_cell_apart() -> None:
    model, views = ball()
    decoded = peer("mesongs").decode(encode("mesongs", model, views, prune_share=0.0, octree_depth=2).data)
    assert decoded.num_splats == 400
    assert len(decoded.means.unique(dim=0)) <= 64


@EACH
def test_damaged_bytes_are_bitstream_errors(name: str) -> None:
    """Or they are bytes that say nothing about the model, such as a date in the container."""
    data = encode(name, *ball()).data
    codec = peer(name)
    decoded = codec.decode(data)
    step = len(data) // 60
    for size in [*range(0, 40), *range(40, len(data), step)]:
        with pytest.raises(BitstreamError):
            codec.decode(data[:size])
    refused = 0
    positions = [*range(0, 40), *range(40, len(data), step)]
    for position in positions:
        changed = bytearray(data)
        changed[position] ^= 0x10
        try:
            assert_equal(codec.decode(bytes(changed)), decoded)
        except BitstreamError:
            refused += 1
    assert refused > len(positions) / 2


@EACH
def test_forged_sections_are_errors_or_sound_models(name: str) -> None:
    """Every raw section in turn is given noise, zeros, ones or another length, under checksums that hold."""
    codec, module = peer(name), CODECS[name]
    data = encode(name, *ball()).data
    generator = torch.Generator().manual_seed(0)
    for section in module.SECTIONS:
        raw = raw_sections(data)
        size = len(raw[section])
        noise = [bytes(torch.randint(256, (size,), generator=generator, dtype=torch.uint8).tolist()) for _ in range(5)]
        flips = []
        for _ in range(20 if section == "model" else 5):
            changed = bytearray(raw[section])
            if changed:
                changed[int(torch.randint(size, (1,), generator=generator))] ^= 1 << int(
                    torch.randint(8, (1,), generator=generator)
                )
            flips.append(bytes(changed))
        for other in (*noise, *flips, bytes(size), b"\xff" * size, raw[section][:-1], raw[section] + b"\0"):
            try:
                check_model(codec.decode(repacked({**raw, section: other})))
            except BitstreamError:
                continue


def test_a_file_cannot_claim_splats_that_it_does_not_hold() -> None:
    for name in CODECS:
        raw = raw_sections(encode(name, *ball()).data)
        raw["model"] = struct.pack("<I", 1 << 31) + raw["model"][4:]
        with pytest.raises(BitstreamError, match="no more splats"):
            peer(name).decode(repacked(raw))


def raw_sections(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(raw: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in raw.items():
            archive.writestr(name, content)
    return file.getvalue()
