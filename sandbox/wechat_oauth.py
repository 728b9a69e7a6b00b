"""Who is in front of WeChat's own browser: a member's openid, by a code that is good once.

After the documentation of official accounts, "web page authorization", with the silent scope
`snsapi_base` alone: the browser is sent on at once.
"""

import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from flask import Blueprint, Response, jsonify, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from sandbox import chance, clock, openids
from sandbox.core import sandbox
from sandbox.keys import Keys

blueprint = Blueprint("wechat_oauth", __name__)

CODE_LIFE_MS = 300_000
TOKEN_LIFE_S = 7_200
# Whose phone it is; a test that needs another member sets this cookie.
MEMBER_COOKIE = "sandbox_member"
_MEMBER = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_STATE = re.compile(r"[\x21-\x7e]{0,128}", re.ASCII)


class BadCall(Exception):
    """What is asked for cannot be; the page says so."""


@blueprint.errorhandler(BadCall)
def _bad_call(error: BadCall) -> Response:
    return Response(f"{error}\n", status=400, content_type="text/plain; charset=utf-8")


@blueprint.get("/connect/oauth2/authorize")
def authorize() -> AnyResponse:
    """Send the browser on to redirect_uri with a one-time code and the state."""
    asked = request.args
    keys = sandbox().merchants.by_appid(asked.get("appid", ""))
    if keys is None:
        raise BadCall("appid: not an application of this sandbox")
    if asked.get("response_type") != "code":
        raise BadCall("response_type: must be code")
    if asked.get("scope") != "snsapi_base":
        raise BadCall("scope: must be snsapi_base, the only one that is known here")
    state = asked.get("state", "")
    if not _STATE.fullmatch(state):
        raise BadCall("state: at most 128 visible ASCII characters")
    target = _target(asked.get("redirect_uri", ""))
    member = request.cookies.get(MEMBER_COOKIE, openids.DEMO_MEMBER)
    if not _MEMBER.fullmatch(member):
        raise BadCall(f"cookie {MEMBER_COOKIE}: 1 to 32 of a-z 0-9 -")
    known = parse_qsl(target.query, keep_blank_values=True)
    more = urlencode([*known, ("code", _new_code(keys, member)), ("state", state)])
    return redirect(urlunsplit(target._replace(query=more)), 302)


def _target(address: str) -> SplitResult:
    try:
        target = urlsplit(address)
        good = target.scheme in {"http", "https"} and target.hostname and target.port != 0
    except ValueError:
        good = False
    if not good:
        raise BadCall("redirect_uri: a full http(s) address is needed")
    return target


def _new_code(keys: Keys, member: str) -> str:
    now, code, appid = clock.now_ms(), chance.text(32), keys.identity.appid
    with sandbox().store.write() as tx:
        tx.execute("DELETE FROM oauth_codes WHERE expires_at_ms <= ?", (now,))
        tx.execute(
            "INSERT INTO oauth_codes (code, appid, openid, expires_at_ms) VALUES (?, ?, ?, ?)",
            (code, appid, openids.meet(tx, appid, member), now + CODE_LIFE_MS),
        )
    return code


@blueprint.get("/sns/oauth2/access_token")
def access_token() -> Response:
    """The openid behind a code. HTTP 200 always; an error has errcode and errmsg."""
    asked = request.args
    keys = sandbox().merchants.by_appid(asked.get("appid", ""))
    if keys is None:
        return _error(40013, "invalid appid")
    if asked.get("secret", "") != keys.app_secret:
        return _error(40125, "invalid appsecret")
    if asked.get("grant_type") != "authorization_code":
        return _error(40002, "invalid grant_type")
    if not asked.get("code"):
        return _error(41008, "missing code")
    with sandbox().store.write() as tx:
        row = tx.execute(
            "DELETE FROM oauth_codes WHERE code = ? AND appid = ? RETURNING openid, expires_at_ms",
            (asked["code"], keys.identity.appid),
        ).fetchone()
    # Unknown, used before or too old: it is told apart by nobody.
    if row is None or row["expires_at_ms"] <= clock.now_ms():
        return _error(40029, "invalid code")
    return jsonify(
        access_token=chance.text(64),
        expires_in=TOKEN_LIFE_S,
        refresh_token=chance.text(64),
        openid=row["openid"],
        scope="snsapi_base",
    )


def _error(code: int, message: str) -> Response:
    return jsonify(errcode=code, errmsg=message)
