"""What stands between the network and the service: keys, limits, and files of strangers."""

from rayreel.serving.gate.auth import Auth, Caller, signing_secret
from rayreel.serving.gate.errors import error_body, error_response
from rayreel.serving.gate.files import FileGate, FileRefused
from rayreel.serving.gate.guard import Guard, caller_of

__all__ = [
    "Auth",
    "Caller",
    "FileGate",
    "FileRefused",
    "Guard",
    "caller_of",
    "error_body",
    "error_response",
    "signing_secret",
]
