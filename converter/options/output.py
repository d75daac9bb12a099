"""Options of the output: what is written into the folder, and over what. Needs no torch."""

from __future__ import annotations

import keyword
import sys
from dataclasses import dataclass
from typing import Literal

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.writing.convert_streaming import parse_size
from mlxport.converter.errors import OptionsError

# How much of a reference is stored: no more than the weights take, or all that was recorded.
Extent = Literal["bounded", "full"]


@dataclass(frozen=True)
class OutputOptions:
    """How the output folder is written.

    Attributes:
        overwrite: whether a folder that is there is replaced.
        max_shard_size: bytes of data in a file of weights; None for the usual size.
        carry_along: whether what accompanies the source's weights (``config.json``, the
            tokenizer, README and licence) is copied too.
        package: name of the Python package that pip is to install of the folder, if any.
        reference: how much of the reference is stored.
    """

    overwrite: bool = False
    max_shard_size: int | None = None
    carry_along: bool = True
    package: str | None = None
    reference: Extent = "bounded"

    @classmethod
    def of(
        cls,
        *,
        overwrite: bool,
        max_shard_size: int | str | None,
        carry_along: bool,
        package: str | None = None,
        reference: Extent = "bounded",
    ) -> OutputOptions:
        """Return the options that a user's values stand for: a size may be ``"5GB"``.

        Raises:
            OptionsError: the size is none, or the package cannot have that name.
        """
        _check_package_name(package)
        return cls(overwrite, parse_size(max_shard_size), carry_along, package, reference)


def _check_package_name(name: str | None) -> None:
    """Find out whether a package can have a name.

    Raises:
        OptionsError: it is no identifier of ASCII letters, or Python or MLX has a package of it.
    """
    if name is None:
        return
    given = argument("package", name)
    if not (name.isascii() and name.isidentifier() and not keyword.iskeyword(name)):
        raise OptionsError(f"{given}: expected the name of a Python package, such as my_unet")
    if name in sys.stdlib_module_names or name in ("mlx", "mlxport", "torch"):
        raise OptionsError(f"{given}: there is such a package already: choose another name")
