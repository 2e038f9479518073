"""What every scorer in the folder must hold to, whichever they are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from vqmem import registry
from vqmem.memory.scorer import SIGNALS, signals_of

VOCAB = 50
SPECS = {
    "vq_lm of classes": {"name": "vq_lm", "cutoffs": [5, 20]},
    "vq_lm with reuse": {"name": "vq_lm", "reuse": True, "horizon": 6},
}
"""What stands for a name that is not a file's."""
NAMES = [*registry.names("scorers"), *SPECS]


def make(name: str, trained: bool = False):
    torch.manual_seed(0)
    model = registry.build("scorers", SPECS.get(name, name)).build(VOCAB)
    if trained:
        train(model, 3)
    return model


def text(rows: int = 3, time: int = 24) -> torch.Tensor:
    """Tokens, some far more frequent than others, so that there is something to learn."""
    draws = torch.rand(rows, time, generator=torch.Generator().manual_seed(1))
    return (draws**3 * VOCAB).long()


def train(model, steps: int, tokens: torch.Tensor | None = None) -> list[float]:
    tokens = text(8) if tokens is None else tokens
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, 3e-3) if parameters else None
    losses = []
    for _ in range(steps):
        loss, _ = model.training_step(tokens, model.initial_state(len(tokens)), torch.ones_like(tokens).bool())
        losses.append(loss.value.item())
        if optimiser:
            optimiser.zero_grad()
            loss.value.backward()
            optimiser.step()
    return losses


def leaves(state) -> list[torch.Tensor]:
    return [state] if isinstance(state, torch.Tensor) else [leaf for part in state for leaf in leaves(part)]


def rows_of(state, rows: slice):
    return state[rows] if isinstance(state, torch.Tensor) else tuple(rows_of(part, rows) for part in state)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
class TestEveryScorer:
    def test_shapes_and_meaning(self, name):
        model = make(name, trained=True)
        state = model.initial_state(3)
        assert all(leaf.shape[0] == 3 for leaf in leaves(state))
        scores, after = model.score(text(), state)
        assert scores.shape == (3, 24, len(signals_of(model)))
        assert set(signals_of(model)) <= set(SIGNALS)
        assert scores.is_floating_point()
        assert scores.isfinite().all()
        assert not scores.requires_grad
        named = dict(zip(signals_of(model), scores.unbind(-1), strict=True))
        if "gain" in named:
            close(named["gain"], named["rarity"] - named["surprise"])
        for name in named.keys() & {"surprise", "rarity"}:
            assert (named[name] >= 0).all()
        assert [leaf.shape for leaf in leaves(after)] == [leaf.shape for leaf in leaves(state)]

    def test_sizes_of_nothing_are_refused_before_anything_is_built(self, name):
        made = registry.load("scorers", SPECS.get(name, {"name": name})["name"])
        for key in {"dim", "hidden", "horizon", "codes"} & made.__dataclass_fields__.keys():
            with pytest.raises(ValueError, match=rf"{key} = 0 must be at least 1"):
                made(**{key: 0})

    def test_scoring_changes_nothing(self, name):
        model = make(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        first, _ = model.score(text(), model.initial_state(3))
        second, _ = model.score(text(), model.initial_state(3))
        assert torch.equal(first, second)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_causal(self, name):
        model, tokens = make(name, trained=True), text()
        changed = tokens.clone()
        changed[:, 15:] = torch.randint(VOCAB, changed[:, 15:].shape)
        a, b = (model.score(x, model.initial_state(3))[0] for x in (tokens, changed))
        close(a[:, :15], b[:, :15])

    @given(cuts=st.sets(st.integers(0, 24), max_size=5))
    @settings(max_examples=5)
    def test_any_chunking_gives_the_same_scores(self, name, cuts):
        model = make(name, trained=True)
        state = model.initial_state(3)
        full, last = model.score(text(), state)
        parts = []
        for part in text().tensor_split(sorted(cuts), 1):
            scores, state = model.score(part, state)
            parts.append(scores)
        close(torch.cat(parts, 1), full)
        close(leaves(state), leaves(last))

    def test_rows_are_independent(self, name):
        model = make(name, trained=True)
        _, state = model.score(text(), model.initial_state(3))
        together, _ = model.score(text(), state)
        for row in range(3):
            part = slice(row, row + 1)
            close(model.score(text()[part], rows_of(state, part))[0], together[part])

    def test_a_row_of_zeros_is_a_new_document(self, name):
        model = make(name, trained=True)
        fresh, _ = model.score(text(), model.initial_state(3))
        _, state = model.score(text(), model.initial_state(3))
        for leaf in leaves(state):
            leaf[1] = 0
        close(model.score(text(), state)[0][1], fresh[1])

    def test_training_lowers_the_loss_or_there_is_nothing_to_train(self, name):
        losses = train(make(name), 40)
        assert all(loss == 0 for loss in losses) or sum(losses[-5:]) < 0.98 * sum(losses[:5])

    def test_training_step_state_is_that_of_scoring_and_detached(self, name):
        model, tokens = make(name), text()
        _, scored = model.score(tokens, model.initial_state(3))
        loss, state = model.training_step(tokens, model.initial_state(3), torch.ones_like(tokens).bool())
        assert loss.value.shape == ()
        metrics = [value for value in loss.metrics.values() if not isinstance(value, float)]
        assert all(value.shape == () and not value.requires_grad for value in metrics)
        assert not any(leaf.requires_grad for leaf in leaves(state))
        if name != "masked_lm":  # whose state in training has read corrupted text
            close(leaves(state), leaves(scored))

    def test_what_the_mask_leaves_out_teaches_nothing(self, name):
        tokens, mask = text(), torch.ones(3, 24).bool()
        mask[:, 12:] = False
        changed = tokens.clone()
        changed[:, 12:] = 7
        results = []
        for x in (tokens, changed):
            model = make(name)
            torch.manual_seed(5)
            results.append((model.training_step(x, model.initial_state(3), mask)[0].value.detach(), model.state_dict()))
        close(results[0][0], results[1][0])
        for key, value in results[0][1].items():
            torch.testing.assert_close(value, results[1][1][key], msg=key)

    def test_same_seed_same_bits(self, name):
        a, b = ([*train(m := make(name), 3), m.score(text(), m.initial_state(3))[0]] for _ in range(2))
        assert a[:-1] == b[:-1]
        assert torch.equal(a[-1], b[-1])

    def test_lower_precision_changes_scores_little(self, name):
        model = make(name, trained=True)
        exact, _ = model.score(text(), model.initial_state(3))
        with torch.autocast("cpu", torch.bfloat16):
            rough, state = model.score(text(), model.initial_state(3))
            loss, _ = model.training_step(text(), state, torch.ones(3, 24).bool())
        torch.testing.assert_close(rough.float(), exact, rtol=0.02, atol=0.05)
        if loss.value.requires_grad:
            loss.value.backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

    def test_safetensors_round_trip(self, name, tmp_path):
        model = make(name, trained=True)
        if state := model.state_dict():
            save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "model.safetensors")
            state = load_file(tmp_path / "model.safetensors")
        other = make(name)
        other.load_state_dict(state)
        a, b = (m.score(text(), m.initial_state(3))[0] for m in (model, other))
        assert torch.equal(a, b)

    def test_a_longer_stream_than_is_scored_at_once(self, name, monkeypatch):
        model = make(name, trained=True)
        full, _ = model.score(text(), model.initial_state(3))
        for module in ("models.vq_lm", "models.scorers.lstm_lm", "models.scorers.masked_lm"):
            monkeypatch.setattr(f"vqmem.{module}.CHUNK", 8)
        close(model.score(text(), model.initial_state(3))[0], full)
