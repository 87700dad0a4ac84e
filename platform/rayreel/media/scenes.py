"""Where a video cuts from one scene to the next, found by PySceneDetect in frames that we decode.

Its own opening of files is not used: ours opens nothing but the file itself.
"""

from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray
from scenedetect import (
    AdaptiveDetector,
    ContentDetector,
    FrameTimecode,
    HistogramDetector,
    SceneDetector,
    ThresholdDetector,
)
from scenedetect.scene_manager import compute_downscale_factor

from rayreel.config.encode import SceneSpec

_DETECTORS = {
    "content": (ContentDetector, "threshold"),
    "adaptive": (AdaptiveDetector, "adaptive_threshold"),
    "threshold": (ThresholdDetector, "threshold"),
    "histogram": (HistogramDetector, "threshold"),
}


class CutFinder:
    """Finds the cuts of a video whose frames it is shown one after the other."""

    def __init__(self, spec: SceneSpec, fps: Fraction) -> None:
        kind, threshold = _DETECTORS[spec.detector]
        own = {} if spec.threshold is None else {threshold: spec.threshold}
        self._detector: SceneDetector = kind(min_scene_len=spec.min_frames, **own)
        self._min_frames = spec.min_frames
        self._fps = fps
        self._found: set[int] = set()
        self._num_frames = 0

    def show(self, pixels: NDArray[np.uint8]) -> None:
        """Take the next frame: RGB ``(H, W, 3)``."""
        height, width = pixels.shape[:2]
        # As its own scene manager does.
        factor = compute_downscale_factor(max(height, width))
        size = (max(1, round(width / factor)), max(1, round(height / factor)))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR) if factor > 1 else pixels
        time = FrameTimecode(self._num_frames, self._fps)
        bgr = np.ascontiguousarray(small[..., ::-1])
        self._found.update(cut.frame_num for cut in self._detector.process_frame(time, bgr))
        self._num_frames += 1

    def cuts(self) -> tuple[int, ...]:
        """First frames of the scenes seen so far, the first of which is 0; none is too short."""
        starts = [0]
        for cut in sorted(self._found):
            # Detectors leave the rest behind the last cut as short as it is.
            if min(cut - starts[-1], self._num_frames - cut) >= self._min_frames:
                starts.append(cut)
        return tuple(starts)
