"""Does the VQ-VAE use its codes, and does it rebuild speech better than with the quantiser's default settings?

    python benchmarks/speech/vqvae.py [--quick] [--json] [--save] [--data FOLDER] [--runs FOLDER] [--seeds N]

Trains the network of the recipe's config `speech` on speakers of LibriSpeech's train-clean-100 and measures it on those
of test-other, none of them a training speaker: with this project's quantiser, and with `VectorQuantize(dim,
codebook_size)` of `vector-quantize-pytorch` as it comes. Weights at the start, crops, steps and everything else are the
same. Runs are kept in a folder and go on where they stopped. Needs the folder ``speech`` with its manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize
from vqmem.benchmarks._results import Result, figure, options, show, write_result
from vqmem.files import atomic_write
from vqmem.models.speech.spectral import bandwidth
from vqmem.models.speech.vqvae import VQVAE
from vqmem.recipes.engine.config import digest, load
from vqmem.recipes.engine.trainer import seed_all, train
from vqmem.recipes.vqvae.recipe import SEEDING, Config, VQVAETask, crop_loader, held_out, read

CONFIG = Path(__file__).parents[2] / "recipes" / "vqvae" / "configs" / "speech.yaml"
OURS, DEFAULT = "this project's settings", "the library's defaults"
ROWS, CROP, STEPS, CLIPS = 8, 4096, 250, 60
USED = 95.0


class LibraryDefault(nn.Module):
    """`VectorQuantize` with no setting but its size, as a level's quantiser."""

    def __init__(self, dim: int, codes: int) -> None:
        super().__init__()
        self.inner = VectorQuantize(dim, codes)

    def forward(
        self, x: Float[Tensor, "rows dim"]
    ) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, "rows 1"], Float[Tensor, ""]]:
        """Quantised vectors, codes and the commitment loss."""
        quantised, codes, loss = self.inner(x[None])
        return quantised[0], codes.view(-1, 1), loss.sum()

    @torch.no_grad()
    def look(self, x: Float[Tensor, "rows dim"]) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, "rows 1"]]:
        """Quantised vectors and codes; changes nothing."""
        training = self.training
        quantised, codes, _ = self.eval()(x)
        self.train(training)
        return quantised, codes

    def vectors(self, codes: Int[Tensor, "batch codes"]) -> Float[Tensor, "batch codes dim"]:
        """What codes stand for."""
        return self.inner.get_output_from_indices(codes)


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    data = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument(
        "--data", default=data, help="folder that holds speech/ (default $VQMEM_DATA or ../shared/data)"
    )
    parser.add_argument("--runs", default="runs/vqvae_benchmark", help="folder of the runs (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["VQMEM_DATA"] = flags.data
    few = ["train.steps=3", "train_seconds=30", "eval_clips=4"] if flags.quick else []
    chosen = [f"rows={ROWS}", f"crop={CROP}", f"train.steps={STEPS}", f"eval_clips={CLIPS}", *few]
    config = load(Config, CONFIG, [*chosen, "train.eval_every=0", "train.tensorboard=false", "device=cpu"])
    seeds = list(range(1 if flags.quick else flags.seeds))
    folder = Path(flags.runs) / ("quick" if flags.quick else "full")
    found = measure(config, seeds, folder)
    figures = compare(found, config)
    show(figures, flags)
    if flags.save:
        times = [line for path in folder.glob("*-*/timing.jsonl") for line in path.read_text().splitlines()]
        took = sum(json.loads(line)["seconds"] for line in times)  # of training, whenever that was
        write_result("vqvae", replace(result(found, figures, config, seeds), seconds=round(took, 1)))


Found = dict[str, list[dict[str, float]]]
"""For each setting the report of the model of each seed."""


def measure(config: Config, seeds: Sequence[int], folder: Path) -> Found:
    """Train and measure every setting with every seed."""
    found: Found = {OURS: [], DEFAULT: []}
    for seed in seeds:
        for name, reports in found.items():
            reports.append(reported(config, seed, folder, name == OURS))
    return found


def reported(config: Config, seed: int, folder: Path, ours: bool) -> dict[str, float]:
    """Evaluate one model on test; train it and save its report if that has not been done.

    Args:
        config: the network and its training.
        seed: the seed of the weights and the crops.
        folder: the folder of all models.
        ours: whether codebooks have our settings or the library's defaults.

    Returns:
        The figures of the report by name; see `VQVAE.report`.
    """
    folder = folder / f"{'ours' if ours else 'default'}-{seed}"
    kept = folder / f"report-{digest(config)}.json"
    if not kept.is_file():
        model = _trained(config, seed, list(read(config, "train", config.train_seconds)), folder, ours)
        report = model.eval().report(clip for _, clip in held_out(config, "test"))
        atomic_write(kept, json.dumps(report, indent=1))
    return json.loads(kept.read_text())


def _trained(config: Config, seed: int, corpus: list[Tensor], folder: Path, ours: bool) -> VQVAE:
    shape = replace(config.model, step_samples=config.batch_size * config.crop)
    seed_all(seed)
    model = VQVAE(shape, bandwidth(corpus))
    if ours:
        model.seed_codebooks(crop_loader(corpus, SEEDING, config.crop, seed).next())
    else:
        for level in model.levels:
            level.quantiser = LibraryDefault(shape.dim, shape.codes)
    settings = replace(config.train, seed=seed, device=config.device)
    crops = crop_loader(corpus, config.batch_size, config.crop, seed)
    train(VQVAETask(model), crops, settings, folder, describe=folder.name, identity=model.fields() | {"ours": ours})
    return model


def compare(found: Found, config: Config) -> dict[str, dict[str, Any]]:
    """For each level: codes used, and the STFT error over that of the library's defaults; means over seeds."""
    figures = {}
    for hop in config.model.hops:
        used = [100 * report[f"hop{hop}/used"] for report in found[OURS]]
        figures[f"codes used, hop {hop}"] = figure(
            round(mean(used), 2), "%", USED, least=True, default=round(100 * _mean(found, DEFAULT, hop, "used"), 2)
        )
        ours, default = (_mean(found, name, hop, "stft_error") for name in (OURS, DEFAULT))
        figures[f"STFT error over default, hop {hop}"] = figure(
            round(ours / default, 4), "x", 1.0, least=False, ours=round(ours, 4), default=round(default, 4)
        )
    return figures


def _mean(found: Found, name: str, hop: int, key: str) -> float:
    return mean(report[f"hop{hop}/{key}"] for report in found[name])


def result(found: Found, figures: dict[str, dict[str, Any]], config: Config, seeds: list[int]) -> Result:
    """Write the result: figures of every level and setting, with their range over seeds.

    Args:
        found: the reports of the models, by setting.
        figures: the figures with their goals; see `compare`.
        config: the network and its training.
        seeds: the seeds of the models.

    Returns:
        The result for the page.
    """
    keys = ("stft_error", "convergence", "log_magnitude", "mse", "used", "perplexity")
    values: dict[str, Any] = {}
    ranges: dict[str, Any] = {}
    for hop in config.model.hops:
        level = f"hop {hop} ({config.model.rate // hop:,} codes a second)"
        for name, reports in found.items():
            columns = {key: [report[f"hop{hop}/{key}"] for report in reports] for key in keys}
            values.setdefault(level, {})[name] = {key: mean(column) for key, column in columns.items()}
            ranges.setdefault(level, {})[name] = {key: [min(column), max(column)] for key, column in columns.items()}
    missed = [f"{key} is {one['value']:g} {one['unit']}" for key, one in figures.items() if not one["ok"]]
    reached = f"{len(figures) - len(missed)} of {len(figures)} goals reached"
    hops = ", ".join(map(str, config.model.hops))
    model = config.model
    return Result(
        title="The VQ-VAE's codebooks on speech",
        question=(
            "Are at least 95 % of the 512 codes of every level used, and is the multi-scale STFT error lower than "
            "that of the same network with the library's default quantiser settings at equal steps?"
        ),
        answer=f"{reached}; missed: {'; '.join(missed)}." if missed else f"{reached}, at every level.",
        measured=(
            f"The network of the config `speech` of `vqmem vqvae`, levels of hop {hops}, after {config.train.steps} "
            f"updates of {config.batch_size} crops of {config.crop} samples. {OURS.capitalize()}: codebooks start as "
            f"k-means of encodings, decay {model.decay:g}, commitment {model.commitment:g}, a code below "
            f"{model.dead_below:g} of an even use is put on an encoding. {DEFAULT.capitalize()}: "
            "`VectorQuantize(dim, codebook_size)`. The same weights at the start, crops and "
            "optimiser. `stft_error` is the sum of `convergence` and "
            "`log_magnitude`; `mse` is over the variance of the training data; `used` is the share of codes that occur "
            "in the test recordings."
        ),
        values=values,
        intervals=ranges if len(seeds) > 1 else {},
        interval_kind="the least and the most of the seeds" if len(seeds) > 1 else "",
        seeds=seeds,
        split=(
            "fit on 218 speakers of LibriSpeech's train-clean-100, a clip each; measured once on test-other (10 other "
            f"speakers, the first {config.eval_seconds:g} s of {config.eval_clips} utterances)"
        ),
        effect=[next(reversed(values)), OURS, "used"],
        notes=[
            "A few minutes of training: what the settings do at equal steps, not how good a VQ-VAE can become.",
        ],
        history=[
            "Settings were chosen on the other speakers of train-clean-100, by short runs with one seed.",
        ],
    )


if __name__ == "__main__":
    main()
