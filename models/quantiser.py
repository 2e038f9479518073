"""The quantisers of `vector-quantize-pytorch` behind one call, and what is to be known of how codes are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, ResidualVQ, VectorQuantize

from .reduce import copy_from_first, sum_over_processes

Kind = Literal["vq", "residual", "product", "fsq"]


@dataclass(frozen=True)
class QuantiserConfig:
    """How embeddings are quantised."""

    kind: Kind = "vq"
    """``vq`` one codebook; ``residual`` each stage codes what the last left; ``product`` one codebook for each slice of
    the vector; ``fsq`` a fixed grid, rounded (2309.15505)."""
    codes: int = 64
    """Codes a codebook; `fsq` has the product of its ``levels`` instead."""
    groups: int = 2
    """Stages of ``residual``, slices of ``product``."""
    levels: tuple[int, ...] = (4, 4, 4)
    """Levels of each dimension of ``fsq``, 3 or more each."""
    decay: float = 0.95
    """Of the moving average that codes follow, a training step."""
    dead_below: float = 0.05
    """A code whose moving average of tokens a training step is below this is put on a token of the batch; 0 never."""
    commitment: float = 0.25
    """Weight of the commitment loss: the mean squared distance of an embedding to its code."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown quantiser {self.kind!r}; choose one of {', '.join(get_args(Kind))}")
        if self.codes < 1 or self.groups < 1:
            raise ValueError(f"a quantiser needs at least 1 code and 1 group, got {self.codes} and {self.groups}")
        if self.kind == "fsq" and (not self.levels or min(self.levels) < 3):
            raise ValueError(f"fsq needs one or more levels of 3 or more, got {tuple(self.levels)}")


class Quantiser(nn.Module):
    """Vectors to their quantised copies and code ids. Codebooks start as k-means of the vectors given at the start.

    In training mode every call moves the codebooks towards the vectors it saw (moving averages, 1711.00937 appendix
    A.1) and revives dead codes; gradients pass straight through. In evaluation mode nothing changes. Processes that
    train together (`reduce.joint_step`) move their codebooks towards the vectors of all and keep them equal.
    """

    def __init__(self, config: QuantiserConfig, start: Float[Tensor, "rows dim"]) -> None:
        super().__init__()
        self.config = config
        self.inner = _inner(config, start.shape[-1])
        if isinstance(self.inner, FSQ) and isinstance(self.inner.project_in, nn.Linear):
            # Vectors spread over the grid from the start: tanh of small numbers would all round to one code.
            with torch.no_grad():
                self.inner.project_in.weight.div_(self.inner.project_in(start).std(0).unsqueeze(1) + 1e-6)
        elif not isinstance(self.inner, FSQ) and not start.is_meta:
            # k-means draws distinct rows: a table smaller than the codebook is repeated rather than refused. It runs
            # here and not on the first batch, so that scoring with an untrained model changes nothing either.
            rows = start.repeat(-(-config.codes // start.shape[0]), 1)
            with torch.no_grad():
                self.inner.eval()(rows.unsqueeze(0))
            self.inner.train()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each codebook."""
        config = self.config
        if config.kind == "fsq":
            return (int(torch.tensor(config.levels).prod()),)
        return (config.codes,) * (1 if config.kind == "vq" else config.groups)

    def forward(
        self, x: Float[Tensor, "rows dim"]
    ) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, "rows groups"], Float[Tensor, ""]]:
        """Quantised vectors, code ids, and the commitment loss (weighted; 0 out of training and for ``fsq``)."""
        quantised, codes, *losses = self.inner(x.unsqueeze(0))
        if self.training:
            copy_from_first(self.inner.buffers())  # dead codes were put on vectors that each process drew
        # The library works in float32 and answers in it now and then.
        quantised, loss = quantised.squeeze(0).to(x.dtype), losses[0].sum().to(x.dtype) if losses else x.new_zeros(())
        if self.config.kind != "fsq":
            # Straight through here and not in the library, whose residual stages would each pass the gradient once.
            quantised = x + (quantised - x).detach()
        return quantised, codes.reshape(x.shape[0], -1).long(), loss

    @torch.no_grad()
    def look(self, x: Float[Tensor, "rows dim"]) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, "rows groups"]]:
        """Quantised vectors and code ids; changes nothing, in training mode either."""
        training = self.training
        quantised, codes, _ = self.eval()(x)
        self.train(training)
        return quantised, codes

    def vectors(self, codes: Int[Tensor, "batch codes"]) -> Float[Tensor, "batch codes dim"]:
        """What codes stand for, where there is one a vector (``vq`` and ``fsq``)."""
        return self.inner.get_output_from_indices(codes)  # pyright: ignore[reportCallIssue]


def usage(codes: Int[Tensor, "rows groups"], sizes: tuple[int, ...]) -> dict[str, float]:
    """How codes are used by these tokens: ``rate``, ``codes_used`` and ``dead_codes``.

    ``rate`` is the entropy of the code (or tuple of codes) in bits a token; the other two count the codes, over all
    codebooks, that some or none of these tokens have.
    """
    # One number for each tuple of codes, renumbered at each step so that no product of sizes can overflow.
    joint = torch.zeros_like(codes[:, 0])
    for group in codes.unbind(1):
        joint = torch.unique(joint * (int(group.max()) + 1) + group, return_inverse=True)[1]
    share = torch.bincount(joint).double() / joint.numel()
    used = sum(int(torch.bincount(group).count_nonzero()) for group in codes.unbind(1))
    rate = abs(float((share * share.log2()).sum()))
    return {"rate": rate, "codes_used": float(used), "dead_codes": float(sum(sizes) - used)}


def _inner(config: QuantiserConfig, dim: int) -> nn.Module:
    if config.kind == "fsq":
        return FSQ(levels=list(config.levels), dim=dim)
    options = {
        "codebook_size": config.codes,
        "kmeans_init": True,
        "decay": config.decay,
        "threshold_ema_dead_code": config.dead_below,
        "commitment_weight": config.commitment,
        "rotation_trick": False,
        # The library's own collectives run wherever a codebook is built, loaded or called, by one process or by all.
        "sync_codebook": False,
        "sync_kmeans": False,
    }
    if config.kind == "product" and dim % config.groups:
        raise ValueError(f"product cannot cut {dim} dimensions into {config.groups} slices; change groups or dim")
    if config.kind == "residual":
        inner = ResidualVQ(dim=dim, num_quantizers=config.groups, **options)
    elif config.kind == "product":
        slices = {"heads": config.groups, "codebook_dim": dim // config.groups, "separate_codebook_per_head": True}
        inner = VectorQuantize(dim=dim, **slices, **options)
    else:
        inner = VectorQuantize(dim=dim, **options)
    for codebook in inner.modules():
        if hasattr(codebook, "all_reduce_fn"):
            codebook.all_reduce_fn = sum_over_processes  # pyright: ignore[reportArgumentType]
    return inner
