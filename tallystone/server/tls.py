"""TLS: the server's certificate, read anew when its files have changed."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import structlog

from tallystone.errors import Invalid

if TYPE_CHECKING:
    from tallystone.server.settings import Settings

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_log = structlog.get_logger("tallystone.server")


class Certificate:
    """The certificate and key that the settings name, as a context for connections."""

    def __init__(self, settings: Settings) -> None:
        """Raises `Invalid` if they cannot be used."""
        assert settings.tls_cert is not None
        self._files = (settings.tls_cert, settings.tls_key or settings.tls_cert)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = _VERSIONS[settings.tls_min]
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        self._seen = self._times()
        self._load()

    def refresh(self) -> None:
        """Take up a renewed certificate, for connections from now on. One that cannot be used is logged, and the old
        one stays."""
        now = self._times()
        if now == self._seen:
            return
        self._seen = now
        try:
            # Tried apart first: a certificate without its key would spoil the context that is in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
            self._load()
            _log.info("certificate renewed")
        except (Invalid, OSError) as error:
            _log.error("certificate", error=type(error).__name__)

    def _load(self) -> None:
        try:
            self.context.load_cert_chain(*self._files)
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror if not isinstance(error, ssl.SSLError) else "they do not belong together"
            raise Invalid(
                f"the certificate {self._files[0]} and its key cannot be used: {reason}",
                hint="tls_cert and tls_key name PEM files; the key has no password",
            ) from None

    def _times(self) -> tuple[int, ...]:
        try:
            return tuple(os.stat(path).st_mtime_ns for path in self._files)
        except OSError:
            return ()


def certificate(settings: Settings) -> Certificate | None:
    """What the settings name, or None for plain HTTP. Raises `Invalid`."""
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise Invalid("tls_key without tls_cert", hint="name the certificate as well")
        return None
    return Certificate(settings)
