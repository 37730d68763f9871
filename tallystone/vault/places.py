"""Where a workspace's store may lie, for whoever names one: see `store.opening`."""

from tallystone.store.opening import (
    DATABASE,
    SCHEMES,
    URL_FILE,
    check_url,
    has_password,
    holds_store,
    without_password,
)

__all__ = [
    "DATABASE",
    "SCHEMES",
    "URL_FILE",
    "check_url",
    "has_password",
    "holds_store",
    "without_password",
]
