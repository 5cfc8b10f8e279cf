"""Derives the symbol of a coin from the ways in which sources write it.

Reads the text of a cell, of `--symbol` or of a file name; returns a symbol such as ETH. Prices are
in USD: a pair loses its dollar (ETH/USDT, ETH-USD, ETHUSDC, COINBASE:ETHUSD), and a pair with
another quote, such as ETH/EUR, is no symbol.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import InputError

DOLLARS = "USDT|USDC|BUSD|FDUSD|TUSD|USDP|PYUSD|DAI|USD"
OTHER_QUOTES = "EUR|GBP|JPY|KRW|TRY|BRL|AUD|CAD|CHF|CNY|INR|RUB|BTC|XBT|ETH|BNB|SOL"

COINS = {
    "BTC": "BTC",
    "XBT": "BTC",
    "BITCOIN": "BTC",
    "ETH": "ETH",
    "ETHER": "ETH",
    "ETHEREUM": "ETH",
    # Kraken's names; a fiat currency after them begins with Z
    **dict.fromkeys(("XXBT", "XXBTZ"), "BTC"),
    **dict.fromkeys(("XETH", "XETHZ"), "ETH"),
}
"""Coins whose prices the jobs use, by the names that sources give them."""

OTHER_SERIES = (
    "CLASSIC|CASH|GOLD|SV|HD|WRAPPED|STAKED|RESTAKED|STAKING|BRIDGED|PEG|POOL|LP|"
    "FI|NFT|MEME|INU|BULL|BEAR|UP|DOWN|LONG|SHORT|LEVERAGE|LEVERAGED|INDEX|P|PERP|"
    "PERPETUAL|SWAP|FUTURE|FUTURES|OPTION|OPTIONS|FUNDING|BASIS|ETF|FLOW|FLOWS|"
    "DOMINANCE|VOLATILITY|DVOL|HASHRATE|DIFFICULTY|SUPPLY|BURN|GAS|FEE|FEES|TVL|"
    "APY|YIELD|REWARDS|MCAP|MARKETCAP|RETURN|RETURNS"
)
"""Words that make another coin or series of a name: Bitcoin Cash, Rocket Pool ETH, ETH TVL."""

LEVERAGED = re.compile(r"[2-9](L|S|X)(?![A-Z])")
"""Tokens with a leverage: ETH3L, eth-2x."""

FULL_NAMES = frozenset({"BITCOIN", "ETHER", "ETHEREUM"})

WITH_FULL_NAMES = (
    "PRICE|PRICES|DAILY|DAY|DAYS|HOUR|HOURLY|MIN|MAX|ALL|FULL|HISTORICAL|HISTORY|"
    "DATA|DATASET|COIN|CRYPTO|MARKET|CHART|OHLC|OHLCV|KLINE|KLINES|CANDLE|CANDLES|"
    "CLOSE|SPOT|EXPORT|DOWNLOAD|TIME|SERIES|FROM|UTC|NEW|OLD|COPY|CSV|TEST|"
    "SAMPLE|COM|BINANCE|COINBASE|KRAKEN|BITSTAMP|GEMINI|BITFINEX|OKX|BYBIT|KUCOIN|"
    "YAHOO|FINANCE|INVESTING|COINGECKO|COINMARKETCAP|CMC|COINCODEX|COINDESK|"
    "COINMETRICS|MESSARI|CRYPTODATADOWNLOAD|KAGGLE|STOOQ|TRADINGVIEW|JAN|FEB|MAR|"
    "APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
)
"""Words of a file name that leave a coin's full name what it is. Any other one may make another
coin of it: Ethereum Name Service, Bitcoin Diamond.
"""

SYMBOL = "^[A-Z0-9]+$"

_PAIR = re.compile(rf"([A-Z0-9]+)[-_/:]({DOLLARS})")
_JOINED_PAIR = re.compile(rf"({'|'.join(COINS)})({DOLLARS})|([A-Z0-9]{{2,}}?)(USDT|USDC|USD)")
"""For other coins only these three dollars: DOTUSD is not DO in TUSD, and BNBUSD not BN in BUSD."""
_OTHER_JOINED_PAIR = re.compile(rf"({'|'.join(COINS)})({OTHER_QUOTES})")
_EXCHANGE = re.compile(r"^[A-Z0-9]+:(?=.)")


def base_symbol(written: str) -> str:
    """Return the coin of a text.

    Args:
        written: a coin or a pair, as a source writes it.

    Returns:
        The coin; a text that does not match SYMBOL if it is neither a coin nor a pair with the
        dollar.
    """
    text = re.sub(r"\s*([-_/:])\s*", r"\1", written.strip().upper())
    if pair := _PAIR.fullmatch(text):
        return COINS.get(pair[1], pair[1])
    # TradingView writes the exchange first
    text = _EXCHANGE.sub("", text)
    if other := _OTHER_JOINED_PAIR.fullmatch(text):
        # does not match SYMBOL, so that a price in another quote is refused
        return f"{other[1]}/{other[2]}"
    if pair := _PAIR.fullmatch(text):
        text = pair[1]
    elif not re.fullmatch(DOLLARS, text) and (pair := _JOINED_PAIR.fullmatch(text)):
        text = pair[1] or pair[3]
    return COINS.get(text, text)


def parse_symbol(written: str) -> str:
    """Return the coin of the option `--symbol`.

    Args:
        written: text of the option.

    Raises:
        InputError: the text is no coin with a price in USD.
    """
    symbol = base_symbol(written)
    if not re.match(SYMBOL, symbol):
        raise InputError(
            f"--symbol {written!r} is no coin with a price in USD; give its symbol, e.g. ETH"
        )
    return symbol


def symbol_from_name(path: Path) -> str:
    """Return the symbol in the name of a price file: BTCUSDT_1d.csv is BTC, eth-daily.csv is ETH.

    Args:
        path: the file.

    Raises:
        InputError: the name has no symbol, two symbols, or a price that is not in USD.
    """
    if coin := known_coin_in_name(path):
        return coin
    name = path.stem.upper()
    first = re.match(r"[A-Z0-9]+([-_](USDT|USDC|USD)(?![A-Z0-9]))?", name)
    symbol = base_symbol(first[0]) if first else name
    names_coin = any(base_symbol(part) in COINS.values() for part in _parts(name))
    if not names_coin and first and symbol != first[0] and re.match(SYMBOL, symbol):
        return symbol
    raise InputError(
        f"{path} has no column symbol, and its name does not tell one symbol; say whose prices they"
        " are, e.g. --symbol ETH"
    )


def known_coin_in_name(path: Path) -> str | None:
    """Return the coin of the jobs in the name of a price file, None if there is not exactly one.

    Args:
        path: the file.
    """
    name = path.stem.upper()
    parts = _parts(name)
    coins = {base_symbol(part) for part in parts} & set(COINS.values())
    is_other = (
        any(re.fullmatch(OTHER_SERIES, part) for part in parts)
        or LEVERAGED.search(name) is not None
        or any(re.fullmatch(OTHER_QUOTES, part) and part not in COINS for part in parts)
        or (bool(parts & FULL_NAMES) and any(_is_unknown(part) for part in parts))
    )
    return coins.pop() if len(coins) == 1 and not is_other else None


def _parts(name: str) -> set[str]:
    # split at digits as well: eth2024 is ETH
    return {*re.split("[^A-Z0-9]+", name), *re.split("[^A-Z]+", name)}


def _is_unknown(word: str) -> bool:
    """Return whether a word of a file name may make another coin of a full name before it."""
    # short words are languages and units of time
    is_word = word.isalpha() and len(word) > 2
    is_coin = base_symbol(word) in COINS.values() or re.fullmatch(DOLLARS, word)
    return is_word and not is_coin and not re.fullmatch(WITH_FULL_NAMES, word)
