"""A process that projects until it is done or killed; run as `python -m tests.integration.projections.killed`.

Arguments: bootstrap servers, namespace, partitions, data folder. Small writes, so that a kill meets many of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from projections import rebuild
from projections.clickhouse import connect, migrate
from tests.brokers import test_settings


def main(bootstrap_servers: str, namespace: str, partitions: str, data_dir: str) -> None:
    """Project everything that is there now."""
    settings = test_settings(
        Path(data_dir),
        kafka_bootstrap_servers=bootstrap_servers,
        namespace=namespace,
        partitions=int(partitions),
    )
    client = connect(settings)
    migrate(client)
    rebuild.ROWS_MAX = rebuild.FETCH_RECORDS_MAX = 200
    rebuild.refold(settings, client, lambda _records: print("written", flush=True))
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
