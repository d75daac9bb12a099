"""Rules for layers of other libraries, found by qualified class name; no library is imported.

One file per library. These rules serve ``mlxport.convert_layer`` (and containers converted by it).
Whole models do not use them: there a class becomes a layer where its captured graph is that of a
norm or an activation (``converter/graph/capture/idioms``), whatever its name.

A rule is written against the version of the library named in its file. Attributes that another
version does not have are refused; whether its ``forward`` still computes the same is not checked,
so verify what you convert with ``mlxport.verify``.
"""

from mlxport.converter.rules.libraries import timm, transformers

__all__ = ["timm", "transformers"]
