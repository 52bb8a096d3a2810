# SPDX-License-Identifier: Apache-2.0
"""Photographs read one view ahead of the work on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from potr.model.cameras import View
from potr.progress import Progress

T = TypeVar("T")


def read_ahead(views: Sequence[View], read: Callable[[View], T], progress: Progress) -> Iterator[tuple[View, T]]:
    """Each view with what ``read`` gives for it, the next one being read by another thread meanwhile.

    A view is reported once the caller is done with it.
    """
    with ThreadPoolExecutor(max_workers=1) as reader:
        pending = reader.submit(read, views[0]) if views else None
        for i, view in enumerate(views):
            assert pending is not None
            photo = pending.result()
            pending = reader.submit(read, views[i + 1]) if i + 1 < len(views) else None
            yield view, photo
            progress(i + 1, len(views))
