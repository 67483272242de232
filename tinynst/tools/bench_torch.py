"""The peers of the bench: the same nets with the same parameters, in PyTorch and in onnxruntime."""

import io

import numpy as np
import torch

from ..errors import UserError
from ..networks import VGG16, style_net
from ..networks.transform import PAD, SPAN
from ..networks.vgg import LAYERS, MEAN_RGB
from ..ops.fast.parallel import threads
from .bench_sides import CONTENT, DEFAULTS, STYLE, Side, conv_inputs, painting, photos

F = torch.nn.functional


def parameters(net, put):
    """(tensors of the parameters of a net of ours, its mean colour); `put` makes a tensor."""
    mean = put(np.array(MEAN_RGB, np.float32).reshape(1, 1, 1, 3), 0, 3, 1, 2)
    return {name: put(array, 3, 2, 0, 1) for name, array in net.layers.parameters().items()}, mean


class StyleNet(torch.nn.Module):
    """The style net of the paper's Table 1, with the parameters of ours."""

    def __init__(self, width, put):
        super().__init__()
        self.p, self.mean = parameters(style_net(width=width), put)

    def norm(self, x, name, relu=True):
        y = F.instance_norm(x, weight=self.p[f"{name}.gamma"], bias=self.p[f"{name}.beta"])
        return F.relu(y, inplace=True) if relu else y

    def forward(self, images):
        p, x = self.p, F.pad(images - self.mean, (PAD,) * 4, mode="reflect")
        for name, stride, pad in (("conv1", 1, 4), ("conv2", 2, 1), ("conv3", 2, 1)):
            x = self.norm(F.conv2d(x, p[f"{name}.w"], None, stride, pad), f"{name}_norm")
        for name in (f"residual{k}" for k in range(1, 6)):
            y = self.norm(F.conv2d(x, p[f"{name}.conv1.w"]), f"{name}.norm1")
            y = self.norm(F.conv2d(y, p[f"{name}.conv2.w"]), f"{name}.norm2", relu=False)
            x = y + x[:, :, 2:-2, 2:-2]
        for name in ("up1", "up2"):
            x = F.conv_transpose2d(x, p[f"{name}.w"], stride=2, padding=1, output_padding=1)
            x = self.norm(x, f"{name}_norm")
        x = SPAN * torch.tanh(F.conv2d(x, p["out.w"], p["out.b"], padding=4))
        return (x + self.mean)[:, :, : images.shape[2], : images.shape[3]]


def vgg_features(images, p, mean, taps):
    """{tap: features of VGG}, which stops at the last of `taps`."""
    x, found = images - mean, {}
    for tap in LAYERS:
        if tap.endswith("_1") and tap != "relu1_1":
            x = F.max_pool2d(x, 2)
        conv = tap.replace("relu", "conv")
        x = F.relu(F.conv2d(x, p[f"{conv}.w"], p[f"{conv}.b"], padding=1), inplace=True)
        if tap in taps:
            found[tap] = x
            if len(found) == len(taps):
                return found


def gram(f):
    n, c, h, w = f.shape
    f = f.reshape(n, c, h * w)
    return f @ f.transpose(1, 2) / (c * h * w)


class Torch(Side):
    def __init__(self, order=torch.contiguous_format):
        self.order = order

    def put(self, array, *axes):
        """The array as a tensor on the device, with its axes permuted if it has four."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        tensor = tensor.permute(axes).contiguous(memory_format=self.order) if tensor.ndim == 4 else tensor
        return tensor.to(self.device)

    def prepare(self, job):
        torch.set_num_threads(threads())
        torch.backends.cudnn.benchmark = True  # the manual recommends it for inputs of one size
        self.device = job["device"]
        if self.device != "cpu" and not torch.cuda.is_available():
            raise UserError("--device cuda: this PyTorch finds no GPU; install one for CUDA (pytorch.org)")
        if job["what"] == "train":
            return self.training(job)
        if job["what"] == "stylize":
            net, images = StyleNet(job["width"], self.put), self.put(photos(job), 0, 3, 1, 2)
            return torch.inference_mode()(lambda: [net(images).permute(0, 2, 3, 1)])
        x, w, dy = conv_inputs(job)
        x, w, dy = self.put(x, 0, 3, 1, 2), self.put(w, 3, 2, 0, 1), self.put(dy, 0, 3, 1, 2)
        if job["what"] == "conv forward":
            return torch.inference_mode()(lambda: [F.conv2d(x, w, padding=1).permute(0, 2, 3, 1)])
        y = F.conv2d(x.requires_grad_(), w.requires_grad_(), padding=1)

        def once():
            dx, dw = torch.autograd.grad(y, (x, w), dy, retain_graph=True)
            return [dx.permute(0, 2, 3, 1), dw.permute(2, 3, 1, 0)]

        return once

    def training(self, job):
        net, vgg = StyleNet(job["width"], self.put), parameters(VGG16.load(), self.put)
        adam = torch.optim.Adam([p.requires_grad_() for p in net.p.values()], DEFAULTS.lr)
        images, target = self.put(photos(job), 0, 3, 1, 2), self.put(painting(), 0, 3, 1, 2)
        grams = {
            name: gram(f).expand(len(images), -1, -1) for name, f in vgg_features(target, *vgg, STYLE).items()
        }

        def once():
            with torch.no_grad():
                targets = vgg_features(images, *vgg, CONTENT)
            y = net(images)
            f = vgg_features(y, *vgg, CONTENT | STYLE)
            content = sum(weight * F.mse_loss(f[name], targets[name]) for name, weight in CONTENT.items())
            style = sum(weight * F.mse_loss(gram(f[name]), grams[name]) for name, weight in STYLE.items())
            down, across = y[:, :, 1:] - y[:, :, :-1], y[:, :, :, 1:] - y[:, :, :, :-1]
            tv = DEFAULTS.tv_weight * 0.5 * ((down**2).sum() + (across**2).sum()) / len(y)
            total = content + style + tv
            adam.zero_grad()
            total.backward()
            adam.step()
            return [term.item() for term in (content, style, tv, total)]

        return once

    def wait(self):
        if self.device != "cpu":
            torch.cuda.synchronize()

    def to_numpy(self, result):
        return torch.as_tensor(result).cpu().numpy()

    def peak_memory(self):
        return torch.cuda.max_memory_reserved() if self.device != "cpu" else super().peak_memory()


class OnnxRuntime(Torch):
    """Stylising with the net as PyTorch exports it."""

    def prepare(self, job):
        import onnxruntime

        self.device = "cpu"
        net, images, model = StyleNet(job["width"], self.put), self.put(photos(job), 0, 3, 1, 2), io.BytesIO()
        names = {"input_names": ["images"], "output_names": ["y"]}
        torch.onnx.export(net, (images,), model, opset_version=17, dynamo=False, **names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
        session = onnxruntime.InferenceSession(model.getvalue(), options, ["CPUExecutionProvider"])
        return lambda: [session.run(None, {"images": images.numpy()})[0].transpose(0, 2, 3, 1)]


def side(name):
    """The peer of this name."""
    if name == "onnxruntime":
        return OnnxRuntime()
    return Torch(torch.channels_last if name == "torch channels-last" else torch.contiguous_format)
