"""Linear least squares in closed form from sums, whose size does not depend on how much was added."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Sums:
    """The sums of products from which targets are regressed on features, for any number of problems of one shape.

    Products of a batch are taken in float32 and added in float64.
    """

    def __init__(self) -> None:
        self.count: Tensor | float = 0.0
        self.xx: Tensor | float = 0.0
        self.xy: Tensor | float = 0.0
        self.yy: Tensor | float = 0.0
        self.y: Tensor | float = 0.0

    def add(self, x: Float[Tensor, "*problem rows features"], y: Float[Tensor, "*problem rows targets"]) -> None:
        """Add rows."""
        x, y = x.float(), y.float()
        self.count = self.count + x.shape[-2]
        self.xx = self.xx + (x.mT @ x).double()
        self.xy = self.xy + (x.mT @ y).double()
        self.yy = self.yy + y.double().square().sum(-2)
        self.y = self.y + y.double().sum(-2)

    def solve(self, ridge: float) -> Float[Tensor, "*problem features targets"]:
        """The weights of the least squared error, with a penalty of ``ridge`` times the mean square of each feature."""
        assert isinstance(self.xx, Tensor)
        scale = self.xx.diagonal(dim1=-2, dim2=-1)
        return torch.linalg.solve(self.xx + torch.diag_embed(ridge * scale + 1e-12), self.xy)
