"""Where a workspace's store may lie, for whoever names one: see `store.opening`."""

from tallystone.store.opening import check_url, has_password, holds_store

__all__ = ["check_url", "has_password", "holds_store"]
