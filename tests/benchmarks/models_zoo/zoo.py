"""The list of models, each with the inputs that it is made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import libraries, plain

CLASSES = 11
"""Outputs of every model. No layer inside any of them has as many, so that a layer which has is a classifier."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model: how to build it with `CLASSES` outputs, and inputs of a batch of one."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]

    @property
    def library(self) -> str:
        """Where the model comes from: the first part of its name."""
        return self.name.partition("/")[0]


def _image(side: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(1, 3, side, side),)


def _clip(frames: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(1, 3, frames, 112, 112),)


def _words(*lengths: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: tuple(torch.randint(1, plain.WORDS, (1, length)) for length in lengths)


def _torchvision(name: str, inputs: Callable[[], tuple[Tensor, ...]], **options: object) -> Entry:
    def build() -> nn.Module:
        models = libraries.torchvision().models
        return models.get_model(name, weights=None, num_classes=CLASSES, **options)

    return Entry(f"torchvision/{name}", build, inputs)


def _timm(name: str, side: int) -> Entry:
    return Entry(
        f"timm/{name}", lambda: libraries.timm().create_model(name, num_classes=CLASSES), _image(side)
    )


def _plain(name: str, build: Callable[[], nn.Module], inputs: Callable[[], tuple[Tensor, ...]]) -> Entry:
    return Entry(f"torch/{name}", build, inputs)


_TORCHVISION = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s mnasnet1_0 mobilenet_v2 "
    "mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d "
    "shufflenet_v2_x1_0 squeezenet1_1 swin_t vgg11_bn vit_b_16"
)

_SEGMENTATION = "deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large"

_TIMM = (
    # Phones.
    "efficientnet_lite0 fbnetc_100 fbnetv3_b ghostnet_100 ghostnetv2_100 hardcorenas_a lcnet_100 mixnet_s "
    "mobilenetv1_100 mobilenetv3_small_100 mobilenetv4_conv_small mobileone_s0 repghostnet_100 rexnet_100 "
    "semnasnet_100 spnasnet_100 tf_efficientnetv2_b0 tinynet_a "
    # Convolutions.
    "convmixer_1024_20_ks9_p14 convnext_atto convnextv2_atto cs3darknet_s cspresnet50 dla34 dpn48b "
    "eca_nfnet_l0 eca_resnet33ts ese_vovnet19b_dw hgnetv2_b0 hrnet_w18_small inception_next_atto legacy_seresnet18 "
    "mambaout_femto poolformer_s12 repvgg_a0 res2net50_26w_4s resnest14d selecsls42b skresnet18 starnet_s1 "
    # Convolutions and attention.
    "coat_lite_tiny coatnet_nano_cc_224 edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientvit_b0 "
    "efficientvit_m0 fastvit_t8 gcvit_xxtiny levit_128s pvt_v2_b0 repvit_m0_9 shvit_s1 swiftformer_xs tiny_vit_5m_224 "
    # Attention, and what replaces it.
    "cait_xxs24_224 convit_tiny deit_tiny_patch16_224 eva02_tiny_patch14_224 gmlp_ti16_224 "
    "mixer_s32_224 pit_ti_224 resmlp_12_224 sequencer2d_s twins_svt_small vit_tiny_patch16_224 xcit_nano_12_p16_224"
)

_TIMM_256 = "botnet26t_256 mobilevit_xxs mobilevitv2_050"

ENTRIES: tuple[Entry, ...] = (
    *(_torchvision(name, _image(224)) for name in _TORCHVISION.split()),
    # Without `init_weights` these two warn that the slow initialisation of theirs will change.
    _torchvision("googlenet", _image(224), init_weights=False),
    _torchvision("inception_v3", _image(299), init_weights=False),
    *(_torchvision(name, _image(224), weights_backbone=None) for name in _SEGMENTATION.split()),
    _torchvision("mc3_18", _clip(8)),
    *(_timm(name, 224) for name in _TIMM.split()),
    _timm("crossvit_tiny_240", 240),
    *(_timm(name, 256) for name in _TIMM_256.split()),
    _plain("gru", lambda: plain.Recurrent(nn.GRU, CLASSES), lambda: (torch.randn(1, 50, 40),)),
    _plain(
        "lstm_2_layers", lambda: plain.Recurrent(nn.LSTM, CLASSES, 2, True), lambda: (torch.randn(1, 50, 40),)
    ),
    _plain("lstm_tagger", lambda: plain.Tagger(CLASSES), _words(30)),
    _plain("conv_gru", lambda: plain.Keywords(CLASSES), lambda: (torch.randn(1, 40, 100),)),
    _plain("transformer_encoder", lambda: plain.Encoder(CLASSES), _words(30)),
    _plain("transformer", lambda: plain.Translator(CLASSES), _words(30, 20)),
)


def named(wanted: str) -> Entry:
    """The entry of that name, with or without its library; KeyError where there is none."""
    for entry in ENTRIES:
        if wanted in (entry.name, entry.name.partition("/")[2]):
            return entry
    raise KeyError(wanted)


def build(entry: Entry, fused_attention: bool = True) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model, always the same, and inputs of a batch of one.

    Without `fused_attention` timm's attention is spelled out in single operators.
    """
    if entry.library == "timm":
        libraries.timm().layers.set_fused_attn(fused_attention)
    torch.manual_seed(0)
    return entry.build(), entry.inputs()
