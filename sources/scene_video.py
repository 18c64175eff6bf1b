"""A film as a scene: the events that a camera would have seen in front of what was filmed.

Between two frames the logarithm of the light goes over in a straight line, pixel by pixel, as in ESIM (Rebecq, Gehrig
and Scaramuzza 2018) and, after its interpolation, v2e (Hu, Liu and Delbruck 2021). So a pixel fires as often as the two
frames' contrast holds thresholds, spread evenly over the time between them: event *numbers* are as good as the film,
event *times* no better than its frame time. What moves more than a pixel a frame fades out here and in there instead of
passing by; film with more frames a second, or slow the film down by ``frame_rate_hz`` of a high-speed one. (v2e and
ESIM can put a learned interpolation before this step: run it beforehand, and show its frames.)

Read are the formats of FFmpeg through PyAV (the extra ``video``), which tells when each frame is due also where the
rate varies; and folders of images (``scene_images.IMAGE_SUFFIXES``), a frame each, in the order of the numbers in their
names, which need nothing more. Light is made of values as for pictures, see ``scene_images``, and ``black`` keeps the
coarse steps of dark film from looking like events. A frame is made small, as a lens would do it, until it just fills
the sensor; what stands out on two sides is not seen.

Two frames are in memory, never more. Going on in the middle decodes the film again from its start, which is exact
where a jump to the nearest key frame need not be.

Roads not taken: imageio gives no times of frames, and its FFmpeg plugin takes another process; OpenCV is larger, and
decodes to colours first.
"""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sources.scene import Scene
from sources.scene_files import check_light, luminance_table
from sources.scene_images import IMAGE_SUFFIXES, read_image
from stream.errors import ConfigError, FormatError
from stream.jit import kernel

if TYPE_CHECKING:
    from av import VideoFrame

__all__ = ["Video", "VideoScene", "fade", "read_video"]

_NEVER_US = 1 << 62  # the end of a film that is not seen yet

# Pixel formats whose first plane holds the luma, a byte each.
_LUMA_FIRST = frozenset(f"yuv{j}{sub}p" for j in ("", "j") for sub in ("420", "422", "444", "440", "411", "410")) | {
    "gray",
    "nv12",
    "nv21",
    "yuva420p",
    "yuva444p",
}
_FULL_RANGE = 2  # FFmpeg's AVCOL_RANGE_JPEG: black is 0 and white 255, not 16 and 235


class Video(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a film is shown.

    Parameters
    ----------
    passes
        How often it is shown; None = without end.
    label
        What is to be seen in it. None = nothing in particular: then there is no Label mark.
    frame_rate_hz
        Frames a second; None = as the file says. A folder of images does not say. A tenth of the film's own rate shows
        it ten times slower.
    gamma, black
        What the values of a pixel mean; see ``scene_images``. ``gamma`` 1 = they are light already.
    """

    passes: int | None = None
    label: int | None = None
    frame_rate_hz: float | None = None
    gamma: float = 2.2
    black: float = 0.1


def read_video(path: Path, frame_rate_hz: float | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Read a film frame by frame.

    Parameters
    ----------
    path
        A file of FFmpeg's, or a folder of images.
    frame_rate_hz
        Frames a second; None = as the file says.

    Yields
    ------
    t_us
        When the frame is due, from 0 on, increasing. A frame that is due no later than the one before is left out.
    values
        Luma, uint8, shape (height, width), 0 black and 255 white; heights and widths may change.

    Raises
    ------
    ConfigError
        PyAV is not installed, or a folder has no rate.
    FormatError
        There is no film, or it cannot be read further: after all frames before were yielded.
    """
    due_us = -1
    for index, (seconds, values) in enumerate(_frames(path)):
        time = Fraction(index) / Fraction(frame_rate_hz) if frame_rate_hz is not None else seconds
        if time is None:
            raise ConfigError(
                f"{path}: does not say when its frames are due; say video = {{ frame_rate_hz = 30 }}, or another rate"
            )
        t_us = round(time * 1_000_000)
        if t_us > due_us:
            due_us = t_us
            yield t_us, values


def _frames(path: Path) -> Iterator[tuple[Fraction | None, NDArray[np.uint8]]]:
    """Read frames and when they are due, seconds after the first, None if the film does not say."""
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
        for file in sorted(files, key=_by_number):
            yield None, read_image(file)
        return
    if not path.is_file():
        raise FormatError(f"{path}: there is no such video; check the path")
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            f"{path}: PyAV cannot be imported ({error}); pip install 'hebbstream[video]', or unpack the video into a "
            f"folder of images, which needs nothing more"
        ) from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise FormatError(f"{path}: holds no video; check the path")
            first: Fraction | None = None
            for frame in container.decode(container.streams.video[0]):
                time = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
                first = time if first is None else first
                yield (None if time is None or first is None else time - first), _luma(frame)
    except (av.error.FFmpegError, ValueError) as error:
        raise FormatError(
            f"{path}: cannot be read as a video, or not to its end ({error}); play it with another program to see "
            f"where it is damaged, or unpack it into a folder of images"
        ) from error


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Put frame10 after frame9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _luma(frame: "VideoFrame") -> NDArray[np.uint8]:
    """Return what is bright in a frame, uint8, shape (height, width), the way up it is meant to be seen."""
    if frame.format.name in _LUMA_FIRST:
        # the plane itself: FFmpeg's own conversion to grey rounds, on each kind of processor in its own way
        plane: Any = frame.planes[0]  # a buffer, but not one of those that NumPy's types know
        values = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
        full = frame.format.name.startswith(("yuvj", "gray")) or frame.color_range == _FULL_RANGE
        values = values.copy() if full else _SCREEN[values]
    else:
        colours = frame.to_ndarray(format="rgb24").astype(np.uint32)
        # ITU-R BT.601 in 16 bits, as for images
        luma = (colours[..., 0] * 19595 + colours[..., 1] * 38470 + colours[..., 2] * 7471 + 32768) >> 16
        values = luma.astype(np.uint8)
    return np.rot90(values, round(frame.rotation / 90) % 4)


# Values of a studio's range (16 is black, 235 white) as those of a screen.
_SCREEN = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)


@kernel
def fade(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    first_level: NDArray[np.float64],
    second_level: NDArray[np.float64],
    part: float,
    frame: NDArray[np.float32],
) -> None:
    """Mix two frames in the logarithm of their light.

    Parameters
    ----------
    first, second
        Luminance, float32, shape (height, width).
    first_level, second_level
        Their natural logarithms, float64, shape (height, width).
    part
        0 to 1: how much of the second.
    frame
        float32, shape (height, width), overwritten.
    """
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            light = first[y, x]
            if second[y, x] != light:  # most of a film stands still
                before = first_level[y, x]
                light = np.float32(math.exp(before + part * (second_level[y, x] - before)))
            frame[y, x] = light


class VideoScene(Scene):
    """A film, shown once or again and again; ``path`` is a file, or a folder of images.

    Raises
    ------
    ConfigError
        PyAV is not installed, a folder has no rate, or an option is out of range.
    FormatError
        There is no film, or of one frame only.
    """

    def __init__(self, *, width: int, height: int, seed: int, path: Path, video: Video) -> None:
        super().__init__(width=width, height=height, seed=seed)
        check_light("scene of a video", gamma=video.gamma, black=video.black, passes=video.passes)
        rate = video.frame_rate_hz
        if (rate is not None and not 1e-3 <= rate <= 1e6) or (video.label is not None and video.label < 0):
            raise ConfigError(
                f"scene of a video: got frame_rate_hz {rate} and label {video.label}; "
                f"wanted a rate of 0.001 to 1000000, or none, and a label from 0 on, or none"
            )
        self.n_objects = video.passes
        self.n_labels = 0 if video.label is None else video.label + 1
        self.is_labelled = video.label is not None
        self._path, self._video = path, video
        self._table = luminance_table(gamma=video.gamma, black=video.black)
        self._film: Iterator[tuple[int, NDArray[np.uint8]]] = iter(())
        self._us = [0, 0]  # when the frames in memory are due
        self._light = [np.empty((height, width), np.float32) for _ in range(2)]
        self._level = [np.empty((height, width), np.float64) for _ in range(2)]
        self.show(0)

    def show(self, number: int) -> int | None:
        """Rewind the film."""
        self.close()
        self._film = read_video(self._path, self._video.frame_rate_hz)
        self.object_us = _NEVER_US
        for index in range(2):
            self._next()
            if self.object_us != _NEVER_US:
                raise FormatError(f"{self._path}: holds {('no frame', 'one frame only')[index]}, wanted two or more")
        return self._video.label

    def _next(self) -> None:
        """Take in the next frame in place of the older of two, or see that there is none."""
        from PIL import Image

        try:
            t_us, values = next(self._film)
        except StopIteration:
            self.object_us = self._us[1]
            return
        n_rows, n_columns = values.shape
        seen = min(n_columns / self.width, n_rows / self.height)  # pixels of the film for one of the sensor
        wide, high = seen * self.width, seen * self.height
        left, top = 0.5 * (n_columns - wide), 0.5 * (n_rows - high)
        light = Image.fromarray(self._table[values]).resize(
            (self.width, self.height), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + high)
        )
        self._light = [self._light[1], np.array(light, np.float32)]
        self._level = [self._level[1], np.log(self._light[1].astype(np.float64))]
        self._us = [self._us[1], t_us]

    def render(self, elapsed_us: int, frame: NDArray[np.float32]) -> None:
        """Render the film at a time; quick if times go up."""
        if elapsed_us < self._us[0]:
            self.show(0)
        while self._us[1] <= elapsed_us and self.object_us == _NEVER_US:
            self._next()
        before, after = self._us
        part = min(max((elapsed_us - before) / (after - before), 0.0), 1.0)
        fade(self._light[0], self._light[1], self._level[0], self._level[1], part, frame)

    def close(self) -> None:
        """Close the file."""
        if hasattr(self._film, "close"):
            self._film.close()
