"""The benchmark of units to text joins what several models read of a chapter."""

from vqmem.benchmarks.speech import asr_units
from vqmem.benchmarks.speech.asr_units import joined, read_with
from vqmem.recipes.asr.error_rates import TranscriptPair


def test_what_the_models_of_all_seeds_read_is_joined_by_chapter() -> None:
    chapters = [["first", "second"], ["third"]]
    by_seed = [[[TranscriptPair(x, x, str(seed)) for x in chapter] for chapter in chapters] for seed in range(3)]
    for count in (1, 2):
        found = joined([seed[:count] for seed in by_seed])
        names = [[(pair.name, pair.hypothesis) for pair in chapter] for chapter in found]
        wanted = [[(x, str(seed)) for seed in range(3) for x in chapter] for chapter in chapters[:count]]
        assert names == wanted


def test_what_a_model_read_is_kept(tmp_path, monkeypatch) -> None:
    pairs = [TranscriptPair("a", "one", "won"), TranscriptPair("b", "two", "two")]
    monkeypatch.setattr(asr_units, "recognise", lambda mode, chosen, what: pairs)
    assert read_with("fifo@64", None, [[]], tmp_path) == pairs
    monkeypatch.setattr(asr_units, "recognise", None)  # read from the file
    assert read_with("fifo@64", None, [[]], tmp_path) == pairs
