"""Commands that remedies name, made complete: what named the deployment by flags must be given again."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from adledger.pipeline.errors import AdledgerError

if TYPE_CHECKING:
    from adledger.pipeline.settings_layers import LoadedSettings

Flags = Mapping[str, str]
"""A command as remedies name it -> what stands behind it."""

_OPTIONS = ("source", "clickhouse", "database", "group")
"""Settings with an option of their own in the commands below; others are given by --set."""

_TOPICS = ("source", "topics", "rollups_topic", "log_time", "kafka")
_LANES = ("source", "clickhouse", "database", "group", "topics", "kafka")
_SETTINGS = {
    "adledger topics create": _TOPICS,
    "adledger topics check": _TOPICS,
    "adledger migrate": ("clickhouse", "database", "cluster"),
    "adledger lane status": _LANES,
    "adledger lane skip": _LANES,
    "adledger lane resolve": _LANES,
    "adledger lane repartition": _LANES,
}
"""The commands of remedies that meet a deployment, and the settings that lead them to it."""


def command_flags(loaded: "LoadedSettings", config_file: Path | None) -> Flags:
    """Return what each command needs to meet the same deployment. Secrets are not repeated, but shown as ***."""
    from adledger.pipeline.settings_layers import masked

    values = {
        name: getattr(loaded.settings, name) for name in loaded.origins if not name.startswith("kafka.")
    }
    values |= {f"kafka.{name}": value for name, value in loaded.settings.kafka.items()}

    def again(name: str) -> str:
        text = masked(name, values[name])
        return (
            f"--{name} {shlex.quote(text)}" if name in _OPTIONS else f"--set {shlex.quote(f'{name}={text}')}"
        )

    by_flag = [name for name, origin in loaded.origins.items() if origin.startswith("flag")]
    config = [f"--config {shlex.quote(str(config_file))}"] if config_file else []
    return {
        command: " ".join([*config, *(again(n) for n in by_flag if n.partition(".")[0] in wanted)])
        for command, wanted in _SETTINGS.items()
    }


def complete(text: str, flags: Flags) -> str:
    """Return a text with the flags behind each command that it names."""
    for command, given in flags.items():
        if given:
            text = text.replace(command, f"{command} {given}")
    return text


@contextmanager
def completed(flags: Flags) -> Iterator[None]:
    """Complete the commands in whatever error for people the block raises."""
    try:
        yield
    except AdledgerError as error:
        error.message, error.remedy = complete(error.message, flags), complete(error.remedy, flags)
        raise
