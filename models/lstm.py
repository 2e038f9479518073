"""An LSTM layer with a twin: each step also applies the cell to a second input, from the same state.

This is several times faster than a loop over `nn.LSTMCell`. Tensors are time-major, so that a step is one contiguous
block. Gates are in torch's order: input, forget, cell, output, together four times as wide as the hidden state.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK = 256
"""Tokens whose gates are computed together: few enough for the cache of a core, enough to amortise the calls."""
DEVICE_BLOCK = 2**16
"""The same on a GPU, which needs large operations and few calls."""
FUSED_BELOW = 16
"""Batch size below which torch's fused LSTM and a second product for the gates beat a loop over steps on a CPU."""


def empty_state(lstm: nn.LSTM, batch: int) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    """The state before the first token: zeros."""
    weight = lstm.all_weights[0][0]
    # Not `new_zeros`: the weight may be sharded over processes, the state is not.
    zeros = torch.zeros(batch, lstm.hidden_size, dtype=weight.dtype, device=weight.device)
    return zeros, zeros.clone()


def run_lstm(
    lstm: nn.LSTM, inputs: Tensor, state: tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]
) -> tuple[Tensor, tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]]:
    """The hidden state after each input, in the layout of ``lstm``, and the state after the last one.

    It runs in the precision of the weights even under autocast: not every CPU has an LSTM of lower precision, and
    errors add up in a recurrence.
    """
    with torch.autocast(inputs.device.type, enabled=False):
        dtype = lstm.all_weights[0][0].dtype
        h, c = (part.to(dtype).unsqueeze(0) for part in state)
        hidden, (h, c) = lstm(inputs.to(dtype), (h, c))
    return hidden, (h.squeeze(0), c.squeeze(0))


def run_twin_lstm(
    lstm: nn.LSTM,
    rows: Float[Tensor, "rows dim"],
    twins: Float[Tensor, "rows dim"],
    index: Int[Tensor, "time batch"],
    state: tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]],
) -> tuple[
    Float[Tensor, "time batch hidden"],
    Float[Tensor, "rows hidden"],
    tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]],
]:
    """Advance ``state`` on ``rows[index]``, and compute at each step the result of ``twins[index]`` in its place.

    The inputs are a table and indices into it, because the parts that depend on the input alone are computed once per
    row. The function is differentiable in the weights of ``lstm``, the tables and the state. It runs in the precision
    of the weights, as `run_lstm` does.

    Args:
        lstm: one layer.
        rows: table of distinct inputs.
        twins: the second input for each row.
        index: the row of each token.
        state: hidden and cell state before the first token.

    Returns:
        The hidden state after each twin step, the hidden state after a twin step from the zero state for each row, and
        the state after the last step.
    """
    with torch.autocast(rows.device.type, enabled=False):
        dtype = lstm.all_weights[0][0].dtype
        return _run(lstm, rows.to(dtype), twins.to(dtype), index, (state[0].to(dtype), state[1].to(dtype)))


def _run(
    lstm: nn.LSTM, rows: Tensor, twins: Tensor, index: Tensor, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    weight, recurrent, *biases = lstm.all_weights[0]
    # tanh x = 2 sigmoid(2x) - 1: with the rows of the cell gate doubled, one sigmoid, which is far faster, serves all.
    double = torch.ones_like(biases[0])
    double[2 * lstm.hidden_size : 3 * lstm.hidden_size] = 2
    weight, bias = weight * double.unsqueeze(1), (biases[0] + biases[1]) * double
    inputs, alone = F.linear(rows, weight, bias), F.linear(twins, weight, bias)
    hiddens = None
    if index.shape[1] < FUSED_BELOW or not rows.is_cpu:
        with torch.no_grad():
            hiddens = torch.cat([state[0].unsqueeze(0), run_lstm(lstm, F.embedding(index, rows), state)[0]])
    rebuilt, hidden, cell = _TwinLSTM.apply(
        inputs, alone - inputs, index, recurrent * double.unsqueeze(1), *state, hiddens
    )  # pyright: ignore[reportGeneralTypeIssues]
    enter, _, new, out = alone.sigmoid().chunk(4, -1)
    return rebuilt, out * torch.tanh(enter * (2 * new - 1)), (hidden, cell)


class _TwinLSTM(torch.autograd.Function):
    """The recurrence and its twin, with manual back-propagation through time: autograd would record 20 nodes a step."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        shift: Tensor,
        index: Tensor,
        weight: Tensor,
        hidden: Tensor,
        cell: Tensor,
        known: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (steps, batch), width = index.shape, hidden.shape[1]
        blocks = _blocks(steps, batch, inputs.device)
        keep = any(ctx.needs_input_grad)
        # Gates are most of the memory, and new memory is slow: without gradients all blocks share one buffer.
        length = steps if keep or not blocks else blocks[0].stop
        active, twin = (inputs.new_empty(length, batch, 4 * width) for _ in range(2))
        rebuilt_cell = inputs.new_empty(length, batch, width)
        rebuilt, cells = inputs.new_empty(steps, batch, width), inputs.new_empty(steps + 1, batch, width)
        hiddens = torch.empty_like(cells) if known is None else known
        hiddens[0], cells[0] = hidden, cell
        advance = _advance if known is None else _advance_knowing
        for part in blocks:
            places, with_last = index[part].flatten(), slice(part.start, part.stop + 1)
            here = part if keep else slice(part.stop - part.start)
            gates, on = twin[here], active[here]
            torch.index_select(inputs, 0, places, out=gates.flatten(0, 1))
            advance(gates, on, weight.t(), hiddens[with_last], cells[with_last])
            # The gates of the twin differ only in the part of the input.
            gates.add_(shift.index_select(0, places).view_as(gates)).sigmoid_()
            _step(gates.chunk(4, -1), cells[part], rebuilt_cell[here], rebuilt[part])
        ctx.save_for_backward(*((active, twin, hiddens, cells, rebuilt_cell, index, weight) if keep else ()))
        ctx.rows = inputs.shape[0]
        return rebuilt, hiddens[-1].clone(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_rebuilt, d_hidden, d_cell = grads
        active, twin, hiddens, cells, rebuilt_cell, index, weight = ctx.saved_tensors
        steps, batch, width = rebuilt_cell.shape
        d_inputs, d_shift = weight.new_zeros(2, ctx.rows, 4 * width)
        d_weight = torch.zeros_like(weight)
        for part in reversed(_blocks(steps, batch, weight.device)):
            before, after = cells[part], cells[part.start + 1 : part.stop + 1]
            d_twin, to_cell = _slopes(twin[part], before, rebuilt_cell[part])
            d_rebuilt_cell = to_cell.mul_(d_rebuilt[part])
            by = d_twin.unflatten(-1, (4, width))
            by[:, :, :3].mul_(d_rebuilt_cell.unsqueeze(2))
            by[:, :, 3].mul_(d_rebuilt[part])
            d_cells = d_rebuilt_cell.mul_(twin[part][..., width : 2 * width])
            slopes, to_cell = _slopes(active[part], before, after)
            d_gates = d_twin.clone()
            d_hidden, d_cell = _retreat(d_gates, slopes, to_cell, active[part], d_cells, weight, d_hidden, d_cell)
            places = index[part].flatten()
            d_shift.index_add_(0, places, d_twin.flatten(0, 1))
            d_inputs.index_add_(0, places, d_gates.flatten(0, 1))
            d_weight.addmm_(d_gates.flatten(0, 1).t(), hiddens[part].flatten(0, 1))
        return d_inputs, d_shift, None, d_weight, d_hidden, d_cell, None


def _blocks(steps: int, batch: int, device: torch.device) -> list[slice]:
    """Cut the steps into blocks of about `BLOCK` tokens, or `DEVICE_BLOCK`."""
    size = max(1, (BLOCK if device.type == "cpu" else DEVICE_BLOCK) // batch)
    return [slice(start, min(start + size, steps)) for start in range(0, steps, size)]


def _step(on: tuple[Tensor, ...], cell: Tensor, cell_out: Tensor, hidden_out: Tensor) -> None:
    """One cell step from the sigmoids of the gates, written to ``cell_out`` and ``hidden_out``."""
    enter, forget, new, out = on
    torch.mul(forget, cell, out=cell_out).addcmul_(enter, new, value=2).sub_(enter)
    torch.mul(cell_out, 2, out=hidden_out).sigmoid_().mul_(2).sub_(1).mul_(out)


def _advance(gates: Tensor, active: Tensor, weight: Tensor, hiddens: Tensor, cells: Tensor) -> None:
    """Run a block step by step; ``gates`` has the part of the input, and this adds the part of the state."""
    parts = zip(*(part.unbind() for part in active.chunk(4, -1)), strict=True)
    h, c = hiddens.unbind(), cells.unbind()
    for t, (gate, on, four) in enumerate(zip(gates.unbind(), active.unbind(), parts, strict=True)):
        gate.addmm_(h[t], weight)
        torch.sigmoid(gate, out=on)
        _step(four, c[t], c[t + 1], h[t + 1])


def _advance_knowing(gates: Tensor, active: Tensor, weight: Tensor, hiddens: Tensor, cells: Tensor) -> None:
    """As `_advance` with known hidden states: all gates by one product, and cells by a linear recurrence."""
    gates.flatten(0, 1).addmm_(hiddens[:-1].flatten(0, 1), weight)
    enter, forget, new, _ = torch.sigmoid(gates, out=active).chunk(4, -1)
    torch.mul(enter, new, out=cells[1:]).mul_(2).sub_(enter)
    _scan(forget, cells)


def _scan(forget: Tensor, cells: Tensor) -> None:
    """The recurrence c[t + 1] += forget[t] * c[t], in place: first within all runs at once, then from run to run.

    This needs about 3 sqrt(n) calls for n steps instead of n; for small batches a call costs more than its arithmetic.
    """
    length = max(1, math.isqrt(len(forget)))
    full = len(forget) // length * length  # steps in runs of equal length
    decays = forget[:full].unflatten(0, (-1, length)).contiguous()  # factor of a run's first state, after each step
    runs = cells[1 : full + 1].unflatten(0, (-1, length))
    d, c = decays.unbind(1), runs.unbind(1)
    for t in range(1, length):
        c[t].addcmul_(d[t], c[t - 1])
        d[t].mul_(d[t - 1])
    for index, (run, decay) in enumerate(zip(runs.unbind(), decays.unbind(), strict=True)):
        run.addcmul_(decay, cells[index * length])
    for t in range(full, len(forget)):
        cells[t + 1].addcmul_(forget[t], cells[t])


def _slopes(active: Tensor, cell: Tensor, cell_after: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of a step's gradients, which depend only on the forward pass.

    Returns the slope, in each gate, of the cell (first three gates) or the hidden state (the output gate), and the
    slope of the hidden state in the cell.
    """
    enter, _, new, leave = active.chunk(4, -1)
    squashed = torch.mul(cell_after, 2).sigmoid_().mul_(2).sub_(1)
    slopes = torch.addcmul(active, active, active, value=-1)
    by = slopes.chunk(4, -1)
    by[0].mul_(new.mul(2).sub_(1))
    by[1].mul_(cell)
    by[2].mul_(enter.mul(2))
    by[3].mul_(squashed)
    return slopes, torch.addcmul(leave, leave, squashed.square_(), value=-1)


def _retreat(
    d_gates: Tensor,
    slopes: Tensor,
    to_cell: Tensor,
    active: Tensor,
    d_cells: Tensor,
    weight: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor,
) -> tuple[Tensor, Tensor]:
    """Back-propagate through a block step by step.

    Args:
        d_gates: gradient of the gates (of the twin); the gradient of the step is added.
        slopes: the first result of `_slopes`.
        to_cell: the second result of `_slopes`.
        active: sigmoids of the gates.
        d_cells: gradient of the cell before each step, from the twin.
        weight: recurrent weights.
        d_hidden: gradient of the hidden state after the block.
        d_cell: gradient of the cell after the block.

    Returns:
        The gradients of the hidden state and the cell before the block.
    """
    width = d_hidden.shape[1]
    fours, slopes = d_gates.unflatten(-1, (4, width)), slopes.unflatten(-1, (4, width))
    lists = (d_gates, fours[:, :, :3], fours[:, :, 3], slopes[:, :, :3], slopes[:, :, 3], to_cell, d_cells)
    steps = zip(*(x.unbind() for x in (*lists, active[..., width : 2 * width])), strict=True)
    for d_all, d_three, d_out, three, out, slope, d_before, forget in reversed(list(steps)):
        d_cell = torch.addcmul(d_cell, d_hidden, slope)
        d_three.addcmul_(three, d_cell.unsqueeze(1))
        d_out.addcmul_(out, d_hidden)
        d_cell = torch.addcmul(d_before, d_cell, forget)
        d_hidden = d_all @ weight
    return d_hidden, d_cell
