"""ClickHouse's address: TLS and the password file in one string, and what is refused before any connection."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.addresses import ServerAddress, Tls, parse_clickhouse
from adledger.pipeline.errors import SinkUnavailable
from adledger.sinks.secure import driver_options, login_password, tls_context

PATHS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1).map(
    lambda name: Path("/") / name
)
NAMES = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True)


@st.composite
def tls(draw):
    certificate = draw(st.none() | PATHS)
    key = draw(st.none() | PATHS) if certificate else None
    return Tls(draw(st.none() | PATHS), certificate, key, draw(st.none() | NAMES), draw(st.booleans()))


@given(tls=tls(), password_file=st.none() | PATHS)
def test_an_address_round_trips(tls, password_file):
    """str() of an address is the address, including files and names, except for a password."""
    address = ServerAddress("h", 9440, 8443, "u", secure=True, tls=tls, password_file=password_file)
    assert parse_clickhouse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clickhouse://h/?ca=/ca.pem", "without secure=1"),
        ("clickhouse://h/?secure=1&key=/k", "certificate"),
        ("clickhouse://u:p4ss@h/?password_file=/f", "leave one of them out"),
        ("clickhouse://h/?secure=1&ca=", "not understood"),
        ("clickhouse://h/?password=s3cret", r"password=\*\*\*"),
    ],
)
def test_contradictions_are_refused_without_showing_a_secret(text, words):
    """Parts that would be ignored or contradict each other are refused."""
    with pytest.raises(ValueError, match=words) as refused:
        parse_clickhouse(text)
    assert "s3cret" not in str(refused.value)
    assert "p4ss" not in str(refused.value)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")))
def test_a_password_file_holds_the_password_alone(password):
    """A last line break does not matter, and the next connection reads a rotated password."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "password"
        for end in ("", "\n", "\r\n"):
            path.write_bytes((password + end).encode())
            assert login_password(ServerAddress("h", 1, 2, password_file=path)) == password


def test_files_that_cannot_be_used_are_named(tmp_path):
    """For a CA that is missing or not PEM, or an unreadable password, the error has the file's name and a remedy."""
    (tmp_path / "text").write_text("no pem")
    for wrong in (Tls(ca=tmp_path / "none"), Tls(ca=tmp_path / "text"), Tls(certificate=tmp_path / "text")):
        with pytest.raises(SinkUnavailable, match=str(tmp_path)) as refused:
            tls_context(wrong)
        assert (refused.value.refused, bool(refused.value.remedy)) == (True, True)
    with pytest.raises(SinkUnavailable, match="none"):
        login_password(ServerAddress("h", 1, 2, password_file=tmp_path / "none"))


def test_names_and_certificates_are_checked_by_default():
    """By default only a certificate for the host, by a trusted CA, is accepted."""
    context = tls_context(Tls())
    assert (context.check_hostname, context.verify_mode.name) == (True, "CERT_REQUIRED")
    assert driver_options(Tls())["verify"] is True
    assert driver_options(Tls(verify=False))["verify"] is False
