"""Speech as the codes of a trained VQ-VAE, at a fixed rate, and back to a waveform."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..artifacts import save_model
from ..data.base import InputKind
from ..data.reading.audio import Audio
from ..registry import ROOT, build
from ..schema import PathText
from .base import Stream
from .speech.codec import Codec

PACKAGED = ROOT / "models" / "pretrained" / "codes"
"""The packaged VQ-VAE; ``README.md`` in the folder names its training data and command."""


@dataclass(frozen=True)
class FrontEnd:
    """Codes of one level of a VQ-VAE: the packaged one, of read English, or one that `vqmem vqvae` has trained.

    Args:
        path: folder of a finished run, or ``packaged``.
        level: index of the level; -1 = the last, which has the fewest codes per second with the recipe's defaults.
    """

    path: PathText = "packaged"
    level: int = -1
    input_kind: ClassVar[InputKind] = "audio"
    size_unit: ClassVar[str] = "sample"
    output_kind: ClassVar[str] = "audio"

    def fit(self, texts: Iterable[Audio]) -> VQVAECodes:
        """Load the VQ-VAE; the recordings are not read. Raises `ValueError` if it or the level is missing."""
        if not self.path:
            raise ValueError("front-end vqvae_codes has no path; give `path: FOLDER` of a finished `vqmem vqvae`")
        run = PACKAGED if self.path == "packaged" else Path(self.path)
        return VQVAECodes(build("codecs", "vqvae").load(run / "model"), self.level)

    def load(self, folder: Path) -> VQVAECodes:
        """Read what `VQVAECodes.save` wrote; ``path`` need not exist any more."""
        return VQVAECodes(build("codecs", "vqvae").load(Path(folder)), self.level)


class VQVAECodes:
    """A VQ-VAE as a front-end. Ids are the codes of one level, sizes are in samples."""

    input_kind: ClassVar[InputKind] = "audio"
    size_unit: ClassVar[str] = "sample"
    output_kind: ClassVar[str] = "audio"

    def __init__(self, model: Codec, level: int = -1) -> None:
        """Use one level of ``model``. Raises `ValueError` if there is no such level."""
        count = len(model.config.hops)
        if not -count <= level < count:
            raise ValueError(f"vqvae_codes level {level} is not there; the VQ-VAE has {count}, give 0 to {count - 1}")
        self.model, self.level = model, level % count
        self.hop, self.rate = model.config.hops[self.level], model.config.rate
        self.vocab_size = model.config.codes

    def encode(self, text: Audio | Float[Tensor, " time"]) -> Stream:
        """The codes of a recording (or of samples at `rate`), with times in seconds; the last ends with the sound.

        Only a chunk of the recording is in memory at a time; the codes do not depend on the chunks.
        """
        parts = [text] if isinstance(text, Tensor) else text.stream(rate=self.rate)
        counted = _Counted(parts)
        ids = [code[0] for code in self.model.encode_stream(counted, self.level)]
        codes = torch.cat([torch.zeros(0, dtype=torch.long), *ids])
        edges = (torch.arange(len(codes) + 1) * self.hop).clamp(max=counted.total)
        seconds = edges.double() / self.rate
        return Stream(codes, seconds[:-1].float(), seconds[1:].float(), edges.diff().int())

    def decode(self, ids: Sequence[int]) -> Float[Tensor, " time"]:
        """Decode codes to a waveform at `rate` samples per second, a hop per code."""
        codes = torch.tensor(ids, dtype=torch.long).view(1, -1)
        parts = self.model.decode_stream([codes], self.level) if codes.numel() else ()
        return torch.cat([torch.zeros(0), *(part[0] for part in parts)])

    def save(self, folder: Path) -> None:
        """Write the VQ-VAE as a model folder."""
        save_model(Path(folder), self.model.kind, self.model.fields(), cast(nn.Module, self.model))


class _Counted:
    """Yields the parts of a recording as batches of one, and counts their samples."""

    def __init__(self, parts: Iterable[Float[Tensor, " _"]]) -> None:
        self.parts, self.total = parts, 0

    def __iter__(self):
        for part in self.parts:
            self.total += len(part)
            yield part[None]
