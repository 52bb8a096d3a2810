# SPDX-License-Identifier: Apache-2.0
"""Every error POTR raises on purpose. Each message says where, what was expected and what was found."""


class PotrError(Exception):
    """Base class: catching it catches everything POTR refuses."""


class ModelError(PotrError):
    """A splat model (or the .ply it came from) is malformed."""


class SceneError(PotrError):
    """Cameras, photographs or their folder are malformed, missing, or do not belong to the model."""


class ConfigError(PotrError):
    """A parameter is out of its range, or parameters contradict each other."""


class TargetError(PotrError):
    """No quality meets the target that was asked for; the message says what comes closest."""


class BackendUnavailable(PotrError):
    """A rasteriser backend was asked for by name and cannot run here."""


class DeviceMemoryError(PotrError):
    """A GPU's memory does not suffice; the message says what to lower."""


class RanksLost(PotrError):
    """The processes that share a scene's views no longer reach each other."""


class BitstreamError(PotrError):
    """The bytes are not a valid POTR bitstream.

    Attributes: ``section`` (name of the section, or "header"), ``offset`` (bytes from the start of the file at which
    reading failed) and ``reason``.
    """

    def __init__(self, section: str, offset: int, reason: str) -> None:
        super().__init__(f"section '{section}', offset {offset}: {reason}")
        self.section = section
        self.offset = offset
        self.reason = reason

    def __reduce__(self) -> tuple[type["BitstreamError"], tuple[str, int, str]]:
        return type(self), (self.section, self.offset, self.reason)


def install_command(extra: str) -> str:
    """What brings an optional dependency: POTR is on no registry, so it is typed in a checkout.

    constraints.txt holds torch for CUDA 13, so the packages for CUDA 12 come without it.
    """
    constraints = "" if extra == "cuda12" else " -c constraints.txt"
    return f"python -m pip install{constraints} -e '.[{extra}]' in POTR's checkout, with its .venv active"
