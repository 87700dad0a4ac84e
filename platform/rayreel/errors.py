"""What can go wrong, as a tree.

::

    RayreelError
    ├── SpecError          a value that a person wrote is wrong; nothing has started
    ├── CheckpointError    a weight file is missing, damaged or does not belong
    ├── ClusterError       the cluster cannot hold the job, or lost it
    ├── RunStopped         more failed than the error budget allows
    ├── StorageError       the storage of a run does not answer; nothing is lost
    ├── Cancelled          someone asked the work to stop; nothing is wrong
    └── ItemError          one item cannot be done; the others go on
        ├── MediaError     an image, video or audio file cannot be read or written
        └── RetryableError one item could not be done now; another try may go otherwise

A wrong argument to a function is a ``ValueError``; ``assert`` is for our own invariants.
"""


class RayreelError(Exception):
    """Base of every error that a caller may want to catch."""


class SpecError(RayreelError):
    """A spec, a prompt list or a command line is wrong; found before any work starts."""


class CheckpointError(RayreelError):
    """A weight file is missing, damaged, or does not fit what its metadata says."""


class ClusterError(RayreelError):
    """The Ray cluster cannot hold the job."""


class RunStopped(RayreelError):  # noqa: N818 - a limit that was asked for
    """More items failed than the error budget allows."""


class StorageError(RayreelError):
    """The storage of a run does not answer; what was reported finished is not lost."""


class Cancelled(RayreelError):  # noqa: N818 - a request that was met, not a fault
    """Work stopped because its caller asked for it."""


class ItemError(RayreelError):
    """One item cannot be done; the job goes on with the others."""


class MediaError(ItemError):
    """A media file cannot be decoded or encoded."""


class RetryableError(ItemError):
    """An item could not be done now, such as for a server that did not answer."""
