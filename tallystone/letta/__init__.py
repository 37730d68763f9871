"""The drop-in interface: what `letta-client` 1.12.1 speaks, as functions over a `Vault`.

Everything here is synchronous and knows no web framework: a route is a function from a `Call` to an `Answer`
(`tallystone.letta.call`). `tallystone.server` matches paths, authenticates and runs these functions in threads.
"""
