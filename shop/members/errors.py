"""What can be wrong with who is asking."""

from shop.errors import ShopError


class SignInNeeded(ShopError):
    """You are not signed in."""

    status = 401
    code = "sign-in-needed"
    hint = "Sign in first."


class TooManySignIns(ShopError):
    """There were too many tries to sign in."""

    status = 429
    code = "too-many-sign-ins"
    hint = "Wait a few minutes, then try again."
    retry_after_s = 300
