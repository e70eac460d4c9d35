"""From planned records to rows: who sees which ad where, how its producer writes it, and its expected class.

Everything is drawn from the slot, its session, its user, its publisher's producer or its campaign, each with its own
counter. So a copy equals its first, a session keeps its user, and a producer keeps its habits.
"""

import numpy as np

from adledger.loadtest.traffic.kernels.arrive import HOUR_MS, click_delay, slot_base
from adledger.loadtest.traffic.kernels.draw import alias, below, draw, high, low, mix64, quantile
from adledger.loadtest.traffic.kernels.keys import (
    crc32_partition,
    key_partition,
    put_id,
    put_ip,
)
from adledger.loadtest.traffic.kernels.shapes import (
    CHANGE_CAMPAIGN,
    CHANGE_PAGE,
    CHANGE_PRICE,
    CHANGE_TIME,
    CHANGE_USER_AGENT,
    KEY_IP,
    KEY_NONE,
    KEY_USER,
    SENDS_COUNTRY,
    SENDS_CURRENCY,
    SENDS_FALSE_FLAGS,
    SENDS_PLACEMENT,
    SENDS_SIZE,
)
from adledger.pipeline.kernels.intrinsics import load64
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.schemas.classes import Class

IMPRESSION, CLICK = 1, 2
BILLABLE, DUPLICATE = int(Class.BILLABLE), int(Class.DUPLICATE)
EXPIRED, MALFORMED = int(Class.EXPIRED), int(Class.MALFORMED)

PUBLISHER_ID_FIRST = 1_000
CAMPAIGN_ID_FIRST = 5_000
PAGES_MAX = 60
_HOUSEHOLD = 2  # two users share an address
_CARRIER_ADDRESSES = 2_048  # public addresses of a carrier's NAT in a block
_HOT_USERS = 10
_ONE = np.uint64(1)

_SIZES = np.array([300, 250, 728, 90, 320, 50, 160, 600, 970, 250, 300, 600, 336, 280, 320, 100], np.int64)

# purposes of a slot beyond arrive's (which end below 8), of a session, a user, a producer and a campaign
P_SESSION, P_CAMPAIGN, P_WHERE, P_PRICE, P_TRANSPORT, P_LATE, P_EXPIRED = range(8, 15)
P_COOKIE, P_ROAM, P_CLICK_PRICE, P_KEYLESS = range(15, 19)  # P_KEYLESS takes 19 and 20 too
S_USER, S_MOBILE, S_AGENT, S_HOT, S_VISIT = range(1, 6)
U_COOKIE, U_HOME, U_CARRIER, U_NUMBER = range(1, 5)
R_FORM, R_ORDER, R_CLOCK, R_KEY, R_SENDS, R_IDS, R_CLICK_ID = range(1, 8)
C_KIND, C_PRICE, C_CURRENCY, C_CLICK_PRICE = range(1, 5)
_SESSION, _USER, _PRODUCER, _CAMPAIGN, _EVENT = (np.uint64(n << 56) for n in range(1, 6))


@inline_kernel
def _session(tb, base, slot_time):
    """Return (session, visit) bits: sessions of eight staggered windows share the slots of their time.

    A third of a window's slots goes to an eighth of its sessions, so that session lengths are heavy-tailed.
    """
    bits = draw(base, P_SESSION)
    stagger = low(bits) & 7
    into = slot_time - tb.start_ms + stagger * (tb.session_ms >> 3)
    window = into // tb.session_ms
    sessions = np.int64(load64(tb.sessions + 8 * min(window, tb.windows - 1)))
    if (low(bits) >> 3) % 3 == 0:
        sessions = max(np.int64(1), sessions >> np.int64(3))
    number = below(bits, sessions)
    session = mix64(_SESSION ^ tb.key ^ np.uint64((window << 3 | stagger) << 32 | number))
    visit = (into - window * tb.session_ms) * 3 // tb.session_ms
    return session, draw(session, S_VISIT + visit)


@inline_kernel
def _user(tb, session):
    bits = draw(session, S_USER)
    if low(draw(session, S_HOT)) < tb.hot_user_t:
        return below(bits, _HOT_USERS)
    return min(quantile(tb.q_users, high(bits)), tb.users - 1)


@inline_kernel
def _put_address(tb, row, user, mobile, roam):
    """Set the row's address and country: the household's address, or one of the carrier's. `roam`: another one."""
    if mobile:
        bits = draw(user, U_CARRIER)
        net = tb.networks + 32 * (tb.homes + alias(tb.a_carriers, tb.carriers, bits))
    else:
        bits = draw(user, U_HOME)
        net = tb.networks + 32 * alias(tb.a_homes, tb.homes, bits)
    bits = mix64(bits + np.uint64(roam))
    hi, lo, host_bits, what = load64(net), load64(net + 8), load64(net + 16), load64(net + 24)
    row.country = what & np.uint64(0xFFFF)
    row.ip6 = what >> np.uint64(16)
    if row.ip6:  # a household has a /64 in its block, of which one address is used
        row.ip_hi = hi | (bits & ((_ONE << (host_bits - np.uint64(64))) - _ONE))
        row.ip_lo = mix64(bits)
        return
    if mobile:
        bits %= np.uint64(_CARRIER_ADDRESSES)
    host = bits & ((_ONE << host_bits) - _ONE)
    last = host & np.uint64(255)
    if last == np.uint64(0) or last == np.uint64(255):
        host ^= np.uint64(37)
    row.ip_hi = 0
    row.ip_lo = lo | host


@inline_kernel
def _put_habits(tb, row, producer):
    """Set the producer's habits: ids, optional fields, spaces, order of fields."""
    row.long_ids = low(draw(producer, R_IDS)) < tb.long_ids_t
    row.spaced = low(draw(producer, R_FORM)) < tb.spaced_t
    order = draw(producer, R_ORDER)
    row.layout = 1 + below(order, tb.layouts - 1) if low(order) < tb.shuffled_t else 0
    sends = low(draw(producer, R_SENDS))
    row.sends = (
        (SENDS_CURRENCY if sends & 1 else 0)
        | (SENDS_COUNTRY if sends & 2 else 0)
        | (SENDS_SIZE if sends & 8 else 0)
        | (SENDS_PLACEMENT if sends & 64 else 0)
        | (SENDS_FALSE_FLAGS if sends & 1920 == 0 else 0)
    )


@inline_kernel
def _put_offer(tb, row, campaign_row, bits, click_bits):
    """Set campaign, advertiser, creative and price: per thousand impressions, per click, or both."""
    row.campaign_id = CAMPAIGN_ID_FIRST + campaign_row
    row.advertiser_id = 100 + campaign_row % 4_001
    row.creative_id = (CAMPAIGN_ID_FIRST + campaign_row) * 8 + (low(bits) & 7)
    campaign = mix64(_CAMPAIGN ^ tb.key ^ np.uint64(campaign_row))
    kind = low(draw(campaign, C_KIND)) % 10
    price = np.int64(0)
    if row.event_type == IMPRESSION:
        if kind != 0:
            base = quantile(tb.q_cpm, high(draw(campaign, C_PRICE)))
            price = base - (base >> 2) + (((base >> 1) * (high(bits) >> 12)) >> 20)
    elif kind < 4:
        base = quantile(tb.q_cpc, high(draw(campaign, C_CLICK_PRICE)))
        price = base - (base >> 2) + (((base >> 1) * (high(click_bits) >> 12)) >> 20)
    row.price_micros = price
    row.currency_code = tb.currency_code
    if low(draw(campaign, C_CURRENCY)) < tb.second_currency_t:
        row.currency_code = tb.second_currency_code
        row.sends |= SENDS_CURRENCY


@inline_kernel
def _put_times(tb, row, plan, base, producer):
    """Set event_time, by the producer's clock: log time minus the delay, which is long for late and expired records."""
    way = quantile(tb.q_transport, high(draw(base, P_TRANSPORT)))
    if plan.change != CHANGE_TIME:
        late = draw(base, P_LATE)
        if low(late) < tb.late_t:
            way += quantile(tb.q_late, high(late))
        old = draw(base, P_EXPIRED)
        if low(old) < tb.expired_t:
            way = tb.allowed_lateness_ms - HOUR_MS + below(old, 25 * HOUR_MS)
    clock = draw(producer, R_CLOCK)
    if low(clock) < tb.skewed_t and tb.skew_ms:
        way -= below(clock, 2 * tb.skew_ms + 1) - tb.skew_ms
    if abs(way - tb.allowed_lateness_ms) <= tb.margin_ms and tb.margin_ms:
        way += 2 * tb.margin_ms
    if plan.change == CHANGE_TIME:
        row.event_time = plan.log_time - way
    else:
        row.event_time = plan.slot_time - way + (click_delay(tb, base) if row.event_type == CLICK else 0)


@inline_kernel
def _put_route(tb, row, plan, base, producer, key):
    """Set key kind, partition, and whether that is the contract's partition; `key` is the address of scratch space."""
    if row.key_kind == KEY_USER:
        n = put_id(key, row.user_no, row.long_ids) - key
    else:
        n = put_ip(key, row.ip_hi, row.ip_lo, row.ip6) - key
    habit = draw(producer, R_KEY)
    right_key = (row.key_kind == KEY_USER) == (row.has_user != 0)
    if low(habit) < tb.keyless_t:
        row.key_kind = KEY_NONE
        row.partition = below(draw(base, P_KEYLESS + row.event_type), tb.partitions)
        row.misrouted = 1
        return
    right = key_partition(key, n, tb.partitions)
    row.partition = right
    if low(habit) < tb.keyless_t + tb.crc32_t:
        row.partition = crc32_partition(key, n, tb.partitions)
    row.misrouted = not right_key or row.partition != right


@inline_kernel
def _put_change(tb, row, plan):
    """Change the fields in which this copy differs from its first."""
    if plan.change == CHANGE_PRICE:
        row.price_micros += 1 + row.price_micros // 10
    elif plan.change == CHANGE_CAMPAIGN:
        row.campaign_id += 1
        row.creative_id += 8
    elif plan.change == CHANGE_PAGE:
        row.page_no += PAGES_MAX
    elif plan.change == CHANGE_USER_AGENT:
        row.user_agent = row.user_agent - 1 if row.user_agent else 1


@inline_kernel
def _put_truth(tb, row, plan):
    """Set class and money; a malformed record has none, and is never misrouted."""
    row.conflict = plan.conflict
    if plan.label == 1:
        row.class_code = MALFORMED
        row.misrouted = 0
        row.money_nanos = 0
        return
    row.money_nanos = np.int64(row.price_micros) * (1 if row.event_type == IMPRESSION else 1_000)
    if plan.duplicate:
        row.class_code = DUPLICATE
    elif plan.log_time - row.event_time > tb.allowed_lateness_ms:
        row.class_code = EXPIRED
    else:
        row.class_code = BILLABLE


@inline_kernel
def _put_user(tb, row, user, base, is_click):
    """Set the user and the kind of key; return 1 if a click without a user id comes from another address."""
    row.user_no = draw(user, U_NUMBER)
    row.has_user = low(draw(user, U_COOKIE)) >= tb.cookieless_t
    row.key_kind = KEY_USER if row.has_user else KEY_IP
    if is_click and not row.has_user:
        cookie = draw(base, P_COOKIE)
        if low(cookie) < tb.cookie_appears_t:
            row.has_user = 1
            row.key_kind = KEY_USER if high(cookie) & 1 else KEY_IP
        elif low(draw(base, P_ROAM)) < tb.roaming_t:
            return 1
    return 0


@inline_kernel
def _put_placement(row, publisher_row, visit, producer, where):
    """Set publisher, site, placement with its size, and page."""
    row.publisher_id = PUBLISHER_ID_FIRST + publisher_row
    row.site_id = (PUBLISHER_ID_FIRST + publisher_row) * 4 + (low(visit) >> 9) % 3
    row.placement_id = 1 + (low(where) & 7)
    size = ((low(where) & 7) + low(producer)) & 7
    row.width_px = _SIZES[2 * size]
    row.height_px = _SIZES[2 * size + 1]
    skewed = (high(where) * high(where)) >> 32
    row.page_no = (skewed * PAGES_MAX) >> 32


@kernel
def fill_rows(tb, plans, mine, scratch, rows):
    """Fill rows from PLANNED records, in their order, leaving out partitions p with mine[p] == 0; return how many.

    `rows` (ROW) has room for all of them, `scratch` (uint8) for a key and SLACK_BYTES.
    """
    key = np.int64(scratch.ctypes.data)
    n = 0
    for i in range(len(plans)):
        plan = plans[i]
        row = rows[n]
        base = slot_base(tb, plan.slot)
        is_click = plan.variant & 1
        session, visit = _session(tb, base, plan.slot_time)
        publisher_row = np.int64(0)
        if low(draw(visit, S_HOT)) >= tb.hot_publisher_t:
            publisher_row = alias(tb.a_publishers, tb.publishers, visit)
        producer = mix64(_PRODUCER ^ tb.key ^ np.uint64(publisher_row))
        user_no = _user(tb, session)
        user = mix64(_USER ^ tb.key ^ np.uint64(user_no))
        household = mix64(_USER ^ tb.key ^ np.uint64(user_no // _HOUSEHOLD + 1) << np.uint64(32))
        mobile = low(draw(session, S_MOBILE)) < tb.mobile_t
        roam = _put_user(tb, row, user, base, is_click)
        by_user = row.key_kind == KEY_USER
        _put_habits(tb, row, producer)
        if not by_user:
            _put_address(tb, row, user if mobile else household, mobile, roam)
        row.event_type = CLICK if is_click else IMPRESSION
        _put_route(tb, row, plan, base, producer, key)
        if mine[row.partition] == 0:
            continue

        if by_user:  # the key did not need the address
            _put_address(tb, row, user if mobile else household, mobile, roam)
        row.log_time = plan.log_time
        row.slot = plan.slot
        row.variant = plan.variant
        row.label = plan.label
        row.recipe = plan.recipe
        row.topic = is_click
        row.impression_no = mix64(_EVENT ^ tb.key ^ np.uint64(plan.slot))
        row.event_no = row.impression_no
        if is_click and low(draw(producer, R_CLICK_ID)) >= tb.click_reuses_id_t:
            row.event_no = mix64(_EVENT ^ tb.key ^ np.uint64(plan.slot) ^ np.uint64(1 << 55))
        _put_placement(row, publisher_row, visit, producer, draw(base, P_WHERE))
        agent = draw(session, S_AGENT)
        if mobile:
            row.user_agent = tb.desktops + alias(tb.a_phones, tb.phones, agent)
        else:
            row.user_agent = alias(tb.a_desktops, tb.desktops, agent)
        campaign_row = alias(tb.a_campaigns, tb.campaigns, draw(base, P_CAMPAIGN))
        _put_offer(tb, row, campaign_row, draw(base, P_PRICE), draw(base, P_CLICK_PRICE))
        _put_times(tb, row, plan, base, producer)
        _put_change(tb, row, plan)
        _put_truth(tb, row, plan)
        n += 1
    return n
