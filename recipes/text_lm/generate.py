"""Continue a text with a trained model, one token at a time, with the memory and segments of training."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...console import one_line, visible
from ...data.reading.audio import Audio
from ...files import atomic_write, is_stream
from ...models.device import resolve_device
from ...registry import UnknownNameError
from ...schema import NonNegativeInt, Seed, Temperature, Validated
from ...tokenizers_.base import Tokenizer, output_kind
from ..engine.progress import progress
from ..lm.decoder import Reader, Remember, make_reader
from ..lm.text_scorer import require_text
from .recipe import Run, load_run


@dataclass(frozen=True)
class Sampling(Validated):
    """Settings of sampling. Temperature 0 takes the likeliest token; ``top_k`` 0 samples from all."""

    tokens: NonNegativeInt = 200
    temperature: Temperature = 0.8
    top_k: NonNegativeInt = 50
    seed: Seed = 0


def reader(
    run: Run, strategy: str | None = None, capacity: int | None = None, remember: Remember | None = None
) -> Reader:
    """Build a reader for a run.

    Args:
        run: a finished run.
        strategy: the name of one of its strategies; None takes the first.
        capacity: of the memory, in slots; None takes the largest capacity.
        remember: what the slots contain; see `make_reader`.

    Returns:
        A reader with the memory of that strategy.

    Raises:
        ValueError: for an unknown strategy, a capacity that is too small, or a scorer without the policy's signals.
    """
    known = {choice.name: choice for choice in run.config.memories(run.scorer)}
    name = next(iter(known)) if strategy is None else strategy
    if name not in known:
        raise UnknownNameError("strategy", name, list(known))
    if known[name].is_control:
        raise ValueError(f"strategy {name!r} is a control (scores={known[name].scores}); use another one")
    memory = known[name].memory(max(run.config.capacities) if capacity is None else capacity, run.config.guard)
    return make_reader(run.model, run.scorer, run.config.segment, known[name], memory, remember)


def generate(reader: Reader, prompt: Int[Tensor, " time"], sampling: Sampling) -> Iterator[int]:
    """Sample the token ids that follow ``prompt``. The same seed gives the same ids on the same machine.

    Raises `ValueError` if the prompt has no token; at the call, not with the first id.
    """
    if not len(prompt):
        raise ValueError("the prompt has no token; give at least one character that is not white space")
    return _generated(reader, prompt, sampling)


def show(folder: Path, prompt: str, sampling: Sampling, out: Path | None, device: str, **memory: Any) -> None:
    """Continue ``prompt`` with the run in ``folder``: print text as it is generated, or write speech to ``out``.

    Control characters are printed visibly (see `console.visible`).

    Args:
        folder: a finished run.
        prompt: text, or the file name of a recording for a run on speech.
        sampling: how to sample.
        out: the wav file to write; None for a run on text.
        device: such as ``cpu``.
        memory: strategy and capacity, as for `continue_text`.

    Raises:
        ValueError: as `continue_text` does; for a run on speech without ``out``, and a run on text with it.
    """
    run = load_run(folder, resolve_device(device))
    if output_kind(run.tokenizer) == "audio":
        if out is None:
            raise ValueError(f"{folder} is a run on speech, which is written to a file; give -o out.wav")
        write_speech(run, prompt, out, sampling, **memory)
        print(f"wrote {one_line(str(out))}", file=sys.stderr if is_stream(out) else sys.stdout)
        return
    if out is not None:
        raise ValueError(f"{folder} writes text and not sound; leave out -o {out}")
    pieces = continue_text(run, prompt, sampling, quiet=sys.stdout.isatty(), **memory)  # a terminal shows the text
    print(visible(prompt), end="", flush=True)  # only now that everything has been checked
    for piece in pieces:
        print(visible(piece), end="", flush=True)
    print()


def continue_text(
    run: Run,
    prompt: str,
    sampling: Sampling,
    *,
    strategy: str | None = None,
    capacity: int | None = None,
    quiet: bool = True,
) -> Iterator[str]:
    """Continue a text; the pieces that are yielded never end inside a character.

    Args:
        run: a finished run on text.
        prompt: the text to continue; it is not yielded.
        sampling: how to sample.
        strategy: the name of one of the run's strategies; None takes the first.
        capacity: of the memory, in slots; None takes the largest capacity.
        quiet: show no progress.

    Returns:
        The pieces of the continuation, generated as they are asked for.

    Raises:
        ValueError: at the call, for a prompt that is not valid Unicode or has no token, an unknown strategy or a
            capacity that is too small.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as error:  # bytes of the command line that are not UTF-8 arrive as lone surrogates
        raise ValueError(f"the prompt is not valid UTF-8 at character {error.start}; give it in UTF-8") from None
    require_text(run.tokenizer)
    ids = run.tokenizer.encode(prompt).ids
    tokens = generate(reader(run, strategy, capacity), ids, sampling)
    tokens = progress(tokens, sampling.tokens, "generating", transient=True, quiet=quiet)
    return _texts(run.tokenizer, ids.tolist(), tokens)


def write_speech(
    run: Run, prompt: str, out: Path, sampling: Sampling, *, strategy: str | None = None, capacity: int | None = None
) -> None:
    """Continue a recording, and write both, decoded from their codes, as one wav file.

    Args:
        run: a finished run on speech whose front-end can decode.
        prompt: the file name of the recording.
        out: the wav file to write.
        sampling: how to sample.
        strategy: the name of one of the run's strategies; None takes the first.
        capacity: of the memory, in slots; None takes the largest capacity.

    Raises:
        ValueError: for a recording that cannot be read, and as `generate` and `reader` do.
    """
    import soundfile

    decoder = reader(run, strategy, capacity)
    ids = run.tokenizer.encode(Audio(prompt)).ids
    added = progress(generate(decoder, ids, sampling), sampling.tokens, "generating")
    waveform, file = run.tokenizer.decode([*ids.tolist(), *added]), io.BytesIO()
    rate = run.tokenizer.rate  # pyright: ignore[reportAttributeAccessIssue]
    soundfile.write(file, waveform.clamp(-1, 1).numpy(), rate, format="WAV", subtype="PCM_16")
    atomic_write(out, file.getvalue())


def _generated(reader: Reader, prompt: Int[Tensor, " time"], sampling: Sampling) -> Iterator[int]:
    device = reader.model.transformer.norm.weight.device
    generator = torch.Generator().manual_seed(sampling.seed)
    logits, state = reader.read(prompt[None].to(device), reader.start())
    for left in range(sampling.tokens, 0, -1):
        token = _draw(logits[0].double().cpu(), sampling, generator)
        yield token
        if left > 1:
            logits, state = reader.read(torch.tensor([[token]], device=device), state)


def _texts(tokenizer: Tokenizer, before: list[int], tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text that each of ``tokens`` adds to the text of the tokens ``before``.

    Many tokenizers write a space between words only if both are decoded together, so a token is decoded together with
    the previous ones. Trailing replacement characters are delayed: an incomplete character has at most three.
    """
    window, settled, shown = list(before), len(before), len(tokenizer.decode(before))
    for token in tokens:
        window.append(token)
        text = tokenizer.decode(window)
        doubtful = min(3, len(text) - len(text.rstrip("\N{REPLACEMENT CHARACTER}")))
        if (sure := len(text) - doubtful) <= shown:
            continue
        yield text[shown:sure]
        shown = sure
        if not doubtful:  # the tokens before this piece are no longer needed
            window = window[settled:]
            settled, shown = len(window), len(tokenizer.decode(window))
    yield tokenizer.decode(window)[shown:]


def _draw(logits: Float[Tensor, " vocab"], sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax())
    if 0 < sampling.top_k < len(logits):
        least = logits.topk(sampling.top_k).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    logits = (logits - logits.max()) / sampling.temperature  # at most 0, so that no temperature makes it infinite
    return int(torch.multinomial(torch.softmax(logits, -1), 1, generator=generator))
