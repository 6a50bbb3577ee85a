"""The table of contents: every command, in the order in which one meets them."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.main import get_command

from tiphys import __version__
from tiphys.cli import compare, ledger, plays, policies, profiles, runs, traffic

_RUN, _LOOK, _POLICIES, _FORCE = "Tune and judge", "Look closer", "Policies and manifests", "What is in force"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tiphys {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Autoscaling policies of LLM services: tuned on a twin, proved on unseen traffic, promoted with evidence.

    Example: tiphys run configs/experiments/chat.yaml
    """


def command() -> typer.core.TyperCommand:
    """The command line."""
    app = typer.Typer(
        no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
    )
    app.callback()(_root)
    app.command("run", rich_help_panel=_RUN)(runs.run)
    app.command("search", rich_help_panel=_RUN)(runs.search)
    app.command("judge", rich_help_panel=_RUN)(runs.judge)
    app.command("simulate", rich_help_panel=_RUN)(plays.simulate)
    app.command("compare", rich_help_panel=_RUN)(compare.compare)
    app.command("explain", rich_help_panel=_LOOK)(plays.explain)
    app.command("report", rich_help_panel=_LOOK)(runs.report)
    app.command("import", rich_help_panel=_POLICIES)(policies.import_)
    app.command("render", rich_help_panel=_POLICIES)(policies.render)
    app.command("render-pipelines", rich_help_panel=_POLICIES)(policies.render_pipelines)
    app.command("schema", rich_help_panel=_POLICIES)(policies.schema)
    app.command("promote", rich_help_panel=_FORCE)(ledger.promote)
    app.command("rollback", rich_help_panel=_FORCE)(ledger.rollback)
    app.command("history", rich_help_panel=_FORCE)(ledger.history)
    app.add_typer(profiles.app, name="profile", rich_help_panel=_LOOK)
    app.add_typer(traffic.app, name="traffic", rich_help_panel=_LOOK)
    return get_command(app)  # type: ignore[return-value]
