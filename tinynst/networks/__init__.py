"""The nets: VGG-16, which looks, and the transform nets, which paint."""

from .transform import TransformNet, style_net
from .vgg import VGG16

__all__ = ["VGG16", "TransformNet", "style_net"]
