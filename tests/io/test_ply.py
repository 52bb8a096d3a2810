# SPDX-License-Identifier: Apache-2.0
import dataclasses
import logging
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potr.errors import ModelError, PotrError
from potr.io.ply import load_ply, save_ply
from potr.model.check import check_model, clean_model
from potr.model.splats import SH_COEFFICIENTS, SplatModel

FIELDS = [field.name for field in dataclasses.fields(SplatModel)]


def random_model(n: int = 20, sh_degree: int = 3, seed: int = 0) -> SplatModel:
    g = torch.Generator().manual_seed(seed)
    rest = SH_COEFFICIENTS[sh_degree] - 1
    shapes = ((n, 3), (n, 3), (n, 4), (n,), (n, 3), (n, rest, 3))
    return SplatModel(*(torch.randn(shape, generator=g) for shape in shapes))


def assert_same(a: SplatModel, b: SplatModel) -> None:
    for name in FIELDS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=0, rtol=0, msg=name)


def vertices(path: Path) -> np.ndarray:
    return plyfile.PlyData.read(str(path), mmap=False)["vertex"].data


def write(path: Path, rows: np.ndarray, text: bool = False, byte_order: str = "<", name: str = "vertex") -> Path:
    plyfile.PlyData([plyfile.PlyElement.describe(rows, name)], text=text, byte_order=byte_order).write(str(path))
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_ply(random_model(), tmp_path / "model.ply")
    return tmp_path / "model.ply"


@settings(deadline=None)
@given(n=st.integers(1, 40), sh_degree=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_load_undoes_save_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, n: int, sh_degree: int, seed: int):
    path = tmp_path_factory.mktemp("ply") / "model.ply"
    model = random_model(n, sh_degree, seed)
    save_ply(model, path)
    assert_same(load_ply(path), model)


def test_more_splats_than_are_converted_at_once(tmp_path: Path) -> None:
    model = random_model(20_001, sh_degree=1)
    save_ply(model, tmp_path / "model.ply")
    assert_same(load_ply(tmp_path / "model.ply"), model)


def test_layout_is_the_62_properties_of_3dgs(saved: Path) -> None:
    rows, model = vertices(saved), random_model()
    rest = [f"f_rest_{i}" for i in range(45)]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest]
    expected += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert list(rows.dtype.names) == expected
    assert rows.dtype.itemsize == 248
    assert not rows["ny"].any()
    # Channel-major: coefficient 2 of green is the 15 of red and then two more.
    np.testing.assert_array_equal(rows["f_rest_17"], model.sh_ac[:, 2, 1].numpy())


@pytest.mark.parametrize(("text", "byte_order"), [(True, "="), (False, "<"), (False, ">")])
def test_ascii_and_both_endians(saved: Path, tmp_path: Path, text: bool, byte_order: str) -> None:
    other = write(tmp_path / "other.ply", vertices(saved), text, byte_order)
    model = load_ply(other)
    assert_same(model, random_model())
    assert model.means.numpy().dtype.isnative


def test_any_order_extra_properties_and_other_types(saved: Path, tmp_path: Path) -> None:
    rows = vertices(saved)
    names = [name for name in reversed(rows.dtype.names) if name not in ("nx", "ny", "nz")]
    types = [(name, "f8" if name == "x" else "f4") for name in names]
    shuffled = np.zeros(len(rows), [("segment", "u1"), *types, ("age", "i4")])
    for name in names:
        shuffled[name] = rows[name]
    assert_same(load_ply(write(tmp_path / "other.ply", shuffled)), random_model())


def test_other_elements_are_ignored(saved: Path, tmp_path: Path) -> None:
    element = plyfile.PlyElement.describe
    faces = np.array([([0, 1, 2],)], dtype=[("vertex_indices", "i4", (3,))])
    both = plyfile.PlyData([element(vertices(saved), "vertex"), element(faces, "face")], byte_order="<")
    both.write(str(tmp_path / "other.ply"))
    assert_same(load_ply(tmp_path / "other.ply"), random_model())


def test_refuses_to_overwrite(saved: Path) -> None:
    with pytest.raises(PotrError, match=r"model\.ply: exists already"):
        save_ply(random_model(seed=1), saved)
    assert_same(load_ply(saved), random_model())
    save_ply(random_model(seed=1), saved, overwrite=True)
    assert_same(load_ply(saved), random_model(seed=1))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.ply: cannot read the model: No such file"):
        load_ply(tmp_path / "none.ply")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"plywood is no model\n" * 9, bytes(range(256)) * 4])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.ply").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.ply: expected a \.ply file starting with 'ply', found"):
        load_ply(tmp_path / "model.ply")


def test_missing_properties_are_named(saved: Path, tmp_path: Path) -> None:
    rows = vertices(saved)
    kept = rows[[name for name in rows.dtype.names if name not in ("opacity", "rot_2")]]
    with pytest.raises(ModelError, match=r"2 properties are missing \(opacity, rot_2\)"):
        load_ply(write(tmp_path / "other.ply", np.array(kept.tolist(), _packed(kept))))


def _packed(rows: np.ndarray) -> np.dtype:
    return np.dtype([(name, rows.dtype[name]) for name in rows.dtype.names])


def test_a_point_cloud_is_no_model(tmp_path: Path) -> None:
    points = np.zeros(3, [(name, "f4") for name in ("x", "y", "z", "red", "green", "blue")])
    with pytest.raises(
        ModelError, match=r"not a 3DGS model: 11 properties are missing \(f_dc_0, .* found x, y, z, red"
    ):
        load_ply(write(tmp_path / "points.ply", points))


def test_wrong_number_of_sh_coefficients(saved: Path, tmp_path: Path) -> None:
    rows = vertices(saved)
    kept = rows[[name for name in rows.dtype.names if name != "f_rest_44"]]
    with pytest.raises(ModelError, match=r"expected \[0, 9, 24, 45\] f_rest properties .* found 44"):
        load_ply(write(tmp_path / "other.ply", np.array(kept.tolist(), _packed(kept))))


def test_no_vertex_element(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected an element 'vertex', found point"):
        load_ply(write(tmp_path / "other.ply", vertices(saved), name="point"))


@pytest.mark.parametrize("text", [True, False])
def test_no_vertices(saved: Path, tmp_path: Path, text: bool) -> None:
    with pytest.raises(ModelError, match=r"expected at least one splat, found 0 vertices"):
        load_ply(write(tmp_path / "other.ply", vertices(saved)[:0], text))


def test_list_property_instead_of_a_scalar(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes().replace(b"property float opacity", b"property list uchar float opacity", 1)
    body = content.index(b"end_header\n") + len(b"end_header\n")
    values = np.frombuffer(content[body:], "<f4").reshape(-1, 62)
    lists = b"".join(row[:54].tobytes() + b"\x01" + row[54:].tobytes() for row in values)
    (tmp_path / "other.ply").write_bytes(content[:body] + lists)
    with pytest.raises(ModelError, match="expected scalar properties, found lists: opacity"):
        load_ply(tmp_path / "other.ply")


@pytest.mark.parametrize("text", [True, False])
def test_truncated_at_any_place(saved: Path, tmp_path: Path, text: bool) -> None:
    whole = write(tmp_path / "whole.ply", vertices(saved), text).read_bytes()
    cut = tmp_path / "cut.ply"
    body = whole.index(b"end_header\n") + len(b"end_header\n")
    last = len(whole) - (40 if text else 1)  # in text a shorter last number is a number all the same
    for length in {*range(5, body, 37), *range(body, last, 211), last}:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.ply: (the file ends early|not a readable \.ply)"):
            load_ply(cut)


@pytest.mark.parametrize("text", [True, False])
def test_a_lying_count(saved: Path, tmp_path: Path, text: bool) -> None:
    honest = write(tmp_path / "honest.ply", vertices(saved), text).read_bytes()
    for count in (b"21", b"1000000", b"4000000000000000", b"99999999999999999999999999", b"-1", b"many"):
        (tmp_path / "liar.ply").write_bytes(honest.replace(b"element vertex 20", b"element vertex " + count))
        with pytest.raises(ModelError, match=r"liar\.ply: "):
            load_ply(tmp_path / "liar.ply")


@settings(deadline=None)
@given(data=st.data())
def test_any_damage_to_the_header_is_a_model_error_or_a_model(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ply")
    save_ply(random_model(2, 0), folder / "model.ply")
    content = bytearray((folder / "model.ply").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "damaged.ply").write_bytes(content)
    try:
        model = load_ply(folder / "damaged.ply")
    except ModelError:
        return
    check_model(model)


DEFECTS = {
    "means": [(float("nan"), "NaN"), (float("-inf"), "infinite values"), (2e6, "a mean beyond 1e+06")],
    "log_scales": [(-41.0, "a log-scale outside -40..20"), (21.0, "a log-scale outside -40..20")],
    "quats": [(0.0, "a zero-norm quaternion"), (1e11, "a quaternion component beyond 1e+10")],
    "opacity_logits": [(float("inf"), "infinite values"), (-101.0, "an opacity logit beyond 100")],
    "sh_dc": [(float("nan"), "NaN"), (1001.0, "an SH coefficient beyond 1000")],
    "sh_ac": [(float("nan"), "NaN"), (-1001.0, "an SH coefficient beyond 1000")],
}


@pytest.mark.parametrize(("field", "value", "kind"), [(f, *case) for f, cases in DEFECTS.items() for case in cases])
def test_each_kind_of_defect_is_counted_and_cleaned(tmp_path: Path, field: str, value: float, kind: str) -> None:
    model = random_model(9)
    damaged = getattr(model, field).clone()
    damaged[[2, 5]] = value
    save_ply(dataclasses.replace(model, **{field: damaged}), tmp_path / "model.ply")
    with pytest.raises(ModelError) as refusal:
        load_ply(tmp_path / "model.ply")
    assert f"2 of 9 splats are unusable: 2 with {kind} (clean=True" in str(refusal.value)
    assert_same(load_ply(tmp_path / "model.ply", clean=True), model.select(torch.tensor([0, 1, 3, 4, 6, 7, 8])))


def test_clean_reports_each_kind_once_per_splat(caplog: pytest.LogCaptureFixture) -> None:
    model = random_model(6)
    means, quats = model.means.clone(), model.quats.clone()
    means[0, :2] = float("nan")
    means[1, 2] = float("inf")
    quats[:2] = 0
    with caplog.at_level(logging.WARNING, "potr"):
        cleaned, report = clean_model(dataclasses.replace(model, means=means, quats=quats))
    assert cleaned.num_splats == 4
    assert dict(report.counts) == {"NaN": 1, "infinite values": 1, "a zero-norm quaternion": 2}
    assert (report.splats, report.removed) == (6, 2)
    assert "2 of 6 splats are unusable: 1 with NaN; 1 with infinite values; 2 with a zero-norm" in caplog.text


def test_a_sound_model_comes_back_as_it_is() -> None:
    model = random_model(6)
    cleaned, report = clean_model(model)
    assert cleaned is model
    assert report.removed == 0
    assert str(report) == "all 6 splats are sound"


def test_cleaning_everything_away_is_refused() -> None:
    model = random_model(3)
    with pytest.raises(ModelError, match="nothing is left after cleaning: 3 of 3 splats"):
        clean_model(dataclasses.replace(model, quats=torch.zeros_like(model.quats)))


def test_swapped_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        PotrError, match=r"expected save_ply\(model, path\), found save_ply\(str, SplatModel\): swapped"
    ):
        save_ply("model.ply", random_model())  # type: ignore[arg-type]
    with pytest.raises(PotrError, match=r"found save_ply\(bytes, \w*Path\)$"):
        save_ply(b"", tmp_path / "model.ply")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
