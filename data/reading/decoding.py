"""Decode a recording to its last sample, whatever its header says of its length.

`soundfile` decodes uncompressed formats (wav, aiff, au, caf, w64, …): their headers are exact, and it can seek in them.
FFmpeg (PyAV) decodes everything else (flac, mp3, ogg, opus, m4a, webm, …) and wav files with an incomplete header,
packet by packet to the end of the file. A header is only compared with the decoded length.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from ...schema import expand
from .files import UnreadableError, require_path

Frames = Float[np.ndarray, "frames channels"]
"""Samples, in -1 … 1."""

BLOCK = 1 << 16
"""Frames decoded at once; the last bits of resampled values depend on it."""

_FFMPEG = "mp3,flac,ogg,wav,w64,caf,mov,matroska,aac,asf,amr,wv,tta,ape,ac3"  # none opens other files or addresses
_OPEN_SIZE = 0x7EFF0000  # minimum size in the header of files that FFmpeg, sox or arecord wrote to pipes
_SLACK = 0.02  # seconds that a file with an exact header may lack: one unit
_LOOSE = 0.2  # seconds that other files may lack, because their headers may count the encoder's padding


@contextlib.contextmanager
def open_recording(name: str, data: bytes | None, warn: Callable[[str], None]) -> Generator[Uncompressed | Compressed]:
    """Open the file ``name``, or its bytes ``data``, for decoding.

    Args:
        name: its path; messages call it by this name.
        data: the bytes of the encoded file, if they are in memory; None = read the file.
        warn: is called with a line about each oddity that is no reason to refuse the file.

    Yields:
        The open recording; it is closed when the block ends.

    Raises:
        UnreadableError: in one line, for a file that is missing, not a regular file, or not audio.
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
        """Number of frames."""
        return self.file.frames

    def seconds(self) -> float:
        """Length in seconds."""
        return self.file.frames / self.file.samplerate

    def estimated_seconds(self) -> float:
        """Length in seconds."""
        return self.seconds()

    def blocks(self, first: int = 0) -> Iterator[tuple[int, Frames]]:
        """Yield the rate and the samples of each block, from frame ``first`` on."""
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
    """A file that FFmpeg decodes.

    Args:
        name: its path, for messages.
        file: the encoded bytes, open for reading.
        warn: is called with a line about each oddity that is no reason to refuse the file.
        reason: why `soundfile` cannot read the file, for the error if FFmpeg cannot either; empty if it was not tried.
    """

    def __init__(self, name: str, file: io.RawIOBase | io.BytesIO, warn: Callable[[str], None], reason: str) -> None:
        self.name, self.file, self.warn, self.reason = name, file, warn, reason

    def frames(self) -> int:
        """Number of frames, by decoding the file."""
        return sum(frame.samples for frame in self._decoded())

    def seconds(self) -> float:
        """Length in seconds, by decoding the file."""
        runs = itertools.groupby(self._decoded(), key=lambda frame: frame.sample_rate)
        return sum((sum(frame.samples for frame in run) / rate for rate, run in runs), 0.0)

    def estimated_seconds(self) -> float:
        """Length in seconds that FFmpeg estimates from the header or the size; 0 if it cannot."""
        with self._open(_links(self.file)[0][0]) as container:
            return (container.duration or 0) / 1e6

    def blocks(self, first: int = 0) -> Iterator[tuple[int, Frames]]:
        """Yield the rate and the samples of each block, from frame ``first`` on."""
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
        """Yield the frames of the codec."""
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
        if is_flac:  # the decoder drops a frame with a wrong checksum, and the time of the next one shows it
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        seconds, expected, due = 0.0, None, None
        for packet in self._packets(container, stream):
            expected = _expected(container, packet, link) if expected is None else expected
            try:
                decoded = packet.decode()
            except FFmpegError as error:
                if is_flac:
                    raise cut_off(self.name, before + seconds, before + expected, error.strerror or "") from error
                continue  # tags and pictures between joined files are not frames; decoders continue after them
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

        # Tags may be in any encoding. Since PyAV 19 they are read as they are, and the option is gone.
        tags: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
        try:
            container = av.open(link, options={"format_whitelist": _FFMPEG}, **tags)
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
    """A part of a file, as a file. It has no name, because FFmpeg would guess the format from it."""

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
    """Make the error for a file that is cut off or damaged.

    Args:
        name: what the message calls the file.
        at: seconds after which decoding stopped.
        expected: seconds according to its header; None = unknown.
        reason: the message of the decoder.

    Returns:
        The error, to be raised by the caller.
    """
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
        kind = "a folder" if require_path(path).is_dir() else "not a regular file"
        raise UnreadableError(f"{name!r} is {kind}; give a file with a recording")
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise UnreadableError(f"cannot read {name!r}: {error.strerror}") from error


def _is_compressed(file: io.RawIOBase | io.BytesIO) -> bool:
    """Whether the file is flac, ogg or mp3, which `soundfile` reads only as far as their headers say."""
    head = file.read(10)
    if head.startswith(b"ID3"):  # the length of a tag has seven bits a byte
        file.seek(
            sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False)), os.SEEK_CUR
        )
        head = file.read(10)
    file.seek(0)
    return head.startswith((b"fLaC", b"OggS")) or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _is_guessed(file: Any) -> bool:
    """Whether `soundfile` may stop before the end: a compressed file, or a wav file with an incomplete header."""
    kind = file.format + file.subtype
    return any(name in kind for name in ("FLAC", "OGG", "MPEG")) or ("WAV" in kind and not file.frames)


def _expected_seconds(file: Any) -> float:
    """Length in seconds according to the header, from the log of libsndfile, which reads what is there."""
    sizes = re.findall(
        r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.M
    )
    shares = [int(stated) / int(found) for stated, found in sizes if int(stated) < _OPEN_SIZE and int(found)]
    return file.frames / file.samplerate * max([1.0, *shares])


def _expected(container: Any, packet: Any, link: _Slice) -> float:
    """Length in seconds according to the header; 0 if it only guesses or says nothing."""
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
    """Number of frames according to the header before the ``first`` frame of an mp3; 0 if it says nothing."""
    head = link.peek(max(0, first - 2881), first)  # no frame of mp3 is longer
    found = re.search(rb"(?:Xing|Info)\0\0\0[\1\3\5\7\x09\x0b\x0d\x0f](.{4})|VBRI.{10}(.{4})", head, re.S)
    return int.from_bytes(found[1] or found[2], "big") if found else 0


def _share_by_caf(link: _Slice) -> float:
    """Bytes according to the header of a caf, as a multiple of those that are there, which FFmpeg counts."""
    found = re.search(rb"data(.{8})", link.peek(0, BLOCK), re.S)
    if not found:
        return 1.0
    stated = int.from_bytes(found[1], "big", signed=True)
    present = link.end - found.end()
    return stated / present if stated > present > 0 else 1.0


def _links(file: io.RawIOBase | io.BytesIO) -> tuple[list[_Slice], bool]:
    """Split the file into parts to decode in turn, and find out whether the last page of an Ogg is cut.

    The parts are the file itself, or the links of a chained Ogg, each with its headers and rate.
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
    """Start of the tags behind the sound (ID3v1, APEv2), which decoders would report as damage."""
    end = file.seek(0, os.SEEK_END)
    while True:
        file.seek(max(0, end - 128))
        tail = file.read(min(128, end))
        if tail.startswith(b"TAG"):
            size = 128
        elif tail[-32:].startswith(b"APETAGEX"):  # this footer gives the size without the header, if there is one
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
