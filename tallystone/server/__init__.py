"""The HTTP server: paths, tokens, bodies, errors and retries around the routes of `tallystone.letta`.

Pure ASGI. Everything that touches a vault is synchronous and runs in a thread; the event loop only reads and writes
sockets.
"""
