"""Lists every check by name, with its level, severity and message. Data only; the SQL is elsewhere.

A `row` check validates a raw row: a row that fails a `fail` check is quarantined, one that fails a
`warn` check is used and counted. A `pool_day` or `batch` check validates what a run is about to
commit: `fail` blocks the run and commits nothing, `warn` is recorded in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.errors import ConfigurationError
from config_spark import Settings
from database.ledger.check_result import Acceptance, Level, Severity


@dataclass(frozen=True)
class Check:
    """A check of the catalogue.

    Attributes:
        name: stored as the reason in quarantine and as the name in the ledger.
        level: row, pool_day or batch.
        severity: default; CHECK_SEVERITIES may change it.
        message: completes a sentence on the row or the run; `{setting}` is a limit.
        fixed_reason: why the severity can't be changed; None if it can.
    """

    name: str
    level: Level
    severity: Severity
    message: str
    fixed_reason: str | None = None


# reasons for a fixed severity
BELONGS_TO_NO_DAY = "such a row belongs to no day of a pool"
HAS_NO_VALUE = "such a row has no value to use"
HAS_LIMIT_SETTING = "change its limit instead"
IS_NEVER_VALID = "no metric or forecast can be computed from it"
VIOLATES_FOREIGN_KEY = "the foreign key of `pool_daily_metrics` accepts no metric of such a pool"
WAS_DROPPED = "`load` it with another value or timestamp to use it"
WAS_REPLACED = "the row that `quarantine replay` inserted in its place is used"
CANNOT_BE_STORED = "such a row can't be stored"

# their conditions are in `row_checks`
_ROWS = (
    Check("timestamp_missing", "row", "fail", "it has no timestamp", BELONGS_TO_NO_DAY),
    Check(
        "timestamp_before_2018",
        "row",
        "fail",
        "its timestamp is before 2018, when no pool existed: a unit or a parsing error",
        BELONGS_TO_NO_DAY,
    ),
    Check(
        "timestamp_in_future",
        "row",
        "fail",
        "its timestamp was in the future when the run read it",
        BELONGS_TO_NO_DAY,
    ),
    Check("apy_and_tvl_missing", "row", "fail", "it has neither an APY nor a TVL", HAS_NO_VALUE),
    Check("apy_infinite", "row", "fail", "its APY is infinite"),
    Check("apy_not_a_number", "row", "fail", "its APY is no number"),
    Check("tvl_infinite", "row", "fail", "its TVL is infinite"),
    Check("tvl_not_a_number", "row", "fail", "its TVL is no number"),
    Check(
        "apy_beyond_limit",
        "row",
        "fail",
        "its APY is beyond MAX_APY_PERCENT ({max_apy_percent:,.0f} %)",
        HAS_LIMIT_SETTING,
    ),
    Check("tvl_negative", "row", "fail", "its TVL is negative", IS_NEVER_VALID),
    Check(
        "tvl_beyond_limit",
        "row",
        "fail",
        "its TVL is beyond MAX_TVL_USD ({max_tvl_usd:,.0f} USD)",
        HAS_LIMIT_SETTING,
    ),
    Check(
        "apy_and_tvl_unusable",
        "row",
        "fail",
        "neither its APY nor its TVL can be used",
        HAS_NO_VALUE,
    ),
    Check(
        "pool_not_in_pools",
        "row",
        "fail",
        "its pool has no row in `pools`, to which `pool_daily_metrics` has a foreign key",
        VIOLATES_FOREIGN_KEY,
    ),
    Check(
        "row_dropped",
        "row",
        "fail",
        "it passes the checks, but `quarantine drop` has closed it without use",
        WAS_DROPPED,
    ),
    Check(
        "row_replaced",
        "row",
        "fail",
        "it passes the checks, but `quarantine replay` has inserted a corrected row in its place",
        WAS_REPLACED,
    ),
    Check(
        "timestamp_before_2009",
        "row",
        "fail",
        "its day is before 2009, when no coin existed: a unit or a parsing error",
        IS_NEVER_VALID,
    ),
    Check("symbol_missing", "row", "fail", "it has no symbol", IS_NEVER_VALID),
    Check("price_missing", "row", "fail", "it has no closing price", HAS_NO_VALUE),
    Check("price_infinite", "row", "fail", "its price is infinite", IS_NEVER_VALID),
    Check("price_not_a_number", "row", "fail", "its price is no number", IS_NEVER_VALID),
    Check("price_not_positive", "row", "fail", "its price is zero or negative", IS_NEVER_VALID),
    Check(
        "price_beyond_limit",
        "row",
        "fail",
        "its price is beyond MAX_PRICE_USD ({max_price_usd:,.0f} USD)",
        HAS_LIMIT_SETTING,
    ),
    Check("gas_infinite", "row", "fail", "its gas price is infinite", IS_NEVER_VALID),
    Check("gas_not_a_number", "row", "fail", "its gas price is no number", IS_NEVER_VALID),
    Check("gas_negative", "row", "fail", "its gas price is negative", IS_NEVER_VALID),
    Check(
        "gas_beyond_limit", "row", "fail", "its gas price is beyond a million gwei", IS_NEVER_VALID
    ),
)

# reasons of `load` and `ingest`: such a row never reaches a raw table
_INCOMING = (
    Check(
        "timestamp_unusable",
        "row",
        "fail",
        "`load` or `ingest` could not read its timestamp",
        CANNOT_BE_STORED,
    ),
    Check(
        "not_an_object",
        "row",
        "fail",
        "`ingest` got something that is no JSON object",
        CANNOT_BE_STORED,
    ),
    Check("pool_id_missing", "row", "fail", "it has no pool id", CANNOT_BE_STORED),
    Check(
        "value_beyond_column",
        "row",
        "fail",
        "`load` found a number or a text in it that the table's column does not take",
        CANNOT_BE_STORED,
    ),
    Check("gas_missing", "row", "fail", "`load` found no gas price in it", CANNOT_BE_STORED),
    Check(
        "symbol_unusable",
        "row",
        "fail",
        "its symbol is no coin, or a coin's price in something else than USD",
        CANNOT_BE_STORED,
    ),
    Check(
        "another_row_of_that_pool",
        "row",
        "fail",
        "a later line of the same file has other values for that pool",
        CANNOT_BE_STORED,
    ),
    Check(
        "another_row_of_that_day",
        "row",
        "fail",
        "a later line of the same file has other values for that day",
        CANNOT_BE_STORED,
    ),
    Check(
        "wrong_number_of_values",
        "row",
        "fail",
        "it has more or fewer values than the file has columns",
        CANNOT_BE_STORED,
    ),
)

# their queries are in `commit.metrics_checks`
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


def check_message(name: str, settings: Settings) -> str:
    """Return the message of a check with the current limits.

    Args:
        name: name of a check; a reason of another version gets a message of its own.
        settings: limits.
    """
    if name not in CATALOGUE:
        return f"`{name}`, a check that this version does not have"
    return CATALOGUE[name].message.format(**dict(settings))


def changed_severities(settings: Settings) -> dict[str, str]:
    """Parse CHECK_SEVERITIES.

    Args:
        settings: the setting, as NAME=fail, NAME=warn or NAME=off separated by commas.

    Returns:
        `fail`, `warn` or `off` by check name.

    Raises:
        ConfigurationError: an entry is malformed, unknown or not allowed.
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
            (check.name for check in CATALOGUE.values() if check.fixed_reason is None),
            "CHECK_SEVERITIES can't change",
        )
        changed[name] = severity
    return changed


def severity_of(name: str, settings: Settings) -> str:
    """Return the severity of a check: `fail`, `warn` or `off`.

    Args:
        name: name of the check.
        settings: CHECK_SEVERITIES.

    Raises:
        ConfigurationError: CHECK_SEVERITIES is wrong.
    """
    return changed_severities(settings).get(name, CATALOGUE[name].severity)


def parse_acceptance(names: Sequence[str], reason: str | None, by: str) -> Acceptance | None:
    """Parse the options `--accept-check NAME --reason TEXT`.

    Args:
        names: checks that the run may fail.
        reason: text of `--reason`.
        by: current user.

    Returns:
        The acceptance; None if neither option is used.

    Raises:
        ConfigurationError: a name is unknown or can't be accepted, or one option is missing.
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
    # a generator can be read once, and the message needs it again
    allowed = list(allowed)
    if name in allowed:
        return
    check = CATALOGUE.get(name)
    if check is None:
        why = "there is no such check"
    elif check.fixed_reason is None:
        why = "it validates rows and blocks no run, see `quarantine list`"
    else:
        why = check.fixed_reason
    raise ConfigurationError(f"{refusal} {name!r}: {why}. Allowed: {', '.join(allowed)}")
