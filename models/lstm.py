"""One LSTM layer whose every gate and cell is at hand, several times faster than a loop over an `nn.LSTMCell`.

Shapes: T time, B batch, H hidden; tensors are time-major, so that a step is one contiguous block. Gates are in torch's
order: input, forget, cell, output.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def run_lstm(
    inputs: Float[Tensor, "time batch gates"],
    weight: Float[Tensor, "gates hidden"],
    hidden: Float[Tensor, "batch hidden"],
    cell: Float[Tensor, "batch hidden"],
) -> tuple[
    Float[Tensor, "time batch gates"],
    Float[Tensor, "time batch hidden"],
    Float[Tensor, "batch hidden"],
    Float[Tensor, "batch hidden"],
]:
    """Run the recurrence over ``inputs`` (the input's part of every gate, biases included) from a state.

    Returns every gate before its non-linearity, the cell *before* every step, and the hidden state and cell after the
    last. Differentiable in all four arguments.
    """
    return _Recurrence.apply(inputs, weight, hidden, cell)  # pyright: ignore[reportReturnType]


def cell_step(
    gates: Float[Tensor, "*batch gates"], cell: Float[Tensor, "*batch hidden"] | None
) -> Float[Tensor, "*batch hidden"]:
    """The hidden state after one step, from gates before their non-linearity and the cell before (`None`: zeros)."""
    enter, forget, new, out = gates.chunk(4, -1)
    after = enter.sigmoid() * new.tanh()
    if cell is not None:
        after = after + forget.sigmoid() * cell
    return out.sigmoid() * after.tanh()


class _Recurrence(torch.autograd.Function):
    """The recurrence with back-propagation through time by hand: autograd would record some ten nodes a step."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        steps, batch, width = inputs.shape[0], *hidden.shape
        gates = torch.empty_like(inputs)
        hiddens, cells = inputs.new_empty(2, steps + 1, batch, width)
        hiddens[0], cells[0] = hidden, cell
        active = inputs.new_empty(batch, 4 * width)
        enter, forget, _, out = active.chunk(4, -1)
        new = torch.empty_like(hidden)
        recurrent = weight.t()
        for t in range(steps):
            torch.addmm(inputs[t], hiddens[t], recurrent, out=gates[t])
            torch.sigmoid(gates[t], out=active)
            torch.tanh(gates[t, :, 2 * width : 3 * width], out=new)
            torch.mul(forget, cells[t], out=cells[t + 1]).addcmul_(enter, new)
            torch.tanh(cells[t + 1], out=hiddens[t + 1]).mul_(out)
        ctx.save_for_backward(gates, hiddens, cells, weight)
        return gates, cells[:-1], hiddens[-1].clone(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        d_gates, d_cells, d_hidden, d_cell = grads
        gates, hiddens, cells, weight = ctx.saved_tensors
        steps, batch, width = hiddens.shape[0] - 1, *hiddens.shape[1:]
        enter, forget, _, out = gates.sigmoid().chunk(4, -1)
        new, seen = gates[..., 2 * width : 3 * width].tanh(), cells[1:].tanh()
        # What a step's gradient is multiplied by depends on the forward pass alone, so all are made at once.
        to_cell = out * (1 - seen * seen)
        by_cell = torch.stack(
            [new * enter * (1 - enter), cells[:-1] * forget * (1 - forget), enter * (1 - new * new)], 2
        )
        by_hidden = seen * out * (1 - out)
        total = d_gates.clone() if d_gates is not None else torch.zeros_like(gates)
        parts = total.view(steps, batch, 4, width)
        for t in reversed(range(steps)):
            d_cell = torch.addcmul(d_cell, d_hidden, to_cell[t])
            parts[t, :, :3].addcmul_(by_cell[t], d_cell.unsqueeze(1))
            parts[t, :, 3].addcmul_(by_hidden[t], d_hidden)
            d_cell = torch.addcmul(d_cells[t], d_cell, forget[t])
            d_hidden = total[t] @ weight
        d_weight = total.flatten(0, 1).t() @ hiddens[:-1].flatten(0, 1)
        return total, d_weight, d_hidden, d_cell
