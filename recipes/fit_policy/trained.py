"""A host of this package: the memory transformer of a run of `vqmem text_lm`, on text or on units of speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ...artifacts import CONFIG
from ...memory.bank import Memory
from ...memory.fitted import LOG_AGE, PREDICTED, host_fingerprint
from ...memory.scorer import signals_of
from ...memory.slots import Slots
from ...models.learned_policy import USAGE, WEIGHED, LearnedPolicy, weighed_signals
from ...models.memory_transformer import Output
from ...registry import build
from ..lm.corpus import Passage, sweep
from ..lm.language_model import score_segment, write_segment
from ..text_lm.recipe import Config, Run, load_run
from .full_pass import FullPass, of_later
from .host import Rows, Settings, Stream, standardised

HORIZON = 256
"""Tokens that must follow, or four segments where these are fewer. Segments of more than half of it are read in parts."""


def settings_of(config: Config) -> Settings:
    """The settings for a run of this config."""
    chunk = min(config.segment, HORIZON // 2)
    capacity, guarded = min(config.capacities), config.sinks + config.recent
    return Settings(
        config.passage, capacity, chunk, min(HORIZON, 4 * chunk), guarded, (PREDICTED, LOG_AGE), WEIGHED
    )


class TrainedHost:
    """A finished run. All layers keep one set of slots, so that they count as one layer.

    The streams keep what the first stage predicts alone, within the guards of the run.
    """

    shares = ("model",)
    layers = heads = 1

    def __init__(self, run: Run) -> None:
        self.run, self.transformer = run, run.model.transformer
        self.signals = (*WEIGHED, *signals_of(run.scorer))
        self.settings = settings_of(run.config)

    def fingerprint(self) -> str:
        """That of the weights."""
        return host_fingerprint(self.transformer)

    def encode(self, content: Any) -> Int[Tensor, " time"]:
        """The ids of a text, or of a recording or its units."""
        return self.run.tokenizer.encode(content).ids

    @torch.no_grad()
    def read_full(self, ids: Int[Tensor, " time"]) -> FullPass:
        """Read a passage with a memory that keeps all of it."""
        greatest: list[Tensor] = []
        hooks = [block.attention.register_forward_hook(_recorder(greatest)) for block in self.transformer.blocks]
        keys, time = [], self._read_time(ids)
        try:
            for output in self._read(ids[: time + 1], Memory(time)):
                keys.append(self.transformer.keys(output.payload).flatten(2))
        finally:
            for hook in hooks:
                hook.remove()
        layers = len(hooks)
        by_segment = [torch.cat(greatest[i : i + layers]) for i in range(0, len(greatest), layers)]
        padded = [torch.nn.functional.pad(x, (0, time - x.shape[1])) for x in by_segment]
        later = of_later(torch.stack(padded)[None].float().cpu())
        keys = [torch.cat(keys, dim=1).float().cpu()]
        return FullPass(keys, later, self.settings.chunk, self.settings.horizon, self.run.config.sinks)

    def read_stream(self, stream: Stream, use: Rows) -> None:
        """Read a passage with a bounded memory, and pass on what competes at each eviction."""
        ids, full, prediction, share, capacity = stream
        time = self._read_time(ids)
        every = torch.arange(time)

        def receive(slots: Slots, now: Int[Tensor, " batch"]) -> None:
            if int(now) > time - full.horizon:
                return
            assert slots.guarded is not None
            competing = slots.valid & ~slots.guarded
            found = weighed_signals(slots, now) | {name: slots.score(name) for name in slots.score_names}
            x = torch.stack([standardised(found[name][competing]) for name in self.signals], dim=-1)
            wanted = full.log_attention(share, torch.full_like(every, int(now) // full.chunk), every)[0, 0]
            y = standardised(wanted[slots.positions[competing].cpu()])
            use(x[None].cpu(), y[None], len(y) - (slots.count - capacity))

        policy = _Recorder.of(self, prediction, receive)
        for _ in self._read(ids[: time + 1], Memory(capacity, policy, guard=self.run.config.guard)):
            pass

    def _read_time(self, ids: Int[Tensor, " time"]) -> int:
        """The tokens of all segments that are full; the last token is only predicted."""
        return (len(ids) - 1) // self.settings.chunk * self.settings.chunk

    @torch.no_grad()
    def _read(self, ids: Int[Tensor, " time"], memory: Memory) -> Iterator[Output]:
        scorer, device = self.run.scorer, self.transformer.norm.weight.device
        passage = Passage("", ids, torch.ones_like(ids), torch.zeros_like(ids, dtype=torch.bool))
        state, scored = memory.empty(self.transformer.empty_payload(1), signals_of(scorer)), scorer.initial_state(1)
        for _, batch in sweep([passage], 1, self.settings.chunk):
            batch = batch.to(device)
            scores, scored = score_segment(scorer, batch, scored)
            output = self.transformer(
                batch.tokens, batch.positions, state.read(), previous=batch.previous, need=memory.requires
            )
            state = write_segment(memory, state, output, batch, scores, None).state
            yield output


@dataclass(frozen=True)
class _Recorder(LearnedPolicy):
    """Keeps what is predicted alone, and passes the slots on before it chooses."""

    receive: Callable[[Slots, Int[Tensor, " batch"]], None]

    @classmethod
    def of(cls, host: TrainedHost, prediction: Tensor, receive: Callable[[Slots, Tensor], None]) -> _Recorder:
        """That of a host, with what the first stage found."""
        mix = build("policies", {"name": "weighted", "learned": 1.0, "folder": ".", "score": 0.0})
        device = host.transformer.norm.weight.device
        return cls(mix, host.transformer, (PREDICTED,), prediction[0].to(device), torch.ones(1, device=device), receive)

    @property
    def requires(self) -> tuple[str, ...]:
        """Also the usage, which is passed on."""
        return (*super().requires, USAGE)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Tensor:
        """That of the prediction."""
        self.receive(slots, now)
        return super().priority(slots, now)


def _recorder(greatest: list[Tensor]) -> Callable[[Any, Any, Any], None]:
    """A hook that adds the greatest weight that the queries of a segment pay to each key of each head."""

    def after(attention: Any, args: tuple[Any, ...], output: Any) -> None:
        queries, keys, _, layout, _ = args
        greatest.append(attention.weights(queries, keys, layout)[0].amax(1))

    return after


def is_run(path: str) -> bool:
    """Whether there is a run of this package at ``path``, rather than a model of transformers."""
    return (Path(path) / "config.yaml").is_file() and not (Path(path) / CONFIG).is_file()


def load_host(path: str, device: torch.device) -> TrainedHost:
    """The host that a finished run is. Raises `ValueError` where it is not finished, damaged or of another kind."""
    return TrainedHost(load_run(Path(path), device))
