"""Trying an operation on an object store again until the store answers, or patience ends."""

import errno
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import ClientError as HttpError
from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as StoreConnectionError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from rayreel.errors import StorageError

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT_S = 8.0

_NETWORK = (
    ConnectionError,
    TimeoutError,
    HttpError,
    StoreConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
_ERRNOS = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
# 501 is not among them: what a store does not know today it does not know in a minute.
_STATUSES = {429, 500, 502, 503, 504}
_CODES = {
    "ConditionalRequestConflict",
    "InternalError",
    "NoSuchUpload",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "TooManyRequests",
}
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class Patience:
    """How long a store may fail to answer.

    Attributes:
        uri: What is told to people; a user name and password in it are not.
        seconds: From the first failure of an operation to giving up.
    """

    uri: str
    seconds: float

    def __call__(self, operation: str, work: Callable[[], T]) -> T:
        """Do the work, again after errors that pass: waits grow, and no two callers wait alike.

        Args:
            operation: The work in words, for people.
            work: May run any number of times.

        Raises:
            StorageError: If the store still does not answer.
            Exception: At once, whatever else the work raises.
        """
        failed_at: list[float] = []

        def failed(state: RetryCallState) -> None:
            assert state.outcome is not None, "an attempt has an outcome"
            if not failed_at:
                failed_at.append(state.seconds_since_start or 0.0)
                log.warning(
                    "%s does not answer: %s failed (%s); trying again for up to %.0f s",
                    without_user(self.uri),
                    operation,
                    _told(state.outcome.exception()),
                    self.seconds,
                )

        def spent(state: RetryCallState) -> bool:
            # Counted from the first failure: an upload of minutes that breaks deserves another try.
            since = (state.seconds_since_start or 0.0) - (failed_at[0] if failed_at else 0.0)
            return bool(failed_at) and since + state.upcoming_sleep > self.seconds

        def give_up(state: RetryCallState) -> T:
            error = state.outcome.exception() if state.outcome else None
            raise StorageError(
                f"{without_user(self.uri)} has not answered for {self.seconds:.0f} s: {operation} "
                f"failed {state.attempt_number} times, at last with {_told(error)}. What was "
                "reported finished is kept; once the storage is back, run again to go on"
            ) from error

        return Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.25, max=LONGEST_WAIT_S),
            after=failed,
            stop=spent,
            retry_error_callback=give_up,
        )(work)


def is_transient(error: BaseException) -> bool:
    """Whether an operation that failed so may succeed when it is tried again.

    A store that cannot be reached, is overloaded or broke off may; a missing or present file,
    wrong credentials and wrong arguments stay what they are.
    """
    for cause in _causes(error):
        if isinstance(cause, ClientError):
            status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status in _STATUSES or cause.response["Error"].get("Code") in _CODES
        if isinstance(cause, _NETWORK):
            return True
        if isinstance(cause, OSError) and cause.errno in _ERRNOS:
            return True
    return False


def already_there(error: BaseException) -> bool:
    """Whether an exclusive create failed because there is a file of that name."""
    return any(
        isinstance(cause, FileExistsError)
        or (
            isinstance(cause, ClientError)
            and cause.response["Error"].get("Code") in ("PreconditionFailed", "412")
        )
        for cause in _causes(error)
    )


def without_user(text: str) -> str:
    """A text without the user names and passwords that URIs may carry."""
    return _USER.sub("***", text)


def _told(error: BaseException | None) -> str:
    return without_user(f"{type(error).__name__}: {error}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was translated from."""
    while error is not None:
        yield error
        error = error.__cause__
