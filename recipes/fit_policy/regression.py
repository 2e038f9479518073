"""Linear least squares in closed form from sums, whose size does not depend on how much was added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class Sums:
    """The sums of products from which targets are regressed on features, for any number of problems of one shape.

    Products of a batch are taken in float32 and added in float64.
    """

    def __init__(self) -> None:
        self.xx: Tensor | float = 0.0
        self.xy: Tensor | float = 0.0

    def add(self, x: Float[Tensor, "*problem rows features"], y: Float[Tensor, "*problem rows targets"]) -> None:
        """Add rows."""
        x, y = x.float(), y.float()
        self.xx = self.xx + (x.mT @ x).double()
        self.xy = self.xy + (x.mT @ y).double()

    def solve(self, ridge: float, among: Sequence[int] | None = None) -> Float[Tensor, "*problem features targets"]:
        """The weights of the least squared error, in float32.

        Args:
            ridge: A penalty on each weight, in mean squares of its feature.
            among: The features to use; all by default.

        Returns:
            The weights for each problem, feature in use and target.
        """
        assert isinstance(self.xx, Tensor)
        assert isinstance(self.xy, Tensor)
        used = range(self.xx.shape[-1]) if among is None else among
        xx, xy = self.xx[..., used, :][..., used], self.xy[..., used, :]
        penalty = torch.diag_embed(ridge * xx.diagonal(dim1=-2, dim2=-1) + 1e-12)
        return torch.linalg.solve(xx + penalty, xy).float()

    def explained(self, ridge: float, among: Sequence[int]) -> float:
        """What the weights of `solve` take from the sum of squares of the targets, averaged over problems."""
        assert isinstance(self.xy, Tensor)
        return float((self.xy[..., among, :] * self.solve(ridge, among)).sum((-2, -1)).mean())


def nested_sets(sums: Sums, ridge: float, count: int) -> list[list[int]]:
    """Sets of 1 to ``count`` features, the largest first, each without the feature that explains least beside the rest.

    Args:
        sums: Of the features and targets.
        ridge: The penalty of `Sums.solve`.
        count: How many features there are.

    Returns:
        The features of each set, in ascending order.
    """
    sets = [[*range(count)]]
    while len(sets[-1]) > 1:
        smaller = [[other for other in sets[-1] if other != dropped] for dropped in sets[-1]]
        sets.append(max(smaller, key=lambda among: sums.explained(ridge, among)))
    return sets
