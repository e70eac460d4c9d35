"""Access logs: the client is the one that the line names, whichever server wrote it, or the line is refused."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.access_hits import any_time_ms
from adledger.pipeline.importing.access_log import AccessLog
from adledger.pipeline.importing.line_layout import compiled
from adledger.pipeline.importing.records import FieldError

AT = 1_795_946_401_000  # 2026-11-29T10:00:01Z
TIME = "[29/Nov/2026:10:00:01 +0000]"
REST = '"GET /p HTTP/1.1" 200 10 "https://x.jp/" "curl/8"'
COMBINED = f"126.1.2.3 - - {TIME} {REST}"


def parsed(*lines: str, **how: Any) -> list[tuple[str, int, str, str] | str]:
    """Return (client, time, user agent, page) of each line, or why it can't be read."""
    records = AccessLog(**how).parse([line.encode() for line in lines], 1)
    found = []
    for record in records:
        if record.problem:
            found.append(record.problem)
            continue
        event = orjson.loads(record.value)
        assert record.key == event["ip"].encode()
        found.append((event["ip"], event["event_time"], event["user_agent"], event["page_url"]))
    return found


@pytest.mark.parametrize(
    "line",
    [
        COMBINED,
        COMBINED.replace("- -", "- frank"),
        COMBINED.replace("- -", "- John Smith"),
        COMBINED + " 0.005",
        COMBINED + ' "-" 0.005 - "10.0.0.9:8080"',
        COMBINED + ' "126.1.2.3"',
        f"www.example.jp:443 {COMBINED}",
        f"www.example.jp {COMBINED}",
        f"www.example.jp:80 {COMBINED} 512 1024",
    ],
)  # fmt: skip
def test_combined_and_its_variants(line):
    """The formats combined and vhost_combined are read, also with further fields at the end."""
    assert parsed(line) == [("126.1.2.3", AT, "curl/8", "https://x.jp/")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"126.200.0.5 {COMBINED}", "two addresses before the time"),
        (f"126.200.0.5:443 {COMBINED}", "two addresses before the time"),
        (COMBINED.replace("- -", "- 126.9.9.9"), "two addresses before the time"),
        (f'{COMBINED} "203.0.113.7"', "203.0.113.7 follows the user agent"),
        (f'{COMBINED} "203.0.113.7, 126.1.2.3"', "203.0.113.7 follows the user agent"),
        (f'{COMBINED} "for=203.0.113.7;proto=https"', "203.0.113.7 follows the user agent"),
        (COMBINED.replace("- -", "- - -"), "fields before the time, not the 3"),
        (COMBINED.replace("126.1.2.3", "crawl.example.com"), "turn HostnameLookups off"),
        (COMBINED.replace("126.1.2.3", "126.1.2.3, 10.0.0.1"), "two addresses before the time"),
        (COMBINED.replace("126.1.2.3", "126.1.2.3:4711"), "an address without a port"),
        (COMBINED.replace("126.1.2.3", "-"), "the client is '-', not an address"),
        (COMBINED.removesuffix('"'), "a quote is not closed"),
        (COMBINED.replace(' "https://x.jp/" "curl/8"', ""), "the common format, not combined"),
        (COMBINED.replace("29/Nov", "31/Feb"), "the time is '31/Feb/2026"),
    ],
)
def test_a_client_is_never_guessed(line, why):
    """Where another address could be the client's, or the first field is not an address, the line is refused with the
    reason.
    """
    [found] = parsed(line)
    assert isinstance(found, str)
    assert why in found


NGINX_MAIN = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" '
    '"$http_user_agent" "$http_x_forwarded_for"'
)
APACHE = '%h %l %u %t \\"%r\\" %>s %b \\"%{Referer}i\\" \\"%{User-Agent}i\\" %D'


@pytest.mark.parametrize(
    ("line_format", "line"),
    [
        (NGINX_MAIN, COMBINED + ' "-"'),
        (NGINX_MAIN, COMBINED + ' "126.1.2.3"'),
        (APACHE, COMBINED + " 5123"),
        ('%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i"', f"w.jp:443 {COMBINED}"),
        ('$server_addr $remote_addr [$time_iso8601] "$http_referer" "$http_user_agent"',
         '10.0.0.1 126.1.2.3 [2026-11-29T10:00:01+00:00] "https://x.jp/" "curl/8"'),
        ('$msec|$remote_addr|"$http_user_agent"|$http_referer', '1795946401.000|126.1.2.3|"curl/8"|https://x.jp/'),
        ("${remote_addr}\t$time_iso8601\t$http_user_agent\t$http_referer",
         "126.1.2.3\t2026-11-29T19:00:01+09:00\tcurl/8\thttps://x.jp/"),
        ('%a %{msec}t "%{User-Agent}i" "%{Referer}i"', f'126.1.2.3 {AT} "curl/8" "https://x.jp/"'),
    ],
)  # fmt: skip
def test_line_formats_of_nginx_and_apache(line_format, line):
    """The server's own format string reads its lines."""
    assert parsed(line, line_format=line_format) == [("126.1.2.3", AT, "curl/8", "https://x.jp/")]


def test_a_proxys_header_that_names_another_client_is_refused():
    """The line is refused until the operator says which field is the client; a list of addresses does not."""
    line = COMBINED + ' "203.0.113.7"'
    [found] = parsed(line, line_format=NGINX_MAIN)
    assert "--client-field http_x_forwarded_for" in found
    for field, client in (("remote_addr", "126.1.2.3"), ("http_x_forwarded_for", "203.0.113.7")):
        [hit] = parsed(line, line_format=NGINX_MAIN, client_field=field)
        assert hit[0] == client
    [found] = parsed(
        COMBINED + ' "203.0.113.7, 10.0.0.1"', line_format=NGINX_MAIN, client_field="http_x_forwarded_for"
    )
    assert "one address" in found


@pytest.mark.parametrize(
    ("line_format", "why"),
    [
        ("no fields", "names no field"),
        ("$remote_addr$time_local", "nothing separates"),
        ("$time_local $status", "has no field $remote_addr"),
        ("$remote_addr $status", "has no time"),
        ("$remote_addr [$time_local] $http_user_agent $status", "$http_user_agent may contain blanks"),
        ("%h %{%Y}t", "%{%Y}t is not supported"),
        ("%h %Z", "%Z is not supported"),
    ],
)
def test_unusable_line_formats_are_refused(line_format, why):
    """A format that does not determine a field's end, the client or the time is refused before a file is opened."""
    with pytest.raises(UsageError) as refused:
        AccessLog(line_format=line_format)
    assert why in refused.value.message
    assert refused.value.remedy


@given(st.text(alphabet='abc "\\|1.[]\t', max_size=30), st.text(alphabet='abc "\\|1.[]\t', max_size=30))
def test_what_a_client_sends_shifts_no_field(agent, page):
    """Whatever the quoted fields contain, escaped as servers do, the client is the connection's."""
    escape = str.maketrans({'"': "\\x22", "\\": "\\\\"})
    line = f'126.1.2.3 - - {TIME} "GET /" 200 1 "{page.translate(escape)}" "{agent.translate(escape)}" "-"'
    for how in ({}, {"line_format": NGINX_MAIN}):
        [found] = parsed(line, **how)
        assert isinstance(found, str) or found[0] == "126.1.2.3"


JSON = {"remote_addr": "126.1.2.3", "time_iso8601": "2026-11-29T10:00:01+00:00", "http_user_agent": "curl/8",
        "http_referer": "https://x.jp/", "status": 200}  # fmt: skip
CADDY = {"ts": 1_795_946_401.0, "request": {"remote_ip": "126.1.2.3", "client_ip": "126.1.2.3", "headers":
         {"User-Agent": ["curl/8"], "Referer": ["https://x.jp/"]}}}  # fmt: skip
TRAEFIK = {"ClientAddr": "126.1.2.3:51234", "ClientHost": "126.1.2.3", "StartUTC": "2026-11-29T10:00:01.000000001Z",
           "request_User-Agent": "curl/8", "request_Referer": "https://x.jp/"}  # fmt: skip
GOOGLE = {"timestamp": "2026-11-29T10:00:01Z", "httpRequest": {"remoteIp": "126.1.2.3", "userAgent": "curl/8",
          "referer": "https://x.jp/", "serverIp": "10.0.0.1"}}  # fmt: skip


@pytest.mark.parametrize("event", [JSON, CADDY, TRAEFIK, GOOGLE], ids=["nginx", "caddy", "traefik", "google"])
def test_json_lines(event):
    """JSON lines are read as nginx (escape=json), Caddy, Traefik and Google's load balancer write them."""
    assert parsed(orjson.dumps(event).decode()) == [("126.1.2.3", AT, "curl/8", "https://x.jp/")]


def test_json_lines_with_two_clients_are_refused_until_one_is_named():
    """Lines with a forwarded address, or with Caddy's two addresses, are refused until the operator names the field."""
    two = orjson.dumps(JSON | {"http_x_forwarded_for": "203.0.113.7"}).decode()
    [found] = parsed(two)
    assert "--client-field" in found
    [hit] = parsed(two, client_field="http_x_forwarded_for")
    assert hit[0] == "203.0.113.7"
    other = orjson.dumps({"peer": "126.1.2.3", "time": "2026-11-29T10:00:01Z"}).decode()
    assert "no field for the client's address" in parsed(other)[0]
    assert parsed(other, client_field="peer") == [("126.1.2.3", AT, "", "")]


ALB = (
    "h2 2026-11-29T10:00:01.000000Z app/my-lb/50dc6c495c0c9188 126.1.2.3:2817 10.0.0.1:80 0.000 0.001 0.000 200 200 34 366 "
    '"GET https://www.example.com:443/ HTTP/2.0" "curl/8" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 '
    'arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/t/73e2 "Root=1-58337262-36d2" "www.example.com" '
    '"arn:aws:acm:c" 0 2026-11-29T10:00:00.900000Z "forward" "-" "-" "10.0.0.1:80" "200" "-" "-"'
)
CLOUDFRONT = (
    "#Version: 1.0",
    "#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) x-forwarded-for",
    "2026-11-29\t10:00:01\tLAX1\t392\t126.1.2.3\tGET\td.cloudfront.net\t/i\t200\thttps://x.jp/\tMozilla/5.0%20(X)\t-",
)  # fmt: skip


def test_load_balancers_and_cloudfront():
    """ALB's client has a port; CloudFront's header names its columns, and its strings are URL-encoded."""
    assert parsed(ALB) == [("126.1.2.3", AT, "curl/8", "")]
    assert parsed(*CLOUDFRONT) == [("126.1.2.3", AT, "Mozilla/5.0 (X)", "https://x.jp/")]
    moved = (
        CLOUDFRONT[1].replace("c-ip cs-method", "cs-method c-ip"),
        CLOUDFRONT[2].replace("126.1.2.3\tGET", "GET\t126.1.2.3"),
    )
    assert parsed(*moved)[0][0] == "126.1.2.3", "by name, not by place"
    assert (
        "x-forwarded-for is '203.0.113.7'"
        in parsed(CLOUDFRONT[1], CLOUDFRONT[2].replace("\t-", "\t203.0.113.7"))[0]
    )
    assert "no #Fields: line" in parsed(CLOUDFRONT[2] + "\n", *CLOUDFRONT[1:])[0]


@pytest.mark.parametrize(
    "text", ["", "now", "2026-13-01T00:00:00Z", "29/Nov/2026:25:00:00 +0000", "-1", "1e9", "1795946401000"]
)
def test_ambiguous_times_are_refused(text):
    """Milliseconds are not taken for seconds, nor a time without a zone for UTC."""
    with pytest.raises(FieldError):
        any_time_ms(text)


@given(
    st.text(max_size=80), st.sampled_from(['$remote_addr [$time_local] "$http_user_agent"', NGINX_MAIN, None])
)
def test_no_line_stops_the_import(text, line_format):
    """Bad input is data."""
    parsed(*text.split("\n"), COMBINED, line_format=line_format)


def test_a_long_bad_line_is_read_in_linear_time():
    """No expression backtracks: 256 KiB of almost valid input is done at once (pytest's timeout is the check)."""
    for filler in (" ", "[", '"', "\\", "a ", "1.2.3.4 ", '" "'):
        line = f"126.1.2.3 - - {TIME} " + filler * (262_144 // len(filler))
        parsed(line)
        parsed(line, line_format=NGINX_MAIN)
        parsed(filler * (262_144 // len(filler)), line_format=NGINX_MAIN)
    assert compiled(NGINX_MAIN).fields >= {"remote_addr", "time_local"}
