"""Score one document after another, whatever it is: a text, a recording, or units of speech."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from ...artifacts import FRONT_END, SEAL, read_config
from ...data.base import Document, InputKind
from ...folders import loading
from ...memory.scorer import signals_of
from ...models.speech.frame_scorer import FOLDER, is_frame_scorer
from ...tokenizers_.base import input_kind, load_tokenizer
from ..lm.text_scorer import PACKAGED as PACKAGED_TEXT
from ..lm.text_scorer import load_scoring, score_ids
from ..scoring.audio import PACKAGED as PACKAGED_AUDIO
from ..scoring.audio import AudioScorer, load_audio_scorer
from ..scoring.text import score_tokens

COLUMNS = ("document", "token", "start", "end")
"""The columns before those of the signals."""


def choose_model(model: str | None, first: Document) -> Path:
    """The folder of the scorer: ``model``, or the packaged one for documents like ``first``.

    Raises `ValueError` for units of speech without a ``model``.
    """
    if model is not None:
        return Path(model)
    if first.units:
        raise ValueError("no scorer is packaged for units that were made elsewhere; give model=RUN, trained on them")
    return PACKAGED_TEXT if first.audio is None else PACKAGED_AUDIO


def kind_of(model: Path) -> InputKind:
    """What a scorer reads. Raises `ValueError` for a folder that is not a scorer."""
    with loading(model, "scorer", "text_lm", "frame_scorer"):
        return "audio" if is_frame_scorer(model) else input_kind(load_tokenizer(model / "front_end"))


def fingerprint_of(model: Path) -> str:
    """A hash of the weights, the architecture and the front-end of a scorer. Raises as `kind_of` does."""
    with loading(model, "scorer", "text_lm", "frame_scorer"):
        if is_frame_scorer(model):
            parts = [read_config(model / FOLDER)[SEAL].encode()]
        else:
            parts = [read_config(model / "scorer", "scorers")[SEAL].encode()]
            parts.append((model / "front_end" / FRONT_END).read_bytes())
        return hashlib.sha256(b"\n".join(parts)).hexdigest()[:16]


class DocumentScorer:
    """The scorer of a folder, and the tables that it makes of documents.

    Args:
        model: as `choose_model` gives it.
        kind: as `kind_of` gives it.
        device: of the model.
        fingerprint: as `fingerprint_of` gives it; part of the schema.
    """

    def __init__(self, model: Path, kind: InputKind, device: torch.device, fingerprint: str) -> None:
        self.kind: InputKind = kind
        self.scorer = load_audio_scorer(model, device) if kind == "audio" else load_scoring(model, device)
        in_order = self.scorer.signals if isinstance(self.scorer, AudioScorer) else signals_of(self.scorer.scorer)
        place = pa.int64() if kind == "text" else pa.float64()
        types = (pa.string(), pa.string() if kind == "text" else pa.int64(), place, place)
        columns = [*zip(COLUMNS, types, strict=True), *((name, pa.float32()) for name in in_order)]
        about = {"vqmem.scorer": fingerprint, "vqmem.unit": "characters" if kind == "text" else "seconds"}
        self.schema = pa.schema(columns, metadata=about)

    def score(self, document: Document) -> Iterator[pa.Table]:
        """Yield the tokens of a document in tables of bounded size, in order.

        Raises `UnreadableError` for a document that cannot be read, and `ValueError` for one that the scorer does not
        take.
        """
        content = document.content(self.kind)
        if isinstance(self.scorer, AudioScorer):
            scores = self.scorer(content)
            tokens = torch.arange(len(scores.signals)) if scores.ids is None else scores.ids
            yield self._table(document, tokens.numpy(), scores.starts.numpy(), scores.ends.numpy(), scores.signals)
        elif self.kind == "text":
            for part in score_tokens(content, self.scorer):
                yield self._table(document, part.texts, part.starts, part.ends, part.signals)
        else:
            stream = self.scorer.tokenizer.encode(content)
            signals = score_ids(stream.ids, self.scorer)
            yield self._table(document, stream.ids.numpy(), stream.starts.numpy(), stream.ends.numpy(), signals)

    def _table(
        self, document: Document, tokens: Any, starts: Any, ends: Any, signals: Float[Tensor, "time signal"]
    ) -> pa.Table:
        name = document.name.encode(errors="backslashreplace").decode()  # names of files may not be UTF-8
        columns = [pa.array([name] * len(tokens), pa.string()), tokens, starts, ends, *signals.float().numpy().T.copy()]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self.schema)
