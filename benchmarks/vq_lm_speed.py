"""How much faster the VQ-LM is than a loop over `nn.LSTMCell` with the same weights, training and scoring.

    python benchmarks/vq_lm_speed.py [--quick] [--json] [--threads N]

Both sides embed, quantise and score all tokens at once and run every other part alike; only the recurrence
differs: two `LSTMCell` steps a token against the hand-written one of `models/lstm.py`. They take turns in one run,
and a figure is the ratio of their best times. With one thread, times are CPU seconds, which other work on the machine
does not stretch; with more, they are wall-clock seconds and want a quiet machine. Default: torch's number of threads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from vqmem.models.vq_lm import VQLM, VQLMConfig

SHAPES = {"batch 32": (32, 128, 3.0), "one stream": (1, 2048, 10.0)}
"""Rows, tokens a row, and the ratio to reach."""


def loop_hidden(model: VQLM, tokens: Tensor, quantised: Tensor, keep: Tensor) -> Tensor:
    """The reconstruction's hidden state of every token, by a loop over an `nn.LSTMCell`."""
    cell = nn.LSTMCell(model.config.dim, model.config.hidden)
    cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh = model.lstm.all_weights[0]
    embedded, (h, c) = model.embed(tokens), model.initial_state(tokens.shape[0])
    hidden = []
    for t in range(tokens.shape[1]):
        kept = keep[:, t : t + 1]
        hidden.append(cell(quantised[:, t], (h * kept, c * kept))[0])
        h, c = cell(embedded[:, t], (h, c))
    return torch.stack(hidden)


def loop_train(model: VQLM, tokens: Tensor) -> None:
    """A training step, forward and backward, on the loop."""
    quantised, _, commitment = model.quantiser(model.embed(tokens.flatten()))
    keep = (torch.rand(tokens.shape) >= model.config.state_dropout).float()
    hidden = loop_hidden(model, tokens, quantised.view(*tokens.shape, -1), keep)
    (model._nll(hidden, tokens.t()).mean() + commitment).backward()


@torch.no_grad()
def loop_score(model: VQLM, tokens: Tensor) -> Tensor:
    """The three signals on the loop; rarity by one parallel cell step over all tokens."""
    quantised = model.quantiser.look(model.embed(tokens.flatten()))[0]
    hidden = loop_hidden(model, tokens, quantised.view(*tokens.shape, -1), torch.ones(tokens.shape))
    surprise = model._nll(hidden, tokens.t()).t()
    rarity = model._nll(model.lstm(quantised.unsqueeze(0))[0].squeeze(0), tokens.flatten()).view(tokens.shape)
    return torch.stack([surprise, rarity, rarity - surprise], -1)


def fast_train(model: VQLM, tokens: Tensor) -> None:
    """A training step of the model itself, forward and backward."""
    loss, _ = model.training_step(tokens, model.initial_state(tokens.shape[0]), torch.ones_like(tokens).bool())
    loss.value.backward()


def fast_score(model: VQLM, tokens: Tensor) -> Tensor:
    """The three signals of the model itself."""
    return model.score(tokens, model.initial_state(tokens.shape[0]))[0]


def take_turns(sides: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Best seconds of each side over ``rounds`` in which each runs once, after one round that does not count."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds + 1):
        for side, record in zip(sides, times, strict=True):
            start = clock()
            side()
            record.append(clock() - start)
    return [min(record[1:]) for record in times]


def main() -> None:
    """Measure, print, and with ``--json`` print one object: figure to value, unit, goal and whether it is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 10, and a stream of 512 tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    torch.manual_seed(0)
    model = VQLM(VQLMConfig())
    figures = {}
    for name, (rows, steps, goal) in SHAPES.items():
        tokens = torch.randint(model.config.vocab_size, (rows, min(steps, 512) if options.quick else steps))
        torch.testing.assert_close(fast_score(model, tokens), loop_score(model, tokens), rtol=0, atol=1e-5)
        for task, loop, fast in (("training", loop_train, fast_train), ("scoring", loop_score, fast_score)):
            sides = [partial(side, model, tokens) for side in (loop, fast)]
            slow, quick = take_turns(sides, 3 if options.quick else 10, clock)
            ratio = round(slow / quick, 2)
            times = {"loop_ms": round(slow * 1e3, 2), "fast_ms": round(quick * 1e3, 2), "threads": options.threads}
            figures[f"{task}, {name}"] = {"value": ratio, "unit": "x", "goal": goal, "ok": ratio >= goal, **times}
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for name, figure in figures.items():
        verdict = "reached" if figure["ok"] else "missed"
        times = f"loop {figure['loop_ms']} ms, fast {figure['fast_ms']} ms, {figure['threads']} threads"
        print(f"{name:22} {figure['value']:6.2f} x  goal {figure['goal']:g} {verdict}  ({times})")


if __name__ == "__main__":
    main()
