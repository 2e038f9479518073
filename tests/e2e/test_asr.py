"""`vqmem asr` and `vqmem transcribe`, through the command line, on recordings and on units."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from vqmem.artifacts import read_config, save_model
from vqmem.cli import main
from vqmem.recipes.asr import recipe
from vqmem.recipes.asr.ctc.recogniser import KIND
from vqmem.recipes.engine.config import load

NETWORK = (
    "{extractor_mode: group_norm, extractor_conv_layer_config: [[8, 40, 20], [8, 8, 4], [8, 4, 4]], "
    "encoder_embed_dim: 16, encoder_num_layers: 1, encoder_num_heads: 2, encoder_ff_interm_features: 16, "
    "encoder_pos_conv_kernel: 4, encoder_pos_conv_groups: 4, encoder_layer_drop: 0.0}"
)
TRAIN = "{steps: 4, lr: 0.01, warmup: 1, eval_every: 3, save_every: 2, tensorboard: false}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings with texts, one damaged, one without text, one whose text is another's; and units with texts."""
    folder = tmp_path_factory.mktemp("asr")
    rows = ["path\ttext\tsplit"]
    for i, text in enumerate(("yes", "no", "no yes", "Yes, \u00e9!", "no", "yes", "", "no" * 5000, "no")):
        wave = np.random.default_rng(i).standard_normal(16_000) * 0.1
        soundfile.write(folder / f"{i}.wav", wave, 16_000)
        rows.append(f"{i}.wav\t{text}\t{'dev' if i in (3, 4) else 'train'}")
    (folder / "8.wav").write_text("no sound")
    (folder / "manifest.tsv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "ctc.yaml").write_text(
        f"data: {{name: audio_files, path: {folder}}}\ndevice: cpu\nbatch_size: 2\ntrain: {TRAIN}\n"
        f"recogniser: {{name: ctc, model: {NETWORK}, speed: 0.1, mask_prob: 0.2, window: 0.5}}\n"
    )
    lines = [
        {"id": f"c{i % 4}-{i}", "units": [(i + j) % 9 for j in range(24)], "text": "no yes" if i % 2 else "yes no"}
        for i in range(12)
    ]
    (folder / "units.jsonl").write_text("\n".join(map(json.dumps, lines)))
    small = "{steps: 2, tensorboard: false}"
    (folder / "units.yaml").write_text(
        f"data: {{name: unit_files, path: {folder / 'units.jsonl'}, by: '-'}}\njoint: '-'\ndevice: cpu\nbatch_size: 2\n"
        f"train: {TRAIN}\nrecogniser:\n  name: units\n  front_end: {{name: units, vocab_size: 9, deduplicate: true}}\n"
        f"  segment: 16\n  aligner: {{model: {{dim: 8, layers: 1}}, batch_size: 2, train: {small}}}\n"
        f"  scorer: {{name: vq_lm, dim: 8, hidden: 8, codes: 4}}\n  scorer_train: {small}\n"
        "  shape: {layers: 1, dim: 16, heads: 2}\n  capacities: [16, 24]\n"
        "  strategies: {fifo: {policy: fifo}, surprise: {policy: {name: scored, surprise: 1.0}}}\n"
    )
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """The folder of a finished run of `ctc`."""
    out = folder / "run"
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        assert main(["asr", str(folder / "ctc.yaml"), f"out={out}"]) == 0
    return out


def test_a_recogniser_of_recordings(folder, trained, capsys, contents):
    figures = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    assert figures["decoding_modes"]["greedy"]["utterances"] == 2
    assert figures["decoding_modes"]["greedy"]["cer"] > 0
    assert {utterance["name"] for utterance in figures["worst_utterances"]} <= {"3.wav", "4.wav"}
    assert figures["alphabet"] == " enosy"
    assert figures["outside_alphabet"] == {"\u00e9": 1}
    skipped = json.loads((trained / "utterances" / "train.json").read_text())["skipped"]
    assert len(skipped) == 2
    assert "'6.wav' has no text" in skipped[0]
    assert "is not audio" in skipped[1]
    before = contents(trained)
    assert main(["asr", str(folder / "ctc.yaml"), f"out={trained}"]) == 0
    out, _ = capsys.readouterr()
    assert "greedy  WER" in out
    assert f"vqmem transcribe FILE --run {trained} uses it" in out
    assert "outside the alphabet, always counted as errors: '\u00e9' (1)" in out
    assert contents(trained) == before


@pytest.fixture(scope="module")
def talking(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, made to write a letter wherever it would rather write nothing."""
    out = tmp_path_factory.mktemp("talking") / "run"
    shutil.copytree(trained, out)
    run = recipe.load_run(out)
    model = run.transcriber.model  # pyright: ignore[reportAttributeAccessIssue]
    model.head[-1].bias.data[0] -= 20
    fields = read_config(out / "model", KIND)["fields"]
    save_model(out / "model", KIND, fields, model)
    return out


def test_a_language_model_that_is_another_than_at_the_evaluation_is_refused(folder, trained, tmp_path, capsys):
    pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="needs flashlight-text with KenLM (extra 'asr')")
    out, lm = tmp_path / "run", tmp_path / "letters.arpa"
    shutil.copytree(trained, out)
    letters = "\n".join(f"-1.0\t{letter}\t0" for letter in (*"enosy", "|", "<s>", "</s>", "<unk>"))
    lm.write_text(f"\\data\\\nngram 1=9\nngram 2=1\n\n\\1-grams:\n{letters}\n\n\\2-grams:\n-0.5\tn o\n\n\\end\\\n")
    decoding = [f"out={out}", "decoding.beam=5", f"decoding.lm={lm}"]
    transcribe = ["transcribe", str(folder / "0.wav"), "--run", str(out)]
    assert main(["asr", str(folder / "ctc.yaml"), *decoding]) == 0
    assert main(transcribe) == 0
    lm.write_text(lm.read_text().replace("-1.0\te", "-0.5\te"))
    assert main(transcribe) == 2
    assert "differs from the file that" in capsys.readouterr().err
    assert main([*transcribe, "--beam", "0"]) == 0
    assert main(["asr", str(folder / "ctc.yaml"), *decoding]) == 0
    assert main(transcribe) == 0
    lm.unlink()
    assert main(transcribe) == 2
    assert f"no such file or folder: '{lm}'" in capsys.readouterr().err


def test_texts_without_room_are_left_out_with_a_warning(folder, tmp_path, capsys):
    assert main(["asr", str(folder / "ctc.yaml"), f"out={tmp_path / 'run'}", "characters=nosey"]) == 0
    err = capsys.readouterr().err
    assert "'7.wav' has 10000 letters for 49 frames; is its text another's?" in err


def test_a_run_that_was_stopped_ends_as_if_it_was_not(folder, trained, tmp_path, interrupted_once):
    from vqmem.recipes.asr.ctc.task import CTCTask

    interrupted_once(CTCTask, 4)
    argv = ["asr", str(folder / "ctc.yaml"), f"out={tmp_path / 'run'}"]
    with pytest.raises(InterruptedError):
        recipe.run(load(recipe.Config, argv[1], argv[2:]))
    assert main(argv) == 0
    weights = ("model/model.safetensors", "model/training/metrics.jsonl")
    assert all((tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes() for name in weights)


def test_recordings_are_transcribed_with_times(folder, talking, capsys):
    assert main(["transcribe", str(folder / "0.wav"), "--run", str(talking), "--json"]) == 0
    words = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert words
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)
    assert all(set(word) == {"word", "start", "end"} for word in words)
    assert all(0 <= word["start"] < word["end"] <= 1.02 for word in words)
    assert main(["transcribe", str(folder / "0.wav"), "--run", str(talking)]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert " ".join(text for _, _, text in lines) == " ".join(word["word"] for word in words)


@pytest.fixture(scope="module")
def deaf(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, made to write nothing."""
    out = tmp_path_factory.mktemp("deaf") / "run"
    shutil.copytree(trained, out)
    model = recipe.load_run(out).transcriber.model  # pyright: ignore[reportAttributeAccessIssue]
    model.head[-1].bias.data[0] += 1000
    save_model(out / "model", KIND, read_config(out / "model", KIND)["fields"], model)
    return out


def test_a_recording_in_which_nothing_is_heard_has_a_line(folder, deaf, tmp_path, capsys):
    names = ["short.wav", "a\n\tb \x1b]0;x\x07.wav"]
    for name, samples in zip(names, (8_000, 20_000), strict=True):
        soundfile.write(tmp_path / name, np.random.default_rng(0).standard_normal(samples) * 0.1, 16_000)
    files = [str(folder / "0.wav"), *(str(tmp_path / name) for name in names)]
    assert main(["transcribe", *files, "--run", str(deaf)]) == 0
    out = capsys.readouterr().out
    assert [line.split("\t")[1:] for line in out.splitlines()] == [
        ["0.00", "1.00", ""],
        ["0.00", "0.50", ""],
        ["0.00", "1.25", ""],
    ]
    assert "a\\u000a\\u0009b \\u001b]0;x\\u0007.wav" in out
    assert main(["transcribe", *files, "--run", str(deaf), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [
        {"file": file, "word": "", "start": 0.0, "end": end} for file, end in zip(files, (1.0, 0.5, 1.25), strict=True)
    ]
    assert main(["transcribe", files[1], "--run", str(deaf)]) == 0
    assert capsys.readouterr().out == "0.00\t0.50\t\n"


def test_digital_silence_is_a_recording_in_which_nothing_is_heard(talking, tmp_path, capsys):
    for seconds in (1, 3):
        soundfile.write(tmp_path / f"{seconds}.wav", np.zeros(16_000 * seconds), 16_000)
    assert main(["transcribe", str(tmp_path / "1.wav"), "--run", str(talking)]) == 0
    assert capsys.readouterr().out == "0.00\t1.00\t\n"
    (tmp_path / "2.wav").write_text("no sound")
    files = [str(tmp_path / f"{number}.wav") for number in (1, 2, 3)]
    assert main(["transcribe", *files, "--run", str(talking), "--json"]) == 2
    out, error = capsys.readouterr()
    assert [json.loads(line)["end"] for line in out.splitlines()] == [1.0, 3.0]
    assert "2.wav' is not audio" in error


def test_where_no_recording_can_be_read_all_reasons_are_listed(talking, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    assert main(["transcribe", *map(str, sorted(tmp_path.iterdir())), "--run", str(talking)]) == 2
    first, *reasons, last = capsys.readouterr().err.splitlines()
    assert first == "skipped 2 of 2:"
    assert ["has no samples" in reasons[0], "is not audio" in reasons[1]] == [True, True]
    assert last == "vqmem: none of the 2 can be used; see above"


def test_unreadable_recordings_are_reported_and_the_others_go_on(folder, talking, tmp_path, capsys):
    (tmp_path / "cut.flac").write_bytes(b"fLaC")
    files = [str(path) for path in (folder / "8.wav", folder / "1.wav", tmp_path / "cut.flac", folder / "2.wav")]
    assert main(["transcribe", *files, "--run", str(talking), "--json"]) == 2
    out, err = capsys.readouterr()
    assert {json.loads(line)["file"] for line in out.splitlines()} == {files[1], files[3]}
    assert err.splitlines()[0] == "skipped 2 of 4:"
    assert err.splitlines()[-1] == "vqmem: 2 of 4 recordings could not be read; see above"
    assert len(err.splitlines()) == 4


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A second of noise, which `bad_recordings` is made of."""
    soundfile.write(tmp_path / "clip.flac", np.random.default_rng(0).standard_normal(16_000) * 0.1, 16_000)
    return tmp_path / "clip.flac"


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (96_000, 6)])
def test_any_rate_and_number_of_channels(rate, channels, trained, tmp_path, capsys):
    soundfile.write(tmp_path / "clip.wav", np.random.default_rng(0).standard_normal((rate, channels)) * 0.1, rate)
    assert main(["transcribe", str(tmp_path / "clip.wav"), "--run", str(trained)]) == 0
    assert capsys.readouterr().err == ""


def test_what_is_wrong_with_a_recording_is_one_line(trained, bad_recordings, tmp_path, refused):
    del bad_recordings["zeros.wav"]  # in which nothing is heard
    for name, message in bad_recordings.items():
        assert message in refused("transcribe", tmp_path / name, "--run", trained)


def test_what_a_run_lacks_is_an_error_before_anything_is_made(folder, trained, tmp_path, refused, monkeypatch):
    out, clip = tmp_path / "run", folder / "0.wav"
    before = (trained / "config.yaml").read_bytes()
    assert "encoder (the folder of a finished" in refused(
        "asr", folder / "ctc.yaml", f"out={out}", f"recogniser.encoder={tmp_path / 'typo'}"
    )
    fitted = f"recogniser.front_end={{name: hubert_units, fitted: {tmp_path / 'typo'}}}"
    assert "hubert_units fitted" in refused("asr", folder / "units.yaml", f"out={out}", fitted)
    monkeypatch.setitem(sys.modules, "flashlight", None)
    monkeypatch.setitem(sys.modules, "flashlight.lib.text.decoder", None)
    for module in ("torchaudio.models.decoder", "torchaudio.models.decoder._ctc_decoder"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert "pip install 'vqmem[asr]'" in refused("transcribe", clip, "--run", trained, "--beam", "5")
    assert "pip install 'vqmem[asr]'" in refused("asr", folder / "ctc.yaml", f"out={trained}", "decoding.beam=5")
    assert (trained / "config.yaml").read_bytes() == before
    assert not out.exists()


def test_a_beam_of_0_is_greedy_whatever_the_run_has(folder, talking, tmp_path, capsys):
    shutil.copytree(talking, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    changed = config.read_text().replace("beam: 0", "beam: 5").replace("lexicon: false", "lexicon: true")
    assert "beam: 5" in changed
    assert "lexicon: true" in changed
    config.write_text(changed)
    spoken = []
    for run in (talking, tmp_path / "run"):
        assert main(["transcribe", str(folder / "0.wav"), "--run", str(run), "--beam", "0"]) == 0
        spoken.append(capsys.readouterr().out)
    assert spoken[0] == spoken[1] != ""


def test_what_is_wrong_is_one_line(folder, trained, refused, tmp_path):
    clip = folder / "0.wav"
    assert "run (the folder of a finished `vqmem asr`)" in refused("transcribe", clip, "--run", tmp_path / "absent")
    assert "unknown decoder 'gready'; did you mean greedy?" in refused(
        "transcribe", clip, "--run", trained, "--decoder", "gready"
    )
    assert "is not audio" in refused("transcribe", folder / "8.wav", "--run", trained)
    assert "contains another run" in refused("asr", folder / "ctc.yaml", f"out={trained}", "batch_size=3")
    assert "not about 400 every 320" in refused(
        "asr", folder / "ctc.yaml", "recogniser.model.extractor_conv_layer_config=[[8,10,5]]"
    )
    assert "never has" in refused("asr", folder / "ctc.yaml", "characters=AB")
    assert "has no beam" in refused("asr", folder / "units.yaml", "decoding.beam=4", f"out={tmp_path / 'beam'}")
    (trained.parent / "half").mkdir()
    (trained.parent / "half" / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    assert "is not a finished run" in refused("transcribe", clip, "--run", trained.parent / "half")


def test_a_run_of_units_that_was_stopped_ends_as_if_it_was_not(folder, tmp_path, interrupted_once):
    from vqmem.recipes.lm.language_model import LanguageModelTask

    interrupted_once(LanguageModelTask, 4)
    argv = ["asr", str(folder / "units.yaml")]
    with pytest.raises(InterruptedError):
        recipe.run(load(recipe.Config, argv[1], [f"out={tmp_path / 'stopped'}"]))
    for name in ("stopped", "unbroken"):
        assert main([*argv, f"out={tmp_path / name}"]) == 0
    for part in ("aligner", "scorer", "transformer"):
        stopped, unbroken = (
            (tmp_path / name / part / "model.safetensors").read_bytes() for name in ("stopped", "unbroken")
        )
        assert stopped == unbroken


def test_units_become_text_with_every_memory(folder, tmp_path, capsys, refused):
    out = tmp_path / "units"
    assert main(["asr", str(folder / "units.yaml"), f"out={out}"]) == 0
    printed = capsys.readouterr().out
    figures = json.loads((out / "evaluation.json").read_text())
    assert list(figures["decoding_modes"]) == ["fifo@24", "fifo@16", "surprise@24", "surprise@16", "offline (CTC)"]
    assert all(f"{mode:13}  WER" in printed for mode in figures["decoding_modes"])
    assert printed.endswith(f"saved in {out}\n"), "units are in no file to transcribe"
    assert figures["decoding_modes"]["fifo@24"]["utterances"] == 3, "a chapter is dev, and cut into its utterances"
    message = refused("transcribe", folder / "0.wav", "--run", out)
    assert "reads units that were made elsewhere" in message
    assert "give --run a run whose data are recordings" in message


def test_recordings_become_text_by_their_units(folder, tmp_path, capsys):
    changes = [
        f"data={{name: audio_files, path: {folder}}}",
        "joint=''",
        "recogniser.front_end={name: hubert_units, fitted: packaged, deduplicate: true}",
        "recogniser.capacities=[16]",
        f"out={tmp_path / 'spoken'}",
    ]
    assert main(["asr", str(folder / "units.yaml"), *changes]) == 0
    capsys.readouterr()
    assert main(["transcribe", str(folder / "1.wav"), "--run", str(tmp_path / "spoken"), "--json"]) == 0
    words = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(0 <= word["start"] <= word["end"] <= 1.02 for word in words)
