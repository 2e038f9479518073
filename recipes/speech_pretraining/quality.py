"""Evaluate a model: accuracy on held-out speech, usage of units, and phone quality of its layers' clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.reading.audio import RATE
from ...models.speech import hubert
from ...models.speech.hubert import HubertConfig
from ...tokenizers_.hubert_units import cluster
from ..engine.progress import progress
from ..speech.unit_metrics import boundaries, changes, pnmi, purities, usage
from .clips import PretrainingClip, batch
from .labels import Labels


def accuracies(
    model: Any, config: HubertConfig, clips: Sequence[PretrainingClip], classes: int, seed: int
) -> dict[str, float]:
    """Accuracy and usage of units on uncropped ``clips``, one at a time.

    Args:
        model: the model.
        config: its shape and masking.
        clips: the recordings with their target units.
        classes: number of units.
        seed: seed of the masks.

    Returns:
        ``masked_accuracy`` and ``unmasked_accuracy``; ``masked_nll`` in nats; ``units_used`` and ``unit_perplexity`` of
        the predictions for masked frames, and the same with the prefix ``target_`` of their targets.
    """
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(seed)
    masked_right: list[Tensor] = []
    unmasked_right: list[Tensor] = []
    nats: list[Tensor] = []
    predicted: list[Tensor] = []
    targets: list[Tensor] = []
    for clip in progress(clips, len(clips), "evaluating masked prediction", transient=True):
        one = batch([(clip.waveform(config), clip.units)], config, draw)
        scores = hubert.logits(
            model, hubert.encode(model, one.waveforms.to(device), None, one.mask.to(device)).layers[-1]
        )
        scores, mask, units = scores[0].float().cpu(), one.mask[0], one.units[0]
        best = scores.argmax(-1)
        masked_right.append((best == units)[mask])
        unmasked_right.append((best == units)[~mask])
        nats.append(-scores.log_softmax(-1)[mask].gather(1, units[mask][:, None]))
        predicted.append(best[mask])
        targets.append(units[mask])
    return {
        "masked_accuracy": float(torch.cat(masked_right).float().mean()),
        "unmasked_accuracy": float(torch.cat(unmasked_right).float().mean()),
        "masked_nll": float(torch.cat(nats).mean()),
        **usage(torch.cat(predicted), classes),
        **{f"target_{name}": value for name, value in usage(torch.cat(targets), classes).items()},
    }


def layer_features(model: Any, config: HubertConfig, clip: PretrainingClip) -> list[Float[Tensor, "frames dim"]]:
    """The output of each layer for an uncropped clip without masking, on the CPU."""
    waveform = clip.waveform(config).to(next(model.parameters()).device)
    return [layer[0].float().cpu() for layer in hubert.encode(model, waveform[None]).layers]


def unit_quality(units: Mapping[str, Tensor], labels: Mapping[str, Labels], config: HubertConfig) -> dict[str, float]:
    """PNMI, purities and boundary F1 (within 20 ms) of units against labels, both by name of clip.

    Frames without a phone are ignored. True boundaries are the starts of phones except the first of a clip; predicted
    boundaries are the changes of the unit.
    """
    hop = config.hop / RATE
    first = (config.field - config.hop) / 2 / RATE
    phones: list[Tensor] = []
    predicted: list[Tensor] = []
    borders: list[tuple[Sequence[float], Sequence[float]]] = []
    for name, ids in units.items():
        truth = labels[name].at_frames(len(ids), config)
        phones.append(truth[truth >= 0])
        predicted.append(ids[truth >= 0])
        borders.append((labels[name].starts[1:], changes(ids, hop, first)))
    all_phones, all_units = torch.cat(phones), torch.cat(predicted)
    phone_purity, cluster_purity = purities(all_phones, all_units)
    return {
        "pnmi": pnmi(all_phones, all_units),
        "phone_purity": phone_purity,
        "cluster_purity": cluster_purity,
        "boundary_f1": boundaries(borders).f1,
    }


def check(
    fit: Sequence[PretrainingClip], read: Sequence[PretrainingClip], labels: Mapping[str, Labels], clusters: int
) -> None:
    """Check before training that `probe` will be able to run after it.

    Args:
        fit: the clips on which `probe` fits clusters, with their units.
        read: the clips that it evaluates.
        labels: phones by name of clip.
        clusters: number of clusters.

    Raises:
        ValueError: if no clip to evaluate has labels, or if there are fewer frames than clusters.
    """
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
    """`unit_quality` of each layer, ``layer_1`` being the lowest.

    Args:
        model: the model.
        config: its shape.
        fit: clips on which the clusters are fitted.
        read: clips to evaluate on, if they have labels.
        labels: phones by name of clip.
        clusters: number of clusters.
        seed: seed of the clustering.

    Returns:
        The figures of `unit_quality` by name, by layer.
    """
    read = [clip for clip in read if clip.name in labels]
    both = progress([*fit, *read], len(fit) + len(read), "features of the layers", transient=True)
    layers = [(clip.name, layer_features(model, config, clip)) for clip in both]
    fitting = [torch.cat(layer) for layer in zip(*(features for _, features in layers[: len(fit)]), strict=True)]
    reading = dict(layers[len(fit) :])
    figures = {}
    for layer, features in enumerate(progress(fitting, len(fitting), "clusters of the layers", transient=True)):
        centres = cluster(features, clusters, seed)
        units = {name: torch.cdist(outputs[layer], centres).argmin(1) for name, outputs in reading.items()}
        figures[f"layer_{layer + 1}"] = unit_quality(units, labels, config)
    return figures
