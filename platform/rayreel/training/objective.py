"""What training makes small: the distance of predicted velocities from the true ones."""

from dataclasses import dataclass

from torch import Tensor

from rayreel.training.example import Batch, StreamBatch

_LEAST_SHARE = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLosses:
    """Losses of the samples of a batch.

    Attributes:
        video: Float32 ``(B,)``, or ``None`` where no video is learned.
        audio: The same of audio.
    """

    video: Tensor | None
    audio: Tensor | None

    @property
    def total(self) -> Tensor:
        """Of both streams together, ``(B,)``.

        Raises:
            ValueError: If none is learned.
        """
        found = [loss for loss in (self.video, self.audio) if loss is not None]
        if not found:
            raise ValueError("the batch has no stream that is learned")
        return sum(found[1:], start=found[0])


def losses(
    video_prediction: Tensor | None, audio_prediction: Tensor | None, batch: Batch
) -> StreamLosses:
    """Mean squared error of each sample over the tokens that count.

    A sample's loss does not depend on how many of its tokens count: those that do have all of it.

    Args:
        video_prediction: Velocities ``(B, N, D)`` in any dtype, references' included.
        audio_prediction: The same of audio.
        batch: What they are predicted for.

    Raises:
        ValueError: If a stream that is learned has no prediction.
    """
    return StreamLosses(
        video=_loss(video_prediction, batch.video), audio=_loss(audio_prediction, batch.audio)
    )


def _loss(prediction: Tensor | None, stream: StreamBatch | None) -> Tensor | None:
    if stream is None or stream.target is None:
        return None
    if prediction is None:
        raise ValueError("a stream that is learned has no prediction")
    of_tokens = (prediction.float() - stream.target).square().mean(dim=-1)
    share = stream.loss_mask.mean(dim=-1).clamp(min=_LEAST_SHARE)
    return (of_tokens * stream.loss_mask).mean(dim=-1) / share
