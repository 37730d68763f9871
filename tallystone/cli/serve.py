"""`tallystone serve`: the server on a data directory, until it is told to stop."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from tallystone.cli.place import DataDir, StoreUrl, Usage, secret_file, store_url, written_secret
from tallystone.cli.terminal import line, say, warn, watched
from tallystone.cli.user import KitFile
from tallystone.cli.workspace import create
from tallystone.errors import TallystoneError
from tallystone.vault import Workspace

BOUNDS = Group("Bounds", sort_key=50)
TLS = Group("TLS", sort_key=52)
WATCHED = Group("Metrics and traces", sort_key=53)
LOG = Group("Audit log", sort_key=55)
MODELS = Group("Models", sort_key=60)
FIRST_START = Group("First start", sort_key=70)

_LOOPBACK = ("127.", "::1", "localhost")


def serve(
    *,
    data: DataDir = None,
    store: StoreUrl = None,
    host: Annotated[str | None, Parameter(metavar="ADDRESS")] = None,
    port: Annotated[int | None, Parameter(metavar="N")] = None,
    config: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    workers: Annotated[int | None, Parameter(metavar="N")] = None,
    http: Literal["uvicorn", "granian"] | None = None,
    max_body: Annotated[int | None, Parameter(metavar="BYTES")] = None,
    threads: Annotated[int | None, Parameter(metavar="N")] = None,
    grace: Annotated[int | None, Parameter(metavar="SECONDS")] = None,
    check_every: Annotated[int | None, Parameter(metavar="SECONDS")] = None,
    queue: Annotated[int | None, Parameter(metavar="N", group=BOUNDS)] = None,
    connections: Annotated[int | None, Parameter(metavar="N", group=BOUNDS)] = None,
    rate: Annotated[int | None, Parameter(metavar="N", group=BOUNDS)] = None,
    burst: Annotated[int | None, Parameter(metavar="N", group=BOUNDS)] = None,
    refusals: Annotated[int | None, Parameter(metavar="N")] = None,
    refusals_each: Annotated[int | None, Parameter(metavar="N", group=BOUNDS)] = None,
    proxies: Annotated[str | None, Parameter(metavar="ADDRESS,…", group=BOUNDS)] = None,
    tls_cert: Annotated[Path | None, Parameter(metavar="FILE", group=TLS)] = None,
    tls_key: Annotated[Path | None, Parameter(metavar="FILE", group=TLS)] = None,
    tls_min: Annotated[Literal["1.2", "1.3"] | None, Parameter(group=TLS)] = None,
    listeners: Annotated[int | None, Parameter(metavar="N")] = None,
    listeners_each: Annotated[int | None, Parameter(metavar="N")] = None,
    backup_days: Annotated[int | None, Parameter(metavar="DAYS")] = None,
    key_backup_days: Annotated[int | None, Parameter(metavar="DAYS")] = None,
    log_format: Literal["text", "json"] | None = None,
    log_level: Literal["info", "warning", "error"] | None = None,
    metrics: Annotated[Literal["off", "loopback", "token"] | None, Parameter(group=WATCHED)] = None,
    metrics_token: Annotated[Path | None, Parameter(metavar="FILE", group=WATCHED)] = None,
    traces: Annotated[bool | None, Parameter(negative=(), group=WATCHED)] = None,
    log_public: Annotated[bool | None, Parameter(negative=(), group=LOG)] = None,
    witnesses: Annotated[str | None, Parameter(metavar="URL=KEY,…", group=LOG)] = None,
    witness_wait: Annotated[int | None, Parameter(metavar="SECONDS", group=LOG)] = None,
    providers: Annotated[str | None, Parameter(metavar="NAME=URL,…", group=MODELS)] = None,
    models: Annotated[str | None, Parameter(metavar="HANDLE,…", group=MODELS)] = None,
    model_keys: Annotated[Path | None, Parameter(metavar="FILE", group=MODELS)] = None,
    model_timeout: Annotated[int | None, Parameter(metavar="SECONDS", group=MODELS)] = None,
    model_retries: Annotated[int | None, Parameter(metavar="N", group=MODELS)] = None,
    model_tokens: Annotated[int | None, Parameter(metavar="N", group=MODELS)] = None,
    reply_wait: Annotated[int | None, Parameter(metavar="SECONDS", group=MODELS)] = None,
    allowed_hosts: Annotated[str | None, Parameter(metavar="HOST,…", group=MODELS)] = None,
    key_file: Annotated[Path | None, Parameter(metavar="FILE", group=FIRST_START)] = None,
    kit: Annotated[KitFile, Parameter(group=FIRST_START)] = None,
) -> int:
    """Serve a data directory to letta-client and to tallystone --url. Stops gracefully on SIGINT and SIGTERM.

    Each setting can also stand in the environment (TALLYSTONE_PORT) or in a TOML file; an option beats the
    environment, the environment beats the file. An empty directory becomes a workspace only when a person watches, or
    with --key-file: a key is never printed into a service's log.

    Parameters
    ----------
    data
        The data directory.
    store
        The PostgreSQL database that holds the rows, without a password. Default: what the data directory names.
    host
        Address to listen on. Default: 127.0.0.1.
    port
        Port to listen on; 0 takes a free one. Default: 8283.
    config
        TOML file with settings. Also: TALLYSTONE_CONFIG.
    workers
        Processes that serve; one that dies is replaced. Default: 1.
    http
        What speaks HTTP. Default: uvicorn.
    max_body
        Bytes that the body of a request may have. Default: 10485760.
    threads
        Requests worked on at once. Default: 16.
    grace
        Seconds that requests under way get to finish at a stop. Default: 30.
    check_every
        Seconds between checks of the log; 0 checks at the start only. Default: 3600.
    queue
        Requests that wait to be worked on; those beyond get 503. Default: 1000.
    connections
        Connections that are open at once; those beyond get 503. Default: 10000.
    rate
        Requests a second of one principal; those beyond get 429. Default: 0, as many as it likes.
    burst
        Requests that a principal may send at once. Default: twice the rate.
    refusals
        Requests a second without a good token that are answered; those beyond get 429. Default: 50.
    refusals_each
        Those of one address. Default: half of refusals.
    proxies
        Addresses and networks of proxies whose X-Forwarded-For is believed, to count refusals by address.
    tls_cert
        PEM file with the certificate and its chain: the server then speaks https alone.
    tls_key
        PEM file with the certificate's key. Default: it is in the same file.
    tls_min
        Oldest version of TLS that is spoken. Default: 1.2.
    listeners
        Streams of changes that are open at once; those beyond get 503. Default: 2000.
    listeners_each
        Streams of one principal; those beyond get 429. Default: 250.
    backup_days
        How long copies of the database are kept, for the receipts of erasures. Default: not known.
    key_backup_days
        How long copies of the folder server-keys are kept. Default: 0, there are none.
    log_format
        How the log on stderr is written. Default: text.
    log_level
        What is logged: info logs each request. Default: info.
    metrics
        Who may read GET /metrics: nobody, this machine, or whoever has the token. Default: off.
    metrics_token
        File with that token.
    traces
        Tell OpenTelemetry of requests; which exporter gets them, its own variables say (OTEL_…).
    log_public
        Serve the audit log without a token: its tiles, checkpoints, receipts and witnesses.
    witnesses
        Who cosigns the audit log: where each takes checkpoints, and its verifier key.
    witness_wait
        Seconds that an answer waits for a witness, where a block asks for one. Default: 20.
    providers
        Base URLs of model providers, e.g. ollama=http://127.0.0.1:11434/v1.
    models
        Models that agents may use; the first is for agents who name none. Default: any of a configured provider.
    model_keys
        TOML file with keys of providers, beside those of the environment (OPENAI_API_KEY, …).
    model_timeout
        Seconds for one call of a model, retries included. Default: 120.
    model_retries
        How often a failed call of a model is repeated. Default: 2.
    model_tokens
        Tokens that one answer of a model may have. Default: 4096.
    reply_wait
        Seconds that an agent waits for another agent's reply. Default: 60.
    allowed_hosts
        Hosts that the server may call; none for none. Default: those of the configured providers and witnesses.
    key_file
        New file for the first user's key, outside the data directory, should the directory be empty.
    kit
        New file for the recovery kit, outside the data directory. Default: tallystone-recovery-kit.txt here.
    """
    try:
        from tallystone.server import run
        from tallystone.server.settings import load
    except ModuleNotFoundError as missing:
        raise TallystoneError(
            f"the server is not installed ({missing.name})", hint="pip install 'tallystone[server]'"
        ) from None
    flags: dict[str, object] = {
        "data": data,
        "store": store_url(store) if store is not None else None,
        "host": host,
        "port": port,
        "workers": workers,
        "http": http,
        "max_body": max_body,
        "threads": threads,
        "grace": grace,
        "check_every": check_every,
        "queue": queue,
        "connections": connections,
        "rate": rate,
        "burst": burst,
        "refusals": refusals,
        "refusals_each": refusals_each,
        "proxies": proxies,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_min": tls_min,
        "listeners": listeners,
        "listeners_each": listeners_each,
        "backup_days": backup_days,
        "key_backup_days": key_backup_days,
        "log_format": log_format,
        "log_level": log_level,
        "metrics": metrics,
        "metrics_token": metrics_token,
        "traces": traces,
        "log_public": log_public,
        "witnesses": witnesses,
        "witness_wait": witness_wait,
        "providers": providers,
        "models": models,
        "model_keys": model_keys,
        "model_timeout": model_timeout,
        "model_retries": model_retries,
        "model_tokens": model_tokens,
        "reply_wait": reply_wait,
        "allowed_hosts": allowed_hosts,
    }
    settings = load(flags, os.environ, config)
    if settings.data is None:
        raise Usage("no data directory named", hint="give --data DIR or set TALLYSTONE_DATA")
    if _is_empty(settings.data):
        _first_start(settings.data, settings.store, key_file, kit)
    if settings.tls_cert is None and not settings.host.startswith(_LOOPBACK):
        warn(
            f"{settings.host} is reachable from outside, and tokens cross it unencrypted: "
            "give --tls-cert, or put TLS in front"
        )
    opened = partial(Workspace.open, settings.data, settings.store)
    with (
        opened() as workspace
    ):  # so that what is wrong with it is said once, and an older store is brought up to date
        if settings.workers == 1:
            run.serve(workspace, settings)
    if settings.workers > 1:
        run.serve_many(opened, settings)
    say("stopped")
    return 0


def _is_empty(directory: Path) -> bool:
    return not directory.exists() or (directory.is_dir() and next(directory.iterdir(), None) is None)


def _first_start(data: Path, store: str | None, key_file: Path | None, kit: Path | None) -> None:
    if key_file is None and not watched():
        raise Usage(
            f"there is no workspace in {data}, and nobody watches to take its key",
            hint=f"run tallystone init {data} first, or give --key-file FILE",
        )
    with ExitStack() as secrets:
        if key_file is not None:
            key = secrets.enter_context(written_secret(secret_file(key_file, outside=data, what="key")))
            target, credentials = create(data, kit, store)
            key.append(credentials.token + "\n")
            say(
                f"Made the workspace {data}. The first user's key is in {key_file}, the recovery kit in {target}."
            )
        else:
            target, credentials = create(data, kit, store)
            say(f"Made the workspace {data}. This is your key, shown once:")
            line(credentials.token)
            say(f"The recovery kit is {target}: print it or store it away from this machine.")
    say("Whoever loses both has lost the data: there is no master key.")
