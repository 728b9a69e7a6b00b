"""`flask --app wsgi gateways outcomes`: what each code of a gateway means, and how it is said."""

import click

from shop.commands.tables import table
from shop.errors import ShopError
from shop.gateways.base import Outcome
from shop.gateways.guard import BUSY, RESTING
from shop.gateways.outcomes_table import CALLS, OF_EVERY_CALL, rows, state_rows
from shop.payments.words import REASONS, words_for

NAMES = {"wechatpay": "WeChat Pay", "alipay": "Alipay"}


def spoken_rows() -> list[list[str]]:
    """What a member reads where opening a payment met one of these codes, the head first."""
    codes: dict[type[ShopError], list[str]] = {}
    for code in REASONS:
        for outcome in prepay_outcomes(code):
            words = words_for(code, outcome, sent=code not in {BUSY, RESTING})
            codes.setdefault(words, []).append(code)
    told = [
        [", ".join(found), words.code, f"{words.sentence()} {words.hint}"]
        for words, found in codes.items()
    ]
    return [["codes", "problem", "the member reads"], *told]


def prepay_outcomes(code: str) -> set[Outcome]:
    """What a code can mean where a payment is opened."""
    found = {calls["prepay"][code] for calls in CALLS.values() if code in calls["prepay"]}
    return found or {Outcome.UNKNOWN}


def sections() -> list[tuple[str, list[list[str]]]]:
    """Every table with its title."""
    found = []
    for channel, name in NAMES.items():
        found.append((f"{name}: error codes by call", rows(channel)))
        found.append((f"{name}: states", state_rows(channel)))
    proofless = [["code", "what it is"], *([code, text] for code, text in OF_EVERY_CALL.items())]
    found.append(("Of every call: unknown", proofless))
    found.append(("What a member reads", spoken_rows()))
    return found


def markdown() -> str:
    """The tables as they stand in docs/gateways.md."""
    return "\n".join(f"### {title}\n\n{_markdown_table(told)}\n" for title, told in sections())


def _markdown_table(told: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(cells)} |" for cells in told)
    return "\n".join([head, "|" + "---|" * len(told[0]), *body])


@click.command("outcomes")
@click.option("--markdown", "as_markdown", is_flag=True, help="As in docs/gateways.md.")
def outcomes(as_markdown: bool) -> None:
    """What each code of the gateways means, and what a member reads."""
    if as_markdown:
        click.echo(markdown(), nl=False)
        return
    for title, told in sections():
        click.echo(f"{title}\n{table(told)}\n")
