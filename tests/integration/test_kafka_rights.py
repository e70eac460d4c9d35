"""Rights (ACLs) on a real broker: each missing one is named, and the printed command grants it."""

import asyncio
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adledger.loadtest.lab.broker import Listener, LocalBroker
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka_admin.rights import Role
from adledger.pipeline.log.kafka_admin.topics import check_topics, create_topics, require_fit_topics
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.brokers import running_broker
from tests.support.commands import adledger
from tests.support.kafka_deployment import QUICK, Deployment
from tests.support.kafka_traffic import write_traffic_to_kafka

USER, PASSWORD = "ads", "s3cret"
LOGIN = (
    'org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="admin" '
    f'user_admin="admin" user_{USER}="{PASSWORD}";'
)
PROPERTIES = {
    "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": PASSWORD,
}  # fmt: skip
MODEL = TrafficModel(seed=3, events=2_000, partitions=2, duration_hours=1)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One broker that allows its own listener everything, and users who log in only what they were granted."""
    login = {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": LOGIN}
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    listeners = (Listener(), Listener("USERS", "SASL_PLAINTEXT", login))
    with running_broker(
        tmp_path_factory.mktemp("rights"), listeners=listeners, properties=properties
    ) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def grant(broker: LocalBroker, remedy: str) -> None:
    """Run a printed command as an administrator, through the listener that allows everything."""
    name, *arguments = shlex.split(remedy)
    assert name == "kafka-acls.sh"
    at = arguments.index("--bootstrap-server") + 1
    assert arguments[at] == broker.address("USERS")
    change(broker, arguments[: at - 1] + arguments[at + 1 :])


def change(broker: LocalBroker, arguments: Sequence[str]) -> None:
    """Change rights as an administrator."""
    server = ("--bootstrap-server", broker.address("PLAINTEXT"))
    done = broker.tool("org.apache.kafka.tools.AclCommand", *server, *arguments)
    assert done.returncode == 0, done.stderr


def test_each_missing_right_is_named_with_the_command_that_grants_it(
    broker: LocalBroker, server: EmbeddedServer, tmp_path: Path
) -> None:
    """A worker without rights ends at once and names all of them; granted one by one, no other is needed.

    The doctor says the same, and neither waits in vain.
    """
    admin = Deployment.make(broker.address("PLAINTEXT"), server, tmp_path / "admin", partitions=2)
    ground_truth = write_traffic_to_kafka(MODEL, admin.settings)
    names = {name: getattr(admin.settings, name) for name in ("group", "rollups_topic", "database")}
    user = Deployment.without_topics(
        broker.address("USERS"), server, tmp_path / "user", topics=list(admin.settings.topics), **names,
        kafka=PROPERTIES | QUICK["kafka"],
    )  # fmt: skip
    group, (impressions, clicks) = user.settings.group, user.settings.topics
    wanted = {
        (f"topic {impressions}", "Read and DescribeConfigs"), (f"topic {clicks}", "Read and DescribeConfigs"),
        (f"topic {user.settings.rollups_topic}", "Read and Write"), (f"group {group}", "Read"),
        (f"groups {group}-pages-*", "Read"),
    }  # fmt: skip

    refused = adledger(tmp_path / "refused", *user.arguments("--until-caught-up"))
    assert refused.process.returncode != 0
    rights = re.findall(rf"User:{USER} lacks the right (.+) on the (.+)", refused.err)
    assert {(resource, operations) for operations, resource in rights} == wanted
    assert "Traceback" not in refused.err
    doctor = adledger(tmp_path / "doctor", "doctor", "--config", str(user.folder / "adledger.toml"))
    assert doctor.process.returncode == 1
    assert all(f"lacks the right {operations}" in doctor.out + doctor.err for _, operations in wanted)

    async def lacking() -> list[str]:
        found = (await check_topics(user.settings, Role.WORKER)).findings
        return [finding.remedy for finding in found if finding.remedy.startswith("kafka-acls.sh")]

    remedies = asyncio.run(lacking())
    while remedies:
        grant(broker, remedies[0])
        assert asyncio.run(lacking()) == remedies[1:]
        remedies = remedies[1:]
    user.run_to_the_end("worker")
    user.assert_expected(ground_truth)


@pytest.mark.slow
def test_one_missing_right_is_named_alone(
    broker: LocalBroker, server: EmbeddedServer, tmp_path: Path
) -> None:
    """With every right but one, a worker does not start, and its error and the doctor name exactly that one."""
    admin = Deployment.make(broker.address("PLAINTEXT"), server, tmp_path / "admin", partitions=1)
    names = {name: getattr(admin.settings, name) for name in ("group", "rollups_topic", "database")}
    user = Deployment.without_topics(
        broker.address("USERS"), server, tmp_path / "user", topics=list(admin.settings.topics), **names,
        kafka=PROPERTIES | QUICK["kafka"],
    )  # fmt: skip

    async def lacking() -> list[str]:
        found = (await check_topics(user.settings, Role.WORKER)).findings
        return [
            finding.remedy
            for finding in found
            if finding.remedy.startswith("kafka-acls.sh") and not finding.advice
        ]

    for remedy in asyncio.run(lacking()):
        grant(broker, remedy)
    asyncio.run(require_fit_topics(user.settings, Role.WORKER))
    group, rollups, clicks = user.settings.group, user.settings.rollups_topic, user.settings.topics[1]
    for operation, lacking_operations, resource, arguments in (
        # Brokers report no rights on a topic that a user may neither read, write nor describe.
        ("Read", "Read and DescribeConfigs", f"the topic {clicks}", ("--topic", clicks)),
        ("DescribeConfigs", "DescribeConfigs", f"the topic {clicks}", ("--topic", clicks)),
        ("Read", "Read", f"the group {group}", ("--group", group)),
        ("Read", "Read", f"the groups {group}-pages-*",
         ("--group", f"{group}-pages-", "--resource-pattern-type", "prefixed")),
        ("Write", "Write", f"the topic {rollups}", ("--topic", rollups)),
        ("Read", "Read", f"the topic {rollups}", ("--topic", rollups)),
    ):  # fmt: skip
        right = ("--allow-principal", f"User:{USER}", "--operation", operation, *arguments)
        change(broker, ("--remove", "--force", *right))
        missing_right = f"User:{USER} lacks the right {lacking_operations} on {resource}"
        with pytest.raises(LogError) as refused:
            asyncio.run(require_fit_topics(user.settings, Role.WORKER))
        assert refused.value.message.count("lacks the right") == 1
        assert missing_right in refused.value.message
        doctor = CliRunner().invoke(app, ["doctor", "--config", str(user.folder / "adledger.toml")])
        assert doctor.exit_code == 1
        assert doctor.output.count("lacks the right") == 1
        assert missing_right in " ".join(doctor.output.split())
        change(broker, ("--add", *right))
    asyncio.run(require_fit_topics(user.settings, Role.WORKER))


def test_an_import_needs_other_rights(broker: LocalBroker, server: EmbeddedServer, tmp_path: Path) -> None:
    """It needs Write on the event topics, and nothing of the workers' group."""
    made = Deployment.without_topics(broker.address("USERS"), server, tmp_path, kafka=PROPERTIES)
    admin = made.settings.model_copy(
        update={"source": type(made.settings.source)((broker.address("PLAINTEXT"),)), "kafka": {}}
    )
    asyncio.run(create_topics(admin, partitions=1))
    found = asyncio.run(check_topics(made.settings, Role.PRODUCER)).findings
    lacking = [finding.message.partition("lacks the right ")[2] for finding in found if not finding.advice]
    assert lacking == [
        *(f"Write and DescribeConfigs on the topic {topic}" for topic in made.settings.topics),
        f"Describe on the topic {made.settings.rollups_topic}",
    ]
