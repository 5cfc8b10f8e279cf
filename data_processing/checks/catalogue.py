"""Every check by name: what it looks at, what it finds, what happens then, and what a reader should
do. Data only; the SQL is elsewhere.

Levels: a `row` check judges a raw row (`fail`: the row goes to quarantine and its pool goes on;
`warn`: the row is used and counted); a `pool_day` or `batch` check judges what a run is about to
commit (`fail`: nothing is committed and the run is `blocked`; `warn`: the ledger says so).
Conditions of rows are in `row_checks`, queries of the other levels in `commit_checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.errors import ConfigurationError
from config_spark import Settings
from database.commit_checks import Level, Severity
from database.ledger.runs import Acceptance


@dataclass(frozen=True)
class Check:
    """`words` say what is wrong with what it finds; `{setting}` in them is a limit. `fixed` says
    why its severity can't be changed, or is None.
    """

    name: str
    level: Level
    severity: Severity
    words: str
    fixed: str | None = None


NO_CALENDAR = "no calendar has a place for such a row"
NOTHING_TO_USE = "there is nothing in such a row to use"
HAS_A_LIMIT = "change its limit instead"
NEVER_RIGHT = "no metric or forecast can be made of it"
FOREIGN_KEY = "the foreign key of `pool_daily_metrics` lets no metric of such a pool in"
PUT_AWAY = "`load` it with another value or moment to have it in use"
REPLACED = "the row that `quarantine replay` made of it is what counts"
REFUSED = "such a row can't be stored"

_ROWS = (
    Check("timestamp_missing", "row", "fail", "it has no timestamp", NO_CALENDAR),
    Check(
        "timestamp_before_2018",
        "row",
        "fail",
        "its timestamp is before 2018, when no pool existed: a unit or a parsing error",
        NO_CALENDAR,
    ),
    Check(
        "timestamp_in_future",
        "row",
        "fail",
        "its timestamp was in the future when the run read it",
        NO_CALENDAR,
    ),
    Check("apy_and_tvl_missing", "row", "fail", "it has neither an APY nor a TVL", NOTHING_TO_USE),
    Check("apy_infinite", "row", "fail", "its APY is infinite"),
    Check("apy_not_a_number", "row", "fail", "its APY is no number"),
    Check("tvl_infinite", "row", "fail", "its TVL is infinite"),
    Check("tvl_not_a_number", "row", "fail", "its TVL is no number"),
    Check(
        "apy_beyond_limit",
        "row",
        "fail",
        "its APY is beyond MAX_APY_PERCENT ({max_apy_percent:,.0f} %)",
        HAS_A_LIMIT,
    ),
    Check("tvl_negative", "row", "fail", "its TVL is negative", NEVER_RIGHT),
    Check(
        "tvl_beyond_limit",
        "row",
        "fail",
        "its TVL is beyond MAX_TVL_USD ({max_tvl_usd:,.0f} USD)",
        HAS_A_LIMIT,
    ),
    Check(
        "apy_and_tvl_unusable",
        "row",
        "fail",
        "neither its APY nor its TVL can be used",
        NOTHING_TO_USE,
    ),
    Check(
        "pool_not_in_pools",
        "row",
        "fail",
        "its pool has no row in `pools`, to which `pool_daily_metrics` has a foreign key",
        FOREIGN_KEY,
    ),
    Check(
        "row_dropped",
        "row",
        "fail",
        "it would pass by now, and `quarantine drop` has put it away for good",
        PUT_AWAY,
    ),
    Check(
        "row_replaced",
        "row",
        "fail",
        "it would pass by now, and `quarantine replay` has put a corrected row in its place",
        REPLACED,
    ),
    Check(
        "timestamp_before_2009",
        "row",
        "fail",
        "its day is before 2009, when no coin existed: a unit or a parsing error",
        NEVER_RIGHT,
    ),
    Check("symbol_missing", "row", "fail", "it has no symbol", NEVER_RIGHT),
    Check("price_missing", "row", "fail", "it has no closing price", NOTHING_TO_USE),
    Check("price_infinite", "row", "fail", "its price is infinite", NEVER_RIGHT),
    Check("price_not_a_number", "row", "fail", "its price is no number", NEVER_RIGHT),
    Check("price_not_positive", "row", "fail", "its price is zero or negative", NEVER_RIGHT),
    Check(
        "price_beyond_limit",
        "row",
        "fail",
        "its price is beyond MAX_PRICE_USD ({max_price_usd:,.0f} USD)",
        HAS_A_LIMIT,
    ),
    Check("gas_infinite", "row", "fail", "its gas price is infinite", NEVER_RIGHT),
    Check("gas_not_a_number", "row", "fail", "its gas price is no number", NEVER_RIGHT),
    Check("gas_negative", "row", "fail", "its gas price is negative", NEVER_RIGHT),
    Check("gas_beyond_limit", "row", "fail", "its gas price is beyond a million gwei", NEVER_RIGHT),
)

_INCOMING = (
    Check(
        "timestamp_unusable",
        "row",
        "fail",
        "`load` or `ingest` could not read its timestamp",
        REFUSED,
    ),
    Check("not_an_object", "row", "fail", "`ingest` got something that is no JSON object", REFUSED),
    Check("pool_id_missing", "row", "fail", "it has no pool id", REFUSED),
    Check(
        "value_beyond_column",
        "row",
        "fail",
        "`load` found a number or a text in it that the table's column does not take",
        REFUSED,
    ),
    Check("gas_missing", "row", "fail", "`load` found no gas price in it", REFUSED),
    Check(
        "symbol_unusable",
        "row",
        "fail",
        "its symbol is no coin, or a coin's price in something else than USD",
        REFUSED,
    ),
    Check(
        "another_row_of_that_pool",
        "row",
        "fail",
        "a later line of the same file says something else of that pool",
        REFUSED,
    ),
    Check(
        "another_row_of_that_day",
        "row",
        "fail",
        "a later line of the same file says something else for that day",
        REFUSED,
    ),
    Check(
        "wrong_number_of_values",
        "row",
        "fail",
        "it has more or fewer values than the file has columns",
        REFUSED,
    ),
)

_COMMITS = (
    Check(
        "spike",
        "pool_day",
        "warn",
        "APY or TVL jumped by more than MAX_SPIKE_FACTOR ({max_spike_factor:g} times) and was back"
        " at the next snapshot, all within SPIKE_WINDOW_HOURS ({spike_window_hours:g} h)",
    ),
    Check("unknown_pool", "batch", "warn", "it has raw rows and no row in `pools`"),
    Check(
        "many_pools_missing",
        "batch",
        "fail",
        "of the pools observed on the day before, more than MAX_MISSING_POOLS_SHARE"
        " ({max_missing_pools_share:.0%}) are missing",
    ),
    Check(
        "some_pools_missing",
        "batch",
        "warn",
        "of the pools observed on the day before, more than WARN_MISSING_POOLS_SHARE"
        " ({warn_missing_pools_share:.0%}) are missing",
    ),
    Check(
        "rows_far_below_yesterday",
        "batch",
        "fail",
        "fewer pools were observed than MIN_POOLS_RATIO ({min_pools_ratio:.0%}) of the day before",
    ),
    Check(
        "many_days_removed",
        "batch",
        "fail",
        "of the known days of its pools, more than MAX_REMOVED_DAYS_SHARE"
        " ({max_removed_days_share:.0%}) would lose their metrics",
    ),
    Check(
        "null_share",
        "batch",
        "fail",
        "of a column's values among the new days' observed rows, more than MAX_NULL_SHARE"
        " ({max_null_share:.0%}) are null",
    ),
)

CATALOGUE = {check.name: check for check in (*_ROWS, *_INCOMING, *_COMMITS)}

SEVERITIES = ("fail", "warn", "off")


def words(name: str, settings: Settings) -> str:
    """What the check finds, with today's limit; a reason of another version is said as it is."""
    return (
        CATALOGUE[name].words.format(**dict(settings))
        if name in CATALOGUE
        else f"`{name}`, a check that this version does not have"
    )


def changed_severities(settings: Settings) -> dict[str, str]:
    """CHECK_SEVERITIES by name: `fail`, `warn` or `off`.

    Raises: ConfigurationError naming what is not understood, not known or not to be changed, and
    what is allowed.
    """
    changed: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in settings.check_severities.split(","))):
        name, _, severity = (word.strip() for word in part.partition("="))
        if severity not in SEVERITIES:
            raise ConfigurationError(
                f"CHECK_SEVERITIES: {part!r} is wrong, write NAME=fail, NAME=warn or NAME=off, with"
                " commas between"
            )
        _require(
            name,
            (check.name for check in CATALOGUE.values() if check.fixed is None),
            "CHECK_SEVERITIES can't change",
        )
        changed[name] = severity
    return changed


def severity_of(name: str, settings: Settings) -> str:
    return changed_severities(settings).get(name, CATALOGUE[name].severity)


def accepting(names: Sequence[str], reason: str | None, by: str) -> Acceptance | None:
    """What `--accept-check NAME --reason TEXT` asks for; None where neither is given.

    Raises: ConfigurationError for a name that is not known or can't be accepted, and for one
    without the other.
    """
    acceptable = [check.name for check in _COMMITS]
    for name in names:
        _require(name, acceptable, "--accept-check can't accept")
    if names and not (reason or "").strip():
        raise ConfigurationError(
            f"--accept-check {names[0]} needs --reason TEXT: the ledger keeps who let the run"
            " through, and why"
        )
    if reason is not None and not names:
        raise ConfigurationError(
            "--reason goes with --accept-check NAME: name the check that this run may fail"
        )
    return Acceptance(tuple(names), by, reason.strip()) if reason else None


def _require(name: str, allowed: Iterable[str], refusal: str) -> None:
    allowed = list(allowed)
    if name in allowed:
        return
    known = CATALOGUE.get(name)
    if known is None:
        why = "there is no such check"
    else:
        why = (
            "it judges rows and blocks no run, see `quarantine list`"
            if known.fixed is None
            else known.fixed
        )
    raise ConfigurationError(f"{refusal} {name!r}: {why}. Allowed: {', '.join(allowed)}")
