"""What mlxport offers: convert, verify, load, and what it supports.

Importing this package loads neither torch nor mlx; each function imports what it needs, so that
verifying a converted model needs no torch.
"""

from mlxport.converter.api.checkpoints import (
    analyze_checkpoint,
    convert_checkpoint,
    explain_checkpoint,
)
from mlxport.converter.api.folders import (
    export_function,
    load,
    metal_table,
    publish,
    report,
    restore,
    verify_folder,
    verify_weights,
)
from mlxport.converter.api.generation import (
    generate,
)
from mlxport.converter.api.many import (
    convert_many,
    holds_many,
)
from mlxport.converter.api.models import (
    analyze,
    convert,
    convert_layer,
    explain,
    verify,
)
from mlxport.converter.api.tables import (
    support,
)
from mlxport.converter.api.volumes import (
    sliding_window,
)
from mlxport.converter.api.weights import (
    convert_state_dict,
    inspect,
    load_weights,
    parse_renames,
)

__all__ = [
    "analyze",
    "analyze_checkpoint",
    "convert",
    "convert_checkpoint",
    "convert_layer",
    "convert_many",
    "convert_state_dict",
    "explain",
    "explain_checkpoint",
    "export_function",
    "generate",
    "holds_many",
    "inspect",
    "load",
    "load_weights",
    "metal_table",
    "parse_renames",
    "publish",
    "report",
    "restore",
    "sliding_window",
    "support",
    "verify",
    "verify_folder",
    "verify_weights",
]
