with recursive links as materialized (

    select symbol, order_id, nullif(parent_order_id, order_id) as parent_order_id
    from {{ ref('stg_orders') }}

),

families as (

    -- From the heads down, so that a ring of orders is never entered: each of its orders is a parent itself.
    select symbol, order_id, order_id as root_order_id
    from links
    where parent_order_id is null
        or (symbol, parent_order_id) not in (select (symbol, order_id) from links)

    union all

    select links.symbol, links.order_id, families.root_order_id
    from links
    join families on families.symbol = links.symbol and families.order_id = links.parent_order_id

),

parents as (

    select symbol, order_id, coalesce(root_order_id, order_id) as parent_order_id
    from links
    left join families using (symbol, order_id)

),

charged as (

    select
        fill_id,
        fee * case
            when coalesce(fee_currency, '') = '' or fee = 0 then 1
            else fee_rate
        end as fees
    from {{ ref('stg_fills') }}

)

select
    fills.fill_id,
    fills.trading_date,
    fills.symbol,
    fills.order_id,
    parents.parent_order_id,
    fills.venue,
    fills.liquidity,
    fills.side,
    fills.ts_event,
    fills.price,
    fills.quantity,
    fills.price * fills.quantity as notional,
    charged.fees,
    fills.mid_price,
    fills.quote_age_s,
    fills.quoted_spread_bps,
    fills.effective_spread_bps,
    fills.e_over_q,
    fills.price_improvement,
    fills.capped_quantity,
    fills.price_improvement_amount,
    fills.realised_spread_50ms_bps,
    fills.realised_spread_1s_bps,
    fills.realised_spread_5s_bps,
    fills.realised_spread_15s_bps,
    fills.realised_spread_1m_bps,
    fills.realised_spread_5m_bps,
    fills.markout_50ms_bps,
    fills.markout_1s_bps,
    fills.markout_5s_bps,
    fills.markout_15s_bps,
    fills.markout_1m_bps,
    fills.markout_5m_bps,
    fills.markout_close_bps,
    fills.status,
    fills.ts_known
from {{ ref('stg_tca_fills') }} as fills
left join parents using (symbol, order_id)
left join charged using (fill_id)
order by fills.trading_date, fills.symbol, fills.ts_event, fills.fill_id
