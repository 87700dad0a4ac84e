"""Which addresses only processes of the same machine can call."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, seen from itself.

    Args:
        host: Address without a port, or a name; of names, only ``localhost`` is known to be.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
