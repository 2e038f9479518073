"""What a model knows: accuracy on held-out speech, units in use, and how well its layers' clusters tell phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...data._audio import RATE
from ...models.speech import hubert
from ...models.speech.hubert import HubertConfig
from ...tokenizers_.hubert_units import cluster
from ..speech.unit_metrics import boundaries, changes, pnmi, purities, usage
from .clips import PretrainingClip, batch
from .labels import Labels


def accuracies(
    model: Any, config: HubertConfig, clips: Sequence[PretrainingClip], classes: int, seed: int
) -> dict[str, float]:
    """Over whole ``clips``, under masks that depend on ``seed`` alone, a clip at a time.

    ``masked_accuracy`` and ``unmasked_accuracy`` are shares of the hidden and of the shown frames whose unit is found,
    ``masked_nll`` the loss of hidden frames in nats; ``units_used`` and ``unit_perplexity`` are of the units predicted
    for hidden frames, with ``target_`` of those that are right.
    """
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(seed)
    right, shown, nats, predicted, wanted = [], [], [], [], []
    for clip in clips:
        one = batch([(clip.waveform(config), clip.units)], config, draw)
        scores = hubert.logits(
            model, hubert.encode(model, one.waveforms.to(device), None, one.mask.to(device)).layers[-1]
        )
        scores, mask, units = scores[0].float().cpu(), one.mask[0], one.units[0]
        best = scores.argmax(-1)
        right.append((best == units)[mask])
        shown.append((best == units)[~mask])
        nats.append(-scores.log_softmax(-1)[mask].gather(1, units[mask][:, None]))
        predicted.append(best[mask])
        wanted.append(units[mask])
    targets = usage(torch.cat(wanted), classes)
    return {
        "masked_accuracy": float(torch.cat(right).float().mean()),
        "unmasked_accuracy": float(torch.cat(shown).float().mean()),
        "masked_nll": float(torch.cat(nats).mean()),
        **usage(torch.cat(predicted), classes),
        **{f"target_{name}": value for name, value in targets.items()},
    }


def layer_features(model: Any, config: HubertConfig, clip: PretrainingClip) -> list[Float[Tensor, "frames dim"]]:
    """What every layer gives for a whole clip, nothing hidden, on the CPU."""
    waveform = clip.waveform(config).to(next(model.parameters()).device)
    return [layer[0].float().cpu() for layer in hubert.encode(model, waveform[None]).layers]


def unit_quality(units: Mapping[str, Tensor], labels: Mapping[str, Labels], config: HubertConfig) -> dict[str, float]:
    """PNMI, purities and boundary F1 (within 20 ms) of the units of clips, each by its name, against their labels.

    Frames without a phone do not count. A true border is where a phone begins, but for a clip's first; a found one is
    where the unit changes.
    """
    hop, first = config.hop / RATE, (config.field - config.hop) / 2 / RATE
    phones, found, borders = [], [], []
    for name, own in units.items():
        truth = labels[name].at_frames(len(own), config)
        phones.append(truth[truth >= 0])
        found.append(own[truth >= 0])
        borders.append((labels[name].starts[1:], changes(own, hop, first)))
    truth, own = torch.cat(phones), torch.cat(found)
    phone, cluster = purities(truth, own)
    f1 = boundaries(borders).f1
    return {"pnmi": pnmi(truth, own), "phone_purity": phone, "cluster_purity": cluster, "boundary_f1": f1}


def check(
    fit: Sequence[PretrainingClip], read: Sequence[PretrainingClip], labels: Mapping[str, Labels], clusters: int
) -> None:
    """Raise `ValueError` for what `probe` could not do, which is better told before training than after it."""
    if not any(clip.name in labels for clip in read):
        raise ValueError(f"labels has none of the {len(read)} dev clips, the first of which is called {read[0].name!r}")
    if (frames := sum(len(clip.units) for clip in fit)) < clusters:
        raise ValueError(f"probe_clusters = {clusters} is more than the {frames} frames of {len(fit)} training clips")


def probe(
    model: Any,
    config: HubertConfig,
    fit: Sequence[PretrainingClip],
    read: Sequence[PretrainingClip],
    labels: Mapping[str, Labels],
    clusters: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """`unit_quality` by layer (``layer_1`` is the lowest): clusters of ``fit``, read on the clips that have labels."""
    fitting = [torch.cat(layer) for layer in zip(*(layer_features(model, config, clip) for clip in fit), strict=True)]
    reading = {clip.name: layer_features(model, config, clip) for clip in read if clip.name in labels}
    figures = {}
    for layer, features in enumerate(fitting):
        centres = cluster(features, clusters, seed)
        units = {name: torch.cdist(layers[layer], centres).argmin(1) for name, layers in reading.items()}
        figures[f"layer_{layer + 1}"] = unit_quality(units, labels, config)
    return figures
