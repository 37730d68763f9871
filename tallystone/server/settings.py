"""The server's settings: a flag wins over the environment, the environment over the TOML file, the file over defaults.

| setting    | environment           | default     | meaning                                                       |
| data       | TALLYSTONE_DATA       |             | the data directory                                            |
| store      | TALLYSTONE_STORE      |             | the postgresql:// URL of the database that holds the rows     |
| host       | TALLYSTONE_HOST       | 127.0.0.1   | address to listen on                                          |
| port       | TALLYSTONE_PORT       | 8283        | port to listen on; 0 takes a free one                         |
| workers    | TALLYSTONE_WORKERS    | 1           | processes that serve                                          |
| http       | TALLYSTONE_HTTP       | uvicorn     | what speaks HTTP: uvicorn or granian                          |
| max_body   | TALLYSTONE_MAX_BODY   | 10485760    | bytes of a request's body                                     |
| threads    | TALLYSTONE_THREADS    | 16          | requests worked on in threads at once                         |
| grace      | TALLYSTONE_GRACE      | 30          | seconds that requests under way get to finish at a stop       |
| check_every| TALLYSTONE_CHECK_EVERY| 3600        | seconds between checks of the log; 0: only at the start       |
| queue      | TALLYSTONE_QUEUE      | 1000        | requests that wait to be worked on; beyond, 503               |
| connections| TALLYSTONE_CONNECTIONS| 10000       | connections that are open at once; beyond, 503                |
| rate       | TALLYSTONE_RATE       | 0           | requests a second of one principal; beyond, 429; 0: any       |
| burst      | TALLYSTONE_BURST      | 2 x rate    | requests that it may send at once                             |
| refusals   | TALLYSTONE_REFUSALS   | 50          | requests a second without a good token; beyond, 429           |
| refusals_each | TALLYSTONE_REFUSALS_EACH | half  | those of one address                                          |
| proxies    | TALLYSTONE_PROXIES    |             | addresses and networks whose X-Forwarded-For is believed      |
| tls_cert   | TALLYSTONE_TLS_CERT   |             | PEM file of the certificate and its chain: https              |
| tls_key    | TALLYSTONE_TLS_KEY    |             | PEM file of its key                                           |
| tls_min    | TALLYSTONE_TLS_MIN    | 1.2         | oldest version of TLS that is spoken: 1.2 or 1.3              |
| listeners  | TALLYSTONE_LISTENERS  | 2000        | streams of changes that are open at once; beyond, 503         |
| listeners_each | TALLYSTONE_LISTENERS_EACH | 250 | those of one user with its agents; beyond, 429                |
| backup_days| TALLYSTONE_BACKUP_DAYS|             | days that copies of the database are kept; for receipts       |
| key_backup_days| TALLYSTONE_KEY_BACKUP_DAYS| 0 | days that copies of server-keys are kept; for receipts        |
| log_format | TALLYSTONE_LOG_FORMAT | text        | text or json, on stderr                                       |
| log_level  | TALLYSTONE_LOG_LEVEL  | info        | info (each request), warning or error                         |
| log_public | TALLYSTONE_LOG_PUBLIC | false       | whether the audit log is served without a token               |
| metrics    | TALLYSTONE_METRICS    | off         | who may read /metrics: off, loopback, or token                |
| metrics_token | TALLYSTONE_METRICS_TOKEN |       | file with that token                                          |
| traces     | TALLYSTONE_TRACES     | false       | whether OpenTelemetry is told of requests                     |
| witnesses  | TALLYSTONE_WITNESSES  |             | who cosigns the audit log: URL=KEY, or a table in the file    |
| witness_wait| TALLYSTONE_WITNESS_WAIT| 20        | seconds that an answer waits for a witness, if a block asks   |

Of the models, each TALLYSTONE_ and its name in the environment, where lists are separated by commas:

| providers     | base URLs of model providers: name=URL, or a table in the file                              |
| models        | handles that agents may use; the first is for agents who name none. Default: any            |
| model_keys    | a TOML file of keys, provider = "key", beside those of the environment (OPENAI_API_KEY, …)  |
| model_timeout | seconds for one call of a model with its retries. Default: 120                              |
| model_retries | how often a failed call is repeated. Default: 2                                             |
| model_tokens  | tokens that one answer may have. Default: 4096                                              |
| reply_wait    | seconds that an agent waits for another agent's reply. Default: 60                          |
| allowed_hosts | hosts that may be called; `none` for none. Default: those of the configured providers       |

The file is the one that `--config` or TALLYSTONE_CONFIG names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from tallystone.errors import Invalid
from tallystone.server.models import LISTS
from tallystone.server.senders import read_proxies
from tallystone.vault.places import check_url

PREFIX = "TALLYSTONE_"
CONFIG = "TALLYSTONE_CONFIG"


@dataclass(frozen=True)
class Settings:
    """What `serve` runs with. See the module's table for units."""

    data: Path | None = None
    store: str | None = field(default=None, repr=False)  # may hold a password
    host: str = "127.0.0.1"
    port: int = 8283
    workers: int = 1
    http: str = "uvicorn"
    max_body: int = 10 * 1024 * 1024
    threads: int = 16
    grace: int = 30
    check_every: int = 3600
    queue: int = 1000
    connections: int = 10_000
    rate: int = 0
    burst: int | None = None
    refusals: int = 50
    refusals_each: int | None = None
    proxies: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_min: str = "1.2"
    listeners: int = 2000
    listeners_each: int = 250
    backup_days: int | None = None
    key_backup_days: int = 0
    log_format: str = "text"
    log_level: str = "info"
    log_public: bool = False
    metrics: str = "off"
    metrics_token: Path | None = None
    traces: bool = False
    witnesses: tuple[tuple[str, str], ...] = ()
    witness_wait: int = 20
    providers: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    model_keys: Path | None = None
    model_timeout: int = 120
    model_retries: int = 2
    model_tokens: int = 4096
    reply_wait: int = 60
    allowed_hosts: tuple[str, ...] | None = None

    @property
    def scheme(self) -> str:
        """Of the server's URL."""
        return "http" if self.tls_cert is None else "https"


_BOUNDS = {
    "port": (0, 65535),
    "workers": (1, 256),
    "max_body": (1024, 2**31 - 1),
    "threads": (1, 256),
    "grace": (0, 3600),
    "check_every": (0, 10**9),
    "queue": (1, 10**6),
    "connections": (1, 10**6),
    "rate": (0, 10**6),
    "burst": (1, 10**6),
    "refusals": (1, 10**6),
    "refusals_each": (1, 10**6),
    "listeners": (0, 10**6),
    "listeners_each": (1, 10**6),
    "backup_days": (0, 36500),
    "key_backup_days": (0, 36500),
    "model_timeout": (1, 3600),
    "model_retries": (0, 10),
    "model_tokens": (1, 10**6),
    "reply_wait": (1, 600),
    "witness_wait": (1, 600),
}
_FLAGS = ("log_public", "traces")
_TRUE, _FALSE = ("true", "1"), ("false", "0")
_PATHS = ("data", "model_keys", "tls_cert", "tls_key", "metrics_token")
_WORDS = {
    "http": ("uvicorn", "granian"),
    "log_format": ("text", "json"),
    "log_level": ("info", "warning", "error"),
    "tls_min": ("1.2", "1.3"),
}
_READERS = {**LISTS, "proxies": read_proxies, "store": check_url}
NAMES = tuple(one.name for one in fields(Settings))
"""All settings."""


def load(flags: Mapping[str, object], environment: Mapping[str, str], config: Path | None = None) -> Settings:
    """The settings in force. A flag that is None was not given. Raises `Invalid` and says which source is wrong."""
    chosen: dict[str, object] = {}
    if config is None and environment.get(CONFIG):
        config = Path(environment[CONFIG])
    if config is not None:
        chosen.update(_from_file(config))
    for name in NAMES:
        variable = PREFIX + name.upper()
        if environment.get(variable):
            chosen[name] = _typed(name, environment[variable], variable)
    for name, value in flags.items():
        if value is not None:
            chosen[name] = _typed(name, value, f"--{name.replace('_', '-')}")
    # each value was converted to its field's type above, which a dict of mixed values cannot show
    return Settings(**chosen)  # type: ignore[arg-type]


def _from_file(config: Path) -> dict[str, object]:
    try:
        with config.open("rb") as opened:
            table = tomllib.load(opened)
    except OSError as error:
        raise Invalid(
            f"cannot read {config}: {error.strerror}", hint="check --config or TALLYSTONE_CONFIG"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{config} is not TOML: {error}", hint="a line reads, for example: port = 8283"
        ) from None
    unknown = sorted(set(table) - set(NAMES))
    if unknown:
        raise Invalid(
            f"{config} has unknown settings: {', '.join(unknown)}", hint=f"known are {', '.join(NAMES)}"
        )
    return {name: _typed(name, value, f"{name} in {config}") for name, value in table.items()}


def _typed(name: str, value: object, source: str) -> object:
    """`value` as the setting's type. Strings come from the environment, other types from TOML and flags."""
    if name in _PATHS:
        return Path(str(value))
    if name in _READERS:
        try:
            return _READERS[name](value)
        except Invalid as error:
            raise Invalid(f"{source}: {error.message}", hint=error.hint) from None
    if name in _FLAGS:
        word = str(value).lower()
        if not isinstance(value, str | bool) or word not in (*_TRUE, *_FALSE):
            raise Invalid(f"{source} should be true or false", hint="the default is false")
        return word in _TRUE
    if name in _BOUNDS:
        low, high = _BOUNDS[name]
        try:
            number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise Invalid(
                f"{source} should be a whole number from {low} to {high}",
                hint=f"the default is {getattr(Settings, name)}",
            )
        return number
    if not isinstance(value, str) or (name in _WORDS and value not in _WORDS[name]):
        words = " or ".join(_WORDS.get(name, ("a name", "an address")))
        raise Invalid(f"{source} should be {words}", hint=f"the default is {getattr(Settings, name)}")
    return value
