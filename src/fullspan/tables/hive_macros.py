"""Hive's conversions as DuckDB macros, for what takes the value to decide.

Where only the value shows that DuckDB and Hive would differ, the query fails with the reason instead of
giving another answer than Hive.
"""

from __future__ import annotations

_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)"


def _failure(*parts: str) -> str:
    """An expression that stops the query; the mark lets the runner tell it from DuckDB's own errors."""
    return "error(" + " || ".join(["'HiveQL: '", *parts]) + ")"


# Created in every connection that translates or runs a query. `trim` takes off spaces, as Hive's parsers do.
MACROS = (
    # '3.7' -> 3, '.5' -> 0, '1e3' and 'x' -> NULL (serde2.lazy.LazyLong.parseLong)
    rf"""CREATE MACRO hive_integer(s) AS CASE WHEN regexp_full_match(trim(s), '{_NUMBER}')
    THEN TRY_CAST(CASE WHEN regexp_matches(trim(s), '^[+-]?\.') THEN '0'
                       ELSE regexp_extract(trim(s), '^[+-]?[0-9]+') END AS BIGINT) END""",
    # Java's Double.parseDouble; it also takes '1d', '1f' and hexadecimal, which nobody means.
    rf"""CREATE MACRO hive_double(s) AS CASE
    WHEN regexp_full_match(trim(s), '{_NUMBER}([eE][+-]?[0-9]+)?') THEN TRY_CAST(trim(s) AS DOUBLE)
    WHEN regexp_full_match(trim(s), 'NaN|[+-]?Infinity') THEN TRY_CAST(trim(s) AS DOUBLE)
    WHEN regexp_full_match(trim(s), '[+-]?([0-9.]+([eE][+-]?[0-9]+)?[dDfF]|0[xX].*)')
    THEN CAST({_failure("s", "' is a number to Java only; clean the column first'")} AS DOUBLE) END""",
    # 'yyyy-MM-dd' with or without leading zeros and a time behind it.
    rf"""CREATE MACRO hive_date(s) AS CASE
    WHEN regexp_full_match(trim(s), '[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}([ T].*)?')
    THEN coalesce(TRY_CAST(regexp_extract(trim(s), '^[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}') AS DATE),
                  CAST({_failure("s", "' is no day: versions of Hive differ on it'")} AS DATE))
    WHEN regexp_matches(s, '^\s*[0-9]+-[0-9]+-[0-9]+')
    THEN CAST({_failure("'versions of Hive read '", "s", "' as different dates'")} AS DATE) END""",
    # Java prints 1.0E7 where DuckDB prints 10000000.0.
    f"""CREATE MACRO hive_double_text(x) AS CASE
    WHEN x IS NULL THEN NULL WHEN isnan(x) THEN 'NaN'
    WHEN isinf(x) THEN CASE WHEN x > 0 THEN 'Infinity' ELSE '-Infinity' END
    WHEN x = 0 OR (abs(x) >= 1e-3 AND abs(x) < 1e7) THEN CAST(x AS VARCHAR)
    ELSE {_failure("'Hive writes '", "CAST(x AS VARCHAR)", "' with an exponent of its own; round it first'")}
    END""",
    # BigDecimal rounds the decimal digits that print, half up: round(1.005, 2) = 1.01.
    """CREATE MACRO hive_round(x, digits) AS CASE WHEN NOT isfinite(x) OR abs(x) >= 1e15 THEN x
    ELSE CAST(round(CAST(CAST(x AS VARCHAR) AS DECIMAL(38, 20)), digits) AS DOUBLE) END""",
    # Position 0 is 1, negative ones count from the end, and what lies outside is empty (UDFSubstr).
    """CREATE MACRO hive_substr(s, p, n) AS CASE WHEN s IS NULL OR p IS NULL OR n IS NULL THEN NULL
    WHEN n <= 0 OR abs(p) > length(s) THEN ''
    ELSE substring(s, CASE WHEN p > 0 THEN p WHEN p < 0 THEN length(s) + p + 1 ELSE 1 END, n) END""",
    # Java's $ also matches before a final line terminator; RE2 has no equal of that.
    rf"""CREATE MACRO hive_line(s) AS CASE WHEN regexp_matches(s, '[\n\r\x{{85}}\x{{2028}}\x{{2029}}]\z')
    THEN {_failure("'a pattern with $ is not translated for text that ends in a line break'")}
    ELSE s END""",
    rf"""CREATE MACRO hive_pattern(p) AS CASE WHEN contains(p, '\')
    THEN {_failure("'LIKE is translated for a backslash in a literal pattern only, not in '", "p")}
    ELSE p END""",
    f"""CREATE MACRO hive_no_nulls(a) AS CASE WHEN len(list_filter(a, lambda item: item IS NULL)) > 0
    THEN CAST({_failure("'concat_ws() is not translated for an array with a NULL in it'")} AS VARCHAR[])
    ELSE a END""",
    # One character that becomes several (ß -> SS), and sigma's two forms.
    rf"""CREATE MACRO hive_upper(s) AS CASE
    WHEN regexp_matches(s, '[ßŉǰΐΰև\x{{1E96}}-\x{{1E9F}}\x{{1F50}}-\x{{1FFF}}\x{{FB00}}-\x{{FB17}}]')
    THEN {_failure("'upper() is not translated for letters that become several, as in '", "s")}
    ELSE upper(s) END""",
    rf"""CREATE MACRO hive_lower(s) AS CASE WHEN regexp_matches(s, '[İΣ]')
    THEN {_failure("'lower() is not translated for letters that have two forms, as in '", "s")}
    ELSE lower(s) END""",
)
