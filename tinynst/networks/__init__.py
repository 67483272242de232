"""The nets: VGG-16, which looks, and the transform nets, which paint and enlarge."""

from .transform import SuperResolutionNet, TransformNet, style_net, super_resolution_net
from .vgg import VGG16

__all__ = ["VGG16", "SuperResolutionNet", "TransformNet", "style_net", "super_resolution_net"]
