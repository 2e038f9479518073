"""A HuBERT-style encoder that reads the waveform and writes letters by CTC, pretrained or from scratch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ....artifacts import CONFIG, load_model
from ....data._audio import RATE, Audio
from ....data._reading import Skipping, UnreadableError
from ....data.base import InputKind
from ....files import atomic_write
from ....folders import loading
from ....models.features._layer import Encoder
from ....models.features.hubert import load as load_hubert
from ....models.features.hubert import settings
from ....models.speech.ctc import fits
from ....models.speech.filter_bank import LOWEST, filter_bank
from ....models.speech.hubert import HubertConfig, span_mask
from ....models.speech.hubert_ctc import HubertCTC
from ....schema import PathText, coerce
from ....tokenizers_._frames import HOP, SPAN, stream_frames
from ...engine.distributed import main_process_first, ranks, save_model
from ...engine.run_dir import is_trained
from ...engine.trainer import seed_all, train
from ...speech.text_normalisation import Alphabet
from ..base import Decoding, Job, Utterance, Way, one_by_one
from ..utterances import size_of
from .batches import Loader
from .task import LEXICON, Batch, CTCTask, beam, beam_search, decoder, greedy, write_lexicon

KIND = "hubert_ctc"
KEPT = 1 << 27
"""Samples of training recordings that are kept in memory once they have been read: 2.3 hours, 512 MB."""


@dataclass(frozen=True)
class Recogniser:
    """Frames of 20 ms. A long recording is read in windows, with a second more on either side."""

    encoder: PathText | None = None
    """A finished `vqmem speech_pretraining` whose weights and settings to start from; null = ``model`` from scratch."""
    model: HubertConfig = field(default_factory=HubertConfig)
    """The network where there is no ``encoder``; its strides must multiply to 320 samples."""
    filters: float = 0.0
    """Highest frequency in Hz of the band-pass filters that its first convolution begins as; 0 = at random."""
    dropout: float = 0.1
    """Share of the last layer's output that is dropped before letters are made of it."""
    longest: float = 20.0
    """Longest training recording, in seconds; longer ones are left out."""
    window: float = 20.0
    """Seconds that are read at once of a recording; not much longer than training recordings are."""
    speed: float = 0.0
    """Most by which training recordings are made faster or slower, as a share; the pitch changes with it."""
    mask_prob: float = 0.0
    """Spans of frames to hide in every other training recording, times their length, as a share; 0 = none."""
    mask_length: int = 5
    """Frames a span."""
    freeze_convolutions: bool = False
    """Whether the convolutions stay as they are, as in HuBERT's fine-tuning."""
    reads: ClassVar[InputKind] = "audio"

    def __post_init__(self) -> None:
        """Raise `ValueError` for values that cannot be."""
        if not 0 <= self.dropout < 1 or not 0 <= self.mask_prob <= 1 or not 0 <= self.speed < 1:
            raise ValueError(
                f"dropout = {self.dropout} and speed = {self.speed} must be from 0 to below 1, mask_prob = "
                f"{self.mask_prob} from 0 to 1"
            )
        if self.longest <= 0 or self.window < 0.1 or self.mask_length < 1:
            raise ValueError(
                f"longest = {self.longest} s must be positive, window = {self.window} s at least 0.1, mask_length = "
                f"{self.mask_length} frames at least 1"
            )
        if self.filters and not LOWEST < self.filters <= RATE / 2:
            raise ValueError(f"filters = {self.filters} Hz must be above {LOWEST:g} and at most {RATE // 2}, or 0")
        if self.encoder is None:
            _check(self.model, "model")

    def length(self, content: Audio) -> int:
        """Samples at 16 kHz. Raises `UnreadableError` for a recording that cannot be read, or is without a frame."""
        return size_of(content)

    def check(self, out: Path, decoding: Decoding) -> None:
        """Raise `ValueError` for an encoder that is missing or of other frames, and for a beam that cannot be made."""
        if decoding.beam:
            beam_search(decoding)
        if self.encoder is not None and not (out / "model" / CONFIG).is_file():
            _pretrained(Path(self.encoder))

    def fit(self, job: Job) -> CTCTranscriber:
        """The network, trained and saved in ``model/``. Raises `ValueError` where no utterance can be learnt from."""
        with main_process_first():
            if not (job.out / LEXICON).is_file():
                texts = (utterance.text for utterance in job.utterances)
                atomic_write(job.out / LEXICON, write_lexicon(texts, job.alphabet))
        folder = job.out / "model"
        if not is_trained(folder, job.settings.steps):
            self._train(job, folder)
        return self.load(job.out, job.alphabet, job.decoding, job.device)

    def load(self, out: Path, alphabet: Alphabet, decoding: Decoding, device: torch.device) -> CTCTranscriber:
        """The trained network. Raises `ValueError` where it is missing, damaged or of another alphabet."""

        def make(fields: dict[str, Any]) -> HubertCTC:
            return HubertCTC(coerce(HubertConfig, fields["config"], ""), fields["letters"])

        model = load_model(out / "model", make, kind=KIND, device=device)
        assert isinstance(model, HubertCTC)
        return CTCTranscriber(model, alphabet, decoding, out / LEXICON, self.window)

    def _train(self, job: Job, folder: Path) -> None:
        seed_all(job.settings.seed)
        model = self._fresh(len(job.alphabet)).to(job.device)
        usable = _usable(job.utterances, job.alphabet, model.config, round(self.longest * RATE))
        kept = list(_read_once(usable, KEPT))
        task = CTCTask(model)

        def collate(numbers: list[int], draw: torch.Generator) -> Batch:
            return self._batch([kept[number] for number in numbers], job.alphabet, model.config, draw)

        loader = Loader([own.length for own in kept], collate, job.rows, job.settings.seed, *ranks())
        held_out = CTCTranscriber(model, job.alphabet, Decoding(), job.out / LEXICON, self.window)
        train(
            task,
            loader,
            job.settings,
            folder / "training",
            describe="recogniser",
            identity=job.identity,
            evaluate=(lambda: job.evaluate(held_out)) if job.settings.eval_every else None,
            best_by="cer",
        )
        fields = {"config": asdict(model.config), "letters": len(job.alphabet)}
        save_model(folder, KIND, json.loads(json.dumps(fields)), task.module)

    def _fresh(self, letters: int) -> HubertCTC:
        if self.encoder is None:
            model = HubertCTC(self.model, letters, self.dropout)
            if self.filters:
                first = model.encoder.wav2vec2.feature_extractor.conv_layers[0].conv.weight.data[:, 0]
                channels, kernel = first.shape
                first.copy_(filter_bank(channels, kernel, self.filters, RATE))
        else:
            folder = _pretrained(Path(self.encoder))
            pretrained, config = load_hubert(folder)
            model = HubertCTC(config, letters, self.dropout)
            model.start_from(pretrained)
        model.encoder.wav2vec2.feature_extractor.requires_grad_(not self.freeze_convolutions)
        model.encoder.mask_generator.requires_grad_(self.mask_prob > 0)
        return model

    def _batch(
        self, utterances: Sequence[Utterance], alphabet: Alphabet, config: HubertConfig, draw: torch.Generator
    ) -> Batch:
        waves = [self._respoken(utterance.content.read(), config.field, draw) for utterance in utterances]
        lengths = torch.tensor([len(wave) for wave in waves])
        inputs: tuple[Tensor, ...] = (pad_sequence(waves, batch_first=True), lengths)
        if self.mask_prob:
            counts = [config.frames(len(wave)) for wave in waves]
            # Not in all of them: a network that has never seen a recording without a hidden frame cannot read one.
            hidden = torch.rand(len(waves), 1, generator=draw) < 0.5
            inputs = (*inputs, span_mask(counts, self.mask_prob, self.mask_length, draw) & hidden)
        letters = [alphabet.encode(utterance.text) for utterance in utterances]
        return Batch(inputs, pad_sequence(letters, batch_first=True), torch.tensor([len(own) for own in letters]))

    def _respoken(self, wave: Float[Tensor, " _"], least: int, draw: torch.Generator) -> Float[Tensor, " _"]:
        """A recording, faster or slower by up to ``speed``."""
        if not self.speed:
            return wave
        factor = 1 + self.speed * (2 * float(torch.rand((), generator=draw)) - 1)
        return F.interpolate(wave[None, None], max(least, round(len(wave) * factor)), mode="linear")[0, 0]


def _read_once(utterances: Iterable[Utterance], room: int) -> Iterator[Utterance]:
    """All of them; those that ``room`` samples are enough for stay in memory once they have been read."""
    for utterance in utterances:
        room -= utterance.length
        yield replace(utterance, content=_Once(cache(utterance.content.read))) if room >= 0 else utterance


@dataclass(frozen=True)
class _Once:
    read: Callable[[], Float[Tensor, " samples"]]


class CTCTranscriber:
    """Greedy decoding, and one with a beam in front of it where ``decoding`` has one."""

    def __init__(self, model: HubertCTC, alphabet: Alphabet, decoding: Decoding, lexicon: Path, window: float) -> None:
        self.model, self.alphabet = model, alphabet
        self.ways: dict[str, Way] = {
            "greedy": one_by_one(lambda contents: greedy(self._windows(contents), alphabet, HOP / RATE))
        }
        if decoding.beam:
            decode = decoder(alphabet, decoding, lexicon)
            self.ways = {
                "beam": one_by_one(lambda contents: beam(self._windows(contents), alphabet, HOP / RATE, decode)),
                **self.ways,
            }
        more = model.config.field - SPAN

        def run(wave: Tensor) -> Tensor:
            # Silence at the end, or less of it, so that there are as many frames as there would be of `SPAN` samples.
            return model(F.pad(wave, (0, more)))[0]

        device = next(model.parameters()).device
        self.extractor: Any = Encoder(run, len(alphabet) + 1, device, round(window * RATE / HOP))

    def _windows(self, contents: Sequence[Audio]) -> Iterator[Float[Tensor, "_ classes"]]:
        self.model.eval()
        chunks = chain.from_iterable(content.stream() for content in contents)
        return stream_frames(chunks, self.extractor, contents[0].name)


def _pretrained(run: Path) -> Path:
    """The model's folder in a run of pretraining, if it is there and its frames are those that are read here."""
    with loading(run, "encoder (the folder of a finished `vqmem speech_pretraining`)", "speech_pretraining"):
        _check(settings(run / "model"), f"encoder = {str(run)!r}")
    return run / "model"


def _check(config: HubertConfig, what: str) -> None:
    if config.hop != HOP or abs(config.field - SPAN) >= HOP:
        told = f"{config.field} samples every {config.hop}, not about {SPAN} every {HOP}"
        raise ValueError(f"a frame of {what} is {told}; give other convolutions")


def _usable(utterances: Sequence[Utterance], alphabet: Alphabet, config: HubertConfig, longest: int) -> list[Utterance]:
    """Those that are short enough and have a frame for each letter; the others are listed."""
    skipping, kept = Skipping(), []
    for utterance in utterances:
        with skipping:
            letters, frames = alphabet.encode(utterance.text), config.frames(utterance.length)
            if utterance.length > longest:
                raise UnreadableError(f"{utterance.name!r} has {utterance.length / RATE:.1f} s, more than `longest`")
            if not len(letters) or not fits(letters, frames):
                raise UnreadableError(
                    f"{utterance.name!r} has {len(letters)} letters for {frames} frames; is its text another's?"
                )
            kept.append(utterance)
    skipping.report()
    return kept
