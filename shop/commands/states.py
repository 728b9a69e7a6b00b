"""`flask --app wsgi states`: draw the state charts into the docs."""

from pathlib import Path

import click

from statemachine.attempt import AttemptChart
from statemachine.order import OrderChart
from statemachine.strict import StrictChart

PAGE = Path("docs") / "states.md"

_HEAD = """# States

Drawn from the declarations in `statemachine/` by `flask --app wsgi states`; a test fails when this
page and the code differ. Every other move is refused.
"""


def states_page() -> str:
    """The page as it must read now."""
    return "\n".join(
        [_HEAD, _section("Order", OrderChart), _section("Payment attempt", AttemptChart)]
    )


def _section(title: str, chart: type[StrictChart]) -> str:
    rows = [
        f"| {state.id} | {transition.event} | {transition.target.id} | {_guards(transition)} |"
        for state in chart.states
        for transition in state.transitions
    ]
    return "\n".join(
        [
            f"## {title}\n",
            "```mermaid",
            f"{chart:mermaid}".rstrip(),
            "```\n",
            "| from | event | to | only if |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _guards(transition: object) -> str:
    specs = getattr(transition, "validators", ())
    return ", ".join(str(spec.func).replace("_", " ") for spec in specs)


@click.command("states")
@click.option("--check", is_flag=True, help="Write nothing; fail when the page is out of date.")
def states(check: bool) -> None:
    """Write the state diagrams into docs/states.md."""
    page = states_page()
    if check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
            raise click.ClickException(f"{PAGE} is out of date: run `flask --app wsgi states`.")
        return
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8")
    click.echo(f"wrote {PAGE}")
