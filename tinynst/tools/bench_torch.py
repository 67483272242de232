"""The peers of the bench: the same nets with the same parameters in PyTorch and in onnxruntime."""

import io

import numpy as np
import torch

from .. import layers
from ..errors import UserError
from ..networks import VGG16, style_net
from ..networks.transform import PAD, SPAN
from ..networks.vgg import MEAN_RGB, FixedConv
from ..ops.fast.parallel import threads
from .bench_sides import CONTENT, DEFAULTS, STYLE, Side, conv_inputs, painting, photos

F = torch.nn.functional


class Net(torch.nn.Module):
    """A net of ours in PyTorch: the same layers with the same parameters. `put` makes its tensors."""

    def __init__(self, net, put):
        super().__init__()
        self.net, self.mean = net, put(np.array(MEAN_RGB, np.float32).reshape(1, 1, 1, 3), 0, 3, 1, 2)
        self.p = {name: put(array, 3, 2, 0, 1) for name, array in net.layers.parameters().items()}

    def forward(self, images, taps=()):
        """The style net's result, or {tap: features} of VGG, which stops at the last of `taps`."""
        x, features = images - self.mean, {}
        for name, layer in self.net.layers.layers.items():
            x = self.apply_layer(layer, name, x)
            if (tap := name.replace("conv", "relu")) in taps:
                features[tap] = x
                if len(features) == len(taps):
                    return features
        return (x + self.mean)[:, :, : images.shape[2], : images.shape[3]]

    def apply_layer(self, layer, name, x):
        w, b, gamma, beta = (self.p.get(f"{name}.{key}") for key in ("w", "b", "gamma", "beta"))
        match layer:
            case layers.Sequential():
                y = x
                for inner, each in layer.layers.items():
                    y = self.apply_layer(each, f"{name}.{inner}", y)
                c = layer.crop
                return y + x[:, :, c:-c, c:-c]
            case FixedConv():
                return F.relu(F.conv2d(x, w, b, padding=1), inplace=True)
            case layers.Conv():
                return F.conv2d(x, w, b, layer.stride, layer.pad)
            case layers.ConvTranspose():
                return F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1)
            case layers.InstanceNorm():
                y = F.instance_norm(x, weight=gamma, bias=beta)
                return F.relu(y, inplace=True) if layer.relu else y
            case layers.ReflectPad():
                return F.pad(x, (PAD,) * 4, mode="reflect")
            case layers.MaxPool():
                return F.max_pool2d(x, 2)
            case layers.ScaledTanh():
                return SPAN * torch.tanh(x)


def gram(f):
    n, c, h, w = f.shape
    f = f.reshape(n, c, h * w)
    return f @ f.transpose(1, 2) / (c * h * w)


class Torch(Side):
    def __init__(self, order=torch.contiguous_format):
        self.order, self.versions = order, {"torch": torch.__version__}

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
            net, images = Net(style_net(width=job["width"]), self.put), self.put(photos(job), 0, 3, 1, 2)
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
        net, vgg = Net(style_net(width=job["width"]), self.put), Net(VGG16.load(), self.put)
        adam = torch.optim.Adam([p.requires_grad_() for p in net.p.values()], DEFAULTS.lr)
        images, target = self.put(photos(job), 0, 3, 1, 2), self.put(painting(), 0, 3, 1, 2)
        grams = {name: gram(f).expand(len(images), -1, -1) for name, f in vgg(target, STYLE).items()}

        def once():
            with torch.no_grad():
                targets = vgg(images, CONTENT)
            y = net(images)
            f = vgg(y, CONTENT | STYLE)
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
        import onnx
        import onnxruntime

        self.device = "cpu"
        self.versions |= {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
        net, images, model = Net(style_net(width=job["width"]), self.put), photos(job), io.BytesIO()
        images = self.put(images, 0, 3, 1, 2)
        names = {"input_names": ["images"], "output_names": ["y"]}
        torch.onnx.export(net, (images,), model, opset_version=17, dynamo=False, **names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
        session = onnxruntime.InferenceSession(model.getvalue(), options, ["CPUExecutionProvider"])
        return lambda: [session.run(None, {"images": images.numpy()})[0].transpose(0, 2, 3, 1)]
