# SPDX-License-Identifier: Apache-2.0
"""cameras.json, COLMAP and transforms.json: what they mean, and what is refused."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from potr.errors import SceneError
from potr.io.blender import read_transforms, read_transforms_pair
from potr.io.cameras_json import read_cameras_json, write_cameras_json
from potr.io.colmap import read_colmap
from potr.io.posed_images import Shot
from potr.model.cameras import Camera
from potr.model.rotation import quats_to_matrices

POSE = (0.5, -0.5, 0.5, 0.5, 0.1, 0.2, 4.0)  # wxyz and translation, world to camera
LENS = (500.0, 510.0, 160.0, 118.0)


def viewmat(pose: tuple[float, ...]) -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = quats_to_matrices(torch.tensor(pose[:4], dtype=torch.float64))
    matrix[:3, 3] = torch.tensor(pose[4:], dtype=torch.float64)
    return matrix.float()


def assert_same(a: Camera, b: Camera) -> None:
    assert (a.width, a.height) == (b.width, b.height)
    assert (a.fx, a.fy, a.cx, a.cy) == pytest.approx((b.fx, b.fy, b.cx, b.cy))
    torch.testing.assert_close(a.viewmat, b.viewmat, atol=2e-6, rtol=1e-6)


# cameras.json


ENTRY: dict[str, Any] = {
    "id": 0,
    "img_name": "a.jpg",
    "width": 320,
    "height": 240,
    "position": [1.0, 2.0, 3.0],
    "rotation": [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    "fy": 510.0,
    "fx": 500.0,
}


def cameras_json(folder: Path, *changes: dict[str, Any]) -> Path:
    path = folder / "cameras.json"
    path.write_text(json.dumps([{k: v for k, v in (ENTRY | change).items() if v is not None} for change in changes]))
    return path


def test_cameras_json_rotation_is_camera_to_world(tmp_path: Path) -> None:
    (shot,) = read_cameras_json(cameras_json(tmp_path, {}))
    camera = shot.camera
    assert (shot.name, shot.split) == ("a.jpg", None)
    assert (camera.width, camera.height, camera.fx, camera.fy) == (320, 240, 500, 510)
    assert (camera.cx, camera.cy) == (160, 120)
    torch.testing.assert_close(camera.center, torch.tensor([1.0, 2.0, 3.0]))
    # The third column of the rotation is where the camera looks: here along world x.
    ahead = camera.viewmat @ torch.tensor([1.0 + 7, 2.0, 3.0, 1.0])
    torch.testing.assert_close(ahead, torch.tensor([0.0, 0.0, 7.0, 1.0]))


@given(
    pose=st.tuples(*[st.floats(-1, 1)] * 7).filter(lambda pose: np.linalg.norm(pose[:4]) > 0.1),
    split=st.sampled_from(["train", "test", None]),
    centered=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_cameras_json_round_trip(
    tmp_path_factory: pytest.TempPathFactory, pose: tuple[float, ...], split: str | None, centered: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "cameras.json"
    camera = Camera(320, 240, 500.0, 510.0, 160.0 if centered else 150.5, 120.0, viewmat(pose))
    write_cameras_json(path, [Shot("a", camera, split)])
    (shot,) = read_cameras_json(path)
    assert (shot.name, shot.split) == ("a", split)
    assert_same(shot.camera, camera)
    assert ("cx" in json.loads(path.read_text())[0]) is not centered


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_name": None}, "camera 1: expected a non-empty string 'img_name', found nothing"),
        ({"img_name": 7}, "expected a non-empty string 'img_name', found 7"),
        ({"width": 0}, "expected 'width' to be whole pixels in 1..65536, found 0"),
        ({"height": 1e9}, "expected 'height' to be whole pixels in 1..65536, found 1e"),
        ({"width": 320.5}, "expected 'width' to be whole pixels"),
        ({"fx": None}, "expected a finite number 'fx', found nothing"),
        ({"fx": -1.0}, "camera 1: camera: expected positive focal lengths, got fx=-1.0"),
        ({"fy": float("nan")}, "expected a finite number 'fy', found nan"),
        ({"fy": 10**400}, "expected a finite number 'fy', found 1000"),
        ({"fx": True}, "expected a finite number 'fx', found True"),
        ({"position": [1.0, 2.0]}, r"expected 'position' of shape \[3\]"),
        ({"position": [1.0, 2.0, float("inf")]}, "expected finite numbers in 'position'"),
        ({"rotation": [[1.0, 0.0, 0.0]] * 2}, r"expected 'rotation' of shape \[3, 3\]"),
        ({"rotation": [[1.0, 0.0, 0.0]] * 3}, "camera 1: camera: viewmat is not a rigid"),
        ({"rotation": "identity"}, r"expected 'rotation' of shape \[3, 3\], found 'identity'"),
        ({"split": "validation"}, "expected 'split' to be 'train' or 'test', found 'validation'"),
    ],
)
def test_cameras_json_refusals(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SceneError, match=message):
        read_cameras_json(cameras_json(tmp_path, {}, change))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[{", "not valid JSON"),
        (b"\xff\xfe[]", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
        (b"{}", "expected a list of cameras, found dict"),
        (b"[1]", "expected a list of cameras"),
    ],
)
def test_cameras_json_damaged(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "cameras.json").write_bytes(content)
    with pytest.raises(SceneError, match=rf"cameras\.json: {message}"):
        read_cameras_json(tmp_path / "cameras.json")


def test_cameras_json_missing(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"cameras\.json: cannot read: No such file"):
        read_cameras_json(tmp_path / "cameras.json")


# COLMAP


def binary_cameras(model: int = 1, parameters: tuple[float, ...] = LENS, width: int = 320, count: int = 1) -> bytes:
    return struct.pack(f"<QiiQQ{len(parameters)}d", count, 7, model, width, 240, *parameters)


def binary_images(
    names: tuple[bytes, ...] = (b"b.jpg", b"a.jpg"),
    points: int = 2,
    camera_id: int = 7,
    pose: tuple[float, ...] = POSE,
    claimed: int | None = None,
) -> bytes:
    content = struct.pack("<Q", len(names) if claimed is None else claimed)
    for index, name in enumerate(names):
        content += struct.pack("<I7di", index, *pose, camera_id) + name + b"\0"
        content += struct.pack("<Q", points) + bytes(24 * points)
    return content


def write_binary(folder: Path, cameras: bytes | None = None, images: bytes | None = None) -> Path:
    (folder / "cameras.bin").write_bytes(binary_cameras() if cameras is None else cameras)
    (folder / "images.bin").write_bytes(binary_images() if images is None else images)
    return folder


CAMERAS_TXT = "# Camera list\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n7 PINHOLE 320 240 500 510 160 118\n"
IMAGES_TXT = (
    "# Image list\n"
    "1 0.5 -0.5 0.5 0.5 0.1 0.2 4 7 b.jpg\n"
    "10.5 20.5 -1 11 12 3\n"
    "2 0.5 -0.5 0.5 0.5 0.1 0.2 4 7 a.jpg\n"
    "\n"
    "3 0.5 -0.5 0.5 0.5 0.1 0.2 4 7 with a space.jpg\n"
    "\n"
)


def write_text(folder: Path, cameras: str = CAMERAS_TXT, images: str = IMAGES_TXT) -> Path:
    (folder / "cameras.txt").write_text(cameras)
    (folder / "images.txt").write_text(images)
    return folder


def test_colmap_binary(tmp_path: Path) -> None:
    shots = read_colmap(write_binary(tmp_path))
    assert [shot.name for shot in shots] == ["a.jpg", "b.jpg"]
    assert_same(shots[0].camera, Camera(320, 240, *LENS, viewmat(POSE)))


def test_colmap_text_is_the_same_as_binary(tmp_path: Path) -> None:
    shots = read_colmap(write_text(tmp_path))
    assert [shot.name for shot in shots] == ["a.jpg", "b.jpg", "with a space.jpg"]
    for shot in shots:
        assert_same(shot.camera, Camera(320, 240, *LENS, viewmat(POSE)))


def test_colmap_simple_pinhole(tmp_path: Path) -> None:
    write_binary(tmp_path, cameras=binary_cameras(0, (500.0, 160.0, 118.0)))
    assert_same(read_colmap(tmp_path)[0].camera, Camera(320, 240, 500, 500, 160, 118, viewmat(POSE)))


@pytest.mark.parametrize(
    ("write", "arguments"),
    [
        (write_binary, {"cameras": binary_cameras(2, (500.0, 160.0, 118.0, 0.01))}),
        (write_text, {"cameras": "7 SIMPLE_RADIAL 320 240 500 160 118 0.01\n"}),
    ],
)
def test_colmap_distortion_is_refused_with_the_way_out(
    tmp_path: Path, write: Callable[..., Path], arguments: dict[str, Any]
) -> None:
    with pytest.raises(SceneError, match=r"model SIMPLE_RADIAL has lens distortion.*`colmap image_undistorter"):
        read_colmap(write(tmp_path, **arguments))


def test_colmap_binary_truncated_anywhere(tmp_path: Path) -> None:
    whole = {"cameras": binary_cameras(), "images": binary_images()}
    for name, content in whole.items():
        for length in range(len(content)):
            with pytest.raises(SceneError, match=rf"{name}\.bin: "):
                read_colmap(write_binary(tmp_path, **{name: content[:length]}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cameras": binary_cameras(count=2**60)}, r"cameras\.bin: claims 1152921504606846976 items"),
        ({"images": binary_images(claimed=2**63)}, r"images\.bin: claims 9223372036854775808 items"),
        ({"cameras": binary_cameras(model=11)}, r"camera 0: expected a camera model id in 0\.\.10, found 11"),
        ({"cameras": binary_cameras(width=0)}, r"expected an image size in 1\.\.65536, found 0 x 240"),
        ({"cameras": binary_cameras(parameters=(math.nan, *LENS[1:]))}, "expected 4 finite parameters"),
        ({"cameras": binary_cameras(parameters=(-1.0, *LENS[1:]))}, r"image 0 \('b.jpg'\): camera: expected positive"),
        ({"images": binary_images(camera_id=8)}, r"image 0 \('b.jpg'\): expected a camera id of \[7\], found 8"),
        ({"images": binary_images(pose=(0.0,) * 7)}, r"image 0 \('b.jpg'\): expected a finite pose with a quaternion"),
        ({"images": binary_images(pose=(math.inf, *POSE[1:]))}, "expected a finite pose"),
        ({"images": binary_images(names=(b"",))}, "expected an image name"),
        ({"images": binary_images(names=(b"a" * 5000,))}, "expected an image name"),
        ({"images": binary_images(names=(b"\xff\xff",))}, "is not UTF-8"),
    ],
)
def test_colmap_binary_refusals(tmp_path: Path, arguments: dict[str, bytes], message: str) -> None:
    with pytest.raises(SceneError, match=message):
        read_colmap(write_binary(tmp_path, **arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cameras": "7 PINHOLE 320\n"}, r"cameras\.txt, camera 0: expected ID MODEL WIDTH HEIGHT PARAMETERS"),
        ({"cameras": "7 PINHOLE 320 240 1 2 3\n"}, "expected 4 finite parameters"),
        ({"cameras": "7 PINHOLE 320 240 1 x 3 4\n"}, "expected ID MODEL"),
        ({"images": "1 0.5 0.5\n\n"}, r"images\.txt, image 0: expected ID QW QX"),
        ({"images": "1 a 0 0 0 0 0 0 7 b.jpg\n\n"}, "image 0: expected ID QW QX"),
        ({"images": "1 1 0 0 0 0 0 0 9 b.jpg\n\n"}, r"\('b.jpg'\): expected a camera id of \[7\], found 9"),
    ],
)
def test_colmap_text_refusals(tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(SceneError, match=message):
        read_colmap(write_text(tmp_path, **arguments))


def test_colmap_missing_and_unreadable(tmp_path: Path) -> None:
    (tmp_path / "images.bin").write_bytes(binary_images())
    with pytest.raises(SceneError, match=r"cameras\.bin: cannot read: No such file"):
        read_colmap(tmp_path)
    (tmp_path / "images.bin").unlink()
    write_text(tmp_path)
    (tmp_path / "images.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SceneError, match=r"images\.txt: not a UTF-8 text file"):
        read_colmap(tmp_path)


# transforms*.json


MATRIX = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, -1.0, 2.0], [0.0, 1.0, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]]
TRANSFORMS: dict[str, Any] = {
    "camera_angle_x": 2 * math.atan(0.5),
    "frames": [{"file_path": "./train/r_0", "transform_matrix": MATRIX}],
}


def transforms(folder: Path, name: str = "transforms.json", frame: Any = None, **shared: Any) -> Path:
    document = TRANSFORMS | shared
    if frame is not None:
        document["frames"] = [TRANSFORMS["frames"][0] | frame]
    (folder / name).write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    return folder / name


@pytest.fixture
def photographed(tmp_path: Path) -> Path:
    (tmp_path / "train").mkdir()
    Image.new("RGBA", (64, 48)).save(tmp_path / "train" / "r_0.png")
    return tmp_path


def test_transforms_opengl_axes_and_field_of_view(photographed: Path) -> None:
    (shot,) = read_transforms(transforms(photographed))
    camera = shot.camera
    assert (shot.name, shot.split) == ("train/r_0", None)
    # tan of half the angle is 1/2, so the focal length is the width.
    assert (camera.width, camera.height, camera.fx, camera.fy) == pytest.approx((64, 48, 64, 64))
    assert (camera.cx, camera.cy) == (32, 24)
    torch.testing.assert_close(camera.center, torch.tensor([1.0, 2.0, 3.0]))
    # The OpenGL camera looks along its -z, which this matrix turns to world +y; its up is world +z.
    seen = camera.viewmat @ torch.tensor([1.0, 2.0 + 5, 3.0 + 1, 1.0])
    torch.testing.assert_close(seen, torch.tensor([0.0, -1.0, 5.0, 1.0]))


def test_transforms_pair_brings_its_split(photographed: Path) -> None:
    transforms(photographed, "transforms_train.json")
    transforms(photographed, "transforms_test.json", frame={"file_path": "train/r_0.png"})
    assert [(s.name, s.split) for s in read_transforms_pair(photographed)] == [
        ("train/r_0", "train"),
        ("train/r_0.png", "test"),
    ]


def test_transforms_with_intrinsics_in_pixels(tmp_path: Path) -> None:
    path = transforms(tmp_path, w=320, h=240, fl_x=500, fl_y=510, cx=159.5, cy=118, k1=0.0, camera_angle_x=None)
    camera = read_transforms(path)[0].camera
    assert (camera.width, camera.height) == (320, 240)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 510, 159.5, 118)


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        ({"frames": None}, "expected an object with a list 'frames'"),
        ({"frames": [3]}, "expected an object with a list 'frames'"),
        ({"camera_angle_x": None}, "frame 0: expected a finite number 'camera_angle_x'"),
        ({"camera_angle_x": 4.0}, r"expected camera_angle_x in 0\.\.pi radians, found 4"),
        ({"k1": 0.1}, r"distortion {'k1': 0.1}: expected undistorted .*`colmap image_undistorter`"),
        ({"camera_model": "OPENCV_FISHEYE"}, "camera model OPENCV_FISHEYE"),
        ({"frame": {"file_path": None}}, "frame 0: expected a non-empty string 'file_path'"),
        ({"frame": {"file_path": "./train/r_9"}}, r"all 1 photographs are missing \(train/r_9, \.\.\.\); looked in"),
        ({"frame": {"transform_matrix": MATRIX[:3]}}, r"expected 'transform_matrix' of shape \[4, 4\]"),
        ({"frame": {"transform_matrix": [[0.0] * 4] * 4}}, "frame 0: transform_matrix and intrinsics: Singular"),
        ({"frame": {"transform_matrix": (3 * np.eye(4)).tolist()}}, "viewmat is not a rigid"),
    ],
)
def test_transforms_refusals(photographed: Path, shared: dict[str, Any], message: str) -> None:
    with pytest.raises(SceneError, match=message):
        read_transforms(transforms(photographed, **shared))
