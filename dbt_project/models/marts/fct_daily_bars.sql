with days as (

    select
        symbol,
        trading_date,
        arg_min("open", ts_open) as "open",
        max(high) as high,
        min(low) as low,
        arg_max("close", ts_open) as "close",
        sum(volume) as volume,
        sum(vwap * volume) / sum(volume) as vwap,
        sum(trade_count)::bigint as trade_count,
        sum(buy_volume) as buy_volume,
        sum(sell_volume) as sell_volume,
        min(ts_open) as ts_first_bar,
        max(ts_open) as ts_last_bar,
        count(*) as bars,
        max(ts_known) as ts_known
    from {{ ref('stg_bars_1m') }}
    group by symbol, trading_date

),

holes as (

    -- A day without holes has a file without rows: 0. A day without a file is not known: null.
    select
        symbol,
        trading_date,
        count(first_id) as gap_count,
        coalesce(sum(missing) filter (where status = 'open'), 0)::bigint as missing_trades,
        max(ts_known) as ts_known
    from {{ ref('stg_gap_days') }}
    left join {{ ref('stg_gaps') }} using (symbol, trading_date)
    group by symbol, trading_date

)

select
    symbol,
    trading_date,
    "open",
    high,
    low,
    "close",
    volume,
    vwap,
    trade_count,
    buy_volume,
    sell_volume,
    ts_first_bar,
    ts_last_bar,
    bars,
    gap_count,
    missing_trades,
    ("close" / lag("close") over by_date - 1) * 1e4 as return_bps,
    greatest(days.ts_known, holes.ts_known, lag(days.ts_known) over by_date) as ts_known
from days
left join holes using (symbol, trading_date)
window by_date as (partition by symbol order by trading_date)
