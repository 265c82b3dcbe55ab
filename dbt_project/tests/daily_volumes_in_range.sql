-- Days whose volumes or counts contradict each other; a null fails too. Trades without a side are in neither part.
select *
from {{ ref('fct_daily_bars') }}
where not coalesce(
    volume > 0
    and buy_volume >= 0
    and sell_volume >= 0
    and buy_volume + sell_volume <= volume * (1 + 1e-9)
    and bars > 0
    and trade_count >= bars
    and coalesce(gap_count, 0) >= 0
    and coalesce(missing_trades, 0) >= 0,
    false
)
