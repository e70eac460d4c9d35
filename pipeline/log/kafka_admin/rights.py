"""The rights (ACLs) that a user of the brokers needs, which of them it lacks, and the commands that grant those.

Brokers report for every topic and group which operations they allow the requesting user. So all rights are checked before
anything depends on them, without trying any operation. Pure.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path

from cryptography import x509

from adledger.pipeline.findings import Finding

NOT_REPORTED = -(2**31)
"""A broker's answer where operations were not requested."""


class Operation(IntEnum):
    """Kafka's AclOperation codes: the bits of an answer's authorized operations."""

    READ = 3
    WRITE = 4
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10

    @property
    def tool_name(self) -> str:
        """The name for kafka-acls.sh."""
        return self.name.title().replace("_", "")


class Role(Enum):
    """A user's role, and the operations that it needs on event topics, on `rollups_topic`, and on groups."""

    WORKER = (
        (Operation.READ, Operation.DESCRIBE_CONFIGS), (Operation.READ, Operation.WRITE), (Operation.READ,)
    )  # fmt: skip
    PRODUCER = ((Operation.WRITE, Operation.DESCRIBE_CONFIGS), (Operation.DESCRIBE,), ())
    VIEWER = ((Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS), (Operation.DESCRIBE,), ())

    @property
    def of_events(self) -> Sequence[Operation]:
        """Operations on event topics."""
        return self.value[0]

    @property
    def of_rollups(self) -> Sequence[Operation]:
        """Operations on `rollups_topic`."""
        return self.value[1]

    @property
    def of_groups(self) -> Sequence[Operation]:
        """Operations on the workers' group, and on the groups of their pages."""
        return self.value[2]


@dataclass(frozen=True, slots=True)
class Resource:
    """A topic or group, or all groups whose names begin with `name`."""

    kind: str  # "topic" or "group", as kafka-acls.sh names it
    name: str
    prefixed: bool = False

    def __str__(self) -> str:
        return f"the {self.kind}s {self.name}*" if self.prefixed else f"the {self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Principal:
    """The current user, as the ACLs of the brokers at `servers` name it."""

    servers: str
    name: str

    def grant(self, resource: Resource, operations: Sequence[Operation]) -> str:
        """Return the command that allows it these operations."""
        return (
            f"{self._command()} "
            + "".join(f"--operation {operation.tool_name} " for operation in operations)
            + f"--{resource.kind} {shlex.quote(resource.name)}"
            + (" --resource-pattern-type prefixed" if resource.prefixed else "")
        )

    def grant_on_cluster(self, operation: Operation) -> str:
        """Return the command that allows it an operation on the cluster."""
        return f"{self._command()} --operation {operation.tool_name} --cluster"

    def _command(self) -> str:
        return f"kafka-acls.sh --bootstrap-server {self.servers} --add --allow-principal {shlex.quote(self.name)}"


def principal(servers: str, properties: Mapping[str, str]) -> Principal:
    """Return this user, by the [kafka] settings and the brokers' default mapping of certificates to names."""
    protocol = properties.get("security.protocol", "PLAINTEXT").upper()
    if protocol.startswith("SASL_"):
        return Principal(servers, f"User:{properties.get('sasl.username', 'NAME')}")
    if protocol == "SSL" and (certificate := properties.get("ssl.certificate.location")):
        return Principal(servers, f"User:{_subject(Path(certificate).expanduser())}")
    return Principal(servers, "User:ANONYMOUS")


def missing_rights(
    who: Principal, needed: Mapping[Resource, Sequence[Operation]], allowed: Mapping[Resource, int]
) -> Iterator[Finding]:
    """Yield the rights of `needed` that are missing; `allowed` are the brokers' operation bits for each resource."""
    for resource, operations in needed.items():
        bits = allowed.get(resource, NOT_REPORTED)
        lacking = [operation for operation in operations if not bits >> operation & 1]
        if bits != NOT_REPORTED and lacking:
            names = " and ".join(operation.tool_name for operation in lacking)
            yield Finding(f"{who.name} lacks the right {names} on {resource}", who.grant(resource, lacking))


def pages_groups(group: str) -> Resource:
    """Return the groups of workers' pages: one for each worker."""
    return Resource("group", f"{group}-pages-", prefixed=True)


def _subject(path: Path) -> str:
    """Return a certificate's subject as Java prints it (RFC 2253)."""
    return x509.load_pem_x509_certificate(path.read_bytes()).subject.rfc4514_string()
