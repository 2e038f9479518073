"""Speech as units, 50 a second: the k-means cluster nearest to the features of each 20 ms (HuBERT, GSLM)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Interval
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..artifacts import FRONT_END, read_sealed, seal
from ..data.base import InputKind
from ..data.reading.audio import Audio
from ..data.reading.files import Skipping
from ..files import atomic_write, missing_file
from ..registry import ROOT, FeaturesSpec, build
from ..schema import PathText, PositiveInt, Validated
from ._pinned import pin, unpin
from ._units import format_units, stream_of
from .base import Stream, load_tokenizer
from .speech.frames import Extractor, stream_frames

PACKAGED = ROOT / "models" / "pretrained" / "units"
"""The packaged units; ``README.md`` in the folder names their training data and command."""

_FILE = "kmeans.safetensors"
_ENCODER = "encoder.json"


@dataclass(frozen=True)
class FrontEnd(Validated):
    """Hsu et al., 2106.07447: clusters of MFCC first, then of a layer of a model that was trained on those.

    Args:
        features: the features to cluster: a name, or ``name`` and its keys (`vqmem list features`).
        clusters: number of units.
        seed: seed of the choice of frames and of the clustering.
        fit_frames: maximum number of frames to fit on, drawn evenly from all (50 a second).
        deduplicate: whether a run of one unit is one token, whose size is its length in frames.
        frames: whether streams contain the features too (of a run, their mean).
        fitted: a run of `vqmem fit_units` whose clusters are used, or ``packaged``; empty = fit new clusters.
    """

    features: FeaturesSpec = "mfcc39"
    clusters: PositiveInt = 100
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0  # the range that scikit-learn accepts
    fit_frames: int = 200_000
    deduplicate: bool = False
    frames: bool = False
    fitted: PathText = ""
    size_unit: ClassVar[str] = "frame"
    input_kind: ClassVar[InputKind] = "audio"

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        super().__post_init__()
        if self.fit_frames < self.clusters:
            raise ValueError(
                f"hubert_units fit_frames {self.fit_frames} is less than clusters {self.clusters}; give more of them"
            )

    def fit(self, texts: Iterable[Audio]) -> UnitTokenizer:
        """Cluster the frames of training recordings; unreadable ones are skipped and listed at the end.

        The same recordings and seed give the same clusters. Raises `ValueError` for fewer frames than clusters, and if
        ``fitted`` has no clusters, or was made with other keys.
        """
        if self.fitted:
            return self._load_fitted()
        extractor = self._extractor()
        frames = _draw_frames(texts, extractor, self.fit_frames, self.seed)
        if len(frames) < self.clusters:
            have = f"{len(frames)} frames of 20 ms"
            raise ValueError(f"{have} are fewer than {self.clusters} clusters; give more speech or fewer clusters")
        return UnitTokenizer(extractor, cluster(frames, self.clusters, self.seed), self.deduplicate, self.frames)

    def load(self, folder: Path) -> UnitTokenizer:
        """Read the clusters in ``folder`` and the model of their features. Raises `ValueError` if one is missing."""
        path = Path(folder) / _FILE
        if not path.is_file():
            raise ValueError(f"no {_FILE} in {str(folder)!r}; was the run saved with the hubert_units front-end?")
        try:
            centroids = load_file(path)["centroids"]
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{str(path)!r} is damaged ({error}); fit or copy it again") from error
        note = Path(folder) / _ENCODER  # older runs have none
        extractor = unpin(read_sealed(note), Path(folder)) if note.is_file() else self._extractor()
        if centroids.ndim != 2 or centroids.shape[1] != extractor.dim:
            raise ValueError(
                f"the clusters in {str(folder)!r} are of other features than {self.features!r} gives; put back the "
                "model that they were fitted on, or fit them again"
            )
        return UnitTokenizer(extractor, centroids, self.deduplicate, self.frames)

    def _load_fitted(self) -> UnitTokenizer:
        """The clusters of ``fitted``, whose ``features`` and ``clusters`` must equal these keys."""
        run = PACKAGED if self.fitted == "packaged" else Path(self.fitted)
        if not run.is_dir():
            raise missing_file("hubert_units fitted (the folder of a finished `vqmem fit_units`)", run)
        fitted = load_tokenizer(run / "front_end")
        if not isinstance(fitted, UnitTokenizer):
            raise ValueError(f"fitted = {self.fitted!r} has no units; give the folder of a finished `vqmem fit_units`")
        made = json.loads((run / "front_end" / FRONT_END).read_text(encoding="utf-8"))["fields"]
        for key in ("features", "clusters"):
            if made[key] != getattr(self, key):
                difference = f"{key} = {made[key]!r}, not {getattr(self, key)!r}"
                raise ValueError(
                    f"the units of fitted = {self.fitted!r} were made with {difference}; say so, or take others"
                )
        return UnitTokenizer(fitted.extractor, fitted.centroids, self.deduplicate, self.frames)

    def _extractor(self) -> Extractor:
        return build("features", self.features).build()


class UnitTokenizer:
    """Fitted clusters. Times of its streams are in seconds, sizes in frames of 20 ms.

    Args:
        extractor: computes the features of frames.
        centroids: the centre of each cluster; its index is the unit.
        deduplicate: whether runs of equal units become one unit.
        frames: whether streams contain the features of their frames, too.
    """

    input_kind: ClassVar[InputKind] = "audio"
    size_unit = "frame"

    def __init__(
        self, extractor: Extractor, centroids: Float[Tensor, "clusters dim"], deduplicate: bool, frames: bool
    ) -> None:
        assert centroids.shape[1] == extractor.dim, "the clusters are of other features"
        self.extractor, self.centroids, self.deduplicate, self.frames = extractor, centroids, deduplicate, frames
        self.vocab_size = len(centroids)

    def encode(self, text: Audio) -> Stream:
        """The units of a recording, read in bounded memory. Raises `UnreadableError` as `Audio.stream` does."""
        return self.encode_chunks(text.stream(), text.name)

    def encode_chunks(self, chunks: Iterable[Float[Tensor, " _"]], name: str = "the recording") -> Stream:
        """The units of samples at 16 kHz that come in chunks of any size, which does not change the units.

        Raises `UnreadableError` if there are too few samples for a frame (25 ms).
        """
        ids, kept = [], []
        for frames in stream_frames(chunks, self.extractor, name):
            ids.append(self.nearest(frames))
            if self.frames:
                kept.append(frames)
        return stream_of(torch.cat(ids), self.deduplicate, torch.cat(kept) if kept else None)

    def nearest(self, frames: Float[Tensor, "frames dim"]) -> Int[Tensor, " frames"]:
        """The cluster with the nearest centre for each frame."""
        return (self.centroids.square().sum(1) - 2 * frames @ self.centroids.T).argmin(1)

    def decode(self, ids: list[int]) -> str:
        """The units' numbers with spaces between them."""
        return format_units(ids)

    def save(self, folder: Path) -> None:
        """Write the centres of the clusters, and the place and SHA-256 of the model of their features."""
        if note := pin(self.extractor, folder):
            atomic_write(Path(folder) / _ENCODER, json.dumps(seal(note), indent=2) + "\n")
        atomic_write(Path(folder) / _FILE, save({"centroids": self.centroids.contiguous()}))


def cluster(frames: Float[Tensor, "frames dim"], clusters: int, seed: int) -> Float[Tensor, "clusters dim"]:
    """Find centres by scikit-learn's mini-batch k-means with the settings of HuBERT's recipe."""
    from sklearn.cluster import MiniBatchKMeans

    settings: dict[str, Any] = {
        "max_iter": 100,
        "batch_size": 10_000,
        "tol": 0.0,
        "max_no_improvement": 100,
        "n_init": 20,
    }
    means = MiniBatchKMeans(clusters, random_state=seed, reassignment_ratio=0.0, **settings).fit(frames.numpy())
    return torch.from_numpy(means.cluster_centers_).float()


def _draw_frames(
    recordings: Iterable[Audio], extractor: Extractor, limit: int, seed: int
) -> Float[Tensor, "frames dim"]:
    """Draw at most ``limit`` frames uniformly in one pass: those with the smallest random keys."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.zeros(0, dtype=torch.float64)
    frames = torch.zeros(0, extractor.dim)
    skipping = Skipping()
    for recording in recordings:
        with skipping:
            new = torch.cat(list(stream_frames(recording.stream(), extractor, recording.name)))
            keys = torch.cat([keys, torch.rand(len(new), dtype=torch.float64, generator=generator)])
            frames = torch.cat([frames, new])
            if len(keys) > limit:
                smallest = keys.topk(limit, largest=False).indices.sort().values
                keys, frames = keys[smallest], frames[smallest]
    skipping.report()
    return frames
