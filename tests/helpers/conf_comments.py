# SPDX-License-Identifier: Apache-2.0
"""conf/<stage>/from_quality.yaml, written from the comments and ranges of potr/codec/config.py.

``python -m tests.helpers.conf_comments`` writes the files anew after a parameter has changed; a test compares.
"""

import dataclasses
import inspect
import re
from enum import Enum
from pathlib import Path

from potr.experiment.overrides import STAGES, field_types
from potr.experiment.schema import conf_folder

HEAD = """# SPDX-License-Identifier: Apache-2.0
# {title}: every parameter from quality. null means so; a value given here or on the command line replaces it.
# [low, high] is the range that is accepted. Written by python -m tests.helpers.conf_comments from potr/codec/config.py.
"""
TITLES = {"prune": "Pruning", "compact": "SH energy compaction", "quantize": "Quantisation"}
OWN_COMMENTS = {  # where the code needs no comment, or one for two fields
    "early_passes": "Passes before compaction; every pass renders every training view.",
    "late_passes": "Passes after compaction.",
    "criterion": "What a removal is charged with.",
    "target_splats": "Instead of the cap: keep this many splats.",
    "target_share": "Instead of the cap: keep this share of the splats.",
    "enabled": "Whether the stage runs.",
    "dc_multiplier": "Levels per SH unit of degree 0; the step is its inverse.",
    "ac_multiplier": "Levels per SH unit of degrees 1 to 3.",
    "zstd_level": "Effort of the entropy coder; costs encoding time only.",
}


def from_quality_yaml(stage: str) -> str:
    """The whole file of a stage."""
    config = STAGES[stage]
    comments, types = field_comments(config), field_types(config)
    parts = [HEAD.format(title=TITLES[stage])]
    for field in dataclasses.fields(config):
        comment, kind = comments[field.name], types[field.name]
        if issubclass(kind, Enum):
            comment = f"{comment.rstrip('.')}: {', '.join(member.value for member in kind)}."
        elif kind is bool:
            comment = f"{comment.rstrip('.')}: true or false."
        elif "range" in field.metadata:
            low, high = field.metadata["range"]
            comment += f" [{low:g}, {high:.12g}]"
        parts.append(f"# {comment}\n{field.name}: null\n")
    return "\n".join(parts)


def field_comments(config: type) -> dict[str, str]:
    """Field to the comment above it, or above the fields it stands with."""
    found, comment, fresh = {}, "", False
    for line in inspect.getsource(config).splitlines():
        if match := re.match(r"    # (.*)", line):
            comment = f"{comment} {match[1]}" if fresh else match[1]
            fresh = True
        elif match := re.match(r"    (\w+): ", line):
            found[match[1]] = OWN_COMMENTS.get(match[1], comment)
            fresh = False
    return found


def path_of(stage: str) -> Path:
    return conf_folder() / stage / "from_quality.yaml"


if __name__ == "__main__":
    for name in STAGES:
        path_of(name).write_text(from_quality_yaml(name))
