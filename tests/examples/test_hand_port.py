"""The example of a port by hand finds its planted fault, and none where there is none."""

import pytest

from mlxport.examples.hand_port import main


def test_the_fault_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    wrong, right = capsys.readouterr().out.split("\n\n")[:2]
    assert wrong.startswith("parity FAILED at norm (MLX group_norm): error ")
    assert wrong.endswith("the layer or its weights are wrong.")
    assert right.startswith("parity holds: 1 output and 3 layer calls")
    assert "axes (0, 2, 3, 1) in MLX: stem, norm (MLX group_norm)" in right
