-- Days whose prices contradict each other; a null fails too. The average may miss the range by rounding.
select *
from {{ ref('fct_daily_bars') }}
where not coalesce(
    low > 0
    and low <= least("open", "close")
    and high >= greatest("open", "close")
    and vwap between low * (1 - 1e-12) and high * (1 + 1e-12),
    false
)
