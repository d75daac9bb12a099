"""Networks as people use them, in small: how to build each, and what converting it is to give.

Their packages are imported when one is built; what they warn of then is theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlxport.examples.stereo import StereoNet
from mlxport.examples.unet3d import UNet3d


@dataclass(frozen=True)
class Network:
    """How to make a network, and what its conversion is expected to be.

    Attributes:
        package: whose it is, by its name on PyPI; "" for this project's examples.
        build: makes it, with any weights.
        inputs: makes its positional inputs.
        transposes: that one call of the converted model executes.
        why: that many.
        batch: whether torch.export can leave the batch size open.
        unjudged: layer calls that cannot be judged by themselves.
    """

    package: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[torch.Tensor, ...]]
    transposes: int
    why: str = "in and out"
    batch: bool = True
    unjudged: int = 0


# What attention has to move: heads stand before positions in the products, behind them elsewhere.
HEADS = "attentions, queries, keys, values and the result"
AT_ONCE = "attentions, queries, keys and values at once, and the result"
WINDOWED = (
    "blocks: windows parted and joined again (not a single one), queries, keys and values at once, "
    "the keys for the product, and the result (not of a single head or position)"
)


def normal(*shapes: tuple[int, ...]) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Inputs of these shapes, drawn from the normal distribution."""
    return lambda: tuple(torch.randn(shape) for shape in shapes)


def tokens(count: int, *shape: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    """One input of this shape, drawn from a vocabulary."""
    return lambda: (torch.randint(0, count, shape),)


# -- three dimensions ------------------------------------------------------------------------------


def monai(name: str, *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    """A network of MONAI."""

    def build() -> nn.Module:
        from monai.networks import nets

        network: nn.Module = getattr(nets, name)(*args, **kwargs)
        return network

    return build


def nnunet(name: str, **settings: Any) -> Callable[[], nn.Module]:
    """A U-Net as nnU-Net's plans would have it."""

    def build() -> nn.Module:
        from dynamic_network_architectures.architectures import unet

        network: nn.Module = getattr(unet, name)(
            input_channels=1,
            n_stages=3,
            features_per_stage=(4, 8, 12),
            conv_op=nn.Conv3d,
            kernel_sizes=((1, 3, 3), 3, 3),
            strides=(1, (1, 2, 2), 2),
            num_classes=3,
            n_conv_per_stage_decoder=1,
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            **settings,
        )
        return network

    return build


def primus() -> nn.Module:
    from dynamic_network_architectures.architectures.primus import Primus

    network: nn.Module = Primus(
        1, 24, (8, 8, 8), 2, eva_depth=2, eva_numheads=2, input_shape=(16, 16, 16)
    )
    return network


def anisotropic(deep_supervision: bool) -> Callable[[], nn.Module]:
    """MONAI's DynUNet over voxels that are longer than wide."""
    kernels, strides = ((1, 3, 3), 3, 3, 3), (1, (1, 2, 2), 2, 2)
    return monai(
        "DynUNet",
        3,
        1,
        2,
        kernels,
        strides,
        strides[1:],
        filters=(4, 8, 12, 16),
        deep_supervision=deep_supervision,
        deep_supr_num=2,
    )


CUBE = normal((1, 1, 16, 16, 16))
TALL = normal((1, 1, 8, 32, 32))
LARGE = normal((1, 1, 32, 32, 32))

VOLUMES = {
    "UNet3d": Network("", UNet3d, normal((1, 1, 16, 24, 20)), 2),
    "StereoNet": Network(
        "", StereoNet, normal((1, 3, 32, 48), (1, 3, 32, 48)), 2, "in, for each image"
    ),
    "UNet": Network(
        "monai",
        monai("UNet", 3, 1, 2, channels=(4, 8, 12), strides=(2, 2), num_res_units=2),
        CUBE,
        2,
    ),
    "DynUNet": Network("monai", anisotropic(deep_supervision=False), TALL, 2),
    "DynUNet, deep supervision": Network("monai", anisotropic(deep_supervision=True), TALL, 2),
    "VNet": Network("monai", monai("VNet", out_channels=2), CUBE, 2),
    "AttentionUnet": Network(
        "monai", monai("AttentionUnet", 3, 1, 2, channels=(4, 8, 12), strides=(2, 2)), CUBE, 2
    ),
    "SegResNet, trilinear": Network("monai", monai("SegResNet", init_filters=8), CUBE, 2),
    "SegResNet, deconv": Network(
        "monai", monai("SegResNet", init_filters=8, upsample_mode="deconv"), CUBE, 2
    ),
    "UNETR": Network(
        "monai",
        monai("UNETR", 1, 2, (32, 32, 32), 4, hidden_size=24, mlp_dim=48, num_heads=3),
        LARGE,
        2,
    ),
    "SwinUNETR": Network(
        "monai",
        monai("SwinUNETR", 1, 2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4)),
        normal((1, 1, 64, 32, 32)),
        17,
        f"in and out; of 4 {WINDOWED}",
    ),
    "AutoencoderKL, 3-D": Network(
        "monai",
        monai(
            "AutoencoderKL",
            3,
            1,
            1,
            num_res_blocks=(1, 1),
            channels=(8, 16),
            latent_channels=2,
            norm_num_groups=4,
            attention_levels=(False, True),
        ),
        normal((1, 1, 8, 8, 8)),
        4,
        "in; the image, the mean and the deviation out",
    ),
    "PlainConvUNet": Network(
        "dynamic_network_architectures", nnunet("PlainConvUNet", n_conv_per_stage=2), TALL, 2
    ),
    "ResidualEncoderUNet": Network(
        "dynamic_network_architectures",
        nnunet("ResidualEncoderUNet", n_blocks_per_stage=(1, 2, 1)),
        TALL,
        2,
    ),
    "Primus": Network(
        "dynamic_network_architectures", primus, CUBE, 10, f"in and out; of 2 {HEADS}"
    ),
}


# -- images, sequences -----------------------------------------------------------------------------


def timm(name: str, **settings: Any) -> Callable[[], nn.Module]:
    """A classifier of timm."""

    def build() -> nn.Module:
        from timm import create_model

        network: nn.Module = create_model(name, num_classes=10, **settings)
        return network

    return build


def transformers(config: str, model: str, **settings: Any) -> Callable[[], nn.Module]:
    """A model of transformers."""

    def build() -> nn.Module:
        import transformers

        network: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**settings))
        return network

    return build


def whisper_encoder() -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    network: nn.Module = WhisperEncoder(
        WhisperConfig(
            d_model=24,
            encoder_layers=2,
            encoder_attention_heads=3,
            encoder_ffn_dim=48,
            num_mel_bins=8,
            max_source_positions=10,
        )
    )
    return network


def diffusers(name: str, **settings: Any) -> Callable[[], nn.Module]:
    """A model of diffusers."""

    def build() -> nn.Module:
        import diffusers

        network: nn.Module = getattr(diffusers, name)(**settings)
        return network

    return build


class UNet2d(nn.Module):
    """A U-Net over images: one level, as its textbook drawing has it."""

    def __init__(self) -> None:
        super().__init__()
        self.down = self._block(3, 8)
        self.pool = nn.MaxPool2d(2)
        self.bottom = self._block(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.merge = self._block(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        x = self.up(self.bottom(self.pool(skip)))
        y: torch.Tensor = self.head(self.merge(torch.cat([skip, x], dim=1)))
        return y


class Tagger(nn.Module):
    """A bidirectional LSTM that tags the words of a sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.memory = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(12, 5)

    def forward(self, sentence: torch.Tensor) -> torch.Tensor:
        states, _ = self.memory(self.words(sentence))
        return torch.log_softmax(self.tags(states), dim=-1)


PICTURE = normal((1, 3, 32, 32))

OTHERS = {
    "UNet2d": Network("", UNet2d, PICTURE, 2),
    "ResNet-50": Network("timm", timm("resnet50"), normal((1, 3, 64, 64)), 1, "in"),
    "ConvNeXt": Network("timm", timm("convnext_atto"), normal((1, 3, 64, 64)), 1, "in"),
    "Swin": Network(
        "timm",
        timm(
            "swin_tiny_patch4_window7_224",
            img_size=56,
            embed_dim=24,
            depths=(1, 1, 2, 1),
            num_heads=(1, 2, 4, 8),
        ),
        normal((1, 3, 56, 56)),
        23,
        f"in; patches merged three times; of 5 {WINDOWED}",
    ),
    "ViT": Network(
        "timm",
        timm("vit_tiny_patch16_224", img_size=32, depth=2),
        PICTURE,
        5,
        f"in; of 2 {AT_ONCE}",
    ),
    "UNet2DConditionModel": Network(
        "diffusers",
        diffusers(
            "UNet2DConditionModel",
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=12,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        lambda: (torch.randn(1, 4, 16, 16), torch.tensor([7]), torch.randn(1, 5, 12)),
        34,
        f"in and out; of 8 {HEADS}",
    ),
    "AutoencoderKL": Network(
        "diffusers",
        diffusers(
            "AutoencoderKL",
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        normal((1, 3, 16, 16)),
        2,
    ),
    "BERT": Network(
        "transformers",
        transformers(
            "BertConfig",
            "BertModel",
            vocab_size=50,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=48,
            max_position_embeddings=20,
        ),
        tokens(50, 2, 7),
        8,
        f"of 2 {HEADS}",
    ),
    "GPT-2": Network(
        "transformers",
        transformers(
            "GPT2Config",
            "GPT2LMHeadModel",
            vocab_size=50,
            n_embd=24,
            n_layer=2,
            n_head=3,
            n_positions=20,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        ),
        tokens(50, 2, 7),
        8,
        f"of 2 {HEADS}",
    ),
    "Llama": Network(
        "transformers",
        transformers(
            "LlamaConfig",
            "LlamaForCausalLM",
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            max_position_embeddings=20,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
        ),
        tokens(50, 2, 7),
        8,
        f"of 2 {HEADS}",
    ),
    "Whisper encoder": Network(
        "transformers", whisper_encoder, normal((1, 8, 20)), 9, f"in; of 2 {HEADS}"
    ),
    "SpeechT5 HiFi-GAN": Network(
        "transformers",
        transformers(
            "SpeechT5HifiGanConfig", "SpeechT5HifiGan", model_in_dim=8, upsample_initial_channel=32
        ),
        normal((1, 12, 8)),
        0,
        "it takes frames as the last axis but one, and gives one channel",
    ),
    "LSTM tagger": Network("", Tagger, tokens(20, 2, 7), 0, "nothing is spatial"),
}

NETWORKS = VOLUMES | OTHERS
