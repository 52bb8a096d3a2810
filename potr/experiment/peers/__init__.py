# SPDX-License-Identifier: Apache-2.0
"""Codecs that POTR is compared with, behind one interface (``base.PeerCodec``); imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from potr.errors import ConfigError
from potr.experiment.peers.base import PeerCodec

# Name to module and class.
PEERS: dict[str, tuple[str, str]] = {
    "c3dgs": ("potr.experiment.peers.c3dgs", "C3dgs"),
    "mesongs": ("potr.experiment.peers.mesongs", "MesonGS"),
    "spz": ("potr.experiment.peers.packaged", "Spz"),
    "compressed_ply": ("potr.experiment.peers.packaged", "CompressedPly"),
    "sog": ("potr.experiment.peers.packaged", "Sog"),
    "decimate_spz": ("potr.experiment.peers.packaged", "DecimateSpz"),
}


def peer_class(name: str) -> type[PeerCodec]:
    """The class of a peer by name; ConfigError lists the names there are."""
    if name not in PEERS:
        raise ConfigError(f"codec: expected one of {', '.join(PEERS)}, got '{name}'")
    module, class_name = PEERS[name]
    found: type[PeerCodec] = getattr(importlib.import_module(module), class_name)
    return found


def peer(name: str, options: Mapping[str, Any] | None = None) -> PeerCodec:
    """A peer by name.

    Raises:
        ConfigError: there is no such peer or option, or a value is out of its range.
        BackendUnavailable: what it runs on is not installed; says how to get it.
    """
    return peer_class(name)(options or {})
