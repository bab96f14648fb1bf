"""The same training step in PyTorch, in a process of its own: `python -m slimjax.bench.torch_side`.

The first line of stdin is a JSON object that describes network and step, each further one the widths of one
step; every line is answered by one. CIFAR ResNets, weights sliced to each subnet's size, batch statistics kept, one
backward pass per subnet and one fused update: how one writes it there. On a GPU, if there is one: then arrays lie
channels-last, and bfloat16 is autocast.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from slimjax.worker import serve

Width = Mapping[str, int]
"""Channels by group."""


class Network:
    """A CIFAR ResNet (`models/resnet.py`) whose weights are sliced when it is called."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec
        self.trainable: list[torch.Tensor] = []
        self.kernels: dict[str, torch.Tensor] = {}
        self.norms: dict[str, list[torch.Tensor]] = {}
        stage = [channels * spec["multiplier"] for channels in spec["channels"]]
        self._declare("stem", spec["image_shape"][-1], stage[0])
        before = stage[0]
        for s, channels in enumerate(stage, 1):
            for block in range(1, spec["blocks"] + 1):
                self._declare(f"stage{s}/block{block}/1", before, channels)
                self._declare(f"stage{s}/block{block}/2", channels, channels)
                before = channels
        self.classifier = self._trainable(0.01 * torch.randn(spec["classes"], before))
        self.bias = self._trainable(torch.zeros(spec["classes"]))

    def __call__(self, images: torch.Tensor, width: Width, affine: str, stats: bool) -> torch.Tensor:
        """Logits [B, K] of images [B, C, H, W]."""

        def layer(x: torch.Tensor, name: str, out: int, stride: int = 1) -> torch.Tensor:
            kernel = self.kernels[name][:out, : x.shape[1]]
            x = functional.conv2d(x, kernel, stride=stride, padding=1)
            gamma, beta, mean, variance = (value[:out] for value in self.norms[f"{name} {affine}"])
            running = (mean, variance) if stats else (None, None)
            return functional.batch_norm(x, *running, gamma, beta, training=True)

        x = functional.relu(layer(images, "stem", width["stage1"], self.spec["stem_stride"]))
        for s in range(1, len(self.spec["channels"]) + 1):
            for block in range(1, self.spec["blocks"] + 1):
                name, out = f"stage{s}/block{block}", width[f"stage{s}"]
                stride = 2 if block == 1 and s > 1 else 1
                y = functional.relu(layer(x, f"{name}/1", width[name], stride))
                y = layer(y, f"{name}/2", out)
                if block == 1 and s > 1:
                    x = functional.pad(x[:, :out, ::2, ::2], (0, 0, 0, 0, 0, max(0, out - x.shape[1])))
                x = functional.relu(x + y)
        return functional.linear(x.mean((2, 3)), self.classifier[:, : x.shape[1]], self.bias)

    def _declare(self, name: str, before: int, channels: int) -> None:
        self.kernels[name] = self._trainable(0.1 * torch.randn(channels, before, 3, 3))
        for affine in self.spec["affine"]:
            gamma, beta = self._trainable(torch.ones(channels)), self._trainable(torch.zeros(channels))
            self.norms[f"{name} {affine}"] = [gamma, beta, torch.zeros(channels), torch.ones(channels)]

    def _trainable(self, value: torch.Tensor) -> torch.Tensor:
        self.trainable.append(value.requires_grad_())
        return value


class Step:
    """One training step: every slot's loss, its gradient added to the others', one update."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec, self.on_gpu = spec, torch.cuda.is_available()
        torch.set_default_device("cuda" if self.on_gpu else "cpu")
        self.net = Network(spec)
        self.forward = torch.compile(self.net) if spec["compile"] else self.net
        height, columns, channels = spec["image_shape"]
        form = torch.channels_last if self.on_gpu else torch.contiguous_format
        self.images = torch.randn(spec["batch"], channels, height, columns).to(memory_format=form)
        self.cast = functools.partial(
            torch.autocast, "cuda" if self.on_gpu else "cpu", torch.bfloat16, spec["dtype"] == "bfloat16"
        )
        self.labels = torch.randint(spec["classes"], (spec["batch"],))
        self.optimizer = torch.optim.SGD(self.net.trainable, **spec["optimizer"], fused=True)

    def __call__(self, widths: list[Width]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        teacher = None
        for slot, width in zip(self.spec["slots"], widths, strict=True):
            with self.cast():
                logits = self.forward(self.images, width, slot["affine"], slot["stats"]).float()
            self._loss(logits, slot["target"], teacher).backward()
            teacher = logits.detach().softmax(-1) if teacher is None else teacher
        self.optimizer.step()
        if self.on_gpu:
            torch.cuda.synchronize()

    def _loss(self, logits: torch.Tensor, target: str, teacher: torch.Tensor | None) -> torch.Tensor:
        smoothing = self.spec["label_smoothing"]
        loss = torch.zeros(())
        if target in ("labels", "both"):
            loss = functional.cross_entropy(logits, self.labels, label_smoothing=smoothing)
        if target in ("teacher", "both"):
            loss = loss + functional.cross_entropy(logits, teacher)
        return loss


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    serve(_begin)


def _begin(spec: Any) -> tuple[dict[str, Any], Any]:
    step = Step(spec)

    def answer(widths: Any) -> dict[str, Any]:
        step(widths)
        return {}

    return {"version": torch.__version__}, answer


if __name__ == "__main__":
    main()
