"""`credits acl apply` on a broker with SASL/SCRAM, TLS and Kafka's authorizer: what each role may, it can, and no more.

The broker's own plain listener is the superuser's; each role logs in as a user of its own, by TLS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.amounts import NANOS
from schemas.enums import InputKind
from schemas.events import INPUTS
from schemas.rights import PARTIES, Role, rights
from schemas.topics import BY_KEY, CATALOGUE, Topics
from streams.client import CreditsProducer, Follower
from streams.kafka import acl_admin, topics_admin
from streams.kafka.clients import admin_config, consumer_config, producer_config
from streams.kafka.registry import connect_registry
from streams.settings import Settings
from streams.verify.audit import audit
from tests.brokers import free_port, local_broker, test_settings
from tests.integration.engine.workers import REPOSITORY, until
from tests.integration.ledger.events import now_us, purchase
from tests.integration.ledger.installation import LedgerInstallation

PARTITIONS = 2
SOON_S = 30.0
EVERY_ROLE = [f"{role}=User:{role}" for role in Role]
INPUTS_OF_OTHERS = {"usage", "purchases", "transfers", "refunds", "holds", "settings", "prices"}
ALERTS = {"alerts_threshold", "alerts_depletion", "alerts_topup"}
OUTPUTS = {"ledger", *ALERTS, "topup_requests", "decisions", "balances", "dead_letters"}
REPLAYS = "replays"
KEYS = "api_keys"
REFUSED = "refused_calls"
USED = "used_keys"
DISMISSALS = "dismissals"
INTERNAL = {"transfer_legs", "accounts", "kept_prices"}
OF_API = {
    "schemas",
    "accounts",
    "prices",
    "kept_prices",
    "settings",
    "decisions",
    "balances",
    KEYS,
    USED,
    DISMISSALS,
    *ALERTS,
}
OF_PROJECTOR = {"schemas", *OUTPUTS, "prices", "kept_prices", REPLAYS, REFUSED, DISMISSALS} - {
    "topup_requests",
    "decisions",
}
MAY: dict[str, tuple[set[str], set[str]]] = {
    "producer": ({"schemas"}, {"usage"}),
    "gateway": ({"schemas", "decisions", "balances"}, {"holds"}),
    "payments": ({"schemas", "topup_requests", "ledger"}, {"purchases", "refunds"}),
    "admin": ({"schemas"}, {"settings", "prices", "transfers", "refunds"}),
    "subscriber": ({"schemas", "ledger", *ALERTS}, set()),
    "worker": ({"schemas", *OUTPUTS, *INPUTS_OF_OTHERS, *INTERNAL}, {*OUTPUTS, *INTERNAL}),
    "serve": (OF_API | OF_PROJECTOR, {"schemas", *INPUTS_OF_OTHERS, REFUSED, USED, DISMISSALS}),
    "api": (OF_API, {"schemas", *INPUTS_OF_OTHERS, REFUSED, USED, DISMISSALS}),
    "projector": (OF_PROJECTOR, set()),
    "operator": (set(BY_KEY), INPUTS_OF_OTHERS | {REPLAYS, KEYS}),
}
"""What each role reads and writes, by itself: the table of docs/operations.md, said once more."""

DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


class Secured:
    """A broker that asks who it is. `superuser` and `of(role)`: settings of an installation on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "broker.pem"
        key = folder / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)
        (folder / "store.pem").write_text(key.read_text() + self.certificate.read_text())
        self.namespace = f"t{uuid.uuid4().hex[:8]}."
        secured_port, controller_port = free_port(), free_port()
        self.address = f"127.0.0.1:{secured_port}"
        self.broker = local_broker(folder)
        plain, secured = f"PLAINTEXT://127.0.0.1:{self.broker.port}", f"SASL_SSL://{self.address}"
        protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL"
        self.broker.properties |= {
            "listeners": f"{plain},{secured},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"{plain},{secured}",
            "listener.security.protocol.map": protocols,
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(folder / "store.pem"),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        for user in (*Role, "stranger"):
            self.broker.format_arguments += ["--add-scram", f"SCRAM-SHA-256=[name={user},password={user}-pw]"]
        self.broker.start()
        self.superuser = test_settings(
            folder,
            kafka_bootstrap_servers=self.broker.bootstrap_servers,
            namespace=self.namespace,
            partitions=PARTITIONS,
            session_timeout_ms=6_000,
        )

    def of(self, user: str) -> Settings:
        """Settings of a user."""
        return self.superuser.model_copy(update=self._login(user) | {"kafka_sasl_password": _secret(f"{user}-pw")})

    def variables(self, user: str) -> dict[str, str]:
        """The same as variables of a process."""
        named = self._login(user) | {"kafka_sasl_password": f"{user}-pw", "namespace": self.namespace}
        named |= {"partitions": PARTITIONS, "session_timeout_ms": 6_000}
        return {f"CREDITS_{name.upper()}": str(value) for name, value in named.items()}

    def _login(self, user: str) -> dict[str, Any]:
        return {
            "kafka_bootstrap_servers": self.address,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "SCRAM-SHA-256",
            "kafka_sasl_username": user,
            "kafka_ssl_ca_location": self.certificate,
        }

    def command(self, *arguments: str) -> dict[str, Any]:
        """A command of the superuser, with --json."""
        variables = {
            "CREDITS_KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "CREDITS_NAMESPACE": self.namespace,
        }
        done = subprocess.run(
            [sys.executable, "-m", "streams", *arguments, "--json"],
            cwd=REPOSITORY,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("secured"))
    try:
        topics_admin.apply(made.superuser)
        yield made
    finally:
        made.broker.kill()


def principals() -> list[str]:
    return [word for text in EVERY_ROLE for word in ("--principals", text)]


def test_the_plan_is_the_documented_one() -> None:
    """Each role reads and writes what MAY says, of the catalogue's topics, and nobody else is named."""
    for role in Role:
        planned = rights("n.", "n.credits-ledger", {role: ["User:x"]})
        assert {each.principal for each in planned} == {"User:x"}
        found: dict[str, set[str]] = {"read": set(), "write": set()}
        for each in planned:
            if each.kind == "topic" and each.pattern == "literal" and each.operation in found:
                found[each.operation].add(next(key for key, topic in BY_KEY.items() if f"n.{topic.name}" == each.name))
        assert (found["read"], found["write"]) == MAY[role], role
    output = {party for topic in CATALOGUE for text in (topic.read_by, topic.written_by) for party in _parties(text)}
    assert set(PARTIES) == output


def _parties(text: str) -> list[str]:
    return [party.strip() for party in text.partition(";")[0].split(",")]


@pytest.mark.slow
def test_applying_twice_is_applying_once_and_nothing_is_removed_unasked(secured: Secured) -> None:
    planned = secured.command("acl", "apply", "--dry-run", *principals())
    assert len(planned["created"]) > 300
    assert not acl_admin._found(AdminClient(admin_config(secured.superuser)))
    first = secured.command("acl", "apply", *principals())
    assert first["created"] == planned["created"]
    again = secured.command("acl", "apply", *principals())
    assert (again["created"], again["not_planned"], len(again["existing"])) == ([], [], len(first["created"]))

    stranger = [*principals(), "--principals", "worker=User:stranger"]
    more = secured.command("acl", "apply", *stranger)
    raised = secured.command("acl", "apply", *principals())
    assert raised["not_planned"] == more["created"]
    would = secured.command("acl", "apply", "--remove", "--dry-run", *principals())
    assert would["removed"] == more["created"]
    done = secured.command("acl", "apply", "--remove", *principals())
    assert (done["removed"], done["created"]) == (more["created"], [])
    after = secured.command("acl", "apply", *principals())
    assert (after["created"], after["not_planned"]) == ([], [])


@pytest.mark.slow
@pytest.mark.fault(
    "rights-of-a-role",
    title="A role that lacks a right it needs",
    provoked="every part of the system logs in as the user of its role, on a broker with SCRAM, TLS and an authorizer",
    holds="usage, money, a hold, an alert and the balance come through, and verify finds no difference",
)
def test_each_role_does_what_it_may(secured: Secured, tmp_path: Path, seen: Callable[[str], None]) -> None:
    """The whole way, each step by the user of its role: money in, usage, a hold, alerts, the balance over HTTP."""
    acl_admin.apply(secured.superuser, acl_admin.parse_principals(EVERY_ROLE))
    installation = LedgerInstallation(secured.superuser, tmp_path)
    port = free_port()
    log = (tmp_path / "serve.log").open("wb")
    own = {"CREDITS_DATA_DIR": str(tmp_path), "CREDITS_HTTP_PORT": str(port)}
    serve = subprocess.Popen(
        [sys.executable, "-m", "streams", "serve"],
        cwd=REPOSITORY,
        env={**os.environ, **secured.variables("serve"), **own},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        worker = installation.ready_worker(**secured.variables("worker"))
        send(secured, Role.PAYMENTS, InputKind.PURCHASE, purchase("p1", "acme", 100 * NANOS))
        at = now_us()
        usage = {"event_id": "u1", "org_id": "acme", "occurred_at": at, "operation": "chat", "wallet": "USD"}
        send(secured, Role.PRODUCER, InputKind.USAGE, usage | {"cost_nanos": 100 * NANOS})
        hold = {"hold_id": "h1", "org_id": "acme", "occurred_at": at, "action": "place", "wallet": "USD"}
        send(secured, Role.GATEWAY, InputKind.HOLD, hold | {"amount_nanos": NANOS})

        def balance_is_current() -> bool:
            answer = httpx.get(f"http://127.0.0.1:{port}/v1/orgs/acme/balance", timeout=20, trust_env=False)
            return bool(answer.json().get("seq", 0) >= 2)

        until(lambda: worker.process.poll() is not None or _safe(balance_is_current), SOON_S, "the balance")
        assert worker.process.poll() is None, worker.output
        assert followed(secured, Role.GATEWAY, "decisions") == 1
        assert followed(secured, Role.SUBSCRIBER, "alerts_depletion") >= 1
        assert followed(secured, Role.PAYMENTS, "ledger") >= 1
        report = audit(secured.of(Role.OPERATOR))
        assert report.ok, report.differences
        ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=20, trust_env=False)
        assert ready.status_code == 200, ready.json()
        seen(f"{report.entries} entries, 1 answer to a hold, alerts followed by name, no difference")
    finally:
        installation.stop()
        serve.kill()
        serve.wait()
        log.close()


def _safe(check: Any) -> bool:
    try:
        return bool(check())
    except (httpx.TransportError, ValueError):
        return False


def send(secured: Secured, role: Role, kind: InputKind, fields: Mapping[str, Any]) -> None:
    """A record of an input topic, as a role."""
    settings = secured.of(role)
    with CreditsProducer(settings, registry=connect_registry(settings)) as producer:
        producer.produce(kind, INPUTS[kind].from_record(dict(fields)))


def followed(secured: Secured, role: Role, topic: str) -> int:
    """How many records a role gets from a topic, under a name."""
    settings = secured.of(role)
    found = 0
    with Follower(settings, [Topics(settings.namespace).name(topic)], name=f"{role}-test") as follower:
        deadline = time.monotonic() + SOON_S
        while not found and time.monotonic() < deadline:
            found += len(follower.next(0.2))
        follower.commit()
    return found


@pytest.mark.slow
@pytest.mark.fault(
    "rights-refused",
    title="A program without the right",
    provoked="each role, and a user without one, writes and reads every topic that is not its own, moves the ledger's "
    "group, opens its transactions, creates a topic",
    holds="Kafka refuses each",
    faults_row=21,
)
@pytest.mark.parametrize("role", [*Role, "stranger"])
def test_each_role_fails_at_what_it_may_not(secured: Secured, role: Role | str, seen: Callable[[str], None]) -> None:
    """Every topic of the catalogue that a role neither writes nor reads; groups and transactional ids of the ledger."""
    acl_admin.apply(secured.superuser, acl_admin.parse_principals(EVERY_ROLE))
    settings = secured.of(role)
    reads, writes = MAY.get(role, (set(), set()))
    name = Topics(settings.namespace).name

    refused: dict[str, int] = {}
    producer = Producer(producer_config(settings, message_timeout_ms=15_000, enable_idempotence=False, log_level=0))
    for key in BY_KEY.keys() - writes:
        taken = lambda error, _, key=key: refused.update({key: error.code() if error else 0})  # noqa: E731
        producer.produce(name(key), key=b"acme", value=b"forged", partition=0, on_delivery=taken)
    assert producer.flush(30) == 0
    assert {key for key, code in refused.items() if code in DENIED} == BY_KEY.keys() - writes, refused

    places = [TopicPartition(name(key), 0, 0) for key in BY_KEY.keys() - reads]
    denied: set[str] = set()
    consumer = Consumer({**consumer_config(settings, f"{settings.namespace}credits-reader-x"), "log_level": 0})
    if places:
        consumer.assign(places)
        deadline = time.monotonic() + SOON_S
        while len(denied) < len(places) and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is not None:
                if role == "stranger":  # not even told where his groups are kept: nothing is read at all
                    assert message.error().code() == KafkaError.GROUP_AUTHORIZATION_FAILED
                    denied |= {each.topic for each in places}
                    continue
                assert message.error().code() in DENIED, message.error()
                denied.add(str(message.topic()))
            else:
                assert message is None, f"{role} reads {message.topic()}"
    consumer.close()
    assert denied == {each.topic for each in places}

    if role not in (Role.WORKER, "stranger"):
        member = Consumer({**consumer_config(settings, settings.app_id), "log_level": 0})
        assert _moved(member, TopicPartition(name("usage"), 0, 1)) in DENIED
        member.close()
    if role != Role.WORKER:
        fencing = Producer(producer_config(settings, transactional_id=f"{settings.app_id}-0", log_level=0))
        with pytest.raises(KafkaException) as raised:
            fencing.init_transactions(15)
        assert raised.value.args[0].code() in DENIED
    admin = AdminClient({**admin_config(settings), "log_level": 0})
    created = admin.create_topics([NewTopic(f"x-{role}", 1, 1)])
    with pytest.raises(KafkaException) as raised:
        created[f"x-{role}"].result(15)
    assert raised.value.args[0].code() in DENIED
    seen(f"{role}: {len(BY_KEY) - len(writes)} topics not written, {len(places)} not read, no topic made")


def _moved(member: Consumer, position: TopicPartition) -> int:
    """The error of moving a group's position; 0: it was moved."""
    try:
        (answer,) = member.commit(offsets=[position], asynchronous=False)
    except KafkaException as failure:
        return int(failure.args[0].code())
    return 0 if answer.error is None else int(answer.error.code())
