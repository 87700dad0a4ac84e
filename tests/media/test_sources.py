"""Where files come from, and what they cannot make ffmpeg do."""

from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
import torch
from av.stream import Disposition
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from rayreel.errors import MediaError
from rayreel.media.audio import read_audio
from rayreel.media.container import open_media, probe
from rayreel.media.footage import examine
from rayreel.media.image import load_image, write_image
from rayreel.media.mux import write_clip
from rayreel.media.video import read_clip, read_last_frames, read_mask, stream_frames
from rayreel.types import Audio, Clip
from tests.media.samples import grey_levels, write_video, write_wav

URI = "memory://media/clip.mp4"


@pytest.fixture
def clip_path(tmp_path):
    sound = torch.rand(2, 9000, generator=torch.Generator().manual_seed(0)) - 0.5
    clip = Clip(
        frames=grey_levels(9) * 20, fps=24, audio=Audio(waveform=sound, sample_rate_hz=24000)
    )
    write_clip(tmp_path / "clip.mp4", clip)
    return tmp_path / "clip.mp4"


@pytest.fixture
def stored(clip_path):
    """The same clip in an object store."""
    memory = MemoryFileSystem()
    memory.pipe("/media/clip.mp4", clip_path.read_bytes())
    yield memory
    memory.rm("/media", recursive=True)


def playlist(folder: Path, kind: str) -> Path:
    """A text that would have ffmpeg play another file of its folder."""
    write_video(folder / "secret.ts", grey_levels(5), codec="libx264", pix_fmt="yuv420p")
    texts = {
        "concat.mp4": "ffconcat version 1.0\nfile secret.ts\n",
        "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 45678 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }
    (folder / kind).write_text(texts[kind])
    return folder / kind


@pytest.mark.parametrize("source", [str, Path, Path.as_uri])
def test_a_file_is_the_same_by_path_and_by_uri(clip_path, source):
    clip, expected = read_clip(source(clip_path)), read_clip(clip_path)
    assert torch.equal(clip.frames, expected.frames)
    assert clip.audio is not None
    assert expected.audio is not None
    assert torch.equal(clip.audio.waveform, expected.audio.waveform)
    assert probe(source(clip_path)) == probe(clip_path)


def test_files_are_read_from_object_stores(clip_path, stored):
    assert probe(URI) == probe(clip_path)
    expected = read_clip(clip_path).frames
    assert torch.equal(torch.cat(list(stream_frames(URI))), expected)
    assert torch.equal(read_last_frames(URI, 2), expected[-2:])
    assert torch.equal(read_mask(URI), expected.float().mean(-1) / 255)
    audio = read_audio(URI)
    assert audio is not None
    assert audio.waveform.shape == (2, 9000)


def test_images_are_read_from_object_stores(tmp_path, stored):
    write_image(tmp_path / "a.png", grey_levels(9)[8])
    stored.pipe("/media/a.png", (tmp_path / "a.png").read_bytes())
    assert torch.equal(load_image("memory://media/a.png"), grey_levels(9)[8])
    assert read_mask("memory://media/a.png").shape == (1, 16, 32)


@pytest.mark.parametrize("read", [probe, read_clip, read_audio, read_mask])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_a_file_that_is_cut_off_in_a_store_is_refused_by_name(stored, read, kept):
    data = stored.cat("/media/clip.mp4")
    stored.pipe("/media/clip.mp4", data[: int(len(data) * kept)])
    with pytest.raises(MediaError, match=URI):
        read(URI)


@pytest.mark.parametrize("index_first", [True, False])
def test_no_cut_goes_unnoticed(tmp_path, clip_path, index_first):
    if not index_first:
        with av.open(str(clip_path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as copy:
            streams = [copy.add_stream_from_template(stream) for stream in source.streams]
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    copy.mux(packet)
        clip_path = tmp_path / "b.mp4"
    data = clip_path.read_bytes()
    assert (data.find(b"moov") < data.find(b"mdat")) == index_first
    for kept in range(0, len(data), 97):
        clip_path.write_bytes(data[:kept])
        for read in (probe, read_audio):
            with pytest.raises(MediaError, match=str(clip_path)):
                read(clip_path)


@pytest.mark.parametrize("read", [probe, read_clip, read_audio, read_mask, load_image])
@pytest.mark.parametrize("source", ["memory://media/missing.mp4", "nowhere://media/missing.mp4"])
def test_what_cannot_be_opened_is_refused_by_name(read, source):
    with pytest.raises(MediaError, match=source):
        read(source)


class Pipes(LocalFileSystem):  # type: ignore[misc]
    """Files that can only be read from start to end."""

    protocol = "pipes"

    def _open(self, path, mode="rb", **options):
        return Pipe(super()._open(path, mode, **options))


class Pipe:
    def __init__(self, file):
        self.read, self.close = file.read, file.close

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def seek(self, *_):
        raise ValueError("Cannot seek streaming file")


def test_a_place_that_cannot_be_sought_in_is_refused(clip_path):
    fsspec.register_implementation("pipes", Pipes, clobber=True)
    with pytest.raises(MediaError, match=r"cannot \(Cannot seek streaming file\)"):
        probe(f"pipes://{clip_path}")


@pytest.mark.parametrize("kind", ["concat.mp4", "hls.m3u8", "session.sdp"])
def test_lists_of_other_files_are_refused(tmp_path, monkeypatch, kind):
    # Names in a list are looked for beside it; those of a file object in the working directory.
    monkeypatch.chdir(tmp_path)
    path = playlist(tmp_path, kind)
    with av.open(str(tmp_path / "secret.ts")) as container:
        assert len(list(container.decode(video=0))) == 5
    for read in (probe, read_clip, read_audio, read_mask):
        with pytest.raises(MediaError, match=f"{kind}.* Formats that can be read: mp4, "):
            read(path)


@pytest.mark.parametrize("prefix", ["concat:", "file:", "subfile,,start,0,end,0,,:", "crypto:"])
def test_protocols_in_a_path_are_not_followed(tmp_path, monkeypatch, clip_path, prefix):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match="No such file"):
        probe(f"{prefix}{clip_path.name}")


def test_a_path_with_a_colon_is_just_a_path(tmp_path, clip_path):
    clip_path.rename(tmp_path / "concat:a|b.mp4")
    assert probe(tmp_path / "concat:a|b.mp4").num_frames == 9


def test_an_error_of_the_reader_is_not_the_files(clip_path):
    with pytest.raises(ZeroDivisionError), open_media(clip_path):
        raise ZeroDivisionError


def test_the_cover_of_a_song_is_no_video(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros((800, 1), np.int16))
    write_image(tmp_path / "cover.png", grey_levels(1)[0])
    with av.open(str(tmp_path / "a.mp3"), "w") as container:
        sound = container.add_stream("libmp3lame", rate=8000, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 16, 32, "rgb24"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(grey_levels(1)[0].numpy(), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        with av.open(str(tmp_path / "a.wav")) as source:
            for frame in source.decode(audio=0):
                container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(MediaError, match=r"a\.mp3 has no video stream, only sound"):
        read_clip(tmp_path / "a.mp3")
    audio = read_audio(tmp_path / "a.mp3")
    assert audio is not None
    assert audio.waveform.shape[1] >= 800
    assert examine(tmp_path / "a.mp3").kind == "audio"
