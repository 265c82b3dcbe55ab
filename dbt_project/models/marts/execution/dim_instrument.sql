with told as (

    select symbol, trading_date, decision_id, null as order_id, null as fill_id
    from {{ ref('stg_decisions') }}

    union all

    select symbol, trading_date, null, order_id, null
    from {{ ref('fct_order_cost') }}

    union all

    select symbol, trading_date, null, null, fill_id
    from {{ ref('fct_fill_markout') }}

),

desk as (

    select
        symbol,
        min(trading_date) as first_desk_date,
        max(trading_date) as last_desk_date,
        count(decision_id) as decisions,
        count(order_id) as orders,
        count(fill_id) as fills
    from told
    group by symbol

)

select
    symbol,
    first_desk_date,
    last_desk_date,
    first_date as first_market_date,
    last_date as last_market_date,
    coalesce(decisions, 0) as decisions,
    coalesce(orders, 0) as orders,
    coalesce(fills, 0) as fills
from desk
full join {{ ref('dim_symbol') }} using (symbol)
order by symbol
