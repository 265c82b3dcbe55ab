select
    symbol,
    min(trading_date) as first_date,
    max(trading_date) as last_date,
    count(*) as trading_days
from {{ ref('fct_daily_bars') }}
group by symbol
