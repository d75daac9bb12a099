"""Write the function ``load`` of ``model.py``: it builds the model and gives it its weights."""

from __future__ import annotations

_QUANTIZING = (
    '    settings = json.loads((Path(folder) / "config.json").read_text())["quantization"]',
    "    nn.quantize(model, **settings, class_predicate="
    'lambda path, _: f"{path}.scales" in weights)',
)


def load_function(model: str, stem: str, *, quantized: bool) -> str:
    """Return the source of ``load``, and of the alias ``Model``.

    Args:
        model: name of the model's class.
        stem: what the files of the weights are called before their ending.
        quantized: whether the weights are quantised; their settings are then in ``config.json``,
            as mlx-lm has them.
    """
    return "\n".join(
        [
            f"def load(folder: str | Path = Path(__file__).parent) -> {model}:",
            '    """Build the model with the weights in a folder (this file\'s own), ready for '
            'inference."""',
            "    weights = {}",
            f'    for file in sorted(Path(folder).glob("{stem}*.safetensors")):',
            "        weights.update(mx.load(str(file)))",
            f"    model = {model}()",
            *(_QUANTIZING if quantized else ()),
            "    model.load_weights(list(weights.items()))",
            "    mx.eval(model.parameters())  # then any thread may call it",
            "    model.eval()",
            "    return model",
            "",
            "",
            f"Model = {model}",
            "",
        ]
    )
