"""Who runs the jobs of the queue, in which order, and what becomes of them."""

from rayreel.serving.dispatch.dispatcher import Dispatcher
from rayreel.serving.dispatch.failures import ErrorCode
from rayreel.serving.dispatch.order import due
from rayreel.serving.dispatch.settings import DispatchSettings, Event

__all__ = ["DispatchSettings", "Dispatcher", "ErrorCode", "Event", "due"]
