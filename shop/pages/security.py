"""Headers that keep a page to itself."""

from flask import Flask, Response, abort, request

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Forms over https are checked for their referrer, so it is kept within the shop.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}

# Static files are addressed with a digest of their content.
STATIC_MAX_AGE_S = 365 * 86_400


def init_security(app: Flask) -> None:
    """Put the headers on every answer; nothing but static files is kept by anyone."""
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = STATIC_MAX_AGE_S

    @app.before_request
    def refuse_nul() -> None:
        # PostgreSQL has no such character in a text: nothing of ours has it in its address.
        if "\x00" in request.path:
            abort(404)

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if app.config.get("SESSION_COOKIE_SECURE"):
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        if request.endpoint != "static":
            # A page holds one-time tokens and personal data: going back to it loads it anew.
            response.headers.setdefault("Cache-Control", "no-store")
        return response
