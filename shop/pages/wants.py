"""What kind of answer the client asked for."""

from flask import request

PROBLEM_JSON = "application/problem+json"


def wants_json() -> bool:
    """Whether the client prefers JSON to a page. Whoever does not say gets a page."""
    best = request.accept_mimetypes.best_match(
        ["text/html", "application/json", PROBLEM_JSON], default="text/html"
    )
    return best != "text/html"
