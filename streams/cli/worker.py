"""`credits worker`: one ledger worker, until Ctrl-C. Several share the partitions."""

from __future__ import annotations

import typer

from streams.cli.console import load_settings
from streams.local.parent import stop_with_parent

app = typer.Typer()


@app.command()
def worker() -> None:
    """Run one ledger worker until Ctrl-C; start it several times to share the partitions."""
    settings = load_settings()

    from streams.agents.processor import make_processor
    from streams.app import run_worker
    from streams.kafka import topics_admin
    from streams.logging import configure_logging
    from streams.metrics import PrometheusMetrics
    from streams.stopping import Stopping

    configure_logging(settings.log_level, as_json=settings.log_format == "json")
    stopping = Stopping(settings.stop_grace_s)
    stop_with_parent()
    topics_admin.apply(settings)
    raise typer.Exit(run_worker(settings, make_processor, PrometheusMetrics(), stopping))
