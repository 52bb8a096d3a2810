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
