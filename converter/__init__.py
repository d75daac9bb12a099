"""From a PyTorch model or checkpoint to an MLX one.

Every module logs to ``logging.getLogger("mlxport.converter…")`` by its own name, stages at info and
single nodes at debug. Nothing is printed unless the application configures logging.
"""

import logging

logging.getLogger("mlxport").addHandler(logging.NullHandler())
