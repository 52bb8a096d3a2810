# SPDX-License-Identifier: Apache-2.0
"""experiment=ablation: techniques added to codec=paper in turn (the ladder)."""

from __future__ import annotations

from potr.experiment.failure import Failure
from potr.experiment.summary import Collected
from potr.experiment.tables import ladder
from potr.experiment.tables.choose import failed
from potr.experiment.tables.document import Document
from potr.experiment.tables.published import Published


def document(collected: Collected, _: Published) -> Document:
    """The ladder of every scene that has one."""
    return Document(
        name="ablation",
        title="From the paper's steps to codec=default",
        intro="codec=paper, then one technique more on each rung, up to codec=default. Every file was decoded and "
        "measured on test views that the encoder never saw; they had a say in its constants. No model was fine-tuned.",
        tables=ladder.tables(collected.results),
        figures=ladder.figures(collected.results),
        holes=failed(collected, _concerns),
    )


def _concerns(failure: Failure) -> bool:
    return ladder.rung_of(failure.codec, failure.settings) is not None
