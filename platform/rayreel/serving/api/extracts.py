"""A picture and the sound of a finished clip, taken from its file when they are first asked for."""

import threading

from PIL import Image

from rayreel.data.storage import Storage
from rayreel.errors import MediaError
from rayreel.media.container import create_mp4, open_media, sound_stream
from rayreel.media.image import load_image
from rayreel.media.video import read_clip
from rayreel.serving.jobs import Job

_LONG_SIDE = 480
_QUALITY = 80


def extract_names(job_id: str) -> tuple[str, str]:
    """Where the picture and the sound of a job lie, in the service directory."""
    return f"extracts/{job_id}.webp", f"extracts/{job_id}.m4a"


class Extracts:
    """Takes pictures and sound out of clips, one at a time: a server has other things to do."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()

    def there(self, job: Job) -> bool:
        """Whether the file of a finished job is there."""
        return job.output is not None and self._storage.exists(job.output.path)

    def thumbnail(self, job: Job) -> str:
        """Name of a small WebP of the first frame.

        Raises:
            MediaError: If the clip has no picture, or cannot be read.
        """
        assert job.output is not None
        name, _ = extract_names(job.job_id)
        with self._lock:
            if not self._storage.exists(name):
                source = self._storage.join(job.output.path)
                if job.output.path.endswith(".png"):
                    frame = load_image(source)
                else:
                    frame = read_clip(source, max_frames=1, sound=False).frames[0]
                picture = Image.fromarray(frame.numpy())
                picture.thumbnail((_LONG_SIDE, _LONG_SIDE))
                with self._storage.local_staging(name) as staged:
                    picture.save(staged, "WEBP", quality=_QUALITY)
        return name

    def sound(self, job: Job) -> str:
        """Name of an M4A with the clip's sound as it was encoded.

        Raises:
            MediaError: If the clip has no sound, or cannot be read.
        """
        assert job.output is not None
        _, name = extract_names(job.job_id)
        with self._lock:
            if not self._storage.exists(name):
                self._copy_sound(self._storage.join(job.output.path), name)
        return name

    def _copy_sound(self, source: str, name: str) -> None:
        with open_media(source) as container, self._storage.local_staging(name) as staged:
            stream = sound_stream(container)
            if stream is None:
                raise MediaError(f"{source} has no sound")
            with create_mp4(staged, kind="ipod", sample_rate_hz=stream.sample_rate) as output:
                copy = output.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    # The last one only says that there are no more.
                    if packet.dts is not None:
                        packet.stream = copy
                        output.mux(packet)
