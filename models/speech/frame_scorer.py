"""The VQ-LM on continuous frames of speech, together with the features that it was trained on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...artifacts import CONFIG, load_model, read_config
from ...registry import build
from ...schema import coerce
from ...tokenizers_._pinned import unpin
from ...tokenizers_.speech.frames import Extractor
from ..loss import Loss
from ..vq_lm import SIGNALS, VQLM, State, VQLMConfig

KIND = "frame_scorer"
"""The kind in the config of its model folders."""
FOLDER = "model"
"""Its folder in a run."""


class FrameScorer(nn.Module):
    """A `VQLM` on frames that are standardised by mean and deviation of the training frames in each dimension.

    Scores are in nats per dimension of such frames; a Gaussian with only these two parameters has 1.42 on average. It
    satisfies the contract of a scorer (`ScorerModel`) with frames for tokens: causal, and the same for any chunking.
    """

    signals: ClassVar[tuple[str, ...]] = SIGNALS
    input_kind: ClassVar[Literal["tokens", "frames"]] = "frames"
    mean: Float[Tensor, " dim"]
    deviation: Float[Tensor, " dim"]

    folder: Path
    """The folder that it was loaded from."""

    def __init__(
        self, features: str | dict[str, Any], config: VQLMConfig, encoder: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        assert config.frame_dim is not None
        self.features, self.encoder, self.lm = features, encoder, VQLM(config)
        self.register_buffer("mean", torch.zeros(config.frame_dim))
        self.register_buffer("deviation", torch.ones(config.frame_dim))

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> FrameScorer:
        """An untrained model from its `fields`."""
        return FrameScorer(fields["features"], coerce(VQLMConfig, fields["config"], ""), fields.get("encoder"))

    def fields(self) -> dict[str, Any]:
        """JSON-able values from which it is rebuilt, without the weights."""
        return {"features": self.features, "config": asdict(self.lm.config), "encoder": self.encoder}

    def extractor(self) -> Extractor:
        """The extractor of its frames. Raises `ValueError` if the model behind it is missing or another one."""
        made = unpin(self.encoder, self.folder) if self.encoder else build("features", self.features).build()
        if made.dim != len(self.mean):
            raise ValueError(
                f"the frame scorer needs frames of {len(self.mean)} numbers, and the features {self.features!r} have "
                f"{made.dim}; put back the model that it was trained on"
            )
        return made

    @torch.no_grad()
    def standardise_by(self, frames: Float[Tensor, "frames dim"]) -> None:
        """Set mean and deviation from training frames, before training. Constant dimensions are not scaled."""
        deviation, mean = torch.std_mean(frames.double(), 0, correction=0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.where(deviation > 1e-6, torch.ones_like(deviation)))

    def initial_state(self, batch: int) -> State:
        """The state of a new recording: zeros."""
        return self.lm.initial_state(batch)

    def score(
        self, frames: Float[Tensor, "batch time dim"], state: State
    ) -> tuple[Float[Tensor, "batch time signal"], State]:
        """Surprise, rarity and gain of each frame, in nats per dimension, and the state after the last."""
        return self.lm.score(self._standardised(frames), state)

    def training_step(
        self, frames: Float[Tensor, "batch time dim"], state: State, mask: Bool[Tensor, "batch time"]
    ) -> tuple[Loss, State]:
        """As `VQLM.training_step`."""
        return self.lm.training_step(self._standardised(frames), state, mask)

    def codes(self, frames: Float[Tensor, "batch time dim"]) -> Int[Tensor, "batch time"] | Int[Tensor, "batch time _"]:
        """The code of each frame, or one for each stage or slice."""
        return self.lm.codes(self._standardised(frames))

    def report(self, frames: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]) -> dict[str, float]:
        """As `VQLM.report`; ``residual`` is in bits per dimension, ``rate`` in bits per frame."""
        return self.lm.report(self._standardised(frames), mask)

    def _standardised(self, frames: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        return (frames - self.mean) / self.deviation


def is_frame_scorer(run: Path) -> bool:
    """Whether the folder of a run has a frame scorer. Raises `ValueError` if the model's config is damaged."""
    folder = Path(run) / FOLDER
    return (folder / CONFIG).is_file() and read_config(folder)["kind"] == KIND


def load_frame_scorer(run: Path, device: torch.device | str = "cpu") -> FrameScorer:
    """Load the frame scorer of a finished run, in eval mode. Raises `ValueError` if it is missing or damaged."""
    model = load_model(Path(run) / FOLDER, FrameScorer.from_fields, kind=KIND, device=device)
    model.folder = Path(run) / FOLDER
    return model
