"""The nets: VGG-16, whose features the losses compare, and the transform nets, which stylise and enlarge."""

from .style import StyleNet, style_net
from .superres import SuperResolutionNet, super_resolution_net
from .transform import TransformNet
from .vgg import VGG16

__all__ = ["VGG16", "StyleNet", "SuperResolutionNet", "TransformNet", "style_net", "super_resolution_net"]
