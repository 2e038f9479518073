"""The quantisers of `vector-quantize-pytorch` behind one interface, and statistics of code usage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, ResidualVQ, VectorQuantize

from ..schema import PositiveInt, Validated
from .host import precise
from .reduce import copy_from_first, sum_over_processes

Kind = Literal["vq", "residual", "product", "fsq"]


@dataclass(frozen=True)
class QuantiserConfig(Validated):
    """The kind and size of a quantiser."""

    kind: Kind = "vq"
    """``vq`` one codebook; ``residual`` each stage quantises the residual of the last; ``product`` one codebook per
    slice of the vector; ``fsq`` a fixed grid, rounded (2309.15505)."""
    codes: PositiveInt = 64
    """Codes of each codebook; `fsq` has the product of its ``levels`` instead."""
    groups: PositiveInt = 2
    """Stages of ``residual``, slices of ``product``."""
    levels: tuple[int, ...] = (4, 4, 4)
    """Levels of each dimension of ``fsq``, 3 or more each."""
    decay: float = 0.95
    """Decay per training step of the moving average that codes follow."""
    dead_below: float = 0.05
    """A code with fewer tokens per training step (moving average) is moved to a token of the batch; 0 = never."""
    commitment: float = 0.25
    """Weight of the commitment loss: the mean squared distance of an embedding to its code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "fsq" and (not self.levels or min(self.levels) < 3):
            raise ValueError(f"fsq needs one or more levels of 3 or more, got {tuple(self.levels)}")


class Quantiser(nn.Module):
    """Quantises vectors and returns the codes. k-means on the ``start`` vectors initialises the codebooks.

    In training mode every call moves the codebooks towards its vectors (moving averages, 1711.00937 appendix A.1) and
    revives dead codes; gradients pass straight through. In evaluation mode nothing changes. Processes that train
    together (`reduce.joint_step`) move their codebooks towards the vectors of all processes and keep them equal.
    """

    def __init__(self, config: QuantiserConfig, start: Float[Tensor, "rows dim"]) -> None:
        super().__init__()
        self.config = config
        self.inner = _inner(config, start.shape[-1])
        if isinstance(self.inner, FSQ) and isinstance(self.inner.project_in, nn.Linear):
            # Spread the vectors over the grid: tanh of small numbers would round to one code.
            with torch.no_grad():
                self.inner.project_in.weight.div_(self.inner.project_in(start).std(0).unsqueeze(1) + 1e-6)
        elif not isinstance(self.inner, FSQ) and not start.is_meta:
            # k-means draws distinct rows, so that a table smaller than the codebook is repeated. It runs here and not
            # on the first batch, so that scoring with an untrained model changes nothing.
            rows = start.repeat(-(-config.codes // start.shape[0]), 1)
            with torch.no_grad():
                self.inner.eval()(rows.unsqueeze(0))
            self.inner.train()
        for codebook in _codebooks(self.inner):
            codebook.init_embed_ = _nothing  # it would ask the device in each step whether this has been done

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
        """Quantised vectors, code ids, and the weighted commitment loss (0 in evaluation mode and for ``fsq``)."""
        quantised, codes, *losses = self.inner(x.unsqueeze(0))
        if self.training:
            copy_from_first(self.inner.buffers())  # each process moved dead codes to vectors of its batch
        # The library sometimes returns float32 for other types.
        quantised = quantised.squeeze(0).to(x.dtype)
        loss = losses[0].sum().to(x.dtype) if losses else x.new_zeros(())
        if self.config.kind != "fsq":
            # Straight-through here and not in the library, whose residual stages would each pass the gradient once.
            quantised = x + (quantised - x).detach()
        return quantised, codes.reshape(x.shape[0], -1).long(), loss

    @torch.no_grad()
    def look(self, x: Float[Tensor, "rows dim"]) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, "rows groups"]]:
        """Quantised vectors and code ids; changes nothing, even in training mode."""
        training = self.training
        quantised, codes, _ = self.eval()(x)
        self.train(training)
        return quantised, codes

    def vectors(self, codes: Int[Tensor, "batch codes"]) -> Float[Tensor, "batch codes dim"]:
        """The vectors of codes, for kinds with one code a vector (``vq`` and ``fsq``)."""
        return self.inner.get_output_from_indices(codes)  # pyright: ignore[reportCallIssue]


def usage(codes: Int[Tensor, "rows groups"], sizes: tuple[int, ...]) -> dict[str, Tensor]:
    """Statistics of code usage: ``rate``, ``codes_used`` and ``dead_codes``.

    ``rate`` is the entropy of the code (or tuple of codes) in bits per token. The others are the numbers of codes, over
    all codebooks, that occur and that do not occur.
    """
    # One number for each tuple of codes, renumbered at each step so that products of sizes do not overflow.
    joint, used = torch.zeros_like(codes[:, 0]), codes.new_zeros(())
    for group, size in zip(codes.unbind(1), sizes, strict=True):
        joint = joint * size + group
        joint = torch.searchsorted(joint.sort().values, joint)
        used = used + codes.new_zeros(size).scatter_(0, group, 1).sum()
    counts = torch.zeros_like(joint).scatter_add_(0, joint, torch.ones_like(joint))
    if counts.is_cpu:  # the zeros add nothing, but dropping them elsewhere would wait for the device
        counts = counts[counts > 0]
    share = precise(counts) / joint.numel()
    rate = (share * share.clamp(min=1 / max(1, joint.numel())).log2()).sum().abs()
    return {"rate": rate, "codes_used": used, "dead_codes": sum(sizes) - used}


def _inner(config: QuantiserConfig, dim: int) -> nn.Module:
    if config.kind == "fsq":
        return FSQ(levels=list(config.levels), dim=dim)
    options: dict[str, Any] = {
        "codebook_size": config.codes,
        "kmeans_init": True,
        "decay": config.decay,
        "threshold_ema_dead_code": config.dead_below,
        "commitment_weight": config.commitment,
        "rotation_trick": False,
        # The library's collectives would run whenever a process builds, loads or calls a codebook, even alone.
        "sync_codebook": False,
        "sync_kmeans": False,
    }
    if config.kind == "product" and dim % config.groups:
        raise ValueError(f"product cannot cut {dim} dimensions into {config.groups} slices; change groups or dim")
    if config.kind == "residual":
        inner = ResidualVQ(dim=dim, num_quantizers=config.groups, **options)
    elif config.kind == "product":
        options |= {"heads": config.groups, "codebook_dim": dim // config.groups, "separate_codebook_per_head": True}
        inner = VectorQuantize(dim=dim, **options)
    else:
        inner = VectorQuantize(dim=dim, **options)
    for codebook in _codebooks(inner):
        codebook.all_reduce_fn = sum_over_processes
        codebook.expire_codes_ = partial(_revive, codebook)
    return inner


def _codebooks(inner: nn.Module) -> list[Any]:
    return [module for module in inner.modules() if hasattr(module, "all_reduce_fn")]


def _nothing(*_: object, **__: object) -> None:
    pass


@torch.no_grad()
def _revive(codebook: Any, batch: Float[Tensor, "books rows dim"], seq_mask: None = None) -> None:
    """As the library, move dead codes to distinct vectors of the batch; if there are too few, the rest at later steps.

    The library draws as many vectors as codes are dead. On other devices, a permutation of the batch is drawn.
    """
    if batch.is_cpu:
        type(codebook).expire_codes_(codebook, batch)
    elif codebook.training and codebook.has_dead_code_replacement:
        dead = codebook.cluster_size < codebook.threshold_ema_dead_code
        number = dead.cumsum(1)
        dead &= number <= batch.shape[1]
        order = torch.rand(batch.shape[:2], device=batch.device).argsort(1)
        drawn = order.gather(1, (number - 1).clamp(0, batch.shape[1] - 1))
        vectors = batch.gather(1, drawn[..., None].expand(-1, -1, batch.shape[2]))
        size = codebook.reset_cluster_size
        codebook.embed.data.copy_(torch.where(dead[..., None], vectors, codebook.embed))
        codebook.embed_avg.data.copy_(torch.where(dead[..., None], vectors * size, codebook.embed_avg))
        codebook.cluster_size.data.masked_fill_(dead, size)
