"""What a network costs: multiply-adds of one image, in the two ways in which papers count them.

Papers print "FLOPs" for multiply-adds. The codes of the HRNet family, and the tables taken from them, differ from a
plain count in two ways: a transposed convolution is charged its kernel at each cell of its output (four times too much
at stride 2), and a "G" is 1024 ** 3. No two numbers compare before one knows which way each was counted.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

#: counting -> what one "G" of it is.
GIGA = {"true": 10**9, "published": 1024**3}

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def _check(counting: str) -> None:
    if counting not in GIGA:
        raise ValueError(f"counting: got {counting!r}, expected one of {', '.join(GIGA)}")


def macs(module: nn.Module, size: Sequence[int], counting: str = "true", channels: int = 3) -> int:
    """Multiply-adds of one forward pass in evaluation mode for one input (1, channels, H, W), `size` being (H, W).

    counting: "true" counts what is computed; a transposed convolution spreads each cell of its input once.
    "published" is the HRNet family's convention: transposed convolutions at their output's size (see `giga`).

    Counted, at every call: convolutions, transposed convolutions and linear layers that are modules, nn.Linear at every
    position it is applied to; and what a module says of itself: one with a method `uncounted`, which takes what its
    forward takes, adds the multiply-adds of one image that are in none of these layers, as Poseur's decoder does. Not
    counted: biases, normalisation, activations, pooling, interpolation, additions, softmax and expectation, the
    products inside attention where no module names them, whatever is called as a function of torch.

    A convolution counts each weight once a position, whatever its batch: of windows that a network folds into the batch
    (B x J about joints, in `windows.FineNet`) it counts a single one, nn.Linear all.

    Only shapes are computed, on the meta device, so that this takes milliseconds wherever the module lies; the module
    is left as it was. A forward that looks at values (`if x.max() > 0`) cannot be counted: torch says so.
    """
    _check(counting)
    if len(size) != 2 or min(size) < 1 or channels < 1:
        raise ValueError(
            f"macs: got size={tuple(size)} and channels={channels}, expected (height, width) in pixels and at least 1 "
            "channel"
        )
    total = 0

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += layer.in_features * output.numel()
            return
        assert isinstance(layer, _Convolution | _Transposed)
        by_input = isinstance(layer, _Transposed) and counting == "true"
        positions = prod((inputs[0] if by_input else output).shape[2:])
        # a weight is used once a position; prod(shape) already holds in * out / groups * kernel
        total += prod(layer.weight.shape) * positions

    def add(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        nonlocal total
        total += int(layer.uncounted(*inputs, **named))  # type: ignore[operator]

    meta: dict[str, Tensor] = {
        name: torch.empty_like(value, device="meta")
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }
    dtype = next((value.dtype for value in meta.values() if value.is_floating_point()), torch.get_default_dtype())
    modes = {m: m.training for m in module.modules()}
    hooks = [
        m.register_forward_hook(count)
        for m in module.modules()
        if isinstance(m, nn.Linear | _Convolution | _Transposed)
    ]
    hooks += [m.register_forward_hook(add, with_kwargs=True) for m in module.modules() if hasattr(m, "uncounted")]
    try:
        module.eval()
        with torch.no_grad():
            torch.func.functional_call(module, meta, torch.empty(1, channels, *size, device="meta", dtype=dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for m, mode in modes.items():
            m.training = mode
    return total


def giga(count: int, counting: str = "true") -> float:
    """The number as a paper prints it: `count` from `macs` over 10 ** 9, or over 1024 ** 3 for "published"."""
    _check(counting)
    return count / GIGA[counting]


__all__ = ["GIGA", "giga", "macs"]
