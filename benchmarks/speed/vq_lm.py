"""How much faster the VQ-LM is than a loop over `nn.LSTMCell` with the same weights, training and scoring.

    python benchmarks/speed/vq_lm.py [--quick] [--json] [--save] [--threads N]

Both sides embed, quantise and score all tokens at once and run every other part alike; only the recurrence
differs: two `LSTMCell` steps a token against the hand-written one of `models/lstm.py`. They take turns in one run,
and a figure is the ratio of their best times. Beside it stands the same ratio for torch's fused `nn.LSTM` alone,
forward and, for training, backward: it advances the state and does nothing else, so it bounds what is possible.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from vqmem.benchmarks._results import figure, present
from vqmem.benchmarks.speed._training import parse, take_turns
from vqmem.models.vq_lm import VQLM, VQLMConfig

SHAPES = {"batch 32": (32, 128, 3.0), "one stream": (1, 2048, 10.0)}
"""Rows, tokens per row, and the ratio to reach."""
NOTES = [
    "Training at batch 32: counted in matmuls the loop does 2.4 times our work (two cells a token against one, forward "
    "and backward), so a ratio of 3 asks for more than that out of the same matmuls. Blocks of 64 to 512 tokens, and "
    "memory kept by the allocator from step to step, changed little.",
    "Scoring one stream: half of the time is torch's fused LSTM, which must read the 1 MB of recurrent weights at "
    "every step. Reading pieces of the stream side by side from guessed states was measured, not built: the packaged "
    "scorer forgets a wrong state only after 128 to 256 tokens (largest difference of its hidden state 2e-3 and 6e-7), "
    "so that two to three passes over the stream would eat what the wider product saves.",
]


def loop_hidden(model: VQLM, tokens: Tensor, quantised: Tensor, keep: Tensor) -> Tensor:
    """Compute the reconstruction's hidden state of every token by a loop over an `nn.LSTMCell`.

    Args:
        model: the VQ-LM.
        tokens: token ids, ``[batch, time]``.
        quantised: the code vectors of the tokens, ``[batch, time, dim]``.
        keep: 0 where the state is dropped and 1 elsewhere, ``[batch, time]``.

    Returns:
        Hidden states, ``[time, batch, hidden]``.
    """
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
    (model.nll(hidden, tokens.t()).mean() + commitment).backward()


@torch.no_grad()
def loop_score(model: VQLM, tokens: Tensor) -> Tensor:
    """The three signals on the loop; rarity by one parallel cell step over all tokens."""
    quantised = model.quantiser.look(model.embed(tokens.flatten()))[0]
    hidden = loop_hidden(model, tokens, quantised.view(*tokens.shape, -1), torch.ones(tokens.shape))
    surprise = model.nll(hidden, tokens.t()).t()
    rarity = model.nll(model.lstm(quantised.unsqueeze(0))[0].squeeze(0), tokens.flatten()).view(tokens.shape)
    return torch.stack([surprise, rarity, rarity - surprise], -1)


def fast_train(model: VQLM, tokens: Tensor) -> None:
    """A training step of the model itself, forward and backward."""
    loss, _ = model.training_step(tokens, model.initial_state(tokens.shape[0]), torch.ones_like(tokens).bool())
    loss.value.backward()


def fast_score(model: VQLM, tokens: Tensor) -> Tensor:
    """The three signals of the model itself."""
    return model.score(tokens, model.initial_state(tokens.shape[0]))[0]


@torch.no_grad()
def state_alone(model: VQLM, tokens: Tensor) -> None:
    """Run the fused LSTM of torch over the embedded tokens."""
    model.lstm(model.embed(tokens.t()))


def state_alone_train(model: VQLM, tokens: Tensor) -> None:
    """The same, forward and backward."""
    model.lstm(model.embed(tokens.t()))[0].sum().backward()


TASKS = {
    "training": {"loop": loop_train, "fast": fast_train, "fused": state_alone_train},
    "scoring": {"loop": loop_score, "fast": fast_score, "fused": state_alone},
}


def main() -> None:
    """Measure, print, save."""
    flags, clock = parse(__doc__)
    rounds, figures = 3 if flags.quick else 10, {}
    model = VQLM(VQLMConfig())
    for name, (rows, steps, goal) in SHAPES.items():
        tokens = torch.randint(model.config.vocab_size, (rows, min(steps, 512) if flags.quick else steps))
        torch.testing.assert_close(fast_score(model, tokens), loop_score(model, tokens), rtol=0, atol=1e-5)
        for task, sides in TASKS.items():
            turns = take_turns({side: partial(run, model, tokens) for side, run in sides.items()}, rounds + 1, clock)
            best = {side: min(times[1:]) for side, times in turns.items()}
            more: dict[str, Any] = {f"{side} ms": round(1e3 * seconds, 1) for side, seconds in best.items()}
            more["fused LSTM alone, x"] = round(best["loop"] / best["fused"], 2)
            figures[f"{task}, {name}"] = figure(round(best["loop"] / best["fast"], 2), "x", goal, **more)
    present(
        "vq_lm_speed",
        figures,
        flags,
        title="The VQ-LM's recurrence against a loop",
        question=(
            "Is the VQ-LM at least 3 times as fast as a loop over LSTMCell at batch 32, and 10 times on one stream?"
        ),
        measured=(
            f"{model.config.dim} wide embeddings, {model.config.hidden} wide LSTM, {model.config.codes} codes, "
            f"vocabulary of {model.config.vocab_size}, random weights; batch 32 is 32 rows of 128 tokens, one stream "
            f"2,048 tokens; fp32, {flags.threads} thread(s), best of {rounds} turns a side. `fused LSTM alone`: the "
            "loop's time by that of torch's nn.LSTM, which advances the state and does nothing else."
        ),
        notes=NOTES,
    )


if __name__ == "__main__":
    main()
