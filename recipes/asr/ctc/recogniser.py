"""A HuBERT-style encoder that reads the waveform and writes letters by CTC, pretrained or from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ....artifacts import CONFIG, load_model
from ....data.base import InputKind
from ....data.reading.audio import RATE, Audio
from ....data.reading.files import Skipping, UnreadableError
from ....files import atomic_write
from ....folders import loading
from ....models.features._layer import Encoder
from ....models.features.hubert import check_frames, settings
from ....models.features.hubert import load as load_hubert
from ....models.speech.ctc import fits
from ....models.speech.filter_bank import LOWEST, filter_bank
from ....models.speech.hubert import HubertConfig
from ....models.speech.hubert_ctc import HubertCTC
from ....schema import NonNegativeInt, PathText, PositiveFloat, PositiveInt, Share, ShareBelowOne, Validated, coerce
from ....tokenizers_.speech.frames import HOP, SPAN, stream_frames
from ...engine.distributed import main_process_first, ranks, save_model
from ...engine.loader import BatchLoader
from ...engine.run_dir import is_trained
from ...engine.trainer import seed_all, train
from ...speech.text_normalisation import Alphabet
from ..base import Decoding, DecodingMode, TrainingJob, Utterance, one_by_one
from ..utterances import size_of
from .batches import RecordingLoading, utterance_sampler
from .task import LEXICON, CTCTask, beam, beam_search, decoder, greedy, write_lexicon

KIND = "hubert_ctc"


@dataclass(frozen=True)
class Recogniser(Validated):
    """CTC on frames of 20 ms. Long recordings are read in windows with a second of context on either side."""

    encoder: PathText | None = None
    """A finished run of `vqmem speech_pretraining` to fine-tune; null = train ``model`` from scratch."""
    model: HubertConfig = field(default_factory=HubertConfig)
    """The network without ``encoder``; the product of its strides must be 320 samples."""
    filters: float = 0.0
    """Initialise the first convolution as band-pass filters up to this frequency in Hz; 0 = at random."""
    dropout: ShareBelowOne = 0.1
    """Dropout of the last layer's output."""
    longest: PositiveFloat = 20.0
    """Maximum length of training recordings in seconds; longer ones are left out."""
    window: Annotated[float, Interval(ge=0.1)] = 20.0
    """Seconds of a recording to read at once; should not be much longer than training recordings."""
    speed: ShareBelowOne = 0.0
    """Speed perturbation of training recordings: maximum change as a share; it changes the pitch, too."""
    mask_prob: Share = 0.0
    """Share of frames masked by spans, in half of the training recordings; spans may overlap; 0 = none."""
    mask_length: PositiveInt = 5
    """Frames of a masked span."""
    freeze_convolutions: bool = False
    """Whether to freeze the convolutions, as HuBERT's fine-tuning does."""
    workers: NonNegativeInt | None = None
    """Processes that read recordings during training; 0 = none; null = by the CPUs, where reading takes long."""
    input_kind: ClassVar[InputKind] = "audio"

    def __post_init__(self) -> None:
        """Raise `ValueError` for values out of range."""
        super().__post_init__()
        if self.filters and not LOWEST < self.filters <= RATE / 2:
            raise ValueError(f"filters = {self.filters} Hz must be above {LOWEST:g} and at most {RATE // 2}, or 0")
        if self.encoder is None:
            check_frames(self.model, "model")

    def length(self, content: Audio) -> int:
        """Samples at 16 kHz. Raises `UnreadableError` for a recording that is unreadable, or shorter than a frame."""
        return size_of(content)

    def check(self, out: Path, decoding: Decoding) -> None:
        """Raise `ValueError` if the encoder is missing or has other frames, or if a beam is not available."""
        if decoding.beam:
            beam_search(decoding)
        if self.encoder is not None and not (out / "model" / CONFIG).is_file():
            _pretrained(Path(self.encoder))

    def fit(self, job: TrainingJob) -> CTCTranscriber:
        """Train and save the network in ``model/``. Raises `ValueError` if no utterance can be trained on."""
        with main_process_first():
            if not (job.out / LEXICON).is_file():
                texts = (utterance.text for utterance in job.utterances)
                atomic_write(job.out / LEXICON, write_lexicon(texts, job.alphabet))
        folder = job.out / "model"
        if not is_trained(folder, job.settings.steps):
            self._train(job, folder)
        return self.load(job.out, job.alphabet, job.decoding, job.device)

    def load(self, out: Path, alphabet: Alphabet, decoding: Decoding, device: torch.device) -> CTCTranscriber:
        """Load the network. Raises `ValueError` if it is missing, damaged or of another alphabet."""

        def make(fields: dict[str, Any]) -> HubertCTC:
            return HubertCTC(coerce(HubertConfig, fields["config"], ""), fields["letters"])

        model = load_model(out / "model", make, kind=KIND, device=device)
        return CTCTranscriber(model, alphabet, decoding, out / LEXICON, self.window)

    def _train(self, job: TrainingJob, folder: Path) -> None:
        seed_all(job.settings.seed)
        model = self._new_model(len(job.alphabet)).to(job.device)
        usable = _usable(job.utterances, job.alphabet, model.config, round(self.longest * RATE))
        lengths = [utterance.length for utterance in usable]
        sampler = utterance_sampler(usable, lengths, job.batch_size, job.settings.seed, *ranks())
        load = RecordingLoading(job.alphabet, model.config, self.speed, self.mask_prob, self.mask_length)
        task = CTCTask(model)
        held_out = CTCTranscriber(model, job.alphabet, Decoding(), job.out / LEXICON, self.window)
        with BatchLoader(sampler, load, self.workers) as loader:
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

    def _new_model(self, letters: int) -> HubertCTC:
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


class CTCTranscriber:
    """Greedy decoding, and beam search as the default if ``decoding`` asks for it.

    Args:
        model: the network.
        alphabet: the characters of its classes, after the blank.
        decoding: the settings of the beam; 0 hypotheses leave greedy decoding alone.
        lexicon: the file of words and spellings that a beam with ``decoding.lexicon`` is limited to.
        window: seconds of a recording that the network reads at once.
    """

    def __init__(self, model: HubertCTC, alphabet: Alphabet, decoding: Decoding, lexicon: Path, window: float) -> None:
        self.model, self.alphabet = model, alphabet
        self.decoding_modes: dict[str, DecodingMode] = {
            "greedy": one_by_one(lambda contents: greedy(self._windows(contents), alphabet, HOP / RATE))
        }
        if decoding.beam:
            decode = decoder(alphabet, decoding, lexicon)
            self.decoding_modes = {
                "beam": one_by_one(lambda contents: beam(self._windows(contents), alphabet, HOP / RATE, decode)),
                **self.decoding_modes,
            }
        more = model.config.field - SPAN

        def run(wave: Tensor) -> Tensor:
            # Pad or crop the end, so that there are as many frames as with a receptive field of `SPAN` samples.
            return model(F.pad(wave, (0, more)))[0]

        device = next(model.parameters()).device
        self.extractor: Any = Encoder(run, len(alphabet) + 1, device, round(window * RATE / HOP))

    def _windows(self, contents: Sequence[Audio]) -> Iterator[Float[Tensor, "_ classes"]]:
        self.model.eval()
        chunks = chain.from_iterable(content.stream() for content in contents)
        return stream_frames(chunks, self.extractor, contents[0].name)


def _pretrained(run: Path) -> Path:
    """The model folder of a pretraining run. Raises `ValueError` if it is missing or its frames differ from ours."""
    with loading(run, "encoder (the folder of a finished `vqmem speech_pretraining`)", "speech_pretraining"):
        check_frames(settings(run / "model"), f"encoder = {str(run)!r}")
    return run / "model"


def _usable(utterances: Sequence[Utterance], alphabet: Alphabet, config: HubertConfig, longest: int) -> list[Utterance]:
    """The utterances that are short enough and have enough frames for their letters; the others are reported."""
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
