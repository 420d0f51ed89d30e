"""Settings of every process, from `CREDITS_…` environment variables or a `.env` file.

One model for all commands, so that a variable means the same everywhere. Nothing here does I/O.
Amounts of time and size carry their unit last in the name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.text_safety import HIDDEN, redacted_address, secrets_of_address


class Settings(BaseSettings):
    """Where things are, and the few numbers an operator may turn."""

    model_config = SettingsConfigDict(env_prefix="CREDITS_", env_file=".env", extra="ignore", frozen=True)

    kafka_bootstrap_servers: str | None = Field(None, description="Kafka to use; unset: a local broker is started")
    kafka_security_protocol: str = Field("PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
    kafka_sasl_mechanism: str | None = Field(None, description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512")
    kafka_sasl_username: str | None = Field(None, description="SASL user")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password")
    kafka_ssl_ca_location: Path | None = Field(None, description="CA certificates (PEM)")
    kafka_ssl_certificate_location: Path | None = Field(None, description="client certificate (PEM)")
    kafka_ssl_key_location: Path | None = Field(None, description="client key (PEM)")

    schema_registry_url: str | None = Field(None, description="Confluent-compatible registry; unset: the built-in one")
    registry_read_only: bool = Field(
        True,
        description="the built-in registry gives schemas and takes none over HTTP; `credits schemas register` does",
    )
    clickhouse_url: str | None = Field(None, description="http://… or chdb:///path; unset: chDB under the data folder")
    data_dir: Path = Field(Path(".credits"), description="local data: broker, ClickHouse, logs")
    namespace: str = Field("", description="prefix of topics, app ids and the ClickHouse database")

    http_host: str = Field("127.0.0.1", description="where `serve` listens")
    http_port: int = Field(8080, ge=0, le=65535, description="where `serve` listens; 0: any port that is free")
    http_allowed_hosts: str = Field(
        "",
        description="names that `serve` answers to (`Host`), with commas between; loopback's and `CREDITS_HTTP_HOST` "
        "always, addresses in numbers where it listens on every interface; `*`: all",
    )
    http_body_bytes_max: int = Field(
        1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="the largest body of a request; 16 such at once"
    )
    http_requests_per_s: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="requests a second that an API key may make in each process, unless its `--rate` says otherwise; "
        "unset: any number",
    )
    worker_metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus metrics of a worker; 0: none")
    worker_metrics_host: str = Field("127.0.0.1", description="where a worker's metrics listen")
    api_keys_file: Path | None = Field(
        None,
        description="API keys in addition to those of `credits keys`: JSON lines, each as `credits keys create --json` "
        "prints it under `record`; looked at twice a second",
    )
    api_key: SecretStr | None = Field(
        None, description="the API key that commands present to `serve`; on its own machine they need none"
    )
    internal_key: SecretStr | None = Field(
        None,
        description="secret for keyed checksums on accounts, positions, remembered ids, transfer legs and kept prices; "
        "several with commas between: the first writes, all verify; `none` among them: records without a checksum are "
        "believed",
    )
    invoice_issuer: str = Field("", description="who sells, at the head of invoices: name | street | town | tax id")

    partitions: int = Field(8, ge=1, le=10_000, description="partitions of every topic; fixed at creation")
    replication_factor: int = Field(1, ge=1, le=10, description="copies of every topic's partition")
    broker_port: int = Field(9092, ge=1, le=65535, description="port of the local broker")
    broker_heap_mib: int = Field(1024, ge=256, description="heap of the local broker")
    broker_jit: Literal["quick", "full"] = Field(
        "full",
        description="how the local broker's JVM compiles: `full` takes a third less CPU from its third minute on; "
        "`quick` leaves the cores to others before, for runs of a minute",
    )

    worker_name: str | None = Field(
        None,
        max_length=200,
        description="a name no other worker has: started again under it, a worker gets its partitions back at once",
    )
    stop_grace_s: float = Field(
        15.0, ge=1, le=600, description="a worker or `serve` that is stopped ends after this, finished or not"
    )
    session_timeout_ms: int = Field(8_000, ge=6_000, le=300_000, description="after this a silent worker is replaced")
    batch_records_max: int = Field(8_192, ge=1, le=100_000, description="records decided in one transaction")
    queue_records_max: int = Field(16_384, ge=1, description="records waiting per partition before fetching pauses")
    queue_bytes_max: int = Field(
        16 * 1024 * 1024, ge=1, description="bytes of records waiting per partition before fetching pauses"
    )
    usage_window_hours: int = Field(72, ge=1, le=24 * 35, description="how long a usage id is remembered")
    money_window_days: int = Field(35, ge=1, le=365, description="how long other ids are remembered")
    dead_letters_per_minute_max: int = Field(
        60_000, ge=1, description="more dead letters than this in a minute are a flood (CREDITS_DEAD_LETTER_FLOOD)"
    )
    dead_letter_flood: Literal["pause", "stop"] = Field(
        "pause",
        description="pause: a partition of the input topic that a flood of dead letters comes in by is read no further "
        "for a minute or more, the rest goes on; stop: the worker stops before it books more of them",
    )
    read_timeout_s: float = Field(
        30.0, gt=0, le=3_600, description="a command that reads from Kafka ends when nothing new came for so long"
    )
    clock: Literal["wall", "log"] = Field(
        "wall",
        description="log: time is what the records' timestamps say and nothing else, for replays and simulations",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what is worth a line")
    log_format: Literal["text", "json"] = Field("text", description="json: one JSON object a line, for collectors")
    debug: bool = Field(False, description="show tracebacks")

    @field_validator("clickhouse_url", "schema_registry_url")
    @classmethod
    def _address_can_be_asked(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = ("http://", "https://", "chdb:///") if info.field_name == "clickhouse_url" else ("http://", "https://")
        if value is not None and not value.startswith(known):
            raise ValueError(f"it must begin with {', '.join(known[:-1])} or {known[-1]}")
        return value

    @field_validator("namespace")
    @classmethod
    def _namespace_is_a_topic_prefix(cls, value: str) -> str:
        if value and not all(c.isalnum() or c in "._-" for c in value):
            raise ValueError("use letters, digits, '.', '_' and '-' only")
        return value

    @property
    def bootstrap_servers(self) -> str:
        """The brokers to talk to: the given ones, or the local one."""
        return self.kafka_bootstrap_servers or f"127.0.0.1:{self.broker_port}"

    @property
    def http_on_loopback(self) -> bool:
        """Whether only this machine can ask where HTTP listens."""
        return self.http_host in ("127.0.0.1", "::1", "localhost")

    @property
    def app_id(self) -> str:
        """Consumer group and prefix of the ledger's transactional ids."""
        return f"{self.namespace}credits-ledger"

    @property
    def projection_id(self) -> str:
        """Consumer group of the projection."""
        return f"{self.namespace}credits-projection"


def shown_value(value: object) -> object:
    """The value of a setting as it may be shown: a secret, and what is secret in an address, is hidden."""
    if isinstance(value, SecretStr):
        return HIDDEN
    return redacted_address(value) if isinstance(value, str) else value


def secrets_of(settings: Settings) -> list[str]:
    """Every secret in these settings, for `streams.text_safety.conceal`."""
    found = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            found.append(secret)
            if name == "internal_key":  # a list: each key is a secret by itself
                found += [key.strip() for key in secret.split(",")]
        elif isinstance(value, str):
            found += secrets_of_address(value)
    return found
