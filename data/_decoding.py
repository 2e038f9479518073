"""Decode a recording to its last sample, whatever its header says of its length.

Uncompressed formats (wav, aiff, au, caf, w64, …) are decoded by `soundfile`: their headers are exact, and parts of them
are found by seeking. Everything else (flac, mp3, ogg, opus, m4a, webm, …), and wav files whose header was never
completed, are decoded by FFmpeg (PyAV), packet after packet to the end of the file; where there is a header, it is only
compared with what was there.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from ..schema import expand
from ._reading import UnreadableError, existing

Frames = Float[np.ndarray, "frames channels"]
"""Samples, in -1 … 1."""

BLOCK = 1 << 16
"""Frames that are decoded at once; resampled values depend on it in their last bits."""

_FFMPEG = "mp3,flac,ogg,wav,w64,caf,mov,matroska,aac,asf,amr,wv,tta,ape,ac3"  # none that opens other files or addresses
_OPEN_SIZE = 0x7EFF0000  # files that FFmpeg, sox or arecord wrote to pipes say that they have this many bytes or more
_SLACK = 0.02  # seconds that may be missing from a file whose header is exact: a unit
_LOOSE = 0.2  # and from others, whose headers may count the encoder's padding


@contextlib.contextmanager
def opened(name: str, data: bytes | None, warn: Callable[[str], None]) -> Iterator[Uncompressed | Compressed]:
    """The file ``name``, or the bytes ``data`` of one, ready to be decoded.

    Args:
        name: its path; what messages call it.
        data: the bytes of the encoded file, where they are in memory.
        warn: takes a line for each thing that is odd, but no reason to refuse the file.

    Raises:
        UnreadableError: in one line, for a file that is missing, no regular file, or not audio.
    """
    import soundfile

    with contextlib.ExitStack() as stack:
        file, reason = stack.enter_context(_file(name, data)), ""
        if not _is_compressed(file):
            source: Any = file if data is not None else os.fsencode(expand(name))
            try:
                decoder = stack.enter_context(soundfile.SoundFile(source))
            except soundfile.LibsndfileError as error:
                reason = error.error_string.removeprefix("Error : ").strip(". ")
            else:
                if not _is_guessed(decoder):
                    yield Uncompressed(name, decoder)
                    return
        yield Compressed(name, file, warn, reason)


class Uncompressed:
    """A file that `soundfile` decodes."""

    def __init__(self, name: str, file: Any) -> None:
        self.name, self.file = name, file
        expected = _expected_seconds(file)
        if expected > self.seconds() + _SLACK:
            raise cut_off(name, self.seconds(), expected)

    def frames(self) -> int:
        """How many there are."""
        return self.file.frames

    def seconds(self) -> float:
        """How long it is."""
        return self.file.frames / self.file.samplerate

    def estimated_seconds(self) -> float:
        """How long it is."""
        return self.seconds()

    def blocks(self, first: int = 0) -> Iterator[tuple[int, Frames]]:
        """The rate and the samples of one block after another, from frame ``first`` on."""
        import soundfile

        self.file.seek(first)
        for at in range(first, self.file.frames, BLOCK):
            try:
                block = self.file.read(BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise cut_off(self.name, at / self.file.samplerate, self.seconds(), error.error_string) from error
            if len(block) < min(BLOCK, self.file.frames - at):
                raise cut_off(self.name, (at + len(block)) / self.file.samplerate, self.seconds())
            yield self.file.samplerate, block


class Compressed:
    """A file that FFmpeg decodes."""

    def __init__(self, name: str, file: io.RawIOBase | io.BytesIO, warn: Callable[[str], None], reason: str) -> None:
        self.name, self.file, self.warn, self.reason = name, file, warn, reason

    def frames(self) -> int:
        """How many there are, which only decoding tells."""
        return sum(frame.samples for frame in self._decoded())

    def seconds(self) -> float:
        """How long it is, which only decoding tells."""
        runs = itertools.groupby(self._decoded(), key=lambda frame: frame.sample_rate)
        return sum((sum(frame.samples for frame in run) / rate for rate, run in runs), 0.0)

    def estimated_seconds(self) -> float:
        """How long FFmpeg takes it to be by its header, or by its size; 0 where there is nothing to go by."""
        with self._open(_links(self.file)[0][0]) as container:
            return (container.duration or 0) / 1e6

    def blocks(self, first: int = 0) -> Iterator[tuple[int, Frames]]:
        """The rate and the samples of one block after another, from frame ``first`` on."""
        import av

        for (rate, *_), run in itertools.groupby(self._decoded(), key=_kind):
            queue = av.AudioFifo()
            for frame in run:
                frame.pts = None  # or the queue wants times without a gap
                queue.write(frame)
                if first:
                    first -= getattr(queue.read(min(first, queue.samples)), "samples", 0)
                while (block := queue.read(BLOCK)) is not None:
                    yield rate, _samples(block)
            if (block := queue.read(partial=True)) is not None:
                yield rate, _samples(block)

    def _decoded(self) -> Iterator[Any]:
        """What the codec gives, one of its frames after another."""
        before, (links, is_cut) = 0.0, _links(self.file)
        for link in links:
            try:
                container = self._open(link)
            except UnreadableError:
                if not before:
                    raise
                is_cut = True
                break
            with container:
                for frame in self._of_link(container, link, before):
                    before += frame.samples / frame.sample_rate
                    yield frame
        if is_cut:
            self.warn(f"{self.name!r} ends within a page of Ogg after {before:.2f} s; it may be cut off")

    def _of_link(self, container: Any, link: _Slice, before: float) -> Iterator[Any]:
        from av.error import FFmpegError

        stream = container.streams.best("audio")
        is_flac = container.format.name == "flac"
        if is_flac:  # a frame with a wrong checksum is left out, which the time of the next one shows
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        seconds, expected, due = 0.0, None, None
        for packet in self._packets(container, stream):
            expected = _expected(container, packet, link) if expected is None else expected
            try:
                decoded = packet.decode()
            except FFmpegError as error:
                if is_flac:
                    raise cut_off(self.name, before + seconds, before + expected, error.strerror or "") from error
                continue  # tags and pictures between joined files are no frames; decoders go on behind them
            for frame in decoded:
                start = frame.pts or 0
                if is_flac and due is not None and start > due:
                    raise cut_off(self.name, before + seconds, before + expected)
                seconds, due = seconds + frame.samples / frame.sample_rate, start + frame.samples
                yield frame
        expected = expected or 0.0
        if is_flac and expected > seconds + _SLACK:
            raise cut_off(self.name, before + seconds, before + expected)
        if expected > 1.01 * seconds + _LOOSE:
            self.warn(
                f"{self.name!r} ends after {before + seconds:.2f} s, and its header says {before + expected:.2f} s; "
                "it may be cut off"
            )

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        from av.error import FFmpegError

        try:
            yield from container.demux(stream)
        except FFmpegError as error:
            raise UnreadableError(f"{self.name!r} is damaged ({error.strerror}); copy it again") from error

    def _open(self, link: _Slice) -> Any:
        import av
        from av.error import FFmpegError

        try:
            container = av.open(link, options={"format_whitelist": _FFMPEG}, metadata_errors="ignore")
        except FFmpegError as error:
            reason = self.reason or error.strerror
            raise UnreadableError(
                f"{self.name!r} is not audio that can be read here ({reason}); give wav, flac, ogg or mp3"
            ) from error
        if container.streams.audio:
            return container
        container.close()
        raise UnreadableError(f"{self.name!r} has no sound in it; give a recording")


class _Slice:
    """A stretch of a file, as a file. It has no name, as FFmpeg would guess the format by it."""

    def __init__(self, file: io.RawIOBase | io.BytesIO, start: int, end: int) -> None:
        self.file, self.start, self.end, self.at = file, start, end, start

    def read(self, size: int) -> bytes:
        self.file.seek(self.at)
        data = self.file.read(max(0, min(size, self.end - self.at)))
        self.at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + (self.start, self.at, self.end)[whence]
        return self.tell()

    def tell(self) -> int:
        return self.at - self.start

    def peek(self, start: int, end: int) -> bytes:
        self.file.seek(self.start + start)
        return self.file.read(end - start)


def cut_off(name: str, at: float, expected: float | None, reason: str = "") -> UnreadableError:
    """The error for a file that ends, or cannot be decoded any further, ``at`` seconds from its beginning."""
    length = f" of {expected:.2f}" if expected and expected > at else ""
    reason = reason.removeprefix("Error : ").strip(". ")
    return UnreadableError(
        f"{name!r} is damaged or cut off after {at:.2f}{length} s{f' ({reason})' if reason else ''}; copy it again"
    )


def _file(name: str, data: bytes | None) -> io.RawIOBase | io.BytesIO:
    if data is not None:
        return io.BytesIO(data)
    path = expand(name)
    if not os.path.isfile(path):  # a pipe would wait to be opened
        kind = "a folder" if existing(path).is_dir() else "no regular file"
        raise UnreadableError(f"{name!r} is {kind}; give a file with a recording")
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise UnreadableError(f"cannot read {name!r}: {error.strerror}") from error


def _is_compressed(file: io.RawIOBase | io.BytesIO) -> bool:
    """Whether it begins as flac, ogg or mp3 do, of which `soundfile` reads as much as their headers say."""
    head = file.read(10)
    if head.startswith(b"ID3"):  # a tag, whose length has seven bits a byte
        file.seek(
            sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False)), os.SEEK_CUR
        )
        head = file.read(10)
    file.seek(0)
    return head.startswith((b"fLaC", b"OggS")) or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _is_guessed(file: Any) -> bool:
    """Whether an open `soundfile` may end before the file does: compressed, or a wav file that was never completed."""
    kind = file.format + file.subtype
    return any(name in kind for name in ("FLAC", "OGG", "MPEG")) or ("WAV" in kind and not file.frames)


def _expected_seconds(file: Any) -> float:
    """How long a header says that its file is. libsndfile notes that in its log, and reads what is there."""
    sizes = re.findall(
        r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.M
    )
    shares = [int(said) / int(there) for said, there in sizes if int(said) < _OPEN_SIZE and int(there)]
    return file.frames / file.samplerate * max([1.0, *shares])


def _expected(container: Any, packet: Any, link: _Slice) -> float:
    """How many seconds a file should have by its header; 0 where that only guesses or does not say."""
    stream, kind = packet.stream, container.format.name
    if kind in ("aac", "amr"):
        return 0.0
    if kind == "mp3":
        return _counted_by_xing(link, packet.pos or 0) * float((packet.duration or 0) * stream.time_base)
    share = _share_by_caf(link) if kind == "caf" else 1.0
    if stream.duration:
        return float(stream.duration * stream.time_base) * share
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _counted_by_xing(link: _Slice, first: int) -> int:
    """How many frames an mp3 says that it has, in what comes before its ``first`` one; 0 where it does not say."""
    head = link.peek(max(0, first - 2881), first)  # no frame is longer
    found = re.search(rb"(?:Xing|Info)\0\0\0[\1\3\5\7\x09\x0b\x0d\x0f](.{4})|VBRI.{10}(.{4})", head, re.S)
    return int.from_bytes(found[1] or found[2], "big") if found else 0


def _share_by_caf(link: _Slice) -> float:
    """How many times as many bytes a caf says that it has, of which FFmpeg counts those that are there."""
    found = re.search(rb"data(.{8})", link.peek(0, BLOCK), re.S)
    size, there = (int.from_bytes(found[1], "big", signed=True), link.end - found.end()) if found else (0, 0)
    return size / there if size > there > 0 else 1.0


def _links(file: io.RawIOBase | io.BytesIO) -> tuple[list[_Slice], bool]:
    """What to decode one after another, and whether the last page of an Ogg is cut.

    That is the file, or the links of a chained Ogg, each of which has headers and a rate.
    """
    starts, at, in_headers = [0], 0, True
    file.seek(0)
    while len(page := file.read(27)) == 27 and page.startswith(b"OggS"):
        begins = bool(page[5] & 2)
        if begins and not in_headers:
            starts.append(at)
        in_headers = begins
        at += 27 + page[26] + sum(file.read(page[26]))
        file.seek(at)
    is_cut = at > file.seek(0, os.SEEK_END)
    return [_Slice(file, start, end) for start, end in itertools.pairwise([*starts, _end(file)])], is_cut


def _end(file: io.RawIOBase | io.BytesIO) -> int:
    """Where the tags begin that programs put behind the sound (ID3v1, APEv2); decoders take them for damage."""
    end = file.seek(0, os.SEEK_END)
    while True:
        file.seek(max(0, end - 128))
        tail = file.read(min(128, end))
        if tail.startswith(b"TAG"):
            size = 128
        elif tail[-32:].startswith(b"APETAGEX"):  # its footer: the size without a header, and whether there is one
            size = int.from_bytes(tail[-20:-16], "little") + (32 if tail[-9] & 128 else 0)
        else:
            return end
        if not 0 < size < end:
            return end
        end -= size


def _kind(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _samples(frame: Any) -> Frames:
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    floats = samples.astype(np.float32, copy=False)
    if samples.dtype.kind != "f":
        full = np.float32(2.0 ** (8 * samples.itemsize - 1))
        floats -= full if samples.dtype.kind == "u" else 0
        floats /= full
    return floats
