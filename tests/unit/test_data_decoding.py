"""Recordings are read to their last sample, whatever their headers say; what is really cut off is said."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
import torch
from vqmem.data.reading.audio import RATE, Audio
from vqmem.data.reading.files import UnreadableError

SECONDS = 3.0


def wave(seconds: float = SECONDS, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A tone in noise, so that no two stretches are alike."""
    time = np.arange(round(seconds * rate)) / rate
    mono = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.05 * np.random.default_rng(seed).standard_normal(len(time))
    return (mono if channels == 1 else np.stack([mono] * channels, axis=1)).astype(np.float32)


def encoded(samples: np.ndarray, form: str, rate: int = RATE, subtype: str | None = None, **keys: object) -> bytes:
    """A file as `soundfile` writes it."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype, **keys)
    return file.getvalue()


def muxed(samples: np.ndarray, form: str, codec: str, rate: int = RATE) -> bytes:
    """A file as FFmpeg writes it."""
    file, layout = io.BytesIO(), "mono" if samples.ndim == 1 else "stereo"
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        context = stream.codec_context
        fit = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 1024)
        for piece in [*fit.resample(frame), *fit.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def patched(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    """``data`` with other bytes at some places."""
    for place, new in changes:
        data = data[:place] + new + data[place + len(new) :]
    return data


def read(data: bytes, name: str = "clip") -> torch.Tensor:
    return Audio(name, data).read()


# --- mp3 -----------------------------------------------------------------------------------------------------------

COVER = np.random.default_rng(0).bytes(300_000)
ID3V1 = b"TAG" + b"x" * 125


def ape_tag(size: int) -> bytes:
    item = struct.pack("<II", size, 2) + b"Cover Art\0" + COVER[:size]
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, flags) + b"\0" * 8
        for flags in (0xA0 << 24, 1 << 31)
    ]
    return ends[0] + item + ends[1]


def id3v2_tag(size: int) -> bytes:
    frame = b"APIC" + struct.pack(">I", size) + b"\0\0" + COVER[:size]
    return b"ID3\3\0\0" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame


def without_xing(data: bytes) -> bytes:
    with av.open(io.BytesIO(data)) as container:
        return data[next(container.demux()).pos :]


@pytest.mark.parametrize(("name", "seconds"), [("vbr_without_xing", 20.0), ("mp3gain_tag", 2.09)])
def test_cases_of_mp3(name, seconds, real_data, capsys):
    path = real_data / "cases" / f"{name}.mp3"
    if not path.is_file():
        pytest.skip(f"no {path}")
    audio = Audio(str(path))
    assert len(audio.read()) / RATE == pytest.approx(seconds, abs=0.1)
    assert audio.seconds() == pytest.approx(seconds, abs=0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("loud_first", [True, False])
def test_a_varying_bit_rate_without_a_header(loud_first, capsys):
    noise, clicks = np.random.default_rng(0).standard_normal(4 * RATE) * 0.2, np.zeros(8 * RATE)
    clicks[::4000] = 0.3
    samples = np.concatenate([noise, clicks] if loud_first else [clicks, noise]).astype(np.float32)
    audio = Audio("clip", without_xing(encoded(samples, "MP3", bitrate_mode="VARIABLE", compression_level=0.1)))
    assert abs(audio.estimated_seconds() - 12) > 1, "its length cannot be guessed by how it begins"
    decoded = audio.read()
    assert len(decoded) / RATE == audio.seconds() == pytest.approx(12, abs=0.1)
    decoded = decoded[1105:][: len(samples)]  # without what the encoder puts in front, which no header counts here
    assert torch.corrcoef(torch.stack([decoded, torch.from_numpy(samples)]))[0, 1] > 0.9
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("front", "behind"),
    [
        (b"", ape_tag(200)),
        (b"", ape_tag(200_000)),
        (b"", ape_tag(500) + ID3V1),
        (b"", ID3V1),
        (id3v2_tag(200_000), b""),
    ],
)
@pytest.mark.parametrize("has_header", [True, False])
def test_tags_are_no_sound(front, behind, has_header, capsys):
    clip = encoded(wave(), "MP3")
    clip = clip if has_header else without_xing(clip)
    decoded = read(front + clip + behind)
    assert torch.equal(decoded, read(clip))
    assert len(decoded) / RATE == pytest.approx(SECONDS, abs=0.15)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("frames", [0, 10, 83, 1000, 2**32 - 1])
def test_a_header_that_counts_wrong(frames, capsys):
    clip = encoded(wave(), "MP3")
    place = clip.index(b"Xing") + 8
    assert len(read(patched(clip, (place, struct.pack(">I", frames))))) / RATE == pytest.approx(SECONDS, abs=0.1)
    said = capsys.readouterr().err
    assert said.count("\n") == (frames > 100)
    assert ("'clip' ends after 3.03 s, and its header says " in said) == (frames > 100)


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44_100, 1), (RATE, 2), (44_100, 2)])
@pytest.mark.parametrize("between", [b"", ID3V1 + id3v2_tag(100_000)])
def test_joined_mp3_files(rate, channels, between, capsys):
    first, second = encoded(wave(), "MP3"), encoded(wave(2.0, rate, channels, seed=1), "MP3", rate)
    decoded = read(first + between + second)
    assert len(decoded) / RATE == pytest.approx(5.0, abs=0.3), "the ends of each are padded"
    assert torch.equal(decoded[: 2 * RATE], read(first)[: 2 * RATE])
    end = read(second)[RATE // 2 : 3 * RATE // 2]
    assert max(float(torch.dot(end, decoded[at : at + RATE])) for at in range(3 * RATE, 4 * RATE)) > 0.9 * end.dot(end)
    assert capsys.readouterr().err == ""


def test_an_mp3_that_is_cut_is_read_and_said_once(tmp_path, capsys):
    path = tmp_path / "cut.mp3"
    clip = encoded(wave(), "MP3")
    path.write_bytes(clip[: len(clip) // 2])
    audio = Audio(str(path))
    assert len(audio.read()) == len(audio.read()) == pytest.approx(1.4 * RATE, abs=0.1 * RATE)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'{path}' ends after 1.41 s, and its header says 3.10 s; it may be cut off" in line


# --- ogg -----------------------------------------------------------------------------------------------------------


def ogg(kind: str, samples: np.ndarray, rate: int = RATE) -> bytes:
    return muxed(samples, "ogg", "flac", rate) if kind == "FLAC" else encoded(samples, "OGG", rate, kind)


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS", "FLAC"])
@pytest.mark.parametrize("channels", [1, 2])
def test_links_of_a_chained_ogg(kind, channels):
    rate = 24_000 if kind == "OPUS" else 44_100
    first, second = ogg(kind, wave()), ogg(kind, wave(2.0, rate, channels, seed=1), rate)
    audio = Audio("chained", first + second + first)
    assert audio.seconds() == pytest.approx(8.0, abs=0.001)
    parts = [read(link) for link in (first, second, first)]
    assert len(audio.read()) == pytest.approx(sum(map(len, parts)), abs=2)
    assert torch.equal(audio.read()[: RATE * 2], parts[0][: RATE * 2])
    assert torch.allclose(audio.read()[3 * RATE + 800 : 5 * RATE - 800], parts[1][800:-800], atol=1e-4)
    assert torch.allclose(audio.read()[5 * RATE + 800 :], parts[2][800:], atol=1e-4)


def test_links_of_different_codecs_and_damage_between():
    vorbis, opus = ogg("VORBIS", wave()), ogg("OPUS", wave(2.0, seed=1))
    assert Audio("both", vorbis + opus).seconds() == pytest.approx(5.0, abs=0.001)
    assert Audio("tag", vorbis + ID3V1).seconds() == SECONDS


@pytest.mark.parametrize("size", [60, 3000, 6000])
def test_an_ogg_that_is_cut_is_said(size, capsys):
    first, second = ogg("VORBIS", wave()), ogg("VORBIS", wave(2.0))
    seconds = len(read(first + second[:size])) / RATE
    assert SECONDS <= seconds < 5
    assert capsys.readouterr().err == f"'clip' ends within a page of Ogg after {seconds:.2f} s; it may be cut off\n"
    assert 0.5 < len(read(first[: len(first) // 2])) / RATE < SECONDS
    assert "it may be cut off" in capsys.readouterr().err


def test_an_ogg_page_that_is_damaged_is_said(capsys):
    clip = ogg("VORBIS", wave())
    assert len(read(patched(clip, (8000, b"\0" * 100)))) < 2.9 * RATE
    assert "'clip' ends after 2.04 s, and its header says 3.00 s" in capsys.readouterr().err


# --- flac ----------------------------------------------------------------------------------------------------------


def with_total(data: bytes, total: int) -> bytes:
    """A flac whose header counts ``total`` samples (36 bits of STREAMINFO)."""
    word = int.from_bytes(data[18:26], "big") >> 36 << 36 | total
    return patched(data, (18, word.to_bytes(8, "big")))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("total", [0, 1, RATE, int(SECONDS * RATE)])
def test_flac_is_read_to_its_end(subtype, total, capsys):
    clip = encoded(wave(), "FLAC", subtype=subtype)
    expected, _ = soundfile.read(io.BytesIO(clip), dtype="float32")
    assert np.array_equal(read(with_total(clip, total)).numpy(), expected)
    assert capsys.readouterr().err == ""


def test_joined_flac_files():
    first, second = wave(), wave(2.0, seed=1)
    joined = encoded(first, "FLAC") + encoded(second, "FLAC")
    assert np.abs(read(joined).numpy() - np.concatenate([first, second])).max() < 1e-4
    tagged = id3v2_tag(5000) + encoded(first, "FLAC") + ape_tag(5000) + ID3V1
    assert np.abs(read(tagged).numpy() - first).max() < 1e-4


def test_tags_may_be_in_any_encoding():
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 1, format="FLAC") as recording:
        recording.title = "Lied"
        recording.write(wave())
    latin = file.getvalue().replace(b"Lied", b"L\xfcge")
    assert b"L\xfcge" in latin
    assert np.abs(read(latin).numpy() - wave()).max() < 1e-4


def test_flac_that_is_cut_or_damaged_is_refused():
    clip = encoded(wave(), "FLAC")
    broken = patched(clip, (30_000, b"\xff" * 10))
    for data, said in (
        (clip[: len(clip) // 2], r"after 1\.28 of 3\.00 s \(Invalid data"),
        (clip[:-5], r"after 2\.82 of 3\.00 s"),
        (with_total(clip, 6 * RATE), r"after 3\.00 of 6\.00 s; copy it again"),
        (broken, r"after [01]\.\d\d of 3\.00 s"),
        (with_total(broken, 0), r"after [01]\.\d\d s"),
        (with_total(clip, 0)[: len(clip) // 2], r"after 1\.28 s"),
    ):
        with pytest.raises(UnreadableError, match=f"'clip' is damaged or cut off {said}"):
            read(data)


# --- uncompressed --------------------------------------------------------------------------------------------------

LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0"


def wav(riff: int | None = None, data: int | None = None, front: bytes = b"", behind: bytes = b"") -> bytes:
    """A wav file whose header has these sizes, with chunks before its samples and behind them."""
    clip = encoded(wave(), "WAV")
    place = clip.index(b"data")
    size = len(clip) - place - 8 if data is None else data
    head = b"RIFF" + struct.pack("<I", len(clip) - 8 if riff is None else riff) + clip[8:place]
    return head + front + b"data" + struct.pack("<I", size) + clip[place + 8 :] + behind


@pytest.mark.parametrize(
    "data",
    [
        wav(),
        wav(2**32 - 1, 2**32 - 1),  # FFmpeg
        wav(2**32 - 1, 2**32 - 1, front=LIST),
        wav(0x7FFFF024, 0x7FFFF000),  # sox
        wav(0x80000024, 0x80000000),  # arecord
        wav(0, 0),
        wav(36, 0),  # what wrote it was killed
        wav(2**32 - 1, 0),
        wav(8, 0),
        wav(96_044),  # a common mistake: the size of the file
        wav(behind=LIST),
        wav(behind=id3v2_tag(300)),
        wav(front=b"junk" + struct.pack("<I", 3) + b"abc\0"),
    ],
    ids=range(13),
)
def test_wav_whatever_its_sizes_say(data, capsys):
    expected = soundfile.read(io.BytesIO(encoded(wave(), "WAV")), dtype="float32")[0]
    audio = Audio("clip", data)
    assert np.array_equal(audio.read().numpy(), expected)
    assert audio.seconds() == SECONDS
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize("channels", [1, 6])
def test_samples_of_any_kind_are_the_same_from_either_decoder(subtype, channels):
    clip = encoded(wave(1.0, channels=channels), "WAV", subtype=subtype)
    place = clip.index(b"data") + 4
    assert torch.allclose(read(patched(clip, (place, b"\0" * 4))), read(clip), rtol=0, atol=1e-7)


def test_mp3_in_wav():
    assert len(read(muxed(wave(), "wav", "libmp3lame"))) == pytest.approx(3.1 * RATE, abs=0.05 * RATE)


@pytest.mark.parametrize(
    ("form", "mark", "offset", "unknown"),
    [
        ("AIFF", b"SSND", 4, b"\xff" * 4),
        ("AIFF", b"SSND", 4, b"\x7f\0\0\x08"),  # sox
        ("AIFF", b"COMM", 10, b"\xff" * 4),
        ("AU", b".snd", 8, b"\xff" * 4),
        ("W64", b"data", 16, b"\xff" * 8),
        ("CAF", b"data\0", 4, b"\xff" * 8),
    ],
)
def test_sizes_that_are_not_known(form, mark, offset, unknown, capsys):
    clip = encoded(wave(), form)
    decoded = read(patched(clip, (clip.index(mark) + offset, unknown)))
    assert capsys.readouterr().err == ""
    assert torch.equal(decoded, read(clip))
    assert len(decoded) == SECONDS * RATE


@pytest.mark.parametrize("form", ["WAV", "AIFF", "AU", "W64", "RF64"])
@pytest.mark.parametrize("bits", [16, 24])
def test_what_is_shorter_than_its_header_says_is_cut_off(form, bits, tmp_path):
    clip = encoded(wave(), form, subtype=f"PCM_{bits}")
    path = tmp_path / "cut"
    path.write_bytes(clip[: len(clip) * 6 // 10])
    for audio in (Audio(str(path)), Audio(str(path), path.read_bytes())):
        with pytest.raises(UnreadableError, match=r"is damaged or cut off after 1\.\d\d of 3\.00 s; copy it again"):
            audio.read()
    with pytest.raises(UnreadableError, match="has no samples"):
        read(encoded(wave()[:0], form))


def test_caf_that_is_cut_is_said(capsys):
    clip = encoded(wave(), "CAF")
    assert len(read(clip[:60_000])) == pytest.approx(1.75 * RATE, abs=0.01 * RATE)
    assert "'clip' ends after 1.75 s, and its header says 3.00 s" in capsys.readouterr().err


# --- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["xing", "no xing", "flac", "joined flac", "wav", "vorbis", "chained"])
def test_parts_and_lengths_without_a_header_to_go_by(kind, tmp_path):
    mp3, flac, vorbis = encoded(wave(), "MP3"), encoded(wave(), "FLAC"), encoded(wave(), "OGG")
    data = {
        "xing": mp3,
        "no xing": without_xing(mp3),
        "flac": with_total(flac, 0),
        "joined flac": flac + flac,
        "wav": wav(0, 0),
        "vorbis": vorbis,
        "chained": vorbis + vorbis,
    }[kind]
    path = tmp_path / "clip"
    path.write_bytes(data)
    full = Audio(str(path))
    assert torch.equal(full.read(), read(data))
    assert full.seconds() == len(full.read()) / RATE
    parts = [Audio(str(path), part=part) for part in ((0.0, 0.8), (0.8, 0.9), (0.9, 1.0))]
    assert torch.equal(torch.cat([part.read() for part in parts]), full.read())
    assert [part.seconds() for part in parts] == pytest.approx([share * full.seconds() for share in (0.8, 0.1, 0.1)])
    assert torch.equal(torch.cat(list(full.stream(0.31))), full.read())


def test_a_long_file_is_read_a_stretch_at_a_time():
    heard: list[float] = []
    audio = Audio("long", encoded(wave(60.0, 8000), "FLAC", 8000), on_progress=heard.append)
    assert len(next(audio.stream(1.0))) == RATE
    assert max(heard) < 10


@pytest.mark.parametrize(("form", "codec", "rate"), [("mp4", "aac", RATE), ("webm", "libopus", 48_000)])
def test_formats_of_telephones_and_browsers(form, codec, rate):
    assert len(read(muxed(wave(rate=rate), form, codec, rate))) == pytest.approx(SECONDS * RATE, abs=0.1 * RATE)
