"""``python -m mlxport`` is the command ``mlxport``."""

from mlxport.cli import run

if __name__ == "__main__":
    run()
