import ast

import pytest
import torch
from torch import nn

from mlxport.converter.graph.ir.naming import ModelNames, attribute_name, class_name, identifier


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.heads = nn.ModuleDict({"0": Block(), "seg": Block()})
        self.items_ = Block()
        self.add_module("items", Block())
        self.add_module("0", Block())
        self.nested = nn.Sequential(nn.Sequential(Block()), Block())
        self.named = nn.Sequential()
        self.named.add_module("conv", Block())
        self.table = nn.ParameterList([nn.Parameter(torch.ones(1))])


@pytest.mark.parametrize(
    ("path", "target", "reference"),
    [
        ("blocks.1.conv.weight", "blocks.1.conv.weight", "self.blocks[1].conv.weight"),
        ("heads.0.conv", "heads.layer_0.conv", 'self.heads["layer_0"].conv'),
        ("heads.seg", "heads.seg", 'self.heads["seg"]'),
        ("items.conv", "items__.conv", "self.items__.conv"),
        ("0.conv", "layer_0.conv", "self.layer_0.conv"),
        ("nested.0.0.conv", "nested.0.0.conv", "self.nested[0][0].conv"),
        ("named.conv", "named.conv", "self.named.conv"),
        ("table.0", "table.0", "self.table[0]"),
    ],
)
def test_every_name_has_its_place(path, target, reference):
    names = ModelNames(Model())
    names.target("items_")  # asked for first, so it keeps its name
    assert names.target(path) == target
    assert ast.unparse(names.reference("", path)).replace("'", '"') == reference


def test_a_model_that_is_a_list_keeps_its_layers_as_mlx_does():
    names = ModelNames(nn.Sequential(Block(), Block()))
    assert names.target("1.conv.weight") == "layers.1.conv.weight"
    assert ast.unparse(names.reference("", "1.conv")) == "self.layers[1].conv"


def test_a_class_speaks_only_of_what_it_holds():
    names = ModelNames(Model())
    assert ast.unparse(names.reference("blocks.0", "blocks.0.conv")) == "self.conv"
    with pytest.raises(ValueError, match="below"):
        names.reference("blocks.0", "named.conv")


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("weight", "weight"),
        ("keys", "keys_"),
        ("update", "update_"),
        ("training", "training_"),
        ("_private", "private_"),
        ("__dunder", "dunder_"),
        ("class", "class_"),
        ("2d", "layer_2d"),
        ("_1x1", "layer_1x1_"),
        ("_3", "layer_3_"),
        ("_", "x_"),
        ("__", "x_"),
        ("_class", "class__"),
        ("λ", "λ"),
        ("層", "層"),
        ("_層", "層_"),
        ("x²", "x2"),  # NFKC, as Python reads identifiers
        ("ﬁlter", "filter"),
        ("😀", "x_"),
        ("a😀", "a_"),
        ("a-b.c", "a_b_c"),
        ('x"; import os', "x___import_os"),
        ("", "x"),
    ],
)
def test_attribute_names_are_ones_mlx_can_bear(name, attribute):
    assert attribute_name(name) == attribute
    assert identifier(attribute).isidentifier()


@pytest.mark.parametrize(
    ("torch_class", "name"),
    [
        ("_my_block", "My_block"),
        ("_3DBlock", "Layer_3DBlock"),
        ("_", "Block"),
        ("none", "None_"),
        ("λ", "Λ"),
        ("ﬁlter", "Filter"),
        ("class", "Class_"),
    ],
)
def test_class_names_start_with_a_capital(torch_class, name):
    assert class_name(type(torch_class, (nn.Module,), {})()) == name


@pytest.mark.parametrize("key", ["0", "-1", "+1", "1_0", "\N{FULLWIDTH DIGIT ONE}"])
def test_a_key_that_mlx_would_take_for_an_index_is_renamed(key):
    names = ModelNames(nn.ModuleDict({key: nn.Linear(1, 1)}))
    assert names.target(f"{key}.weight") == f"layer_{key}.weight"
