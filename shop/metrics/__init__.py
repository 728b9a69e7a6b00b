"""What the shop counts and times, for Prometheus. docs/metrics.md lists every metric.

    instruments   the metrics, by name
    tell          what happened, said in the shop's words; the only module that others need
    locks         the observer of the lock service
    gateways      the observer of the gateways' guard
    folder        the files in which the processes of one host add up
    views         `GET /metrics`, and the timing of requests

Nothing here can hurt what it counts: a metric that cannot be written is logged and forgotten.
"""
