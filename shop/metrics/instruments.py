"""The metrics themselves. docs/metrics.md must list each; a test compares the two.

Every one has a label: prometheus-client makes the value of one that has none at import, and with
it a file, which no import of ours does. Labels take few values each, never what a client sent.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

# From an uncontended grant on one host (well under 1 ms) to the longest wait that can be set.
_WAIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30)
# A hand-over takes part of a millisecond; 2 s is what a frozen waiter's turn lasts.
_HANDOVER_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5)
_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# From a gateway beside us to connect, read and repeat at the usual settings (12 s), and beyond.
_GATEWAY_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
_QUEUE = (0, 1, 2, 4, 8, 16, 32, 64)

LOCK_WAIT = Histogram(
    "payonce_lock_wait_seconds",
    "Time from asking for an order's lease to the answer.",
    ["backend", "outcome"],
    buckets=_WAIT_S,
    registry=REGISTRY,
)
LOCK_HOLD = Histogram(
    "payonce_lock_hold_seconds",
    "Time for which a lease was held, up to its release.",
    ["backend"],
    buckets=_WAIT_S,
    registry=REGISTRY,
)
LOCK_HANDOVER = Histogram(
    "payonce_lock_handover_seconds",
    "Time from a holder's release to the next holder's knowing, where the service can tell.",
    ["backend"],
    buckets=_HANDOVER_S,
    registry=REGISTRY,
)
LOCK_QUEUE = Histogram(
    "payonce_lock_queue_length",
    "Holders and waiters that were before a request that was granted.",
    ["backend"],
    buckets=_QUEUE,
    registry=REGISTRY,
)
LOCK_RENEWALS = Counter(
    "payonce_lock_renewals_total",
    "Leases renewed, or not renewed and tried again.",
    ["backend", "outcome"],
    registry=REGISTRY,
)
LOCK_LOST = Counter(
    "payonce_lock_leases_lost_total",
    "Leases that ended before their holder gave them back.",
    ["backend"],
    registry=REGISTRY,
)
FENCES_REFUSED = Counter(
    "payonce_fences_refused_total",
    "Writes of an overtaken holder that the database refused.",
    ["overtaken_by"],
    registry=REGISTRY,
)
CLAIMS_DEGRADED = Counter(
    "payonce_claims_degraded_total",
    "Orders claimed without the lock service, which did not answer.",
    ["claimed_by"],
    registry=REGISTRY,
)
PAY_REQUESTS = Counter(
    "payonce_pay_requests_total",
    "Requests to pay an order that got as far as the payment service.",
    ["channel", "outcome"],
    registry=REGISTRY,
)
PAYMENTS = Counter(
    "payonce_payments_total",
    "Outcomes of payments, as they were booked.",
    ["channel", "outcome"],
    registry=REGISTRY,
)
NOTICES = Counter(
    "payonce_notices_total",
    "Callbacks of the gateways that came in.",
    ["channel", "outcome"],
    registry=REGISTRY,
)
CREDENTIALS = Counter(
    "payonce_credentials_changes_total",
    "Changes of merchants' credentials that a process saw.",
    ["outcome"],
    registry=REGISTRY,
)
GATEWAY_CALLS = Counter(
    "payonce_gateway_calls_total",
    "Calls made to gateways, repetitions counted with the call.",
    ["channel", "call", "outcome"],
    registry=REGISTRY,
)
GATEWAY_CALL = Histogram(
    "payonce_gateway_call_seconds",
    "Time that a call to a gateway took, with its repetitions.",
    ["channel", "call"],
    buckets=_GATEWAY_S,
    registry=REGISTRY,
)
GATEWAY_REPEATED = Counter(
    "payonce_gateway_calls_repeated_total",
    "Tries made once more, as the last one failed and did no harm.",
    ["channel", "call"],
    registry=REGISTRY,
)
GATEWAY_TURNED_AWAY = Counter(
    "payonce_gateway_calls_turned_away_total",
    "Calls not made, for want of a place or because the gateway rests.",
    ["channel", "call", "why"],
    registry=REGISTRY,
)
GATEWAY_RESTING = Gauge(
    "payonce_gateway_resting",
    "Circuits of living processes that opened and have not closed since.",
    ["channel"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
SWEEPER_ROUNDS = Counter(
    "payonce_sweeper_rounds_total",
    "Rounds of the sweeper.",
    ["outcome"],
    registry=REGISTRY,
)
SWEEPER_ITEMS = Counter(
    "payonce_sweeper_items_total",
    "What the sweeper took on.",
    ["kind"],
    registry=REGISTRY,
)
REQUEST_DURATION = Histogram(
    "payonce_http_request_duration_seconds",
    "Time from a request's arrival in the application to its answer.",
    ["method", "route", "status"],
    buckets=_REQUEST_S,
    registry=REGISTRY,
)
