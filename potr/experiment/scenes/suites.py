# SPDX-License-Identifier: Apache-2.0
"""The paper's four suites: their scenes, how 3DGS reads them, where they come from, what is known about them.

Facts only, nothing is looked up on disk. None stands for what no source was found for.

Sources, read on 2026-11-22:
- scenes and image folders: full_eval.py of graphdeco-inria/gaussian-splatting; the released models' cfg_args say the
  same (eval=True, images_4 or images_2, images elsewhere);
- photographs and their sizes: the data set table of DirectXSplat's benches/README.md, which agrees with the tables of
  splatstream and others; nerf_synthetic: the NeRF paper (100 for training, 200 for testing, 800 x 800);
- splats, PSNR, SSIM, LPIPS of the uncompressed models: Kerbl et al. 2023 as the 3DGS.zip survey collected them; the
  splats follow exactly from the sizes of the .ply in models.zip;
- archives: 3DGS's README and jonbarron.info/mipnerf360 for the addresses. tandt_db.zip: size and SHA-256 as several
  projects recorded them after downloading; models.zip: its Content-Length, as several projects report it;
  nerf_synthetic.zip: the mirror that camtools uses, whose SHA-256 is the one nerfbaselines has for the original.
"""

from __future__ import annotations

from dataclasses import dataclass

from potr.errors import ConfigError
from potr.io.posed_images import TEST_EVERY

MAX_WIDTH = 1600  # pixels; 3DGS shrinks wider photographs to it unless told otherwise
ITERATION = 30_000  # of the released models; 7,000 is there too

MIP_NERF_360, TANKS_AND_TEMPLES = "MipNeRF360", "TanksAndTemples"
DEEP_BLENDING, SYNTHETIC_NERF = "DeepBlending", "SyntheticNeRF"
SUITES = (MIP_NERF_360, TANKS_AND_TEMPLES, DEEP_BLENDING, SYNTHETIC_NERF)

# Folders that people unpack a suite into, below the folder of all data.
SUITE_FOLDERS = {
    MIP_NERF_360: ("360_v2", "mipnerf360", "360", "360_extra_scenes", MIP_NERF_360),
    TANKS_AND_TEMPLES: ("tandt", "tandt_db/tandt", "tanks_and_temples", TANKS_AND_TEMPLES),
    DEEP_BLENDING: ("db", "tandt_db/db", "deep_blending", DEEP_BLENDING),
    SYNTHETIC_NERF: ("nerf_synthetic", "blender", SYNTHETIC_NERF),
}


@dataclass(frozen=True)
class Archive:
    """A .zip that is published.

    Attributes:
        url: its address.
        size: bytes; None where only ``about`` is known.
        about: the size in words.
        sha256: of the whole file; None where no record of it was found.
        note: what else there is to say about its origin.
    """

    url: str
    size: int | None = None
    about: str = "size not known"
    sha256: str | None = None
    note: str = ""

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


_INRIA = "https://repo-sam.inria.fr/fungraph/3d-gaussian-splatting/datasets"
_GOOGLE = "https://storage.googleapis.com/gresearch/refraw360"
ARCHIVES = {
    "360_v2": Archive(f"{_GOOGLE}/360_v2.zip", about="about 12.5 GB"),
    "360_extra_scenes": Archive(f"{_GOOGLE}/360_extra_scenes.zip"),
    "tandt_db": Archive(
        f"{_INRIA}/input/tandt_db.zip",
        682_628_995,
        "683 MB",
        "816e62f22a161abbfe841d2a6b10cdf036e297c9fa289b3bfeee9c6ec526d7e1",
    ),
    "nerf_synthetic": Archive(
        "https://github.com/yxlao/nerfmirror/releases/download/20220618/nerf_synthetic.zip",
        sha256="f01fd1b4ab045b0d453917346f26f898657bb5bec4834b95fdad1f361826e45e",
        note="a mirror; the authors' own lies on Google Drive, to be fetched by hand: "
        "https://drive.google.com/drive/folders/128yBriW1IG_3NJ5Rp7APSTZsJqdJdfc1",
    ),
    "models": Archive(f"{_INRIA}/pretrained/models.zip", 14_660_630_999, "14.7 GB"),
}
MODELS = ARCHIVES["models"]


@dataclass(frozen=True)
class SuiteScene:
    """A scene as the 3DGS paper evaluates it.

    Attributes:
        name: unique among all suites.
        suite: one of ``SUITES``.
        archive: the .zip with its photographs and cameras.
        root: the scene's folder inside the archive.
        images: the folder of the photographs inside the scene's; None where the camera file names them (Blender).
        width, height: of the photographs there, in pixels.
        photographs: training and test views together.
        test_views: of these, the ones a model is judged on.
        splats: of the released model of 30,000 iterations; None where none is released.
        psnr: in dB, of the uncompressed model on the test views; ssim, lpips (VGG): None where not published per scene.
    """

    name: str
    suite: str
    archive: Archive
    root: str
    images: str | None
    width: int
    height: int
    photographs: int
    test_views: int
    splats: int | None
    psnr: float
    ssim: float | None = None
    lpips: float | None = None

    @property
    def title(self) -> str:
        return f"{self.name} ({self.suite})"

    @property
    def has_released_model(self) -> bool:
        return self.splats is not None

    @property
    def needed_folders(self) -> tuple[str, ...]:
        """What of the scene's folder is read: prefixes of paths inside it."""
        if self.images is None:
            return ("transforms_train.json", "transforms_test.json", "train/", "test/")
        return (f"{self.images}/", "sparse/")


def _colmap(
    suite: str, archive: str, root: str, images: str, size: tuple[int, int], photographs: int, *model: float
) -> SuiteScene:
    splats, psnr, ssim, lpips = model
    test_views = -(-photographs // TEST_EVERY)  # the first of every eight
    name = root.rsplit("/", 1)[-1]
    where = (name, suite, ARCHIVES[archive], root, images)
    return SuiteScene(*where, *size, photographs, test_views, int(splats), psnr, ssim, lpips)


def _blender(name: str, psnr: float) -> SuiteScene:
    archive = ARCHIVES["nerf_synthetic"]
    return SuiteScene(name, SYNTHETIC_NERF, archive, f"nerf_synthetic/{name}", None, 800, 800, 300, 200, None, psnr)


_ALL = (
    _colmap(MIP_NERF_360, "360_v2", "bicycle", "images_4", (1237, 822), 194, 6_131_954, 25.246, 0.771, 0.205),
    _colmap(MIP_NERF_360, "360_extra_scenes", "flowers", "images_4", (1256, 828), 173, 3_636_448, 21.520, 0.605, 0.336),
    _colmap(MIP_NERF_360, "360_v2", "garden", "images_4", (1297, 840), 185, 5_834_784, 27.410, 0.868, 0.103),
    _colmap(MIP_NERF_360, "360_v2", "stump", "images_4", (1245, 825), 125, 4_961_797, 26.550, 0.775, 0.210),
    _colmap(
        MIP_NERF_360, "360_extra_scenes", "treehill", "images_4", (1267, 832), 141, 3_783_761, 22.490, 0.638, 0.317
    ),
    _colmap(MIP_NERF_360, "360_v2", "room", "images_2", (1557, 1038), 311, 1_593_376, 30.632, 0.914, 0.220),
    _colmap(MIP_NERF_360, "360_v2", "counter", "images_2", (1558, 1038), 240, 1_222_956, 28.700, 0.905, 0.204),
    _colmap(MIP_NERF_360, "360_v2", "kitchen", "images_2", (1558, 1039), 279, 1_852_335, 30.317, 0.922, 0.129),
    _colmap(MIP_NERF_360, "360_v2", "bonsai", "images_2", (1559, 1039), 292, 1_244_819, 31.980, 0.938, 0.205),
    _colmap(TANKS_AND_TEMPLES, "tandt_db", "tandt/truck", "images", (979, 546), 251, 2_541_226, 25.187, 0.879, 0.148),
    _colmap(TANKS_AND_TEMPLES, "tandt_db", "tandt/train", "images", (980, 545), 301, 1_026_508, 21.097, 0.802, 0.218),
    _colmap(DEEP_BLENDING, "tandt_db", "db/drjohnson", "images", (1332, 876), 263, 3_405_153, 28.766, 0.899, 0.244),
    _colmap(DEEP_BLENDING, "tandt_db", "db/playroom", "images", (1264, 832), 225, 2_546_116, 30.044, 0.906, 0.241),
    _blender("chair", 35.83),
    _blender("drums", 26.15),
    _blender("ficus", 34.87),
    _blender("hotdog", 37.72),
    _blender("lego", 35.78),
    _blender("materials", 30.00),
    _blender("mic", 35.36),
    _blender("ship", 30.80),
)
SCENES: dict[str, SuiteScene] = {scene.name: scene for scene in _ALL}


def suite_scene(name: str) -> SuiteScene:
    """The scene of this name.

    Raises:
        ConfigError: there is none; lists those there are.
    """
    if name not in SCENES:
        raise ConfigError(f"expected a scene of the paper ({', '.join(SCENES)}), got '{name}'")
    return SCENES[name]


def scenes_of(suite: str) -> tuple[SuiteScene, ...]:
    """A suite's scenes, in the paper's order."""
    return tuple(scene for scene in _ALL if scene.suite == suite)
